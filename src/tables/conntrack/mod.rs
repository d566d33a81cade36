//! `podwire_ct`: one entry per connection, found by the packets of both directions and of both families.
//!
//! The key holds the connection's two sides in a fixed order, so that a packet and its answer need one entry and one lookup;
//! the value holds, for each direction, all that an established packet needs. `bpf/abi/conntrack.h` has the bytes.

mod connection;
mod errors;
mod tuple;

pub use connection::{Connection, CtFlags, CtPath, CtPathFlags, CtState, Rewrite, RewriteSide};
pub use errors::{CtErrno, CtErrors};
pub use tuple::{CtDirection, Echo, FlowTuple};

use crate::Result;
use crate::abi::{CtEntry, CtKey};
use crate::maps::{Batch, LruHashMap, MapSpec, Update};
use crate::tables::table::one_map_table;

/// Entries read at a time.
const BATCH: usize = 4096;

/// `podwire_ct`: the connections of the node. A new one evicts the one least recently used when the map is full.
#[derive(Debug)]
pub struct CtMap {
    map: LruHashMap<CtKey, CtEntry>,
}

impl CtMap {
    one_map_table!(
        LruHashMap<CtKey, CtEntry>,
        MapSpec::lru_hash::<CtKey, CtEntry>("podwire_ct", 262_144).layouts::<CtKey, CtEntry>()
    );

    /// Writes a connection, over what is known of it.
    ///
    /// The programs count in the entry while they use it: this is for connections that they do not know yet, as on a restore.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a rewrite to the other family.
    pub fn insert(&self, connection: &Connection) -> Result<()> {
        let (key, entry) = connection.encode()?;
        self.map.insert(&key, &entry, Update::Any)
    }

    /// The connection that a packet of either direction belongs to.
    pub fn lookup(&self, packet: &FlowTuple) -> Result<Option<Connection>> {
        let (key, _) = packet.key();
        Ok(self.map.lookup(&key)?.and_then(|entry| Connection::decode(&key, &entry)))
    }

    /// Removes the connection that a packet of either direction belongs to; false when there is none.
    pub fn delete(&self, packet: &FlowTuple) -> Result<bool> {
        self.map.delete(&packet.key().0)
    }

    /// Hands every connection to `visit` and returns how many there were. Entries of an unknown family are left out.
    pub fn for_each(&self, mut visit: impl FnMut(Connection)) -> Result<usize> {
        let mut visited = 0;
        self.map.lookup_batch(&mut Batch::new(BATCH)?, |key, entry| {
            if let Some(connection) = Connection::decode(key, entry) {
                visit(connection);
                visited += 1;
            }
        })?;
        Ok(visited)
    }

    /// Every connection, in the order of the first packets' tuples.
    pub fn connections(&self) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        self.for_each(|connection| connections.push(connection))?;
        connections.sort_unstable_by_key(|connection| connection.opener);
        Ok(connections)
    }

    /// Removes the connections that `select` picks and returns how many there were.
    ///
    /// A connection that a program uses between the choice and the removal is removed nonetheless; its next packet opens it
    /// anew.
    pub fn remove_if(&self, mut select: impl FnMut(&Connection) -> bool) -> Result<usize> {
        let mut keys = Vec::new();
        self.for_each(|connection| {
            if select(&connection) {
                keys.push(connection.opener.key().0);
            }
        })?;
        self.map.delete_batch(&keys)
    }
}
