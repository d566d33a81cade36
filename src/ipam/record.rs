//! What the journal says. Every change is one record; a snapshot consists of the same records.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::ExpirationId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Record {
    /// The ranges in force from here on.
    Ranges { ipv4: Option<IpNetwork>, ipv6: Option<IpNetwork> },
    /// Handed out.
    Allocate {
        ips: Vec<IpAddr>,
        owner: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unless_claimed: Option<Period>,
    },
    /// Claimed: the allocation is permanent now.
    Claim { ips: Vec<IpAddr> },
    /// Released, by its owner or because it was not claimed.
    Release { ips: Vec<IpAddr> },
    /// Only in snapshots: released earlier and not used since; the one released first in front.
    Rest { ips: Vec<IpAddr> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Period {
    pub(super) id: ExpirationId,
    pub(super) millis: u64,
}
