//! The programs a second time, on maps of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;

use crate::abi::EndpointKey;
use crate::conntrack::Conntrack;
use crate::enforcement::PolicyRows;
use crate::events::{Event, EventReader};
use crate::maps::Update;
use crate::program::{Constants, Loader, ProgramSet, SkBuff, TestRun, embedded, test_run};
use crate::tables::{
    Connection, CtMap, EndpointRows, FlowTuple, IpCache, IpCacheEntry, LxcMap, PolicyMap, PolicyMaps, Switches,
};
use crate::{EndpointId, Error, IfIndex, Result};

/// Maps that are sized to the node; a simulator needs room for a packet. A map this small still evicts nothing that a run has
/// just written.
const SIZES: [(&str, u32); 8] = [
    ("podwire_ct", 512),
    ("podwire_ct_index", 128),
    ("cilium_ipv4_frag_datagrams", 4096),
    ("cilium_ipv6_frag_datagrams", 4096),
    ("cilium_policystats", 4096),
    ("cilium_lxc", 1024),
    ("cilium_ipcache_v2", 1024),
    ("podwire_events", 1 << 16),
];

/// The node's programs, loaded once more. Nothing of it is pinned or attached, so that it is gone with the process.
pub(super) struct Shadow {
    programs: ProgramSet,
    pub(super) tables: Tables,
    switches: Switches,
    events: EventReader,
    conntrack: Conntrack,
    /// What stands in the outer map.
    policies: BTreeMap<EndpointId, InForce>,
}

/// The tables that the programs judge by, live or shadow.
pub(super) struct Tables {
    pub(super) lxc: LxcMap,
    pub(super) rows: EndpointRows,
    pub(super) ipcache: IpCache,
    pub(super) policies: PolicyMaps,
    pub(super) connections: CtMap,
}

/// A policy of the shadow.
#[derive(PartialEq, Eq)]
pub(super) enum InForce {
    /// The live map with this id, which both read.
    Live(u32),
    /// These entries, in a map of the shadow's own.
    Own(PolicyRows),
}

/// What a packet is to be judged by: copies of what is live, or something else in its place.
#[derive(Default)]
pub(super) struct Scene {
    pub(super) addresses: Vec<IpAddr>,
    /// Identities in place of those that the ipcache has.
    pub(super) identities: BTreeMap<IpAddr, IpCacheEntry>,
    pub(super) device: Option<IfIndex>,
    pub(super) policies: BTreeMap<EndpointId, Option<InForce>>,
    pub(super) connections: Vec<FlowTuple>,
}

impl Tables {
    pub(super) fn open_pinned(folder: &Path) -> Result<Self> {
        Ok(Self {
            lxc: LxcMap::open_pinned(folder)?,
            rows: EndpointRows::open_pinned(folder)?,
            ipcache: IpCache::open_pinned(folder)?,
            policies: PolicyMaps::open_pinned(folder)?,
            connections: CtMap::open_pinned(folder)?,
        })
    }
}

impl Shadow {
    /// Loads the programs with the constants of those that are live. Maps find each other by pins in `folder`, which is gone
    /// again when this returns; what a process that died left there goes first.
    pub(super) fn load(folder: &Path, constants: Constants) -> Result<Self> {
        let pins = Pins::new(folder)?;
        let loader = Loader::new(pins.0)
            .object(embedded::LXC)
            .object(embedded::HOST)
            .object(embedded::NETDEV)
            .object(embedded::CONNTRACK)
            .constants(constants);
        let programs = SIZES.iter().fold(loader, |loader, (map, entries)| loader.max_entries(*map, *entries)).load()?;
        let events = EventReader::open_pinned(folder)?;
        events.set_drop_limit(u32::MAX)?;
        events.set_verdict_events(true)?;
        // With traces every packet goes the long way, where each decision is reported.
        events.set_tracing(true)?;
        Ok(Self {
            tables: Tables::open_pinned(folder)?,
            switches: Switches::open_pinned(folder)?,
            conntrack: Conntrack::open(folder, &programs)?,
            events,
            programs,
            policies: BTreeMap::new(),
        })
    }

