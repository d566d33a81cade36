//! Names of settings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The name of a setting: the components of its path below `/proc/sys`.
///
/// As text it reads `net.ipv4.conf.eth0.rp_filter`; a dot within a component (a device named `eth0.100`) is written as a
/// slash, as sysctl(8) has it: `net.ipv4.conf.eth0/100.rp_filter`. Parsing also takes `net/ipv4/conf/eth0.100/rp_filter`:
/// what comes first, dot or slash, is the separator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Vec<String>);

impl Key {
    /// The setting with these components; a device's name is taken as it is.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when a component is empty, `.`, `..` or contains a slash or a
    /// zero byte, or when there are fewer than two.
    pub fn new<C: Into<String>>(components: impl IntoIterator<Item = C>) -> Result<Self> {
        let components: Vec<String> = components.into_iter().map(Into::into).collect();
        let bad = |component: &String| {
            component.is_empty() || component == "." || component == ".." || component.contains(['/', '\0'])
        };
        if components.len() < 2 || components.iter().any(bad) {
            let reason = "expected at least two components, as in net.ipv4.ip_forward, none of them empty or a path";
            return Err(Error::invalid("sysctl", components.join("."), reason));
        }
        Ok(Self(components))
    }

    pub(super) fn components(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, component) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "." };
            write!(f, "{separator}{}", component.replace('.', "/"))?;
        }
        Ok(())
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.find(['.', '/']).map(|at| &text[at..=at]) {
            Some("/") => Self::new(text.split('/')),
            _ => Self::new(text.split('.').map(|component| component.replace('/', "."))),
        }
    }
}

impl TryFrom<String> for Key {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_dots_in_each_spelling() {
        let key = Key::new(["net", "ipv4", "conf", "eth0.100", "rp_filter"]).expect("valid");
        assert_eq!(key.to_string(), "net.ipv4.conf.eth0/100.rp_filter");
        for text in ["net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"] {
            assert_eq!(text.parse::<Key>().expect("valid"), key);
        }
        let json = serde_json::to_string(&key).expect("serialise");
        assert_eq!(serde_json::from_str::<Key>(&json).expect("parse"), key);
    }

    #[test]
    fn no_way_out_of_the_tree() {
        for bad in
            ["", "net", ".", "net..ipv4", "net/../../etc/passwd", "/etc/passwd", "net.ipv4.", "kernel.//.x", "a.b\0"]
        {
            assert!(bad.parse::<Key>().is_err(), "{bad:?} was accepted");
        }
        assert!(Key::new(["net", "a/b"]).is_err());
        assert!(serde_json::from_str::<Key>("\"net/../x\"").is_err());
    }
}
