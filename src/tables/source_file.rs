//! Numbers of source files in counters and events.

use std::fmt;

/// The file in which a packet was counted or dropped.
///
/// The numbers are this project's (`enum source_file` in `bpf/lib/common.h`); where Cilium has a file of the same purpose, its
/// number is used, so that its tools print the name of that file. Another number prints as `unknown(N)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceFile(u8);

impl SourceFile {
    /// `host.bpf.c`.
    pub const HOST: Self = Self(1);
    /// `lxc.bpf.c`.
    pub const LXC: Self = Self(2);
    /// `netdev.bpf.c`.
    pub const NETDEV: Self = Self(6);
    /// `admit.h`.
    pub const ADMIT: Self = Self(46);

    /// The file with a number.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The file's name under `bpf/`; `None` for a number that no file has.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "host.bpf.c",
            2 => "lxc.bpf.c",
            6 => "netdev.bpf.c",
            40 => "ipv4.h",
            41 => "ipv6.h",
            42 => "arp.h",
            43 => "ndp.h",
            44 => "deliver.h",
            45 => "transport.h",
            46 => "admit.h",
            _ => return None,
        })
    }
}

impl fmt::Display for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&format!("unknown({})", self.0)),
        }
    }
}
