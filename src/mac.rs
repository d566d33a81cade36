//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An Ethernet address; printed and parsed as `8a:65:66:99:93:67` (`{:X}` prints capitals).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address with these octets, in the order in which they are sent.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets, in the order in which they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The octets followed by two zero bytes, as the maps hold them.
    pub const fn padded(self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self.0;
        [a, b, c, d, e, f, 0, 0]
    }

    /// The address in the first six of eight bytes.
    pub const fn from_padded(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, _, _] = bytes;
        Self([a, b, c, d, e, f])
    }

    /// A unicast, locally administered address made from random octets.
    pub const fn local_unicast(mut random: [u8; 6]) -> Self {
        random[0] = (random[0] & !0x01) | 0x02;
        Self(random)
    }

    /// Another such address each time. A device that is made with one keeps it: systemd-udevd changes those that the kernel chose.
    ///
    /// # Errors
    ///
    /// The kernel's, when it gives no random bytes.
    pub fn random() -> Result<Self> {
        let mut octets = [0; 6];
        rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::system("read", "random bytes", error))?;
        Ok(Self::local_unicast(octets))
    }

    /// Whether a device can bear the address: unicast and not all zeroes.
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::UpperHex for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{g:02X}")
    }
}

impl FromStr for MacAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid("MAC address", text, "expected six octets in hexadecimal, as in 8a:65:66:99:93:67");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(bad)?;
            // from_str_radix would accept a sign
            if !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_malformed() {
        let mac: MacAddr = "8A:65:66:99:93:67".parse().expect("valid");
        assert_eq!(mac.to_string(), "8a:65:66:99:93:67");
        assert_eq!(format!("{mac:X}"), "8A:65:66:99:93:67");
        assert_eq!(MacAddr::from_padded(mac.padded()), mac);
        for bad in
            ["", "8a:65:66:99:93", "8a:65:66:99:93:67:00", "8a:65:66:99:93:+7", "8g:65:66:99:93:67", "8a65:66:99:93:67"]
        {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn local_unicast_sets_the_bits() {
        let mac = MacAddr::local_unicast([0xff; 6]);
        assert_eq!(mac.octets()[0], 0xfe);
        assert!(mac.is_unicast());
        assert!(!MacAddr::default().is_unicast());
    }
}
