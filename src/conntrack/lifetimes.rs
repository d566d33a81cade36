//! How long connections last that carry no packets.

use std::time::Duration;

use crate::{Error, Result};

/// Seconds for which a packet keeps its connection's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtLifetimes {
    /// TCP, once more than the opening SYN was seen.
    pub tcp: u16,
    /// TCP of which only SYNs were seen.
    pub tcp_syn: u16,
    /// TCP after FINs of both sides, or a RST.
    pub closing: u16,
    /// Everything else.
    pub any: u16,
}

/// Six hours for TCP, as for Cilium's; the others too are those that its users know.
impl Default for CtLifetimes {
    fn default() -> Self {
        Self { tcp: 21_600, tcp_syn: 60, closing: 10, any: 60 }
    }
}

impl CtLifetimes {
    /// A lifetime as an entry holds it.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, naming `field`, for anything but 1 to 65535 whole seconds.
    pub fn seconds(field: &'static str, lifetime: Duration) -> Result<u16> {
        let whole = lifetime.subsec_nanos() == 0;
        u16::try_from(lifetime.as_secs()).ok().filter(|seconds| whole && *seconds > 0).ok_or_else(|| {
            Error::invalid(field, format!("{lifetime:?}"), "must be whole seconds, from 1 to 65535 (18h12m15s)")
        })
    }

    /// # Errors
    ///
    /// `InvalidInput` for a lifetime of 0: every packet would open a connection of its own.
    pub fn validate(&self) -> Result<()> {
        let Self { tcp, tcp_syn, closing, any } = *self;
        for (field, seconds) in [
            ("lifetime of TCP connections", tcp),
            ("lifetime of half-open TCP connections", tcp_syn),
            ("lifetime of closed TCP connections", closing),
            ("lifetime of other connections", any),
        ] {
            Self::seconds(field, Duration::from_secs(seconds.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_whole_seconds_that_fit() {
        let seconds = |lifetime| CtLifetimes::seconds("any", lifetime);
        assert_eq!(seconds(Duration::from_secs(1)).ok(), Some(1));
        assert_eq!(seconds(Duration::from_secs(65_535)).ok(), Some(65_535));
        for lifetime in [Duration::ZERO, Duration::from_millis(1500), Duration::from_secs(65_536), Duration::MAX] {
            let error = seconds(lifetime).expect_err("out of range").to_string();
            assert!(error.starts_with("any: ") && error.contains("65535"), "{error}");
        }
    }

    #[test]
    fn each_lifetime_is_checked() {
        let good = CtLifetimes::default();
        assert!(good.validate().is_ok());
        for (bad, named) in [
            (CtLifetimes { tcp: 0, ..good }, "of TCP"),
            (CtLifetimes { tcp_syn: 0, ..good }, "half-open"),
            (CtLifetimes { closing: 0, ..good }, "closed"),
            (CtLifetimes { any: 0, ..good }, "other"),
        ] {
            let error = bad.validate().expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
