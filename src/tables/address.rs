//! Addresses as the maps hold them: sixteen bytes, an IPv4 address in the first four and zero behind it, and a family byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::{Error, Result};

/// `ENDPOINT_IPV4` in the maps' family bytes.
pub(super) const IPV4: u8 = 1;
/// `ENDPOINT_IPV6` in the maps' family bytes.
pub(super) const IPV6: u8 = 2;

/// The bytes and the family of an address.
pub(super) const fn encode(address: IpAddr) -> ([u8; 16], u8) {
    match address {
        IpAddr::V4(address) => (encode_v4(address), IPV4),
        IpAddr::V6(address) => (address.octets(), IPV6),
    }
}

/// The address behind bytes and family; `None` for an unknown family.
pub(super) const fn decode(bytes: [u8; 16], family: u8) -> Option<IpAddr> {
    match family {
        IPV4 => Some(IpAddr::V4(decode_v4(bytes))),
        IPV6 => Some(IpAddr::V6(Ipv6Addr::from_octets(bytes))),
        _ => None,
    }
}

const fn encode_v4(address: Ipv4Addr) -> [u8; 16] {
    let [a, b, c, d] = address.octets();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

const fn decode_v4(bytes: [u8; 16]) -> Ipv4Addr {
    let [a, b, c, d, ..] = bytes;
    Ipv4Addr::new(a, b, c, d)
}

/// A prefix without bits behind its length; the bits would make two keys of one prefix.
pub(super) fn check_no_host_bits(field: &'static str, prefix: IpNetwork) -> Result<()> {
    if prefix.network() == prefix.ip() {
        return Ok(());
    }
    let expected = format!("has bits set behind its length; the network is {}/{}", prefix.network(), prefix.prefix());
    Err(Error::invalid(field, prefix.to_string(), expected))
}

/// The prefix of a trie's key, from its address and its length without the static bits; `None` where it is impossible.
pub(super) fn decode_prefix(bytes: [u8; 16], family: u8, bits: u32) -> Option<IpNetwork> {
    IpNetwork::new(decode(bytes, family)?, u8::try_from(bits).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_round_trip() {
        for text in ["10.1.2.3", "0.0.0.0", "fd00::1", "::", "::ffff:10.0.0.1"] {
            let address: IpAddr = text.parse().expect("valid");
            let (bytes, family) = encode(address);
            assert_eq!(decode(bytes, family), Some(address), "{text}");
        }
        assert_eq!(encode("10.1.2.3".parse().expect("valid")).0, [10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode([0; 16], 3), None);
    }

    #[test]
    fn prefixes_with_host_bits_are_refused() {
        assert!(check_no_host_bits("prefix", "10.1.2.0/24".parse().expect("valid")).is_ok());
        let error = check_no_host_bits("prefix", "10.1.2.3/24".parse().expect("valid")).expect_err("has host bits");
        assert!(error.to_string().contains("10.1.2.0/24"), "{error}");
        assert_eq!(decode_prefix([10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], IPV4, 33), None);
    }
}
