//! What would become of a packet: the node's own programs are asked, on copies of what they judge by.
//!
//! ```no_run
//! # fn example(datapath: &podwire::Datapath) -> podwire::Result<()> {
//! use podwire::simulator::{Packet, Place};
//!
//! let (from, to): (Place, Place) = ("default/client".parse()?, "default/web".parse()?);
//! let verdict = datapath.simulator()?.run(&Packet::tcp(from, to, 80))?;
//! println!("{}: {:?}", if verdict.allowed { "allowed" } else { "denied" }, verdict.policies);
//! # Ok(())
//! # }
//! ```

mod packet;
mod parse;
mod places;
mod run;
mod shadow;
mod verdict;

pub use packet::{Entry, Packet, Place, TcpFlags};
pub use verdict::{Change, Changes, Device, Dropped, Judgement, Relation, Side, Verdict, Way};

use self::shadow::{Shadow, Tables};
use super::Datapath;
use crate::enforcement::Trial;
use crate::netlink::Socket;
use crate::program::Constants;
use crate::{Result, SecurityId};

/// Asks the node's programs what would become of packets.
///
/// The programs are loaded a second time, with the same constants, on maps of their own; for each packet these get what the
/// live ones hold of its two addresses (of an error also of those in the packet that it is about), its connection and its sender's device, and the policies of its endpoints. What is
/// live is only read: no counter, no connection, no event and no generation changes. A packet that the kernel's stack would handle
/// is followed until it gets there.
///
/// Loading verifies every program once more (0.4 s on a busy machine). Then a packet takes less than a millisecond, but some 20 the
/// first one that its endpoints' policies judge: these are put into an outer map, which waits for RCU.
pub struct Simulator<'a> {
    datapath: &'a Datapath,
    live: Tables,
    shadow: Shadow,
    socket: Socket,
    /// Whoever has an address of which nothing is known, by family.
    world: (SecurityId, SecurityId),
}

impl Datapath {
    /// Loads a simulator, which follows what is in force for as long as it exists. To be called, and to be used, on threads of the
    /// node's namespace.
    pub fn simulator(&self) -> Result<Simulator<'_>> {
        let _loading = self.simulators.lock();
        let constants = Constants::of(self.programs.program("cil_from_container")?)?;
        let world = |name| {
            let bytes = constants.bytes(name).and_then(|bytes| bytes.try_into().ok());
            SecurityId::new(bytes.map_or(0, u32::from_ne_bytes))
        };
        Ok(Simulator {
            datapath: self,
            live: Tables::open_pinned(&self.paths.maps())?,
            world: (world("cfg_world_ipv4"), world("cfg_world_ipv6")),
            shadow: Shadow::load(&self.paths.own().join("simulator"), constants)?,
            socket: Socket::open()?,
        })
    }
}

impl Simulator<'_> {
    /// What would become of a packet now.
    ///
    /// # Errors
    ///
    /// `NotFound` for an endpoint that there is not; `InvalidInput` for a frame shorter than an Ethernet header, and for ends that have no
    /// addresses of one family.
    pub fn run(&mut self, packet: &Packet) -> Result<Verdict> {
        run::simulate(self, packet, None)
    }

    /// What would become of it with the policies [tried out](crate::enforcement::Enforcement::try_out).
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run); `Exhausted` for a policy that would be too large.
    pub fn run_under(&mut self, trial: &Trial, packet: &Packet) -> Result<Verdict> {
        run::simulate(self, packet, Some(trial))
    }
}
