//! What a caller asks for when it creates an endpoint.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::record::NamedPort;
use crate::tables::Protocol;
use crate::{Error, IfIndex, Labels, MacAddr, Result};

/// The longest name, container id or pod name accepted.
const NAME_MAX: usize = 253;

/// A request for an endpoint: who it is, and which parts of it exist already.
///
/// With a namespace and no [device](Self::device), the manager makes the veth pair and configures the pod's side of it;
/// with a device, that is the caller's work (a CNI plugin's) and the manager only brings it into force. What the caller made is
/// the caller's to delete, unless podwire's plugin made it.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) netns: Option<PathBuf>,
    pub(super) interface: String,
    pub(super) container_id: Option<String>,
    pub(super) pod_uid: Option<String>,
    pub(super) device: Option<DeviceRef>,
    pub(super) ipv4: AddressRequest<Ipv4Addr>,
    pub(super) ipv6: AddressRequest<Ipv6Addr>,
    pub(super) named_ports: Vec<NamedPort>,
}

/// A veth pair that the caller has made; none of the node's own devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRef {
    /// The host side's index.
    pub ifindex: IfIndex,
    /// The host side's name.
    pub name: String,
    /// The host side's MAC address.
    pub node_mac: MacAddr,
    /// The pod side's MAC address.
    pub mac: MacAddr,
}

/// Which address of a family an endpoint is to get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum AddressRequest<A> {
    /// The next free one, where the node has the family.
    #[default]
    Next,
    /// One that the caller has allocated before; with the expiration it then got, which is hereby over.
    Allocated(A, Option<String>),
    /// None.
    No,
}

impl EndpointSpec {
    /// An endpoint of this name: `namespace/pod`, or any other name for the owner of its addresses.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            labels: Labels::new(),
            netns: None,
            interface: "eth0".to_owned(),
            container_id: None,
            pod_uid: None,
            device: None,
            ipv4: AddressRequest::Next,
            ipv6: AddressRequest::Next,
            named_ports: Vec::new(),
        }
    }

    /// The pod's network namespace: a path such as `/run/netns/web` or `/proc/1234/ns/net`.
    pub fn netns(mut self, path: impl AsRef<Path>) -> Self {
        self.netns = Some(path.as_ref().to_owned());
        self
    }

    /// The device's name inside the pod; `eth0` unless told.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = name.into();
        self
    }

    /// Labels, replacing those given before.
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// A name by which rules may call one of its ports.
    pub fn named_port(mut self, name: impl Into<String>, protocol: Protocol, port: u16) -> Self {
        self.named_ports.push(NamedPort { name: name.into(), protocol: protocol.number(), port });
        self
    }

    /// The container runtime's id for the sandbox.
    pub fn container_id(mut self, id: impl Into<String>) -> Self {
        self.container_id = Some(id.into());
        self
    }

    /// The orchestrator's unique id for the pod.
    pub fn pod_uid(mut self, uid: impl Into<String>) -> Self {
        self.pod_uid = Some(uid.into());
        self
    }

    /// A veth pair that exists already.
    pub fn device(mut self, device: DeviceRef) -> Self {
        self.device = Some(device);
        self
    }

    /// An IPv4 address allocated before, and the expiration it was given, or `None` for no IPv4.
    pub fn ipv4(mut self, address: Option<(Ipv4Addr, Option<String>)>) -> Self {
        self.ipv4 = address.map_or(AddressRequest::No, |(address, uuid)| AddressRequest::Allocated(address, uuid));
        self
    }

    /// An IPv6 address allocated before, and the expiration it was given, or `None` for no IPv6.
    pub fn ipv6(mut self, address: Option<(Ipv6Addr, Option<String>)>) -> Self {
        self.ipv6 = address.map_or(AddressRequest::No, |(address, uuid)| AddressRequest::Allocated(address, uuid));
        self
    }

    /// Checks everything that can be checked before anything is done.
    pub(super) fn validate(&self) -> Result<()> {
        printable("endpoint name", &self.name)?;
        if let Some(id) = &self.container_id {
            printable("container-id", id)?;
        }
        if let Some(uid) = &self.pod_uid {
            printable("k8s-uid", uid)?;
        }
        device_name("container-interface-name", &self.interface)?;
        self.named_ports.iter().try_for_each(NamedPort::check)?;
        match &self.device {
            Some(device) => {
                device_name("interface-name", &device.name)?;
                unicast("mac", device.mac)?;
                unicast("host-mac", device.node_mac)
            }
            None if self.netns.is_none() => {
                Err(Error::invalid("endpoint", &*self.name, "needs a network namespace or a device that exists"))
            }
            None => Ok(()),
        }
    }
}

fn printable(field: &'static str, text: &str) -> Result<()> {
    if text.is_empty() || text.len() > NAME_MAX {
        let shown: String = text.chars().take(64).collect();
        return Err(Error::invalid(field, shown, format!("must have 1 to {NAME_MAX} characters, has {}", text.len())));
    }
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Error::invalid(field, text, "only printable ASCII without spaces is allowed"))
    }
}

fn device_name(field: &'static str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || !name.bytes().all(allowed) {
        return Err(Error::invalid(
            field,
            name,
            "a device name has 1 to 15 characters, none of them / or : or a space",
        ));
    }
    Ok(())
}

fn unicast(field: &'static str, mac: MacAddr) -> Result<()> {
    if mac.is_unicast() { Ok(()) } else { Err(Error::invalid(field, mac.to_string(), "not the address of one device")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_checked() {
        let good = EndpointSpec::new("default/web").netns("/run/netns/web");
        assert!(good.validate().is_ok());
        assert!(EndpointSpec::new("default/web").validate().is_err(), "neither namespace nor device");
        for name in ["", "a b", "a\n", &"x".repeat(300)] {
            assert!(EndpointSpec::new(name).netns("/x").validate().is_err(), "{name:?} was accepted");
        }
        for interface in ["", ".", "..", "a/b", "sixteen-letters-", "a b", "eth0:1"] {
            assert!(good.clone().interface(interface).validate().is_err(), "{interface:?} was accepted");
        }
        for (name, protocol, port) in
            [("80", Protocol::TCP, 80), ("http", Protocol::ANY, 80), ("http", Protocol::UDP, 0)]
        {
            assert!(good.clone().named_port(name, protocol, port).validate().is_err(), "{name} was accepted");
        }
        assert!(good.clone().named_port("http", Protocol::TCP, 80).validate().is_ok());
        let broadcast = DeviceRef {
            ifindex: IfIndex::new(3).expect("not zero"),
            name: "lxc1".into(),
            node_mac: MacAddr::new([0xff; 6]),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        };
        assert!(good.device(broadcast).validate().is_err());
    }
}
