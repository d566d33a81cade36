//! The names by which a request can mean an endpoint.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::{EndpointId, Error, Result};

/// How a path names an endpoint: `1135`, `ipv4:10.0.0.7`, `cni-attachment-id:abc…:eth0` and so on.
///
/// Its text form is what stands in a path before percent-encoding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointKey {
    /// By number on its node: `cilium-local:7` or `7`.
    Id(EndpointId),
    /// `cilium-local:0`: the endpoint has no number yet; only for creation.
    New,
    /// By IPv4 address.
    Ipv4(Ipv4Addr),
    /// By IPv6 address.
    Ipv6(Ipv6Addr),
    /// By the runtime's name for the container.
    ContainerId(String),
    /// By the container's human name.
    ContainerName(String),
    /// By container and device: the id, and the device's name unless it is left out.
    CniAttachmentId(String, Option<String>),
    /// By pod, as `namespace/name`.
    PodName(String),
    /// By endpoint resource, as `namespace/name`.
    CepName(String),
}

impl FromStr for EndpointKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((prefix, rest)) = text.split_once(':') else { return number(text) };
        let name = || if rest.is_empty() { Err(invalid(text, "no name after the colon")) } else { Ok(rest.to_owned()) };
        match prefix {
            "cilium-local" => number(rest),
            "ipv4" => rest.parse().map(Self::Ipv4).map_err(|_| invalid(text, "not an IPv4 address")),
            "ipv6" => rest.parse().map(Self::Ipv6).map_err(|_| invalid(text, "not an IPv6 address")),
            "container-id" => Ok(Self::ContainerId(name()?)),
            "container-name" => Ok(Self::ContainerName(name()?)),
            "pod-name" => Ok(Self::PodName(name()?)),
            "cep-name" => Ok(Self::CepName(name()?)),
            "cni-attachment-id" => match name()?.split_once(':') {
                Some((container, device)) => Ok(Self::CniAttachmentId(container.to_owned(), Some(device.to_owned()))),
                None => Ok(Self::CniAttachmentId(rest.to_owned(), None)),
            },
            _ => Err(invalid(text, format!("unknown endpoint ID prefix {prefix:?}"))),
        }
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::New => f.write_str("cilium-local:0"),
            Self::Ipv4(address) => write!(f, "ipv4:{address}"),
            Self::Ipv6(address) => write!(f, "ipv6:{address}"),
            Self::ContainerId(id) => write!(f, "container-id:{id}"),
            Self::ContainerName(name) => write!(f, "container-name:{name}"),
            Self::CniAttachmentId(container, Some(device)) => write!(f, "cni-attachment-id:{container}:{device}"),
            Self::CniAttachmentId(container, None) => write!(f, "cni-attachment-id:{container}"),
            Self::PodName(name) => write!(f, "pod-name:{name}"),
            Self::CepName(name) => write!(f, "cep-name:{name}"),
        }
    }
}

impl From<EndpointId> for EndpointKey {
    fn from(id: EndpointId) -> Self {
        Self::Id(id)
    }
}

fn number(text: &str) -> Result<EndpointKey> {
    let number: i64 = text.parse().map_err(|_| invalid(text, "invalid numeric endpoint id: not a number"))?;
    match u16::try_from(number) {
        Ok(id) => Ok(EndpointId::new(id).map_or(EndpointKey::New, EndpointKey::Id)),
        Err(_) if number < 0 => Err(invalid(text, "endpoint id must not be negative")),
        Err(_) => Err(invalid(text, "endpoint id too large: it ends at 65535")),
    }
}

fn invalid(text: &str, reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::invalid("endpoint", text, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_and_prints() {
        for text in [
            "7",
            "cilium-local:0",
            "ipv4:10.0.0.7",
            "ipv6:fd00::7",
            "container-id:abc",
            "container-name:web",
            "cni-attachment-id:abc:eth0",
            "cni-attachment-id:abc",
            "pod-name:default/web",
            "cep-name:default/web",
        ] {
            let key: EndpointKey = text.parse().expect(text);
            assert_eq!(key.to_string(), text);
        }
        assert_eq!("cilium-local:9".parse::<EndpointKey>().expect("local"), EndpointKey::Id("9".parse().expect("9")));
    }

    #[test]
    fn what_is_no_key_says_why() {
        for (text, reason) in [
            ("bogus:1", "unknown endpoint ID prefix \"bogus\""),
            ("99999", "endpoint id too large"),
            ("-1", "must not be negative"),
            ("notanumber", "invalid numeric endpoint id"),
            ("", "invalid numeric endpoint id"),
            ("ipv4:1.2.3", "not an IPv4 address"),
            ("ipv6:10.0.0.1", "not an IPv6 address"),
            ("container-id:", "no name after the colon"),
        ] {
            let error = text.parse::<EndpointKey>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
