//! Where XDP pays on an underlay interface.

use super::netdev::{self, XDP_BASIC, XDP_REDIRECT};
use super::{ifindex_of, inject::driver_of};
use crate::Error;

/// Drivers with native XDP behind which is no wire. What comes out of them often is a large packet that was never cut,
/// and XDP makes them cut it.
const VIRTUAL_DRIVERS: &[&str] = &[
    "bonding",
    "hv_netvsc",
    "netdevsim",
    "tun",
    "veth",
    "virtio_net",
    "vif",
    "vmxnet3",
    "xen_netfront",
];

/// Why XDP isn't used on an interface where the choice is Weft's; none where it is.
///
/// # Errors
/// [`Error::NoInterface`]; what the kernel answers.
pub fn why_not_xdp(interface: &str) -> Result<Option<String>, Error> {
    let ifindex = ifindex_of(interface)?;
    let Some(features) = netdev::features_of(ifindex) else {
        return Ok(Some(
            "the kernel can't say what its driver does with XDP (Linux 6.3)".to_owned(),
        ));
    };
    let needed = XDP_BASIC | XDP_REDIRECT;
    if features & needed != needed {
        return Ok(Some("its driver has no native XDP".to_owned()));
    }
    let driver = driver_of(interface)?;
    Ok(VIRTUAL_DRIVERS
        .contains(&driver.as_str())
        .then(|| format!("driver {driver} has no wire behind it")))
}
