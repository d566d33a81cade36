//! What names one network attachment: a container and an interface inside it.

use std::fmt;
use std::str::FromStr;

use super::error::{CniError, ErrorCode};

/// The longest name of a device, in bytes (IFNAMSIZ less the final zero).
const IFNAME_MAX: usize = 15;
/// The longest container id that is accepted, in bytes: it must fit into file names and device aliases.
const CONTAINER_ID_MAX: usize = 160;

/// A container's id: a letter or digit, then letters, digits, `_`, `.` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        let reason = if text.is_empty() {
            "is empty".to_owned()
        } else if text.len() > CONTAINER_ID_MAX {
            format!("is longer than {CONTAINER_ID_MAX} bytes")
        } else if !is_identifier(text) {
            "must start with a letter or digit and go on with letters, digits, '_', '.' or '-'".to_owned()
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(invalid("CNI_CONTAINERID", text, &reason))
    }
}

/// An interface's name as the kernel accepts it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName(String);

impl IfName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        let reason = if text.is_empty() {
            "is empty".to_owned()
        } else if text.len() > IFNAME_MAX {
            format!("is longer than {IFNAME_MAX} bytes")
        } else if text == "." || text == ".." {
            "is a directory's name".to_owned()
        } else if text.contains(|c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control()) {
            "contains '/', ':', '%', a blank or a control character".to_owned()
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(invalid("CNI_IFNAME", text, &reason))
    }
}

/// One attachment of a container to a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// The container.
    pub container_id: ContainerId,
    /// The interface inside it.
    pub ifname: IfName,
}

impl Attachment {
    /// The attachment of a container by an interface.
    pub fn new(container_id: &str, ifname: &str) -> Result<Self, CniError> {
        Ok(Self { container_id: container_id.parse()?, ifname: ifname.parse()? })
    }

    /// The host side's device name, the same for every call: `lxc` and twelve hexadecimal digits.
    pub fn host_ifname(&self) -> String {
        format!("lxc{:012x}", fnv1a(self.to_string().as_bytes()) >> 16)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container_id.0, self.ifname.0)
    }
}

impl FromStr for Attachment {
    type Err = CniError;

    /// Parses `container:interface`, as [`Display`](fmt::Display) prints it.
    fn from_str(text: &str) -> Result<Self, CniError> {
        let (container_id, ifname) = text
            .split_once(':')
            .ok_or_else(|| invalid("attachment", text, "expected the container id, a colon and the interface"))?;
        Self::new(container_id, ifname)
    }
}

/// Whether a text is what the specification wants of network names and container ids.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo), then the finaliser of MurmurHash3, so that the upper bits depend on every byte.
/// Names made from it are on disk and in the kernel: it must never change.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn invalid(variable: &str, value: &str, reason: &str) -> CniError {
    let shown: String = value.chars().take(80).collect();
    CniError::new(ErrorCode::InvalidEnvironment, format!("invalid {variable} {shown:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names() {
        for good in ["eth0", "a", "net1-abc_def.gh", "fifteen-bytes-x"] {
            assert_eq!(good.parse::<IfName>().expect(good).as_str(), good);
        }
        for bad in ["", ".", "..", "sixteen-bytes-xx", "a/b", "a:b", "a b", "a\tb", "eth%d", "a\u{7}"] {
            let error = bad.parse::<IfName>().expect_err(bad);
            assert_eq!(error.code(), 4);
            assert!(error.msg().contains("CNI_IFNAME"), "{error}");
        }
    }

    #[test]
    fn container_ids() {
        for good in ["a", "0", "bcb44be237c3", "pod-1_x.y"] {
            assert_eq!(good.parse::<ContainerId>().expect(good).as_str(), good);
        }
        for bad in ["", "-a", ".a", "_a", "a/b", "a b", "a:b", "ä", "../../etc", &"a".repeat(161)] {
            let error = bad.parse::<ContainerId>().expect_err(bad);
            assert_eq!(error.code(), 4);
            assert!(error.msg().contains("CNI_CONTAINERID"), "{error}");
        }
    }

    #[test]
    fn host_names_are_stable_and_differ() {
        let eth0 = Attachment::new("abc", "eth0").expect("valid");
        assert_eq!(eth0.host_ifname(), Attachment::new("abc", "eth0").expect("valid").host_ifname());
        assert_ne!(eth0.host_ifname(), Attachment::new("abc", "eth1").expect("valid").host_ifname());
        assert_eq!(eth0.host_ifname().len(), 15);
        assert_eq!(eth0.to_string().parse::<Attachment>().expect("round trip"), eth0);
        let names: std::collections::HashSet<_> = (0..20_000)
            .map(|n| Attachment::new(&format!("container-{n}"), "eth0").expect("valid").host_ifname())
            .collect();
        assert_eq!(names.len(), 20_000);
    }
}
