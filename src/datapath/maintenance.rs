//! What has to be done from time to time.

use std::sync::atomic::Ordering;

use log::{info, warn};

use crate::{Datapath, Result};

impl Datapath {
    /// What has to be done from time to time, every few seconds: expires addresses that nobody claimed, repairs what others
    /// changed in the maps and took off devices, removes endpoints whose namespace ended (once [synced](Self::mark_synced)) and the connections of
    /// those that are gone, [follows the node](Self::follow_node), brings the counters of forwarded packets into
    /// `cilium_metrics`.
    ///
    /// # Errors
    ///
    /// The first; what fails keeps nothing else from being done.
    pub fn maintain(&self) -> Result<()> {
        let steps = [
            Self::expire_leases,
            Self::collect_endpoints,
            Self::restore_attachments,
            Self::restore_reach,
            Self::maintain_policy,
            Self::follow_node,
        ];
        steps.map(|step| step(self)).into_iter().collect()
    }

    fn expire_leases(&self) -> Result<()> {
        for lease in self.ipam.expire()? {
            info!("address {} of {} was never claimed and is free again", lease.address, lease.owner);
        }
        Ok(())
    }

    fn collect_endpoints(&self) -> Result<()> {
        let collected = if self.is_synced() { self.endpoints.collect().map(drop) } else { Ok(()) };
        collected.and(self.endpoints.scrub().map(drop))
    }

    fn restore_attachments(&self) -> Result<()> {
        self.endpoints.restore_deprived();
        self.reattach()
    }

    fn restore_reach(&self) -> Result<()> {
        let drift = self.endpoints.reach().resync()?;
        // Before, they are those of endpoints that are still to come.
        let foreign = if self.is_synced() { drift.foreign } else { 0 };
        if drift.missing + drift.different + foreign + drift.reconciled.repaired == 0 {
            return Ok(());
        }
        let found = [(drift.missing, "missing"), (drift.different, "different"), (foreign, "of nobody")];
        let found = found.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let found: Vec<_> = found.chain([format!("{} repaired", drift.reconciled.repaired)]).collect();
        warn!("entries of cilium_lxc were not what they should be: {}", found.join(", "));
        // What the programs remember may come from what was wrong.
        self.enforcement.advance()
    }

    fn maintain_policy(&self) -> Result<()> {
        self.enforcement.maintain().and(self.forwards.copy_to(&self.metrics))
    }

    fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }
}
