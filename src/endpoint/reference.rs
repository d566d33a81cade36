//! The ways to name an endpoint.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::record::EndpointRecord;
use crate::{EndpointId, Error, Result};

/// How a caller names an endpoint. Parsed from `<id>`, `cilium-local:<id>`, `ipv4:<address>`, `ipv6:<address>`,
/// `container-id:<id>`, `cni-attachment-id:<id>[:<interface>]`, `pod-name:<namespace>/<pod>` and
/// `cep-name:<namespace>/<pod>`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointRef {
    /// By its number.
    Id(EndpointId),
    /// By the runtime's id for the sandbox.
    ContainerId(String),
    /// By sandbox and device name inside it.
    CniAttachment {
        /// The sandbox.
        container: String,
        /// The device; any when `None`.
        interface: Option<String>,
    },
    /// By its IPv4 address.
    Ipv4(Ipv4Addr),
    /// By its IPv6 address.
    Ipv6(Ipv6Addr),
    /// By its name, `namespace/pod`.
    PodName(String),
}

impl EndpointRef {
    /// Whether this names that endpoint.
    pub fn matches(&self, record: &EndpointRecord) -> bool {
        match self {
            Self::Id(id) => record.id == *id,
            Self::ContainerId(id) => record.container_id.as_ref() == Some(id),
            Self::CniAttachment { container, interface } => {
                record.container_id.as_ref() == Some(container)
                    && interface.as_ref().is_none_or(|interface| *interface == record.interface)
            }
            Self::Ipv4(address) => record.ipv4 == Some(*address),
            Self::Ipv6(address) => record.ipv6 == Some(*address),
            Self::PodName(name) => record.name == *name,
        }
    }
}

impl FromStr for EndpointRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason: &'static str| Error::invalid("endpoint", text, reason);
        let Some((prefix, rest)) = text.split_once(':') else { return text.parse().map(Self::Id) };
        if rest.is_empty() {
            return Err(bad("nothing follows the prefix"));
        }
        match prefix {
            "cilium-local" => rest.parse().map(Self::Id),
            "container-id" => Ok(Self::ContainerId(rest.to_owned())),
            "cni-attachment-id" => Ok(match rest.split_once(':') {
                Some((container, interface)) => {
                    Self::CniAttachment { container: container.to_owned(), interface: Some(interface.to_owned()) }
                }
                None => Self::CniAttachment { container: rest.to_owned(), interface: None },
            }),
            "ipv4" => rest.parse().map(Self::Ipv4).map_err(|_| bad("not an IPv4 address")),
            "ipv6" => rest.parse().map(Self::Ipv6).map_err(|_| bad("not an IPv6 address")),
            "pod-name" | "cep-name" => Ok(Self::PodName(rest.to_owned())),
            _ => Err(bad(
                "unknown prefix; use a number or cilium-local:, container-id:, cni-attachment-id:, ipv4:, ipv6:, pod-name:",
            )),
        }
    }
}

impl fmt::Display for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::ContainerId(id) => write!(f, "container-id:{id}"),
            Self::CniAttachment { container, interface: Some(interface) } => {
                write!(f, "cni-attachment-id:{container}:{interface}")
            }
            Self::CniAttachment { container, interface: None } => write!(f, "cni-attachment-id:{container}"),
            Self::Ipv4(address) => write!(f, "ipv4:{address}"),
            Self::Ipv6(address) => write!(f, "ipv6:{address}"),
            Self::PodName(name) => write!(f, "pod-name:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_and_back() {
        for text in [
            "7",
            "container-id:abc",
            "cni-attachment-id:abc",
            "cni-attachment-id:abc:eth0",
            "ipv4:10.0.0.1",
            "ipv6:fd00::1",
            "pod-name:default/web",
        ] {
            assert_eq!(text.parse::<EndpointRef>().expect(text).to_string(), text);
        }
        assert_eq!("cilium-local:7".parse::<EndpointRef>().expect("valid"), "7".parse().expect("valid"));
        for bad in ["", "0", "65536", "x", "ipv4:", "ipv4:fd00::1", "ipv6:10.0.0.1", "nonsense:1"] {
            assert!(bad.parse::<EndpointRef>().is_err(), "{bad:?} was accepted");
        }
    }
}