    /// Now, in jiffies64.
    pub(super) fn now(&self) -> Result<u64> {
        Ok(self.conntrack.clock().now()?.jiffies)
    }

    /// Runs a program on a frame. Comes back with what it did and reported.
    pub(super) fn run(&mut self, program: &str, frame: &[u8], device: IfIndex) -> Result<(TestRun, Vec<Event>)> {
        // Whatever was remembered of other packets is void, and every verdict is reported.
        self.switches.advance()?;
        self.events.read(drop);
        let context = SkBuff { ifindex: device.get(), ..SkBuff::default() };
        let run = test_run(self.programs.program(program)?, frame, &context, 1)?;
        let mut events = Vec::new();
        self.events.read(|event| events.push(event));
        Ok((run, events))
    }

    /// Makes the shadow's tables say what the live ones say, as far as a packet needs it; the connections come back.
    pub(super) fn set(&mut self, live: &Tables, scene: Scene) -> Result<Vec<Connection>> {
        for address in &scene.addresses {
            let key = EndpointKey::of(*address);
            if let Some(entry) = live.lxc.map().lookup(&key)? {
                self.tables.lxc.map().insert(&key, &entry, Update::Any)?;
            }
            let entry = match scene.identities.get(address) {
                Some(entry) => Some(*entry),
                None => live.ipcache.lookup(*address)?,
            };
            if let Some(entry) = entry {
                self.tables.ipcache.upsert(IpNetwork::from(*address), &entry)?;
            }
        }
        if let Some(row) = scene.device.map(|device| live.rows.lookup(device)).transpose()?.flatten() {
            self.tables.rows.write(&row)?;
        }
        for (endpoint, policy) in scene.policies {
            self.set_policy(endpoint, policy)?;
        }
        let mut connections = Vec::new();
        for tuple in &scene.connections {
            if let Some(connection) = live.connections.lookup(tuple)? {
                self.conntrack.insert(&connection)?;
                connections.push(connection);
            }
        }
        Ok(connections)
    }

    /// Empties the tables. Policies stay: putting them there takes long, and the next packet's are compared with them.
    pub(super) fn clear(&self, addresses: &[IpAddr], device: Option<IfIndex>, connections: &[FlowTuple]) -> Result<()> {
        for address in addresses {
            self.tables.lxc.delete(*address)?;
            self.tables.ipcache.delete(IpNetwork::from(*address))?;
        }
        if let Some(device) = device {
            self.tables.rows.delete(device)?;
        }
        for tuple in connections {
            self.conntrack.remove(tuple)?;
        }
        Ok(())
    }

    fn set_policy(&mut self, endpoint: EndpointId, wanted: Option<InForce>) -> Result<()> {
        if self.policies.get(&endpoint) == wanted.as_ref() {
            return Ok(());
        }
        self.policies.remove(&endpoint);
        let policy = match &wanted {
            None => {
                self.tables.policies.remove(endpoint)?;
                return Ok(());
            }
            Some(InForce::Live(id)) => PolicyMap::from_id(*id, endpoint)?,
            Some(InForce::Own(rows)) => {
                let policy = PolicyMap::create(endpoint, u32::try_from(rows.len()).unwrap_or(u32::MAX).max(1))?;
                policy.fill(rows.as_slice())?;
                policy
            }
        };
        self.tables.policies.replace(&[(endpoint, &policy)])?;
        self.policies.extend(wanted.map(|wanted| (endpoint, wanted)));
        Ok(())
    }
}

/// A folder of pins that is removed again.
struct Pins<'a>(&'a Path);

impl<'a> Pins<'a> {
    fn new(folder: &'a Path) -> Result<Self> {
        remove(folder)?;
        fs::create_dir(folder)
            .map_err(|error| Error::system("create directory", folder.display().to_string(), error))?;
        Ok(Self(folder))
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(self.0) {
            log::warn!("{error}");
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system("remove pins", folder.display().to_string(), error))
        }
        _ => Ok(()),
    }
}
