//! `podwire_ct`: one entry per connection. `bpf/abi/conntrack.h` says how keys are normalised and what the flags mean.

use super::shared::shared_struct;

shared_struct! {
    /// Key of `podwire_ct`: the connection's two sides, the smaller (address, port) first.
    pub struct CtKey = podwire_ct_key {
        /// Address of the smaller side; an IPv4 one in the first four bytes, the rest zero.
        pub lo_addr: [u8; 16],
        /// Address of the greater side.
        pub hi_addr: [u8; 16],
        /// Port of the smaller side, network order.
        pub lo_port_be: u16,
        /// Port of the greater side, network order.
        pub hi_port_be: u16,
        /// IP protocol.
        pub proto: u8,
        /// 1 for IPv4, 2 for IPv6.
        pub family: u8,
        /// ICMP echo: 1 if the smaller side sends the requests, 2 if the greater; 0 for everything else.
        pub asker: u8,
        /// Padding, zero.
        pub pad: u8,
    }
}

shared_struct! {
    /// What an established packet of one direction needs.
    pub struct CtDir = podwire_ct_dir {
        /// Generation, turn and flags: see [`CtDir::seal`].
        pub seal: u64,
        /// Packets and bytes seen, in one word: see [`CtDir::set_counts`].
        pub counts: u64,
        /// What goes beyond that word, as it was a while ago.
        pub counts_high: u32,
        /// The upper part of the bytes, as it was then.
        pub bytes_high: u32,
        /// When this direction's claim on the entry ends, in jiffies64.
        pub expires: u64,
        /// Device the packets must come in by.
        pub in_ifindex: u32,
        /// Device they leave by.
        pub out_ifindex: u32,
        /// Destination address written to the Ethernet header.
        pub dst_mac: [u8; 6],
        /// Source address written to the Ethernet header.
        pub src_mac: [u8; 6],
        /// Every TCP flag seen, as in the header's fourteenth byte.
        pub tcp_flags: u8,
        /// Padding, zero.
        pub pad: u8,
        /// Seconds for which a packet of this direction keeps the entry.
        pub lifetime: u16,
        /// Source address the packets must come in with, where they come from a pod.
        pub in_mac: [u8; 6],
        /// Endpoint that receives; 0 for none.
        pub dst_id: u16,
    }
}

impl CtDir {
    /// Where the packets begin in the number that they and the bytes are counted in by one addition: packets × 2⁴⁴ + bytes.
    const COUNTS_SHIFT: u32 = 44;
    /// Where the part of that number begins that `counts_high` continues.
    const COUNTS_HIGH_SHIFT: u32 = 62;
    /// The same of the bytes and `bytes_high`.
    const BYTES_HIGH_SHIFT: u32 = 42;

    /// Sets how many packets and bytes were seen; of packets, up to 2⁴⁹.
    pub const fn set_counts(&mut self, packets: u64, bytes: u64) {
        let sum = ((packets as u128) << Self::COUNTS_SHIFT) + bytes as u128;
        self.counts = sum as u64;
        self.counts_high = (sum >> Self::COUNTS_HIGH_SHIFT) as u32;
        self.bytes_high = (bytes >> Self::BYTES_HIGH_SHIFT) as u32;
    }

    /// Packets seen.
    pub const fn packets(&self) -> u64 {
        let sum = continued(self.counts, Self::COUNTS_HIGH_SHIFT, self.counts_high);
        not_negative((sum - self.signed_bytes()) >> Self::COUNTS_SHIFT)
    }

    /// Bytes seen.
    pub const fn bytes(&self) -> u64 {
        not_negative(self.signed_bytes())
    }

    const fn signed_bytes(&self) -> i128 {
        continued(self.counts, Self::BYTES_HIGH_SHIFT, self.bytes_high)
    }

    /// A seal: the path holds under `generation`, as `flags` say, and was written for the `turn`th time (24 bits). Generation 0:
    /// none holds.
    pub const fn seal(generation: u32, turn: u32, flags: u8) -> u64 {
        (generation as u64) << 32 | ((turn & 0xff_ffff) as u64) << 8 | flags as u64
    }

    /// The generation under which the path was found; 0 for none.
    pub const fn generation(&self) -> u32 {
        (self.seal >> 32) as u32
    }

