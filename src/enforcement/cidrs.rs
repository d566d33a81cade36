//! The prefixes that rules name: each has an identity and an entry in the ipcache for as long as a rule names it.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use crate::policy::{FlatRule, Peer, Peers};

/// Every prefix that these rules name, those they leave out included. The prefix of length 0 is the world, which has an identity
/// anyway.
pub(super) fn named_by<'a>(rules: impl Iterator<Item = &'a FlatRule>) -> BTreeSet<IpNetwork> {
    let mut prefixes = BTreeSet::new();
    for rule in rules {
        let Peers::Some(peers) = &rule.peers else { continue };
        for peer in peers {
            if let Peer::Cidr { net, except } = peer {
                prefixes.extend(std::iter::once(net).chain(except).filter(|prefix| prefix.prefix() > 0));
            }
        }
    }
    prefixes
}
