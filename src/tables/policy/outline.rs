//! `podwire_policy_outlines`: what policies can match at the most.

use std::mem::offset_of;
use std::path::Path;
use std::sync::atomic::Ordering;

use bytemuck::Zeroable;

use super::{PolicyDirection, PolicyL4, PolicyMatch, PolicyVerdict};
use crate::abi::PolicyOutline;
use crate::maps::{MapSpec, MmapArray};
use crate::{EndpointId, Result, SecurityId};

/// As in `bpf/lib/policy.h`.
const ROWS: u32 = 4096;

/// The outlines of policies in force, by which programs know that a policy has nothing about a packet without asking it.
///
/// An outline belongs to a map, not to an endpoint: programs that find another map in the endpoint's slot pass over it. So it may be
/// written before or after the slot, and a policy without one is only slower. One thread at a time may write.
#[derive(Debug)]
pub struct PolicyOutlines {
    map: MmapArray<PolicyOutline>,
}

impl PolicyOutlines {
    /// The map as the programs declare it.
    pub const fn spec() -> MapSpec {
        MapSpec::mmap_array::<PolicyOutline>("podwire_policy_outlines", ROWS).value_layout::<PolicyOutline>()
    }

    /// A map of one's own, unpinned.
    pub fn create() -> Result<Self> {
        Ok(Self { map: MmapArray::create(&Self::spec())? })
    }

    /// The map pinned in a folder under its name.
    pub fn open_pinned(folder: impl AsRef<Path>) -> Result<Self> {
        let spec = Self::spec();
        Ok(Self { map: MmapArray::open_pinned(folder.as_ref().join(spec.name()), &spec)? })
    }

    /// The map below.
    pub const fn map(&self) -> &MmapArray<PolicyOutline> {
        &self.map
    }

    /// Writes the outline of the policy in the map with this id, which has these entries.
    pub fn write(&self, endpoint: EndpointId, map_id: u32, entries: &[(PolicyMatch, PolicyVerdict)]) -> Result<()> {
        let row = row_of(endpoint);
        // The first word takes the id away before the others change.
        self.map.write(row, &PolicyOutline::around(entries))?;
        self.map.word(row, offset_of!(PolicyOutline, map_id))?.store(map_id.into(), Ordering::Release);
        Ok(())
    }

    /// Takes entries into the outline of the map with this id, if it has one, before they are written into that.
    pub fn widen(&self, endpoint: EndpointId, map_id: u32, entries: &[(PolicyMatch, PolicyVerdict)]) -> Result<()> {
        let row = row_of(endpoint);
        let mut outline = self.map.read(row)?;
        if outline.map_id == u64::from(map_id) {
            entries.iter().for_each(|(matched, _)| outline.include(matched));
            self.map.write(row, &outline)?;
        }
        Ok(())
    }
}

fn row_of(endpoint: EndpointId) -> u32 {
    u32::from(endpoint.get()) & (ROWS - 1)
}

impl PolicyOutline {
    fn around(entries: &[(PolicyMatch, PolicyVerdict)]) -> Self {
        let mut outline = Self::zeroed();
        entries.iter().for_each(|(matched, _)| outline.include(matched));
        outline
    }

    fn include(&mut self, matched: &PolicyMatch) {
        let direction = match matched.direction {
            PolicyDirection::Ingress => 0,
            PolicyDirection::Egress => 1,
        };
        let (peer, ports) = (1 << (matched.identity.get() & 63), port_bits(matched.l4));
        if matched.identity == SecurityId::UNKNOWN {
            self.any_ports[direction] |= ports;
        }
        // An identity of 0 is asked for as any other is.
        if ports == u64::MAX {
            self.whole_peers[direction] |= peer;
        } else {
            self.peers[direction] |= peer;
            self.peer_ports[direction] |= ports;
        }
    }
}

/// A bit for each value that the lower six bits of the ports take.
fn port_bits(l4: PolicyL4) -> u64 {
    match l4 {
        PolicyL4::Ports(_, ports) if ports.bits() > 10 => {
            let count = 1_u32 << (16 - ports.bits());
            ((1 << count) - 1) << (ports.port() & 63)
        }
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::{PolicyAction, PortPrefix, Protocol};

    fn entry() -> impl Strategy<Value = (PolicyMatch, PolicyVerdict)> {
        let direction = prop_oneof![Just(PolicyDirection::Ingress), Just(PolicyDirection::Egress)];
        let l4 = prop_oneof![
            Just(PolicyL4::Any),
            (any::<u16>(), 0_u8..=16).prop_map(|(port, bits)| {
                let ports = PortPrefix::new(port & (0xffff_u32 << (16 - bits)) as u16, bits).expect("no bits behind");
                PolicyL4::Ports(Protocol::TCP, ports)
            }),
        ];
        (direction, 0_u32..200, l4).prop_map(|(direction, identity, l4)| {
            let matched = PolicyMatch { direction, identity: SecurityId::new(identity), l4 };
            (matched, PolicyVerdict::new(PolicyAction::Allow, 1))
        })
    }

    /// As the programs read it.
    fn promises(outline: &PolicyOutline, asked: &PolicyMatch, port: u16) -> bool {
        let direction = usize::from(asked.direction == PolicyDirection::Egress);
        let has = |bits: [u64; 2], number: u32| bits[direction] >> (number & 63) & 1 == 1;
        let (peer, port) = (asked.identity.get(), u32::from(port));
        match asked.identity {
            SecurityId::UNKNOWN => has(outline.any_ports, port),
            _ => has(outline.whole_peers, peer) || has(outline.peers, peer) && has(outline.peer_ports, port),
        }
    }

    proptest! {
        #[test]
        fn whatever_an_entry_matches_is_in_the_outline(
            entries in proptest::collection::vec(entry(), 1..6),
            offset in any::<u16>(),
        ) {
            let outline = PolicyOutline::around(&entries);
            for (matched, _) in &entries {
                let port = match matched.l4 {
                    PolicyL4::Any => offset,
                    PolicyL4::Ports(_, ports) => ports.port() + (u32::from(offset) % (1 << (16 - ports.bits()))) as u16,
                };
                prop_assert!(promises(&outline, matched, port), "{matched} on {port}");
            }
        }
    }

    #[test]
    fn an_outline_leaves_out_other_ports_peers_and_directions() {
        let l4 = PolicyL4::Ports(Protocol::TCP, PortPrefix::new(80, 13).expect("eight ports"));
        let matched = PolicyMatch { direction: PolicyDirection::Ingress, identity: SecurityId::new(70), l4 };
        let whole = PolicyMatch { identity: SecurityId::new(72), l4: PolicyL4::protocol(Protocol::UDP), ..matched };
        let outline =
            PolicyOutline::around(&[matched, whole].map(|each| (each, PolicyVerdict::new(PolicyAction::Allow, 1))));
        let promised =
            |matched: PolicyMatch| -> Vec<u16> { (0..64).filter(|port| promises(&outline, &matched, *port)).collect() };
        let nothing = Vec::<u16>::new();
        assert_eq!(promised(matched), (16..24).collect::<Vec<_>>());
        assert_eq!(promised(whole), (0..64).collect::<Vec<_>>());
        assert_eq!(promised(PolicyMatch { identity: SecurityId::new(71), ..matched }), nothing);
        assert_eq!(promised(PolicyMatch { identity: SecurityId::UNKNOWN, ..matched }), nothing);
        assert_eq!(promised(PolicyMatch { direction: PolicyDirection::Egress, ..matched }), nothing);
    }
}
