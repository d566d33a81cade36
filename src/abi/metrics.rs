//! `cilium_metrics`: packets and bytes by reason and direction.

use super::shared::shared_struct;

shared_struct! {
    /// Key of `cilium_metrics`.
    pub struct MetricsKey = metrics_key {
        /// 0 for forwarded packets, else the drop reason as a positive number.
        pub reason: u8,
        /// 1 ingress, 2 egress, 3 service.
        pub dir: u8,
        /// Source line that counted.
        pub line: u16,
        /// Source file that counted.
        pub file: u8,
        /// Padding, zero.
        pub reserved: [u8; 3],
    }
}

shared_struct! {
    /// Value of `cilium_metrics`, one per CPU.
    pub struct MetricsValue = metrics_value {
        /// Packets.
        pub count: u64,
        /// Bytes.
        pub bytes: u64,
    }
}
