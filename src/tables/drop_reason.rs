//! Why a packet was dropped, or what else a counter counts: Cilium's numbers, texts and names, which its operators know.

use std::fmt;

macro_rules! drop_reasons {
    ($($code:literal $name:ident = $text:literal, $flow:literal;)+) => {
        /// Why a packet was dropped.
        ///
        /// Programs return the negative of the number, counters and events hold it as it stands here (130 and above).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = concat!($text, ".")] $name = $code,)+
        }

        impl DropReason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason with a number; `None` where there is none.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The text that operators read.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The name in flow records (`flow.DropReason`).
            pub const fn flow_name(self) -> &'static str {
                match self {
                    $(Self::$name => $flow,)+
                }
            }
        }
    };
}

drop_reasons! {
    130 InvalidSourceMac = "Invalid source mac", "INVALID_SOURCE_MAC";
    131 InvalidDestinationMac = "Invalid destination mac", "INVALID_DESTINATION_MAC";
    132 InvalidSourceIp = "Invalid source ip", "INVALID_SOURCE_IP";
    133 PolicyDenied = "Policy denied", "POLICY_DENIED";
    134 InvalidPacket = "Invalid packet", "INVALID_PACKET_DROPPED";
    135 CtInvalidHeader = "CT: Truncated or invalid header", "CT_TRUNCATED_OR_INVALID_HEADER";
    136 FragmentationNeeded = "Fragmentation needed", "CT_MISSING_TCP_ACK_FLAG";
    137 CtUnknownL4Protocol = "CT: Unknown L4 protocol", "CT_UNKNOWN_L4_PROTOCOL";
    138 CtCannotCreate = "CT: Can't create entry from packet", "CT_CANNOT_CREATE_ENTRY_FROM_PACKET";
    139 UnsupportedL3Protocol = "Unsupported L3 protocol", "UNSUPPORTED_L3_PROTOCOL";
    140 MissedTailCall = "Missed tail call", "MISSED_TAIL_CALL";
    141 WriteError = "Error writing to packet", "ERROR_WRITING_TO_PACKET";
    142 UnknownL4Protocol = "Unknown L4 protocol", "UNKNOWN_L4_PROTOCOL";
    143 UnknownIcmpV4Code = "Unknown ICMPv4 code", "UNKNOWN_ICMPV4_CODE";
    144 UnknownIcmpV4Type = "Unknown ICMPv4 type", "UNKNOWN_ICMPV4_TYPE";
    145 UnknownIcmpV6Code = "Unknown ICMPv6 code", "UNKNOWN_ICMPV6_CODE";
    146 UnknownIcmpV6Type = "Unknown ICMPv6 type", "UNKNOWN_ICMPV6_TYPE";
    147 NoTunnelKey = "Error retrieving tunnel key", "ERROR_RETRIEVING_TUNNEL_KEY";
    148 NoTunnelOptions = "Error retrieving tunnel options", "ERROR_RETRIEVING_TUNNEL_OPTIONS";
    149 InvalidGeneveOption = "Invalid Geneve option", "INVALID_GENEVE_OPTION";
    150 UnknownL3Target = "Unknown L3 target address", "UNKNOWN_L3_TARGET_ADDRESS";
    151 StaleOrUnroutable = "Stale or unroutable IP", "STALE_OR_UNROUTABLE_IP";
    152 NoLocalContainer = "No matching local container found", "NO_MATCHING_LOCAL_CONTAINER_FOUND";
    153 L3ChecksumError = "Error while correcting L3 checksum", "ERROR_WHILE_CORRECTING_L3_CHECKSUM";
    154 L4ChecksumError = "Error while correcting L4 checksum", "ERROR_WHILE_CORRECTING_L4_CHECKSUM";
    155 CtInsertFailed = "CT: Map insertion failed", "CT_MAP_INSERTION_FAILED";
    156 InvalidIpV6Extension = "Invalid IPv6 extension header", "INVALID_IPV6_EXTENSION_HEADER";
    157 FragmentsUnsupported = "IP fragmentation not supported", "IP_FRAGMENTATION_NOT_SUPPORTED";
    158 NoServiceBackend = "Service backend not found", "SERVICE_BACKEND_NOT_FOUND";
    160 NoTunnelEndpoint = "No tunnel/encapsulation endpoint (datapath BUG!)", "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT";
    161 Nat46x64Disabled = "NAT 46/64 not enabled", "FAILED_TO_INSERT_INTO_PROXYMAP";
    162 EdtHorizon = "Reached EDT rate-limiting drop horizon", "REACHED_EDT_RATE_LIMITING_DROP_HORIZON";
    163 UnknownCtState = "Unknown connection tracking state", "UNKNOWN_CONNECTION_TRACKING_STATE";
    164 HostUnreachable = "Local host is unreachable", "LOCAL_HOST_IS_UNREACHABLE";
    165 NoPolicyConfiguration = "No configuration available to perform policy decision", "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION";
    166 UnsupportedL2Protocol = "Unsupported L2 protocol", "UNSUPPORTED_L2_PROTOCOL";
    167 NoNatMapping = "No mapping for NAT masquerade", "NO_MAPPING_FOR_NAT_MASQUERADE";
    168 NatUnsupportedProtocol = "Unsupported protocol for NAT masquerade", "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE";
    169 FibLookupFailed = "FIB lookup failed", "FIB_LOOKUP_FAILED";
    170 EncapsulationProhibited = "Encapsulation traffic is prohibited", "ENCAPSULATION_TRAFFIC_IS_PROHIBITED";
    171 InvalidIdentity = "Invalid identity", "INVALID_IDENTITY";
    172 UnknownSender = "Unknown sender", "UNKNOWN_SENDER";
    173 NatNotNeeded = "NAT not needed", "NAT_NOT_NEEDED";
    174 IsClusterIp = "Is a ClusterIP", "IS_A_CLUSTERIP";
    175 FirstFragmentNotFound = "First logical datagram fragment not found", "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND";
    176 ForbiddenIcmpV6 = "Forbidden ICMPv6 message", "FORBIDDEN_ICMPV6_MESSAGE";
    177 SourceRangeDenied = "Denied by LB src range check", "DENIED_BY_LB_SRC_RANGE_CHECK";
    178 SocketLookupFailed = "Socket lookup failed", "SOCKET_LOOKUP_FAILED";
    179 SocketAssignFailed = "Socket assign failed", "SOCKET_ASSIGN_FAILED";
    180 ProxyUnsupportedProtocol = "Proxy redirection not supported for protocol", "PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL";
    181 PolicyDenyRule = "Policy denied by denylist", "POLICY_DENY";
    182 VlanFiltered = "VLAN traffic disallowed by VLAN filter", "VLAN_FILTERED";
    183 InvalidVni = "Incorrect VNI from VTEP", "INVALID_VNI";
    184 InvalidTcBuffer = "Failed to update or lookup TC buffer", "INVALID_TC_BUFFER";
    185 NoSid = "No SID was found for the IP address", "NO_SID";
    186 MissingSrv6State = "SRv6 state was removed during tail call", "MISSING_SRV6_STATE";
    187 Nat46Failed = "L3 translation from IPv4 to IPv6 failed (NAT46)", "NAT46";
    188 Nat64Failed = "L3 translation from IPv6 to IPv4 failed (NAT64)", "NAT64";
    189 AuthRequired = "Authentication required", "AUTH_REQUIRED";
    190 NoCtMap = "No conntrack map found", "CT_NO_MAP_FOUND";
    191 NoNatMap = "No nat map found", "SNAT_NO_MAP_FOUND";
    192 InvalidClusterId = "Invalid ClusterID", "INVALID_CLUSTER_ID";
    193 DsrUnsupportedProtocol = "Unsupported packet protocol for DSR encapsulation", "UNSUPPORTED_PROTOCOL_FOR_DSR_ENCAP";
    194 NoEgressGateway = "No egress gateway found", "NO_EGRESS_GATEWAY";
    195 Unencrypted = "Traffic is unencrypted", "UNENCRYPTED_TRAFFIC";
    196 TtlExceeded = "TTL exceeded", "TTL_EXCEEDED";
    197 NoNodeId = "No node ID found", "NO_NODE_ID";
    198 RateLimited = "Rate limited", "DROP_RATE_LIMITED";
    199 IgmpHandled = "IGMP handled", "IGMP_HANDLED";
    200 IgmpSubscribed = "IGMP subscribed", "IGMP_SUBSCRIBED";
    201 MulticastHandled = "Multicast handled", "MULTICAST_HANDLED";
    202 HostNotReady = "Host datapath not ready", "DROP_HOST_NOT_READY";
    203 EndpointNotReady = "Endpoint policy program not available", "DROP_EP_NOT_READY";
    204 NoEgressIp = "No Egress IP configured", "DROP_NO_EGRESS_IP";
    205 PuntProxy = "Punt to proxy", "DROP_PUNT_PROXY";
    206 NoDevice = "No device", "NO_DEVICE";
    207 FirstFragmentFromWorldNotFound = "First logical datagram fragment not found from world", "DROP_FRAG_NOT_FOUND_WORLD";
}

