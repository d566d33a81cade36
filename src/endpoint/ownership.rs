//! Whose a pod's device is. Only what podwire made is podwire's to delete, and says so by its alias.

use crate::EndpointId;
use crate::netlink::Link;

/// The alias of devices that the CNI plugin made is `podwire_cni:NETWORK:CONTAINER:INTERFACE`.
pub(crate) const PLUGIN_MARK: &str = "podwire_cni";
/// The alias of devices that an [`EndpointManager`](super::EndpointManager) made is `podwire_endpoint:ID`.
const ENDPOINT_MARK: &str = "podwire_endpoint";

/// The alias for the device of an endpoint.
pub(super) fn alias(endpoint: EndpointId) -> String {
    format!("{ENDPOINT_MARK}:{endpoint}")
}

/// Whether podwire made a device.
pub(crate) fn is_ours(link: &Link) -> bool {
    let mark = link.alias.as_deref().and_then(|alias| alias.split_once(':'));
    mark.is_some_and(|(mark, _)| mark == PLUGIN_MARK || mark == ENDPOINT_MARK)
}
