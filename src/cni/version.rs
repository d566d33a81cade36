//! The versions of the CNI specification that are spoken.

use std::fmt;

use super::error::{CniError, ErrorCode};

/// A version of the specification; ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CniVersion {
    /// 0.3.1: the oldest with a list of interfaces and addresses in the result.
    V0_3_1,
    /// 0.4.0: adds CHECK and `prevResult` on DEL.
    V0_4_0,
    /// 1.0.0: addresses no longer carry a `version` field.
    V1_0_0,
    /// 1.1.0: adds GC, STATUS and more fields of interfaces and routes.
    V1_1_0,
}

impl CniVersion {
    /// Every supported version, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest one.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as it is written in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version a configuration asks for; any other than those of [`Self::ALL`] is refused with code 1. An empty one
    /// means 0.1.0, as the specification's first versions had it.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        let asked = if text.is_empty() { "0.1.0" } else { text };
        Self::ALL.into_iter().find(|version| version.as_str() == asked).ok_or_else(|| {
            let supported: Vec<_> = Self::ALL.iter().map(|version| version.as_str()).collect();
            CniError::new(ErrorCode::IncompatibleVersion, "incompatible CNI versions").with_details(format!(
                "the configuration's cniVersion is {asked:?}, supported are {}",
                supported.join(", ")
            ))
        })
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_versions_are_accepted() {
        for version in CniVersion::ALL {
            assert_eq!(CniVersion::parse(version.as_str()).expect("supported"), version);
        }
        for bad in ["", "0.1.0", "0.2.0", "0.3.0", "1.0", "1.2.0", "9.9.9", " 1.0.0", "v1.0.0"] {
            let error = CniVersion::parse(bad).expect_err(bad);
            assert_eq!(error.code(), 1, "{bad}");
        }
        assert!(CniVersion::V0_4_0 < CniVersion::V1_0_0);
    }
}
