//! What the agent says about its node when it starts.

use std::fmt::Display;

use podwire::{LOOPBACK_IPV4, Node};

/// Logs the node's names, addresses and ranges.
pub(crate) fn tell(node: &Node) {
    log::info!("Addressing information:");
    for line in lines(node) {
        log::info!("  {line}");
    }
}

fn lines(node: &Node) -> Vec<String> {
    let mut lines = vec![
        format!("Cluster-Name: {}", node.cluster_name),
        "Cluster-ID: 0".to_owned(),
        format!("Local node-name: {}", node.name),
    ];
    let mut add = |name: &str, value: Option<&dyn Display>| lines.extend(value.map(|value| format!("{name}: {value}")));
    let external_ipv4 = node.external_ipv4();
    let external_ipv6 = node.external_ipv6();
    if let Some(range) = &node.ipv6_range {
        add("Node-IPv6", external_ipv6.as_ref().or(node.router_ipv6.as_ref()).map(|address| address as &dyn Display));
        add("External-Node IPv6", external_ipv6.as_ref().map(|address| address as &dyn Display));
        add("Internal-Node IPv6", node.router_ipv6.as_ref().map(|address| address as &dyn Display));
        add("IPv6 allocation prefix", Some(range));
    }
    if let Some(range) = &node.ipv4_range {
        add("External-Node IPv4", external_ipv4.as_ref().map(|address| address as &dyn Display));
        add("Internal-Node IPv4", node.router_ipv4.as_ref().map(|address| address as &dyn Display));
        add("IPv4 allocation prefix", Some(range));
        add("Loopback IPv4", Some(&LOOPBACK_IPV4));
    }
    lines.push("Local addresses:".to_owned());
    lines.extend(node.addresses().map(|address| format!("- {address}")));
    let devices: Vec<_> = node.devices.iter().map(|device| device.name.as_str()).collect();
    lines.push(format!("Devices: {}", if devices.is_empty() { "none".to_owned() } else { devices.join(", ") }));
    lines.push(format!("Attach mode: {}", node.attach_mode));
    lines.push(format!("MTU: {}", node.mtu));
    lines
}