    /// The constants below, or'ed.
    pub const fn flags(&self) -> u8 {
        self.seal as u8
    }

    /// The path holds for the seal's generation.
    pub const JUDGED: u8 = 0x01;
    /// The verdict: let through.
    pub const ALLOWED: u8 = 0x02;
    /// Leave into the peer of `out_ifindex`.
    pub const REDIRECT_PEER: u8 = 0x04;
    /// Leave to the host's stack by `out_ifindex`.
    pub const TO_STACK: u8 = 0x08;
    /// Let through only because the policy is in audit mode.
    pub const AUDITED: u8 = 0x40;
    /// In both seals of an entry: it is free, or changes its connection.
    pub const MOVING: u8 = 0x80;
}

/// A number of which `low` has the lowest bits, two of them from `shift` on, and `high` those from `shift` on as they were up to two
/// steps ago. One step ahead they are where a packet was taken back that had been counted in another connection's place.
const fn continued(low: u64, shift: u32, high: u32) -> i128 {
    let lag = ((low >> shift) as u32).wrapping_sub(high) & 3;
    let steps = high as i128 + if lag == 3 { -1 } else { lag as i128 };
    (steps << shift) + (low & ((1 << shift) - 1)) as i128
}

const fn not_negative(count: i128) -> u64 {
    if count < 0 { 0 } else { count as u64 }
}

shared_struct! {
    /// A row of `podwire_ct`: a connection.
    pub struct CtEntry = podwire_ct_entry {
        /// By direction: packets of the key's `lo` side, then of its `hi` side.
        pub dir: [CtDir; 2],
        /// Whose entry this is.
        pub key: CtKey,
        /// Identity of the side that opened the connection.
        pub src_label: u32,
        /// Identity of the other side.
        pub dst_label: u32,
        /// Number of the rule that let the opener send; 0 for none.
        pub egress_rule: u32,
        /// Number of the rule that let the other side receive; 0 for none.
        pub ingress_rule: u32,
        /// Generation of the latest verdict that was reported; of a free entry: the next free one's number plus 1.
        pub judged: u32,
        /// 0 new, 1 established, 2 closing, 3 closed.
        pub state: u8,
        /// Direction of the first packet: 0 from `lo`, 1 from `hi`.
        pub opener: u8,
        /// The constants of this type, or'ed.
        pub flags: u16,
    }
}

impl CtEntry {
    /// TCP: more than the opening SYN was seen.
    pub const SEEN_NON_SYN: u16 = 0x0001;
    /// A RST was seen.
    pub const RST: u16 = 0x0002;
}

/// Entries of a bucket (`CT_WAYS`).
pub const CT_WAYS: usize = 8;

shared_struct! {
    /// A row of `podwire_ct_index`: places of entries whose keys have one of their two hashes in common.
    pub struct CtBucket = podwire_ct_bucket {
        /// 1 while somebody writes.
        pub lock: u32,
        /// Entries whose home this is, and which are in their other bucket.
        pub away: u32,
        /// Of the keys' hashes; 0 where a place is free.
        pub tag: [u16; CT_WAYS],
        /// 0 free, 1 over, 2 unanswered, 3 open: what is given up first in a full bucket.
        pub rank: [u8; CT_WAYS],
        /// Numbers of entries.
        pub slot: [u32; CT_WAYS],
    }
}

shared_struct! {
    /// The only row of `podwire_ct_pool`: entries that are free.
    pub struct CtPool = podwire_ct_pool {
        /// Turn << 32 | number of the first free entry plus 1; it knows the next one.
        pub free: u64,
        /// Entries below this number were in use before; those from here on never.
        pub used: u64,
        /// Padding, zero.
        pub pad: [u64; 6],
    }
}

shared_struct! {
    /// The argument of the program `podwire_ct_collect`.
    pub struct CtCollect = podwire_ct_collect {
        /// Out: jiffies64.
        pub now: u64,
        /// In: entry to begin with.
        pub first: u32,
        /// In: entries to look through; 0 only asks for the time.
        pub count: u32,
        /// In: not 0 removes what has not ended, too.
        pub everything: u32,
        /// Out: connections that were there.
        pub looked_at: u32,
        /// Out.
        pub removed: u32,
        /// Out: those that had ended and were left alone, because somebody was at them.
        pub busy: u32,
    }
}

