//! Names of ports that rules call and endpoints have not given: what such a rule says of the port holds for nothing there.

use std::collections::BTreeMap;
use std::fmt;

use log::warn;

use super::engine::Enforcement;
use super::state::State;
use crate::EndpointId;
use crate::policy::{RuleNumber, RuleSource};

/// How many endpoints the text names.
const NAMED: usize = 3;

/// A port that a rule in force calls by a name, and the endpoints that the rule selects and that have given the name to no port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnnamedPort {
    /// Where the rule stands.
    pub source: RuleSource,
    /// The name.
    pub name: String,
    /// The endpoints.
    pub endpoints: Vec<EndpointId>,
}

/// `default/web[0].ingressDeny[0]: no port is named "http" at endpoints 3, 7: nothing is denied there by it`
impl fmt::Display for UnnamedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, name, endpoints } = self;
        let named: Vec<_> = endpoints.iter().take(NAMED).map(ToString::to_string).collect();
        let (plural, more) = (if endpoints.len() > 1 { "s" } else { "" }, endpoints.len() - named.len());
        write!(f, "{source}: no port is named {name:?} at endpoint{plural} {}", named.join(", "))?;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        write!(f, ": nothing is {} there by it", if source.kind.denies() { "denied" } else { "allowed" })
    }
}

impl Enforcement {
    /// Names of ports that rules in force call and endpoints that they select don't have, in the order of the rules' numbers.
    pub fn unnamed_ports(&self) -> Vec<UnnamedPort> {
        let state = self.lock();
        state.unnamed(state.endpoints.keys().copied())
    }

    /// Those that an endpoint does not have.
    pub fn unnamed_ports_of(&self, endpoint: EndpointId) -> Vec<UnnamedPort> {
        self.lock().unnamed([endpoint])
    }
}

impl State {
    fn unnamed(&self, endpoints: impl IntoIterator<Item = EndpointId>) -> Vec<UnnamedPort> {
        let mut unnamed: BTreeMap<(RuleNumber, String), Vec<EndpointId>> = BTreeMap::new();
        for endpoint in endpoints {
            let ports = self.endpoints.get(&endpoint).map(|local| local.policy.unresolved_ports()).unwrap_or_default();
            for port in ports {
                unnamed.entry(port).or_default().push(endpoint);
            }
        }
        let of_rules = unnamed.into_iter().filter_map(|((rule, name), endpoints)| {
            Some(UnnamedPort { source: self.repository.source(rule)?.clone(), name, endpoints })
        });
        of_rules.collect()
    }

    /// Writes to the log which names of ports these endpoints don't have.
    pub(super) fn warn_of_unnamed(&self, endpoints: impl IntoIterator<Item = EndpointId>) {
        for port in self.unnamed(endpoints) {
            warn!("{port}");
        }
    }
}
