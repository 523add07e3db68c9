//! The inject TAP: frames written to it run through `from_inject`. It dies with the process.

use crate::Error;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

/// `struct ifreq` with the flags or data pointer that the requests here use.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}

/// `TUNSETIFF` of linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;

/// What the names of inject TAPs begin with; the kernel adds a number.
pub const INJECT_PREFIX: &str = "weft-inject";

/// An open TAP with virtio headers.
pub struct InjectTap {
    file: OwnedFd,
    name: String,
}

impl InjectTap {
    /// Makes a TAP in the calling thread's network namespace and brings it up.
    pub fn open() -> Result<InjectTap, Error> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = open("/dev/net/tun", flags, Mode::empty())
            .map_err(|source| Error::io("opening /dev/net/tun for the inject TAP", source))?;
        let mut request = request(&format!("{INJECT_PREFIX}%d"));
        request.value[..2].copy_from_slice(&(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).to_ne_bytes());
        ioctl(
            file.as_raw_fd(),
            TUNSETIFF,
            &mut request,
            "making the inject TAP",
        )?;
        let name = CStr::from_bytes_until_nul(&request.name)
            .map(|name| name.to_string_lossy().into_owned());
        let tap = InjectTap {
            file,
            name: name.unwrap_or_default(),
        };
        // No address, no neighbour discovery: the host's stack has no business on this interface.
        let _ = std::fs::write(
            format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.name),
            "1",
        );
        tap.bring_up()?;
        Ok(tap)
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes one frame with its virtio header and prefix.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        nix::unistd::write(&self.file, bytes)
            .map(|_| ())
            .map_err(|source| {
                Error::io(
                    format!("writing {} bytes to {}", bytes.len(), self.name),
                    source,
                )
            })
    }

    fn bring_up(&self) -> Result<(), Error> {
        let socket = control_socket()?;
        let mut request = request(&self.name);
        ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS,
            &mut request,
            "reading the inject TAP's flags",
        )?;
        let flags = i16::from_ne_bytes([request.value[0], request.value[1]]) | libc::IFF_UP as i16;
        request.value[..2].copy_from_slice(&flags.to_ne_bytes());
        ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &mut request,
            "bringing the inject TAP up",
        )
    }
}

/// Name of an interface's driver (`ethtool -i`), in the calling thread's network namespace.
pub fn driver_of(interface: &str) -> Result<String, Error> {
    let socket = control_socket()?;
    // struct ethtool_drvinfo: cmd, then driver[32]; 196 bytes in all.
    let mut info = [0u8; 196];
    info[..4].copy_from_slice(&ETHTOOL_GDRVINFO.to_ne_bytes());
    let mut request = request(interface);
    request.value[..8].copy_from_slice(&(info.as_mut_ptr() as u64).to_ne_bytes());
    ioctl(
        socket.as_raw_fd(),
        SIOCETHTOOL,
        &mut request,
        &format!("asking for the driver of {interface}"),
    )?;
    let driver =
        CStr::from_bytes_until_nul(&info[4..36]).map(|name| name.to_string_lossy().into_owned());
    Ok(driver.unwrap_or_default())
}

/// Whether an interface is up and has somebody at its other end.
pub fn is_running(interface: &str) -> bool {
    let Ok(socket) = control_socket() else {
        return false;
    };
    let mut request = request(interface);
    let what = format!("asking whether {interface} is up");
    let asked = ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request, &what);
    let flags = i32::from(u16::from_ne_bytes([request.value[0], request.value[1]]));
    let needed = libc::IFF_UP | libc::IFF_RUNNING;
    asked.is_ok() && flags & needed == needed
}

fn request(interface: &str) -> InterfaceRequest {
    let mut request = InterfaceRequest {
        name: [0; libc::IFNAMSIZ],
        value: [0; 24],
    };
    let bytes = interface.as_bytes();
    let length = bytes.len().min(libc::IFNAMSIZ - 1);
    request.name[..length].copy_from_slice(&bytes[..length]);
    request
}

fn control_socket() -> Result<OwnedFd, Error> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|source| Error::io("opening a socket for interface requests", source))
}

fn ioctl(
    fd: i32,
    number: libc::c_ulong,
    request: &mut InterfaceRequest,
    what: &str,
) -> Result<(), Error> {
    // SAFETY: the request is a whole `struct ifreq`, which these numbers read and write.
    let result = unsafe { libc::ioctl(fd, number, std::ptr::from_mut(request)) };
    nix::errno::Errno::result(result)
        .map(|_| ())
        .map_err(|source| Error::io(what, source))
}
