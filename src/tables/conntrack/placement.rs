//! Where in `podwire_ct_index` a connection stands, as `bpf/lib/conntrack_table.h` computes it.

use crate::abi::CtKey;
use crate::tables::switches::HashKeys;

/// The buckets in which a connection may stand, and what marks its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// Where it belongs.
    pub(super) home: u32,
    /// Where it stands when its home was full. May be the same.
    pub(super) other: u32,
    /// Never 0.
    pub(super) tag: u16,
}

impl Placement {
    /// In a table of so many buckets, by the keys of its hash.
    pub(super) fn of(key: &CtKey, hash_keys: &HashKeys, buckets: u32) -> Self {
        let hash = hash(bytemuck::cast(*key), hash_keys);
        let again = hash_again(hash);
        // A multiplication spreads 32 bits over any number of buckets, without a division.
        let bucket = |hash: u64| (((hash >> 32) * u64::from(buckets)) >> 32) as u32;
        Self { home: bucket(hash), other: bucket(again), tag: again as u16 | 1 }
    }
}

/// Multilinear, over the words of a key with secret multipliers: the upper bits are the good ones.
fn hash(words: [u64; 5], hash_keys: &HashKeys) -> u64 {
    words.iter().zip(hash_keys).map(|(word, key)| word.wrapping_mul(*key)).fold(0, u64::wrapping_add)
}

/// Other bits of a hash, all of them good.
fn hash_again(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: HashKeys = [
        0x9e37_79b9_7f4a_7c15,
        0xc2b2_ae3d_27d4_eb4f,
        0x1656_67b1_9e37_79f9,
        0x27d4_eb2f_1656_67c5,
        0x85eb_ca77_c2b2_ae63,
    ];

    fn key(last: u8) -> CtKey {
        let mut key = CtKey {
            lo_port_be: 40_000_u16.to_be(),
            hi_port_be: 80_u16.to_be(),
            proto: 6,
            family: 1,
            ..CtKey::default()
        };
        key.lo_addr[..4].copy_from_slice(&[10, 0, 0, last]);
        key.hi_addr[..4].copy_from_slice(&[10, 0, 0, 200]);
        key
    }

    /// Computed apart from this code; on a machine of the other byte order the words are others.
    #[test]
    #[cfg(target_endian = "little")]
    fn golden() {
        assert_eq!(hash(bytemuck::cast(key(1)), &KEYS), 0xc8a9_116e_048e_a0e0);
        let Placement { home, other, tag } = Placement::of(&key(1), &KEYS, 32_768);
        assert_eq!((home, other, tag), (25684, 14430, 0x8193));
        let Placement { home, other, tag } = Placement::of(&key(1), &KEYS, 1000);
        assert_eq!((home, other, tag), (783, 440, 0x8193));
        assert_eq!(hash([0; 5], &KEYS), 0);
        assert_eq!(Placement::of(&CtKey::default(), &KEYS, 7), Placement { home: 0, other: 0, tag: 1 });
    }

    #[test]
    fn buckets_are_in_the_table_and_evenly_used() {
        for buckets in [1, 2, 3, 64, 1000] {
            let mut used = vec![[0_u32; 2]; buckets as usize];
            for number in 0..buckets * 200 {
                let mut key = key(number as u8);
                key.hi_port_be = (number >> 8) as u16;
                let Placement { home, other, tag } = Placement::of(&key, &KEYS, buckets);
                assert_eq!(tag & 1, 1);
                used[home as usize][0] += 1;
                used[other as usize][1] += 1;
            }
            let counts = used.as_flattened();
            assert!(counts.iter().all(|count| (120..=280).contains(count)), "{buckets} buckets: {counts:?}");
        }
    }
}