impl DropReason {
    /// The number in counters and events.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What a program returns: the negative number.
    pub const fn code(self) -> i32 {
        -(self as i32)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// What a counter of `cilium_metrics` counts: a drop reason, or something that happened to packets which went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Packets that were let through (0).
    Forwarded,
    /// Packets that something else happened to; the number is below 130.
    Note(u8),
    /// Packets that were dropped.
    Drop(DropReason),
    /// Packets dropped for a reason this build does not know; the number is 130 or above.
    UnknownDrop(u8),
}

impl Reason {
    /// The first number that means a drop.
    pub const FIRST_DROP: u8 = 130;

    /// The reason with the number that counters hold.
    pub const fn from_number(number: u8) -> Self {
        match (number, DropReason::from_number(number)) {
            (0, _) => Self::Forwarded,
            (_, Some(drop)) => Self::Drop(drop),
            (Self::FIRST_DROP.., None) => Self::UnknownDrop(number),
            (_, None) => Self::Note(number),
        }
    }

    /// The number that counters hold.
    pub const fn number(self) -> u8 {
        match self {
            Self::Forwarded => 0,
            Self::Note(number) | Self::UnknownDrop(number) => number,
            Self::Drop(drop) => drop.number(),
        }
    }

    /// Whether the packets were dropped.
    pub const fn is_drop(self) -> bool {
        matches!(self, Self::Drop(_) | Self::UnknownDrop(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarded => f.pad("Success"),
            Self::Drop(drop) => drop.fmt(f),
            Self::Note(number) | Self::UnknownDrop(number) => match note_text(*number) {
                Some(text) => f.pad(text),
                None => f.pad(&number.to_string()),
            },
        }
    }
}

const fn note_text(number: u8) -> Option<&'static str> {
    Some(match number {
        2 => "Invalid packet",
        3 => "Interface",
        4 => "Interface Decrypted",
        5 => "LB: sock cgroup: No backend slot entry found",
        6 => "LB: sock cgroup: No backend entry found",
        7 => "LB: sock cgroup: Reverse entry update failed",
        8 => "LB: sock cgroup: Reverse entry stale",
        9 => "Fragmented packet",
        10 => "Fragmented packet entry update failed",
        11 => "Missed tail call to custom program",
        12 => "Interface Decrypting",
        13 => "Interface Encrypting",
        14 => "LB: sock cgroup: Reverse entry delete succeeded",
        15 => "MTU error message",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts() {
        assert_eq!(DropReason::PolicyDenied.code(), -133);
        assert_eq!(DropReason::PolicyDenyRule.number(), 181);
        assert_eq!(Reason::from_number(0).to_string(), "Success");
        assert_eq!(Reason::from_number(3).to_string(), "Interface");
        assert_eq!(Reason::from_number(150).to_string(), "Unknown L3 target address");
        assert_eq!(Reason::from_number(159), Reason::UnknownDrop(159));
        assert_eq!(Reason::from_number(159).to_string(), "159");
        assert!(!Reason::from_number(129).is_drop());
        for number in 0..=u8::MAX {
            assert_eq!(Reason::from_number(number).number(), number);
        }
        assert!(DropReason::ALL.is_sorted());
        assert!(DropReason::ALL.iter().all(|reason| DropReason::from_number(reason.number()) == Some(*reason)));
    }
}
