//! How long each stage of an endpoint's creation or regeneration took.

use std::time::{Duration, Instant};

/// A stage of the work on an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Claiming or allocating addresses.
    Addresses,
    /// Finding the identity, and bringing policies into force.
    Policy,
    /// Creating the veth pair and configuring the pod's side of it.
    Device,
    /// Writing the endpoint to disk.
    Persist,
    /// Writing the row that the programs check senders against.
    Row,
    /// Attaching the programs.
    Attach,
    /// Writing `cilium_lxc` and the ipcache.
    Map,
}

impl Stage {
    /// Every stage, in the order in which they run.
    pub const ALL: [Self; 7] =
        [Self::Addresses, Self::Policy, Self::Device, Self::Persist, Self::Row, Self::Attach, Self::Map];

    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Policy => "policy",
            Self::Device => "device",
            Self::Persist => "persist",
            Self::Row => "row",
            Self::Attach => "attach",
            Self::Map => "map",
        }
    }
}

/// The stages that ran, with their durations.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    stages: Vec<(Stage, Duration)>,
}

impl Timings {
    /// Runs a stage and notes how long it took, whether or not it succeeded.
    pub(super) fn time<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.stages.push((stage, start.elapsed()));
        result
    }

    /// The stages in the order in which they ran.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> {
        self.stages.iter().copied()
    }

    /// The duration of one stage; zero where it did not run.
    pub fn of(&self, stage: Stage) -> Duration {
        self.iter().filter(|(s, _)| *s == stage).map(|(_, d)| d).sum()
    }

    /// The sum of all stages.
    pub fn total(&self) -> Duration {
        self.iter().map(|(_, d)| d).sum()
    }
}
