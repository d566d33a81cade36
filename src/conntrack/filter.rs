//! Which connections are meant.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::EndpointId;
use crate::tables::Connection;

/// Picks connections: all of them, or those of an endpoint or an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CtFilter {
    endpoint: Option<EndpointId>,
    addresses: BTreeSet<IpAddr>,
}

impl CtFilter {
    /// Every connection.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of an endpoint: it is noted as receiver, or one of its addresses as a side. An entry knows as receiver only who got
    /// packets, so without the addresses connections that were never answered are left out.
    pub fn endpoint(id: EndpointId, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { endpoint: Some(id), addresses: addresses.into_iter().collect() }
    }

    /// Those that have this address on one side.
    pub fn address(address: IpAddr) -> Self {
        Self { endpoint: None, addresses: BTreeSet::from([address]) }
    }

    /// Whether every connection is meant.
    pub(super) fn is_all(&self) -> bool {
        self.endpoint.is_none() && self.addresses.is_empty()
    }

    /// Whether this connection is meant.
    pub fn matches(&self, connection: &Connection) -> bool {
        let sides = [connection.opener.source().ip(), connection.opener.destination().ip()];
        let receivers = [connection.forward.receiver, connection.reply.receiver];
        self.is_all()
            || (self.endpoint.is_some() && receivers.contains(&self.endpoint))
            || sides.iter().any(|side| self.addresses.contains(side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{CtPath, FlowTuple, Protocol};

    #[test]
    fn connections_of_an_endpoint_are_those_it_receives_or_has_the_address_of() {
        let id = |number| EndpointId::new(number).expect("not 0");
        let address = |text: &str| text.parse::<IpAddr>().expect("valid");
        let side = |text: &str| (address(text), 80).into();
        let opener = FlowTuple::new(Protocol::TCP, side("10.0.0.1"), side("10.0.0.2")).expect("one family");
        let reply = CtPath { receiver: EndpointId::new(7), ..CtPath::default() };
        let connection = Connection { reply, ..Connection::new(opener) };
        for (filter, matches) in [
            (CtFilter::all(), true),
            (CtFilter::endpoint(id(7), []), true),
            (CtFilter::endpoint(id(8), []), false),
            (CtFilter::endpoint(id(8), [address("10.0.0.2")]), true),
            (CtFilter::endpoint(id(8), [address("10.0.0.3")]), false),
            (CtFilter::address(address("10.0.0.1")), true),
            (CtFilter::address(address("10.0.0.3")), false),
        ] {
            assert_eq!(filter.matches(&connection), matches, "{filter:?}");
        }
    }
}
