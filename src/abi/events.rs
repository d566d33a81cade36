//! Heads of the records in the event ring. The first `len_cap` bytes of the packet follow each of them.

use super::shared::shared_struct;

shared_struct! {
    /// A packet was dropped.
    pub struct DropNotify = drop_notify {
        /// [`DropNotify::TYPE`].
        pub r#type: u8,
        /// The drop reason as a positive number.
        pub subtype: u8,
        /// Endpoint id whose program dropped; 0 for the host's.
        pub source: u16,
        /// The packet's hash.
        pub hash: u32,
        /// The packet's length in bytes.
        pub len_orig: u32,
        /// Bytes of the packet that follow this struct.
        pub len_cap: u16,
        /// [`DropNotify::VERSION`].
        pub version: u8,
        /// Version of an extension; 0 for none.
        pub ext_version: u8,
        /// Identity of the source.
        pub src_label: u32,
        /// Identity of the destination.
        pub dst_label: u32,
        /// Endpoint id of the destination; 0 for the host or unknown.
        pub dst_id: u32,
        /// Source line that dropped.
        pub line: u16,
        /// Source file that dropped.
        pub file: u8,
        /// Detail of the reason, such as a helper's negative errno.
        pub ext_error: i8,
        /// Device on which the packet was.
        pub ifindex: u32,
        /// 1 IPv6, 2 no Ethernet header, 4 VXLAN, 8 Geneve.
        pub flags: u8,
        /// Padding, zero.
        pub pad2: [u8; 3],
        /// Trace id carried in an IP option; 0 for none.
        pub ip_trace_id: u64,
    }
}

impl DropNotify {
    /// The first byte of the record.
    pub const TYPE: u8 = 1;
    /// The version this layout has.
    pub const VERSION: u8 = 3;
}

shared_struct! {
    /// A packet passed a trace point.
    pub struct TraceNotify = trace_notify {
        /// [`TraceNotify::TYPE`].
        pub r#type: u8,
        /// The trace point (`enum trace_point` in `bpf/abi/events.h`).
        pub subtype: u8,
        /// Endpoint id whose program traced; 0 for the host's.
        pub source: u16,
        /// The packet's hash.
        pub hash: u32,
        /// The packet's length in bytes.
        pub len_orig: u32,
        /// Bytes of the packet that follow this struct.
        pub len_cap: u16,
        /// [`TraceNotify::VERSION`].
        pub version: u8,
        /// Version of an extension; 0 for none.
        pub ext_version: u8,
        /// Identity of the source.
        pub src_label: u32,
        /// Identity of the destination.
        pub dst_label: u32,
        /// Endpoint id of the destination; 0 for the host or unknown.
        pub dst_id: u16,
        /// What connection tracking knew: 0 new, 1 established, 2 reply, 3 related, 5 unknown; 128 is added when encrypted.
        pub reason: u8,
        /// 1 IPv6, 2 no Ethernet header, 4 VXLAN, 8 Geneve.
        pub flags: u8,
        /// Device on which the packet was.
        pub ifindex: u32,
        /// Source address before translation; an IPv4 one in the first four bytes, the rest zero.
        pub orig_ip: [u8; 16],
        /// Trace id carried in an IP option; 0 for none.
        pub ip_trace_id: u64,
    }
}

impl TraceNotify {
    /// The first byte of the record.
    pub const TYPE: u8 = 4;
    /// The version this layout has.
    pub const VERSION: u8 = 2;
}

shared_struct! {
    /// A policy gave its verdict on a new connection.
    pub struct PolicyVerdictNotify = policy_verdict_notify {
        /// [`PolicyVerdictNotify::TYPE`].
        pub r#type: u8,
        /// Unused, zero.
        pub subtype: u8,
        /// Endpoint id whose policy judged.
        pub source: u16,
        /// The packet's hash.
        pub hash: u32,
        /// The packet's length in bytes.
        pub len_orig: u32,
        /// Bytes of the packet that follow this struct.
        pub len_cap: u16,
        /// [`PolicyVerdictNotify::VERSION`].
        pub version: u8,
        /// Version of an extension; 0 for none.
        pub ext_version: u8,
        /// Identity of the peer.
        pub remote_label: u32,
        /// A negative drop reason, 0 for allowed, a positive proxy port.
        pub verdict: i32,
        /// Destination port, host order.
        pub dst_port: u16,
        /// IP protocol.
        pub proto: u8,
        /// Direction (bits 0-1), IPv6 (2), what matched (3-5), audited (6), layer 3 only (7).
        pub flags: u8,
        /// Authentication the entry asks for.
        pub auth_type: u8,
        /// The packet at hand: 0 one of the opener's, 1 a reply, 2 an ICMP error about one of the opener's, 3 about a reply.
        pub raised_by: u8,
        /// Padding, zero.
        pub pad1: [u8; 2],
        /// Number of the rule that decided.
        pub cookie: u32,
        /// Padding, zero.
        pub pad2: u32,
    }
}

impl PolicyVerdictNotify {
    /// The first byte of the record.
    pub const TYPE: u8 = 5;
    /// The version this layout has.
    pub const VERSION: u8 = 1;
    /// Bits of `flags` that hold the direction: 1 ingress, 2 egress.
    pub const DIR_MASK: u8 = 0x03;
    /// The packet is IPv6.
    pub const IPV6: u8 = 0x04;
    /// Bits of `flags` that say what matched.
    pub const MATCH_MASK: u8 = 0x38;
    /// Where [`PolicyVerdictNotify::MATCH_MASK`] begins.
    pub const MATCH_SHIFT: u32 = 3;
    /// The verdict was only noted, not enforced.
    pub const AUDITED: u8 = 0x40;
    /// Decided on layer 3 alone.
    pub const L3: u8 = 0x80;
    /// Of `raised_by`: a reply, or an error about one.
    pub const BY_REPLY: u8 = 1;
    /// Of `raised_by`: an ICMP error about a packet of the connection.
    pub const BY_ERROR: u8 = 2;
}
