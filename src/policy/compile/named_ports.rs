//! Names that an endpoint has given to its ports.

use std::collections::BTreeSet;

use super::super::rule::{PORT_NAME, is_port_name};
use crate::tables::Protocol;
use crate::{Error, Result};

/// The names that an endpoint has given to its ports. One name may stand for several, as when two containers of a pod
/// use it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NamedPorts(BTreeSet<(String, Protocol, u16)>);

impl NamedPorts {
    /// No names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also this one. Upper and lower case are the same, as in rules.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>, protocol: Protocol, port: u16) -> Self {
        self.0.insert((name.as_ref().to_ascii_lowercase(), protocol, port));
        self
    }

    /// Fails for a name that no rule could call, a protocol that has no ports, and port 0.
    pub(crate) fn check(name: &str, protocol: Protocol, port: u16) -> Result<()> {
        let field = || format!("named port {name:?}");
        if !is_port_name(name) {
            return Err(Error::invalid("named port", name, PORT_NAME));
        }
        if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol) {
            return Err(Error::invalid(field(), protocol.to_string(), "expected TCP, UDP or SCTP"));
        }
        if port == 0 {
            return Err(Error::invalid(field(), "0", "expected a port from 1 to 65535"));
        }
        Ok(())
    }

    /// The ports of a protocol that have this name, in order.
    pub fn resolve(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        let name = name.to_ascii_lowercase();
        let (first, last) = ((name.clone(), protocol, 0), (name, protocol, u16::MAX));
        self.0.range(first..=last).map(|(_, _, port)| *port)
    }
}

impl<S: AsRef<str>> FromIterator<(S, Protocol, u16)> for NamedPorts {
    fn from_iter<I: IntoIterator<Item = (S, Protocol, u16)>>(ports: I) -> Self {
        ports.into_iter().fold(Self::new(), |named, (name, protocol, port)| named.with(name, protocol, port))
    }
}