/// Keys that one call of `podwire_ct_remove` takes (`CT_REMOVE_KEYS`).
pub const CT_REMOVE_KEYS: usize = 32;

shared_struct! {
    /// The argument of the program `podwire_ct_remove`: removes entries, whatever their state.
    pub struct CtRemove = podwire_ct_remove {
        /// In: how many of `keys` to look at.
        pub count: u32,
        /// Out.
        pub removed: u32,
        /// In.
        pub keys: [CtKey; CT_REMOVE_KEYS],
    }
}

shared_struct! {
    /// The argument of the program `podwire_ct_insert`: writes an entry, over the one that has its key.
    pub struct CtInsert = podwire_ct_insert {
        /// Out: 0, or a negative errno; `-EBUSY` where somebody held a lock, `-ENOSPC` where no entry was to be
        /// had.
        pub error: i32,
        /// Padding, zero.
        pub pad: u32,
        /// In. Seals keep their generation and flags, and get a turn.
        pub entry: CtEntry,
    }
}

shared_struct! {
    /// Key of `cilium_ipv4_frag_datagrams`: a packet that came in fragments.
    pub struct Ipv4FragId = ipv4_frag_id {
        /// Destination address.
        pub daddr: u32,
        /// Source address.
        pub saddr: u32,
        /// Identification, network order.
        pub id_be: u16,
        /// IP protocol.
        pub proto: u8,
        /// Padding, zero.
        pub pad: u8,
    }
}

shared_struct! {
    /// Key of `cilium_ipv6_frag_datagrams`.
    pub struct Ipv6FragId = ipv6_frag_id {
        /// Identification, network order.
        pub id_be: u32,
        /// IP protocol.
        pub proto: u8,
        /// Padding, zero.
        pub pad: [u8; 3],
        /// Source address.
        pub saddr: [u8; 16],
        /// Destination address.
        pub daddr: [u8; 16],
    }
}

shared_struct! {
    /// Value of both: the ports of the first fragment; for ICMP echo the identifier and the type.
    pub struct FragPorts = frag_l4ports {
        /// Source port, network order.
        pub sport_be: u16,
        /// Destination port, network order.
        pub dport_be: u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a program counts a packet on the short way.
    fn count(dir: &mut CtDir, length: u64) {
        dir.counts = dir.counts.wrapping_add((1 << CtDir::COUNTS_SHIFT) + length);
    }

    #[test]
    fn counts_go_on_where_their_words_end() {
        const TERABYTES: u64 = 1 << CtDir::BYTES_HIGH_SHIFT;
        for (packets, bytes) in [
            (0, 0),
            ((1 << 18) - 1, TERABYTES - 1),
            ((1 << 20) - 1, 4 * TERABYTES - 1),
            ((1 << 20) - 1, 0),
            ((1 << 49) - 2, u64::MAX - 1500),
        ] {
            let mut dir = CtDir::default();
            dir.set_counts(packets, bytes);
            assert_eq!((dir.packets(), dir.bytes()), (packets, bytes));
            count(&mut dir, 1500);
            assert_eq!((dir.packets(), dir.bytes()), (packets + 1, bytes + 1500));
        }
    }

    #[test]
    fn upper_parts_may_lag() {
        let mut dir = CtDir::default();
        for packets in 1..=(3 << 18) - 1 {
            count(&mut dir, 64_000);
            assert_eq!((dir.packets(), dir.bytes()), (packets, 64_000 * packets));
        }
        assert_eq!((dir.counts_high, dir.bytes_high), (0, 0));
    }

    #[test]
    fn what_was_taken_back_too_often_counts_as_nothing() {
        let mut dir = CtDir { counts: 0u64.wrapping_sub((1 << CtDir::COUNTS_SHIFT) + 60), ..CtDir::default() };
        assert_eq!((dir.packets(), dir.bytes()), (0, 0));
        count(&mut dir, 100);
        assert_eq!((dir.packets(), dir.bytes()), (0, 40));
        count(&mut dir, 100);
        assert_eq!((dir.packets(), dir.bytes()), (1, 140));
    }
}
