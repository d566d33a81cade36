//! Prefixes as labels, in Cilium's encoding.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::reserved::labels_of_reserved;
use super::world::World;
use crate::{Error, Label, Labels, Result};

/// The source of labels that name prefixes.
pub(super) const CIDR_SOURCE: &str = "cidr";

/// The label of a prefix: `cidr:203.0.113.0/24`. Label keys can't have colons, so that an IPv6 prefix has dashes in their
/// place, and a zero where a dash would come first or last: `cidr:2001-db8--0/32`, `cidr:0--1/128`.
///
/// # Errors
///
/// `InvalidInput` for a prefix with bits set behind its length.
pub fn cidr_label(prefix: IpNetwork) -> Result<Label> {
    check_no_host_bits(prefix)?;
    let mut address = prefix.ip().to_string();
    if prefix.is_ipv6() {
        address = address.replace(':', "-");
        if address.starts_with('-') {
            address.insert(0, '0');
        }
        if address.ends_with('-') {
            address.push('0');
        }
    }
    Label::new(CIDR_SOURCE, &format!("{address}/{}", prefix.prefix()), "")
}

/// The labels of a prefix's identity: [`cidr_label`] and those that the world has for its family on the node, so that who selects the
/// world by its label goes on to when somebody else names a part of it.
///
/// # Errors
///
/// As for [`cidr_label`].
pub fn cidr_labels(prefix: IpNetwork, world: World) -> Result<Labels> {
    let label = cidr_label(prefix)?;
    let rest = labels_of_reserved(world.of(prefix)).unwrap_or_default();
    Labels::collect(rest.iter().cloned().chain([label]))
}

/// The prefix that a label names; `None` for any other label, and for one that [`cidr_label`] would not have written so.
pub fn prefix_of_label(label: &Label) -> Option<IpNetwork> {
    if label.source() != CIDR_SOURCE || !label.value().is_empty() {
        return None;
    }
    let (address, length) = label.key().split_once('/')?;
    let address = match address.contains('-') {
        true => IpAddr::V6(address.replace('-', ":").parse::<Ipv6Addr>().ok()?),
        false => IpAddr::V4(address.parse().ok()?),
    };
    let prefix = IpNetwork::new(address, length.parse().ok()?).ok()?;
    // one prefix, one label: other spellings would be other identities
    (cidr_label(prefix).ok()? == *label).then_some(prefix)
}

/// The prefix of an identity with these labels.
pub(super) fn prefix_of(labels: &Labels) -> Option<IpNetwork> {
    labels.iter().find_map(prefix_of_label)
}

fn check_no_host_bits(prefix: IpNetwork) -> Result<()> {
    if prefix.network() == prefix.ip() {
        return Ok(());
    }
    let expected = format!("has bits set behind its length; the network is {}/{}", prefix.network(), prefix.prefix());
    Err(Error::invalid("prefix", prefix.to_string(), expected))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_cilium_s() {
        let table = [
            ("203.0.113.0/24", "cidr:203.0.113.0/24,reserved:world-ipv4"),
            ("10.0.0.1/32", "cidr:10.0.0.1/32,reserved:world-ipv4"),
            ("0.0.0.0/0", "cidr:0.0.0.0/0,reserved:world-ipv4"),
            ("2001:db8::/32", "cidr:2001-db8--0/32,reserved:world-ipv6"),
            ("2001:db8:0:1::/64", "cidr:2001-db8-0-1--0/64,reserved:world-ipv6"),
            ("::1/128", "cidr:0--1/128,reserved:world-ipv6"),
            ("::/0", "cidr:0--0/0,reserved:world-ipv6"),
            ("::ffff:10.0.0.1/128", "cidr:0--ffff-10.0.0.1/128,reserved:world-ipv6"),
        ];
        for (prefix, labels) in table {
            let prefix: IpNetwork = prefix.parse().expect("a prefix");
            let made = cidr_labels(prefix, World::BothFamilies).expect("no host bits");
            assert_eq!(made.to_string(), labels);
            assert_eq!(prefix_of(&made), Some(prefix));
            let made = cidr_labels(prefix, World::OneFamily).expect("no host bits").to_string();
            assert_eq!(made, labels.replace("world-ipv4", "world").replace("world-ipv6", "world"));
        }
        let error = cidr_label("203.0.113.7/24".parse().expect("a prefix")).expect_err("host bits");
        assert!(error.to_string().contains("203.0.113.0/24"), "{error}");
    }

    #[test]
    fn other_labels_name_no_prefix() {
        for other in [
            "k8s:203.0.113.0/24",
            "cidr:203.0.113.0/24=x",
            "cidr:203.0.113.0",
            "cidr:203.0.113.7/24",
            "cidr:203.0.113.0/024",
            "cidr:203.0.113.0/33",
            "cidr:2001-db8--/32",
            "cidr:2001-DB8--0/32",
            "cidr:2001-db8-0-0-0-0-0-0/32",
            "cidr:--1/128",
            "cidr:x/1",
        ] {
            assert_eq!(prefix_of_label(&other.parse().expect("a label")), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_prefix_comes_back(bits: u128, v6: bool, length: u8) {
            let address = if v6 { IpAddr::from(bits.to_be_bytes()) } else { IpAddr::from((bits as u32).to_be_bytes()) };
            let any = IpNetwork::new(address, length % if v6 { 129 } else { 33 }).expect("within the family's bits");
            let prefix = IpNetwork::new(any.network(), any.prefix()).expect("the same length");
            prop_assert_eq!(prefix_of_label(&cidr_label(prefix).expect("no host bits")), Some(prefix));
        }
    }
}
