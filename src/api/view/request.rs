//! The API's requests as the library takes them.

use crate::api::{EndpointChangeRequest, EndpointKey, Port};
use crate::endpoint::{DeviceRef, EndpointRef, EndpointSpec, NamedPort};
use crate::tables::Protocol;
use crate::{Error, IfIndex, Label, Labels, Result};

impl TryFrom<EndpointKey> for EndpointRef {
    type Error = Error;

    /// # Errors
    ///
    /// `InvalidInput` for [`EndpointKey::New`], which names no endpoint, and for the name of a container, which nobody tells.
    fn try_from(key: EndpointKey) -> Result<Self> {
        match key {
            EndpointKey::Id(id) => Ok(Self::Id(id)),
            EndpointKey::Ipv4(address) => Ok(Self::Ipv4(address)),
            EndpointKey::Ipv6(address) => Ok(Self::Ipv6(address)),
            EndpointKey::ContainerId(id) => Ok(Self::ContainerId(id)),
            EndpointKey::CniAttachmentId(container, interface) => Ok(Self::CniAttachment { container, interface }),
            EndpointKey::PodName(name) | EndpointKey::CepName(name) => Ok(Self::PodName(name)),
            EndpointKey::New => Err(Error::invalid("endpoint", "cilium-local:0", "0 is the number of no endpoint")),
            EndpointKey::ContainerName(name) => {
                Err(Error::invalid("endpoint", format!("container-name:{name}"), "names of containers are not known"))
            }
        }
    }
}

/// By this label policies know a pod's namespace. A runtime tells the namespace, but no labels.
const NAMESPACE: (&str, &str) = ("k8s", "io.kubernetes.pod.namespace");

fn add_namespace(labels: &mut Labels, namespace: &str) -> Result<()> {
    let (source, key) = NAMESPACE;
    if labels.iter().any(|label| (label.source(), label.key()) == NAMESPACE) {
        return Ok(());
    }
    labels.insert(Label::new(source, key, namespace)?)
}

impl EndpointChangeRequest {
    /// The endpoint that the request asks for. A pod gets a label of its namespace, unless the request has one. A device that the request names exists already; without one, the endpoint
    /// gets a new device in the namespace that the request names.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, naming the field.
    pub fn into_spec(self) -> Result<EndpointSpec> {
        let device = self.device()?;
        let mut labels = Labels::parse(&self.labels)?;
        if let (Some(namespace), Some(_)) = (&self.k8s_namespace, &self.k8s_pod_name) {
            add_namespace(&mut labels, namespace)?;
        }
        let name = match (self.k8s_namespace, self.k8s_pod_name, &self.container_id) {
            (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
            (_, _, Some(container)) => container.clone(),
            _ => return Err(Error::invalid("container-id", "", "give it, or k8s-namespace and k8s-pod-name")),
        };
        let addressing = self.addressing.unwrap_or_default();
        let mut spec = EndpointSpec::new(name).labels(labels);
        for port in self.named_ports.iter().flatten() {
            spec = spec.named_port(&port.name, port.protocol()?, port.port);
        }
        if addressing.addresses().next().is_some() {
            spec = spec
                .ipv4(addressing.ipv4.map(|address| (address, addressing.ipv4_expiration_uuid)))
                .ipv6(addressing.ipv6.map(|address| (address, addressing.ipv6_expiration_uuid)));
        }
        if let Some(id) = self.container_id {
            spec = spec.container_id(id);
        }
        if let Some(name) = self.container_interface_name {
            spec = spec.interface(name);
        }
        if let Some(path) = self.container_netns_path {
            spec = spec.netns(path);
        }
        if let Some(uid) = self.k8s_uid {
            spec = spec.pod_uid(uid);
        }
        Ok(match device {
            Some(device) => spec.device(device),
            None => spec,
        })
    }

    fn device(&self) -> Result<Option<DeviceRef>> {
        let Some(name) = &self.interface_name else { return Ok(None) };
        let required = |field| Error::invalid(field, "", "required together with interface-name");
        let index = u32::try_from(self.interface_index).ok().and_then(IfIndex::new);
        let index = index.ok_or_else(|| {
            Error::invalid("interface-index", self.interface_index.to_string(), "expected a device's index, from 1 on")
        })?;
        Ok(Some(DeviceRef {
            ifindex: index,
            name: name.clone(),
            node_mac: self.host_mac.ok_or_else(|| required("host-mac"))?,
            mac: self.mac.ok_or_else(|| required("mac"))?,
        }))
    }
}

impl Port {
    fn protocol(&self) -> Result<Protocol> {
        match self.protocol.as_deref().unwrap_or("TCP").to_ascii_uppercase().as_str() {
            "TCP" => Ok(Protocol::TCP),
            "UDP" => Ok(Protocol::UDP),
            "SCTP" => Ok(Protocol::SCTP),
            other => Err(Error::invalid(format!("named port {:?}", self.name), other, "expected TCP, UDP or SCTP")),
        }
    }
}

impl TryFrom<&Port> for NamedPort {
    type Error = Error;

    fn try_from(port: &Port) -> Result<Self> {
        Ok(Self { name: port.name.clone(), protocol: port.protocol()?.number(), port: port.port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_namespace(namespace: &str, labels: &[&str]) -> Result<Vec<String>> {
        let mut labels = Labels::parse(labels)?;
        add_namespace(&mut labels, namespace)?;
        Ok(labels.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_pod_is_known_by_its_namespace() {
        let (own, given) = ("k8s:io.kubernetes.pod.namespace=own", "k8s:io.kubernetes.pod.namespace=shop");
        assert_eq!(with_namespace("shop", &["k8s:app=web"]).expect("valid"), ["k8s:app=web", given]);
        assert_eq!(with_namespace("shop", &[own]).expect("valid"), [own]);
        assert!(with_namespace("a b", &[]).is_err());
    }
}
