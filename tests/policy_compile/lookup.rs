//! How the programs judge by an endpoint's entries, in plain Rust.

use podwire::SecurityId;
use podwire::tables::{PolicyAction, PolicyL4, PolicyMatch, PolicyVerdict, Protocol};

use super::model::{Traffic, number};

/// The key that the programs look up, with the peer's identity.
pub fn key(traffic: &Traffic) -> PolicyMatch {
    let l4 = PolicyL4::port(Protocol::new(traffic.protocol), traffic.port);
    PolicyMatch { direction: traffic.direction, identity: SecurityId::new(number(&traffic.peer)), l4 }
}

/// The longest of the entries that match a key.
pub fn longest(entries: &[(PolicyMatch, PolicyVerdict)], key: &PolicyMatch) -> Option<PolicyVerdict> {
    let matches = |entry: &PolicyMatch| {
        let l4 = match (entry.l4, key.l4) {
            (PolicyL4::Any, _) => true,
            (PolicyL4::Ports(protocol, ports), PolicyL4::Ports(other, port)) => {
                protocol == other && (ports.port()..=ports.last()).contains(&port.port())
            }
            _ => false,
        };
        entry.direction == key.direction && entry.identity == key.identity && l4
    };
    let matching = entries.iter().filter(|(entry, _)| matches(entry));
    matching.max_by_key(|(entry, _)| entry.l4.bits()).map(|(_, verdict)| *verdict)
}

/// Two lookups, of which the higher precedence decides, then a denial, then the identity's own entry.
pub fn decide(
    mut lookup: impl FnMut(&PolicyMatch) -> Option<PolicyVerdict>,
    traffic: &Traffic,
) -> Option<PolicyVerdict> {
    let key = key(traffic);
    let own = lookup(&key);
    let any = lookup(&PolicyMatch { identity: SecurityId::UNKNOWN, ..key });
    match (own, any) {
        (Some(own), Some(any)) if any.precedence > own.precedence => Some(any),
        (Some(own), Some(any)) if any.precedence == own.precedence => {
            let any_denies = any.action == PolicyAction::Deny && own.action != PolicyAction::Deny;
            Some(if any_denies { any } else { own })
        }
        (Some(own), _) => Some(own),
        (None, any) => any,
    }
}
