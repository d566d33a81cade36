//! What the journal says. A snapshot consists of the same records.

use serde::{Deserialize, Serialize};

use crate::{Labels, SecurityId};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Record {
    /// A number stands for these labels from here on.
    Add { id: SecurityId, labels: Labels },
    /// These numbers stand for nothing any more.
    Remove { ids: Vec<SecurityId> },
    /// Only in snapshots: used earlier and free; the one released first in front.
    Rest { ids: Vec<SecurityId> },
}
