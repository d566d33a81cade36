//! How long an allocation lasts.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest period or delay: deadlines stay far from the end of the clock.
const MAX_PERIOD: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long an allocation lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is released.
    #[default]
    Permanent,
    /// For this period (a millisecond to a year), unless it is claimed within it.
    UnlessClaimed(Duration),
}

/// An allocation's deadline, and what claims it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiration {
    /// What to present to [`Ipam::claim`](super::Ipam::claim).
    pub id: ExpirationId,
    /// When the allocation is released unless claimed.
    pub deadline: Instant,
}

/// The id of an expiration: a random UUID (RFC 9562, version 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExpirationId(u128);

impl ExpirationId {
    /// A new id.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        // the kernel gives up to 256 bytes at once, never part of them
        getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| Error::system("read", "random bytes", error))?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for ExpirationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = |shift: u32, digits: u32| (self.0 >> shift) & ((1 << (4 * digits)) - 1);
        let (low, middle, high, sequence) = (field(96, 8), field(80, 4), field(64, 4), field(48, 4));
        write!(f, "{low:08x}-{middle:04x}-{high:04x}-{sequence:04x}-{:012x}", field(0, 12))
    }
}

impl FromStr for ExpirationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || Error::invalid("expiration id", text, "expected a UUID, as in 123e4567-e89b-42d3-a456-426614174000");
        let bytes = text.as_bytes();
        let well_formed = bytes.len() == 36
            && bytes.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if !well_formed {
            return Err(bad());
        }
        u128::from_str_radix(&text.replace('-', ""), 16).map(Self).map_err(|_| bad())
    }
}

impl TryFrom<String> for ExpirationId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ExpirationId> for String {
    fn from(id: ExpirationId) -> Self {
        id.to_string()
    }
}

pub(super) fn check_period(field: &'static str, period: Duration, least: Duration) -> Result<()> {
    if period < least || period > MAX_PERIOD {
        return Err(Error::invalid(field, format!("{period:?}"), format!("expected {least:?} to 365 days")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_differ() {
        let id = ExpirationId::random().expect("random bytes");
        let text = id.to_string();
        assert_eq!(text.parse::<ExpirationId>().expect("parses"), id);
        assert_eq!(&text[14..15], "4", "version 4");
        assert!("89ab".contains(&text[19..20]), "RFC variant: {text}");
        assert_ne!(ExpirationId::random().expect("random bytes"), id);
        for bad in [
            "",
            "123e4567-e89b-42d3-a456-42661417400",
            "123e4567-e89b-42d3-a456-4266141740zz",
            "+23e4567-e89b-42d3-a456-426614174000",
        ] {
            assert!(bad.parse::<ExpirationId>().is_err(), "{bad} was accepted");
        }
    }
}
