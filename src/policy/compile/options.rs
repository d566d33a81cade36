//! What holds for every endpoint's policy alike.

use std::fmt;
use std::str::FromStr;

use crate::tables::PolicyMap;
use crate::{Error, Result};

/// When traffic needs a rule that allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EnforcementMode {
    /// In the directions in which a rule selects the endpoint, unless that rule says that it denies nothing by itself.
    #[default]
    Default,
    /// Always, in both directions, of every endpoint.
    Always,
    /// Never; rules are not looked at, those that deny neither.
    Never,
}

impl EnforcementMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Default, Self::Always, Self::Never];
}

/// As on Cilium's command line: `default`, `always`, `never`.
impl fmt::Display for EnforcementMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

impl FromStr for EnforcementMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|mode| mode.to_string() == text);
        named.ok_or_else(|| Error::invalid("policy enforcement mode", text, "expected default, always or never"))
    }
}

/// How policies are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyOptions {
    /// When traffic needs a rule that allows it.
    pub mode: EnforcementMode,
    /// The host may always reach its endpoints, as health checks demand, unless a rule denies it.
    pub allow_localhost: bool,
    /// The most entries that one endpoint's policy may have.
    pub max_entries: usize,
}

/// [`EnforcementMode::Default`], the host is let in, 16,384 entries.
impl Default for PolicyOptions {
    fn default() -> Self {
        Self { mode: EnforcementMode::Default, allow_localhost: true, max_entries: PolicyMap::MAX_ENTRIES as usize }
    }
}
