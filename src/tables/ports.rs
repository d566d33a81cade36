//! Port ranges as prefixes, the only form in which a longest-prefix-match key can hold them.

use std::fmt;
use std::ops::RangeInclusive;

/// The ports that share the first `bits` bits of `port`; `bits` is 0 to 16, the other bits of `port` are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortPrefix {
    port: u16,
    bits: u8,
}

impl PortPrefix {
    /// Every port.
    pub const ALL: Self = Self { port: 0, bits: 0 };

    /// One port.
    pub const fn single(port: u16) -> Self {
        Self { port, bits: 16 }
    }

    /// The ports that share `bits` bits with `port`; `None` where `bits` exceeds 16 or `port` has bits set behind them.
    pub const fn new(port: u16, bits: u8) -> Option<Self> {
        if bits > 16 || port & !mask(bits) != 0 {
            return None;
        }
        Some(Self { port, bits })
    }

    /// The lowest port, host order.
    pub const fn port(self) -> u16 {
        self.port
    }

    /// How many leading bits count.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.port | !mask(self.bits)
    }

    /// Whether a port is among them.
    pub const fn contains(self, port: u16) -> bool {
        port & mask(self.bits) == self.port
    }

    /// The fewest prefixes that together are exactly the ports of a range; none for an empty one. At most 30.
    pub fn cover(range: RangeInclusive<u16>) -> Vec<Self> {
        let (mut first, last) = (u32::from(*range.start()), u32::from(*range.end()));
        let mut prefixes = Vec::new();
        while first <= last {
            // The largest block that starts here: bounded by alignment and by what is left.
            let aligned = if first == 0 { 16 } else { first.trailing_zeros() };
            let left = (last - first + 1).ilog2();
            let size = aligned.min(left);
            // Both fit: first is at most 65535 within the loop, size at most 16.
            prefixes.push(Self { port: first as u16, bits: (16 - size) as u8 });
            first += 1 << size;
        }
        prefixes
    }
}

/// `80`, or `8080/12` for a prefix, or `ANY`.
impl fmt::Display for PortPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits {
            0 => f.write_str("ANY"),
            16 => write!(f, "{}", self.port),
            bits => write!(f, "{}/{bits}", self.port),
        }
    }
}

const fn mask(bits: u8) -> u16 {
    match bits {
        0 => 0,
        bits => u16::MAX << (16 - bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_covers() {
        let prefix = |port, bits| PortPrefix::new(port, bits).expect("valid");
        assert_eq!(PortPrefix::cover(0..=65535), [PortPrefix::ALL]);
        assert_eq!(PortPrefix::cover(80..=80), [PortPrefix::single(80)]);
        assert_eq!(PortPrefix::cover(1..=65535).len(), 16);
        assert_eq!(PortPrefix::cover(1..=65534).len(), 30);
        assert_eq!(PortPrefix::cover(1024..=2047), [prefix(1024, 6)]);
        assert_eq!(PortPrefix::cover(65535..=65535), [PortPrefix::single(65535)]);
        #[allow(clippy::reversed_empty_ranges)]
        let empty = 5..=4;
        assert!(PortPrefix::cover(empty).is_empty());
        assert_eq!(PortPrefix::new(81, 15), None);
        assert_eq!(PortPrefix::new(0, 17), None);
    }

    proptest! {
        #[test]
        fn a_cover_is_exact_and_disjoint(a: u16, b: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let prefixes = PortPrefix::cover(first..=last);
            let mut next = u32::from(first);
            for prefix in &prefixes {
                prop_assert_eq!(u32::from(prefix.port()), next);
                prop_assert_eq!(PortPrefix::new(prefix.port(), prefix.bits()), Some(*prefix));
                prop_assert!(prefix.contains(prefix.port()) && prefix.contains(prefix.last()));
                next = u32::from(prefix.last()) + 1;
            }
            prop_assert_eq!(next, u32::from(last) + 1);
            prop_assert!(prefixes.len() <= 30);
        }
    }
}
