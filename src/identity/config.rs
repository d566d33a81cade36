//! How identities are kept.

use std::time::Duration;

use super::world::World;
use crate::{Error, Result};

/// How long an identity without a user is kept, unless configured otherwise.
pub const DEFAULT_RELEASE_DELAY: Duration = Duration::from_secs(600);

/// The longest delay: deadlines stay far from the end of the clock.
const LONGEST_DELAY: Duration = Duration::from_secs(366 * 24 * 3600);

/// The rules of a [`LocalIdentities`](super::LocalIdentities).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    pub(super) release_delay: Duration,
    pub(super) world: World,
}

impl IdentityConfig {
    /// The rules for a node with this world, with [`DEFAULT_RELEASE_DELAY`].
    pub fn new(world: World) -> Self {
        Self { release_delay: DEFAULT_RELEASE_DELAY, world }
    }

    /// How long an identity without a user is kept; at most 366 days.
    pub fn release_delay(mut self, delay: Duration) -> Self {
        self.release_delay = delay;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.release_delay <= LONGEST_DELAY {
            return Ok(());
        }
        Err(Error::invalid("identity release delay", format!("{:?}", self.release_delay), "at most 366 days"))
    }
}
