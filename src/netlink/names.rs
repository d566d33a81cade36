//! Names of devices, checked before the kernel sees them.

use crate::{Error, Result};

/// Longest name of a device, without its final zero byte (`IFNAMSIZ` - 1).
const NAME_MAX: usize = 15;

/// Longest alternative name (`ALTIFNAMSIZ` - 1).
const ALT_NAME_MAX: usize = 127;

/// A device's name: 1 to 15 bytes, no slash, colon, white space or control character, neither `.` nor `..`.
pub(super) fn check_name(name: &str) -> Result<&str> {
    check("device name", name, NAME_MAX, &['/', ':', '%'])
}

/// An alternative name: as [`check_name`], but up to 127 bytes, and colons are allowed.
pub(super) fn check_alt_name(name: &str) -> Result<&str> {
    check("alternative device name", name, ALT_NAME_MAX, &['/', '%'])
}

/// Whether a valid name is too long to be anything but an alternative one.
pub(super) fn is_long(name: &str) -> bool {
    name.len() > NAME_MAX
}

fn check<'a>(field: &'static str, name: &'a str, longest: usize, reserved: &[char]) -> Result<&'a str> {
    let refuse = |reason: String| Err(Error::invalid(field, name, reason));
    if name.is_empty() {
        return refuse("must not be empty".to_owned());
    }
    if name.len() > longest {
        return refuse(format!("has {} bytes, at most {longest} are allowed", name.len()));
    }
    if name == "." || name == ".." {
        return refuse("is a directory's name".to_owned());
    }
    // '%': the kernel takes "eth%d" for a pattern.
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || reserved.contains(&c);
    if let Some(bad) = name.chars().find(|c| forbidden(*c)) {
        return refuse(format!("must not contain {bad:?}"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_the_kernel_would_take() {
        for name in ["a", "eth0", "lxc0123456789ab", "veth.100", "cilium_host", "über"] {
            assert_eq!(check_name(name).expect("valid"), name);
        }
        assert_eq!(check_alt_name(&"x".repeat(127)).expect("valid").len(), 127);
        assert_eq!(check_alt_name("cilium_cni:eth0").expect("valid"), "cilium_cni:eth0");
    }

    #[test]
    fn names_refused() {
        for name in ["", ".", "..", "a/b", "a b", "a\tb", "a\0b", "eth%d", "eth0:1", "lxc0123456789abc", "\u{a0}"] {
            let error = check_name(name).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(check_alt_name(&"x".repeat(128)).is_err());
    }
}
