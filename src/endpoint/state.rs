//! An endpoint's life as a state machine.
//!
//! ```text
//!                    ┌────────────── failed ──────────────┐
//! WaitingForIdentity ──> Regenerating ──> Ready           v
//!                         ^    ^           │ │         NotReady
//! Restoring ──────────────┘    └── change ─┘ │            │
//!     └───────────────> Disconnecting <──────┴────────────┘
//!                            └──> Disconnected
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndpointState {
    /// Created, its labels not yet turned into an identity.
    WaitingForIdentity,
    /// Found on disk after a restart, not yet compared with the kernel.
    Restoring,
    /// Its rows and attachments are being written.
    Regenerating,
    /// In force.
    Ready,
    /// The last regeneration failed; what was in force before still is.
    NotReady,
    /// Being removed.
    Disconnecting,
    /// Gone.
    Disconnected,
}

impl EndpointState {
    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WaitingForIdentity => "waiting-for-identity",
            Self::Restoring => "restoring",
            Self::Regenerating => "regenerating",
            Self::Ready => "ready",
            Self::NotReady => "not-ready",
            Self::Disconnecting => "disconnecting",
            Self::Disconnected => "disconnected",
        }
    }

    /// Every state, for counting endpoints by state.
    pub const ALL: [Self; 7] = [
        Self::WaitingForIdentity,
        Self::Restoring,
        Self::Regenerating,
        Self::Ready,
        Self::NotReady,
        Self::Disconnecting,
        Self::Disconnected,
    ];

    /// Whether an endpoint may go from this state to `next`.
    pub const fn allows(self, next: Self) -> bool {
        use EndpointState::{
            Disconnected, Disconnecting, NotReady, Ready, Regenerating, Restoring, WaitingForIdentity,
        };
        matches!(
            (self, next),
            (WaitingForIdentity | Restoring | Ready | NotReady, Regenerating)
                | (Regenerating, Ready | NotReady)
                | (WaitingForIdentity | Restoring | Regenerating | Ready | NotReady, Disconnecting)
                | (Disconnecting, Disconnected)
        )
    }

    /// The state after moving to `next`, or the error that says why not.
    pub(super) fn advance(self, next: Self, endpoint: impl fmt::Display) -> Result<Self> {
        if self.allows(next) {
            return Ok(next);
        }
        let op = match next {
            Self::Disconnecting | Self::Disconnected => "remove it",
            _ => "change it",
        };
        Err(Error::WrongState { object: format!("endpoint {endpoint}"), state: self.name().to_owned(), op })
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_and_its_impossible_turns() {
        use EndpointState::*;
        let life = [WaitingForIdentity, Regenerating, Ready, Regenerating, NotReady, Disconnecting, Disconnected];
        for step in life.windows(2) {
            assert_eq!(step[0].advance(step[1], 7).expect("allowed"), step[1]);
        }
        for next in EndpointState::ALL {
            assert!(!Disconnected.allows(next), "a dead endpoint turned {next}");
            assert!(!Disconnecting.allows(next) || next == Disconnected);
        }
        let error = Disconnecting.advance(Regenerating, 7).expect_err("not allowed");
        assert_eq!(error.to_string(), "endpoint 7 is disconnecting: cannot change it");
    }
}
