//! Where a trace event saw its packet.

/// An observation point. The numbers are Cilium's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TracePoint {
    /// Delivered to a pod.
    ToEndpoint,
    /// Entering the host's stack through `cilium_host` or `cilium_net`.
    ToHost,
    /// Handed to the host's stack by a pod's program.
    ToStack,
    /// Sent by a pod.
    FromEndpoint,
    /// Sent by the host's stack towards the pods.
    FromHost,
    /// Received on the native device.
    FromNetwork,
    /// Sent on the native device.
    ToNetwork,
    /// A number this build does not know.
    Other(u8),
}

impl TracePoint {
    /// The point with a number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::ToEndpoint,
            2 => Self::ToHost,
            3 => Self::ToStack,
            5 => Self::FromEndpoint,
            7 => Self::FromHost,
            10 => Self::FromNetwork,
            11 => Self::ToNetwork,
            other => Self::Other(other),
        }
    }

    /// The name that users filter by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToEndpoint => "to-endpoint",
            Self::ToHost => "to-host",
            Self::ToStack => "to-stack",
            Self::FromEndpoint => "from-endpoint",
            Self::FromHost => "from-host",
            Self::FromNetwork => "from-network",
            Self::ToNetwork => "to-network",
            Self::Other(_) => "unknown",
        }
    }
}
