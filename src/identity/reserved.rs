//! Reserved identities and their labels.

use super::cidr;
use super::world::World;
use crate::{Error, Label, Labels, Result, SecurityId};

/// The source of labels whose meaning is fixed.
const RESERVED_SOURCE: &str = "reserved";

/// Every reserved identity in use, with the name that its label `reserved:NAME` has.
pub const RESERVED: [(SecurityId, &str); 10] = [
    (SecurityId::HOST, "host"),
    (SecurityId::WORLD, "world"),
    (SecurityId::UNMANAGED, "unmanaged"),
    (SecurityId::HEALTH, "health"),
    (SecurityId::INIT, "init"),
    (SecurityId::REMOTE_NODE, "remote-node"),
    (SecurityId::KUBE_APISERVER, "kube-apiserver"),
    (SecurityId::INGRESS, "ingress"),
    (SecurityId::WORLD_IPV4, "world-ipv4"),
    (SecurityId::WORLD_IPV6, "world-ipv6"),
];

/// A reserved identity's name; `None` for a number that stands for nothing.
pub fn name_of_reserved(id: SecurityId) -> Option<&'static str> {
    RESERVED.iter().find(|(reserved, _)| *reserved == id).map(|(_, name)| *name)
}

/// The reserved identity of this name.
pub fn reserved_by_name(name: &str) -> Option<SecurityId> {
    RESERVED.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
}

/// A reserved identity's labels: `reserved:NAME`, and for the Kubernetes API's server `reserved:remote-node` too. `None` for
/// a number that stands for nothing.
pub fn labels_of_reserved(id: SecurityId) -> Option<Labels> {
    let mut names = vec![name_of_reserved(id)?];
    if id == SecurityId::KUBE_APISERVER {
        names.extend(name_of_reserved(SecurityId::REMOTE_NODE));
    }
    // the names are good labels: a test goes through all of them
    Labels::collect(names.into_iter().filter_map(|name| Label::new(RESERVED_SOURCE, name, "").ok())).ok()
}

/// Which kind of identity a label set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A fixed one.
    Reserved(SecurityId),
    /// One of an endpoint.
    Labels,
    /// One of a prefix.
    Cidr,
}

/// The kind of identity that these labels have.
///
/// # Errors
///
/// `InvalidInput` for labels of the sources `reserved` and `cidr` in sets other than those they come in.
pub(super) fn kind_of(labels: &Labels) -> Result<Kind> {
    if labels.is_empty() {
        return Ok(Kind::Reserved(SecurityId::INIT));
    }
    if let Some(label) = labels.iter().find(|label| label.source() == cidr::CIDR_SOURCE) {
        // those of an earlier time are known too, when the node had other families
        let worlds = [World::OneFamily, World::BothFamilies];
        let is_whole =
            |prefix| worlds.iter().any(|world| cidr::cidr_labels(prefix, *world).is_ok_and(|whole| whole == *labels));
        return match cidr::prefix_of_label(label) {
            Some(prefix) if is_whole(prefix) && prefix.prefix() == 0 => {
                Err(refused(label, "is the world, which has a reserved identity"))
            }
            Some(prefix) if is_whole(prefix) => Ok(Kind::Cidr),
            _ => Err(refused(label, "labels of the source cidr come from a prefix alone, never from an endpoint")),
        };
    }
    let Some(label) = labels.iter().find(|label| label.source() == RESERVED_SOURCE && label.key() != "init") else {
        let only_init = labels.len() == 1 && labels.contains(&init_label()?);
        return Ok(if only_init { Kind::Reserved(SecurityId::INIT) } else { Kind::Labels });
    };
    let whole = RESERVED.iter().map(|(id, _)| *id).find(|id| labels_of_reserved(*id).as_ref() == Some(labels));
    match (whole, reserved_by_name(label.key())) {
        (Some(id), _) => Ok(Kind::Reserved(id)),
        (None, Some(_)) => Err(refused(label, "stands for a reserved identity and can't be mixed with other labels")),
        (None, None) => Err(refused(label, "is no reserved label: those are host, world, init, …")),
    }
}

fn init_label() -> Result<Label> {
    Label::new(RESERVED_SOURCE, "init", "")
}

fn refused(label: &Label, reason: &'static str) -> Error {
    Error::invalid("label", label.to_string(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Labels {
        Labels::parse(texts).expect("labels")
    }

    #[test]
    fn reserved_identities_have_their_labels() {
        for (id, name) in RESERVED {
            assert_eq!(name_of_reserved(id), Some(name));
            assert_eq!(reserved_by_name(name), Some(id));
            let expected = match name {
                "kube-apiserver" => "reserved:kube-apiserver,reserved:remote-node".to_owned(),
                _ => format!("reserved:{name}"),
            };
            let labels = labels_of_reserved(id).expect("reserved");
            assert_eq!(labels.to_string(), expected);
            assert_eq!(kind_of(&labels).expect("whole"), Kind::Reserved(id));
        }
        let numbers: Vec<_> = RESERVED.iter().map(|(id, _)| id.get()).collect();
        assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
        assert_eq!(labels_of_reserved(SecurityId::new(11)), None);
    }

    #[test]
    fn kinds() {
        assert_eq!(kind_of(&Labels::new()).expect("none"), Kind::Reserved(SecurityId::INIT));
        assert_eq!(kind_of(&labels(&["k8s:app=web"])).expect("good"), Kind::Labels);
        assert_eq!(kind_of(&labels(&["k8s:app=web", "reserved:init"])).expect("good"), Kind::Labels);
        let prefix = labels(&["cidr:192.0.2.0/24", "reserved:world-ipv4"]);
        assert_eq!(kind_of(&prefix).expect("a prefix"), Kind::Cidr);
        let prefix = labels(&["cidr:192.0.2.0/24", "reserved:world"]);
        assert_eq!(kind_of(&prefix).expect("a prefix"), Kind::Cidr);
        for bad in [
            &["k8s:app=web", "reserved:host"][..],
            &["reserved:host=x"],
            &["reserved:host", "reserved:world"],
            &["reserved:unknown"],
            &["k8s:app=web", "reserved:unknown"],
            &["cidr:192.0.2.0/24"],
            &["cidr:192.0.2.0/24", "reserved:world-ipv6"],
            &["cidr:192.0.2.0/24", "cidr:192.0.3.0/24", "reserved:world-ipv4"],
            &["cidr:192.0.2.0/24", "k8s:app=web", "reserved:world-ipv4"],
            &["cidr:0.0.0.0/0", "reserved:world-ipv4"],
            &["cidr:0--0/0", "reserved:world-ipv6"],
            &["cidr:anything"],
        ] {
            let error = kind_of(&labels(bad)).expect_err("no such identity");
            assert!(error.to_string().starts_with("label: "), "{bad:?}: {error}");
        }
    }
}
