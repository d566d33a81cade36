//! The identity itself.

use std::fmt;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::cidr;
use crate::{Labels, SecurityId};

/// A number with the labels it stands for. It never changes, and cloning it is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    id: SecurityId,
    labels: Arc<Labels>,
    cidr: Option<IpNetwork>,
}

impl Identity {
    /// The identity with this number and these labels. Allocators make them; whoever makes one up answers for it.
    pub fn new(id: SecurityId, labels: impl Into<Arc<Labels>>) -> Self {
        let labels = labels.into();
        let cidr = id.is_cidr().then(|| cidr::prefix_of(&labels)).flatten();
        Self { id, labels, cidr }
    }

    /// The number.
    pub fn id(&self) -> SecurityId {
        self.id
    }

    /// The labels, among them those of the sources `reserved` and `cidr`.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The prefix that it stands for, if it does.
    pub fn cidr(&self) -> Option<IpNetwork> {
        self.cidr
    }
}

/// Number and labels: `300 (k8s:app=web,k8s:tier=front)`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.labels)
    }
}
