//! Which kernels will do. Everything newer than the oldest is found out by trying it.

use crate::Error;

/// Major and minor number of the oldest kernel that the programs and this crate are tested on.
const OLDEST: (u32, u32) = (6, 1);

/// Refuses a kernel that is too old.
///
/// # Errors
/// Names the running kernel's release and the oldest one.
pub fn check_version() -> Result<(), Error> {
    let names = nix::sys::utsname::uname()
        .map_err(|source| Error::io("asking for the kernel's release", source))?;
    check(&names.release().to_string_lossy())
}

fn check(release: &str) -> Result<(), Error> {
    // One that can't be read is tried.
    match numbers(release) {
        Some(found) if found < OLDEST => Err(Error::OldKernel {
            found: release.to_owned(),
            needed: format!("{}.{}", OLDEST.0, OLDEST.1),
        }),
        _ => Ok(()),
    }
}

/// Major and minor number of a release like `6.1.0-56-cloud-amd64`.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_before_6_1_is_refused_in_one_line() {
        for old in ["5.10.0-44-amd64", "4.19.0", "6.0.19", "2.6.78", "5.15"] {
            let error = check(old).unwrap_err().to_string();
            assert!(error.contains(old) && error.contains("6.1"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn later_kernels_pass_whatever_distributions_append() {
        for new in [
            "6.1.0-56-cloud-amd64",
            "6.12.117+deb12-cloud-amd64",
            "6.1",
            "7.0-rc1",
            "10.2.3",
        ] {
            check(new).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
