//! `cilium_ipcache_v2`: identity and whereabouts of a peer by longest prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bitflags::bitflags;
use ipnetwork::IpNetwork;

use crate::abi::{IpCacheKey, RemoteEndpointInfo};
use crate::maps::{LpmTrie, MapSpec, Update};
use crate::tables::address;
use crate::tables::table::{RDONLY_PROG, one_map_table};
use crate::{Result, SecurityId};

bitflags! {
    /// How a peer is reached.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct IpCacheFlags: u8 {
        /// Without a tunnel, even where tunnels are the rule.
        const SKIP_TUNNEL = 1;
        /// Through the tunnel to the endpoint given; set and cleared with it.
        const HAS_TUNNEL = 2;
        /// The tunnel's endpoint is an IPv6 address; set and cleared with it.
        const TUNNEL_IPV6 = 4;
        /// The peer is in another cluster.
        const REMOTE_CLUSTER = 8;
        const _ = !0;
    }
}

impl IpCacheFlags {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::SKIP_TUNNEL, "skiptunnel"),
        (Self::HAS_TUNNEL, "hastunnel"),
        (Self::TUNNEL_IPV6, "ipv6tunnel"),
        (Self::REMOTE_CLUSTER, "remotecluster"),
    ];
}

/// The names, separated by commas, or `<none>`.
impl fmt::Display for IpCacheFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| *name).collect();
        if names.is_empty() { f.write_str("<none>") } else { f.write_str(&names.join(",")) }
    }
}

/// What is known of the peers in a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpCacheEntry {
    /// Their security identity.
    pub identity: SecurityId,
    /// The node that packets are tunnelled to.
    pub tunnel_endpoint: Option<IpAddr>,
    /// The encryption key in use; 0 for none.
    pub encrypt_key: u8,
    /// How they are reached. [`IpCacheFlags::HAS_TUNNEL`] and [`IpCacheFlags::TUNNEL_IPV6`] follow `tunnel_endpoint`.
    pub flags: IpCacheFlags,
}

impl IpCacheEntry {
    /// Peers of an identity, reached directly.
    pub fn direct(identity: SecurityId) -> Self {
        Self { identity, ..Self::default() }
    }

    /// Peers of an identity behind a node.
    pub fn tunnelled(identity: SecurityId, node: IpAddr) -> Self {
        Self { identity, tunnel_endpoint: Some(node), ..Self::default() }.normalised()
    }

    /// The same with the flags that the tunnel's endpoint demands.
    pub(crate) fn normalised(mut self) -> Self {
        self.flags.set(IpCacheFlags::HAS_TUNNEL, self.tunnel_endpoint.is_some());
        self.flags.set(IpCacheFlags::TUNNEL_IPV6, self.tunnel_endpoint.is_some_and(|node| node.is_ipv6()));
        self
    }
}

impl From<IpCacheEntry> for RemoteEndpointInfo {
    fn from(entry: IpCacheEntry) -> Self {
        let entry = entry.normalised();
        Self {
            sec_identity: entry.identity.get(),
            tunnel_endpoint: entry.tunnel_endpoint.map_or([0; 16], |node| address::encode(node).0),
            pad: 0,
            key: entry.encrypt_key,
            flags: entry.flags.bits(),
        }
    }
}

impl From<RemoteEndpointInfo> for IpCacheEntry {
    fn from(info: RemoteEndpointInfo) -> Self {
        let flags = IpCacheFlags::from_bits_retain(info.flags);
        Self {
            identity: SecurityId::new(info.sec_identity),
            tunnel_endpoint: flags.contains(IpCacheFlags::HAS_TUNNEL).then(|| info.tunnel_address()),
            encrypt_key: info.key,
            flags,
        }
    }
}

impl RemoteEndpointInfo {
    fn tunnel_address(&self) -> IpAddr {
        let bytes = self.tunnel_endpoint;
        if IpCacheFlags::from_bits_retain(self.flags).contains(IpCacheFlags::TUNNEL_IPV6) {
            return Ipv6Addr::from_octets(bytes).into();
        }
        let [a, b, c, d, ..] = bytes;
        Ipv4Addr::new(a, b, c, d).into()
    }
}

/// As `cilium-dbg bpf ipcache list` prints it.
impl fmt::Display for RemoteEndpointInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "identity={} encryptkey={} tunnelendpoint={} flags={}",
            self.sec_identity,
            self.key,
            self.tunnel_address(),
            IpCacheFlags::from_bits_retain(self.flags),
        )
    }
}

impl fmt::Display for IpCacheEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RemoteEndpointInfo::from(*self).fmt(f)
    }
}

impl IpCacheKey {
    /// The key of a prefix in this cluster; bits behind the prefix's length are cleared.
    pub fn of(prefix: IpNetwork) -> Self {
        let (ip, family) = address::encode(prefix.network());
        Self { prefixlen: Self::STATIC_BITS + u32::from(prefix.prefix()), cluster_id: 0, pad1: 0, family, ip }
    }

    /// The prefix; `None` for an unknown family or an impossible length.
    pub fn prefix(&self) -> Option<IpNetwork> {
        address::decode_prefix(self.ip, self.family, self.prefixlen.checked_sub(Self::STATIC_BITS)?)
    }
}

/// As `cilium-dbg bpf ipcache list` prints it: `10.0.2.0/24`.
impl fmt::Display for IpCacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix() {
            Some(prefix) => write!(f, "{prefix}"),
            None => write!(f, "(family {}, prefix length {})", self.family, self.prefixlen),
        }
    }
}

/// `cilium_ipcache_v2`: programs ask it with an address and get what the longest prefix around it says.
#[derive(Debug)]
pub struct IpCache {
    map: LpmTrie<IpCacheKey, RemoteEndpointInfo>,
}

impl IpCache {
    one_map_table!(
        LpmTrie<IpCacheKey, RemoteEndpointInfo>,
        MapSpec::lpm::<IpCacheKey, RemoteEndpointInfo>("cilium_ipcache_v2", 512_000)
            .flags(RDONLY_PROG)
            .layouts::<IpCacheKey, RemoteEndpointInfo>()
    );

    /// The map below, for whoever writes to it by itself.
    pub fn into_map(self) -> LpmTrie<IpCacheKey, RemoteEndpointInfo> {
        self.map
    }

    /// Writes a prefix, over what it said before.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a prefix with bits set behind its length; `Exhausted` when the map is full.
    pub fn upsert(&self, prefix: IpNetwork, entry: &IpCacheEntry) -> Result<()> {
        address::check_no_host_bits("prefix", prefix)?;
        self.map.insert(&IpCacheKey::of(prefix), &(*entry).into(), Update::Any)
    }

    /// Removes exactly this prefix, not the longer or shorter ones; false when it was not there.
    pub fn delete(&self, prefix: IpNetwork) -> Result<bool> {
        self.map.delete(&IpCacheKey::of(prefix))
    }

    /// What the longest prefix around an address says.
    pub fn lookup(&self, address: IpAddr) -> Result<Option<IpCacheEntry>> {
        Ok(self.map.lookup(&IpCacheKey::of(address.into()))?.map(IpCacheEntry::from))
    }

    /// What exactly this prefix says.
    ///
    /// The kernel finds only longest matches, so this reads the whole map: it is for operators, not for a hot path.
    pub fn exact(&self, prefix: IpNetwork) -> Result<Option<IpCacheEntry>> {
        let key = IpCacheKey::of(prefix);
        for row in &self.map {
            let (found, value) = row?;
            if found == key {
                return Ok(Some(value.into()));
            }
        }
        Ok(None)
    }

    /// Every prefix, IPv4 before IPv6, shorter prefixes before the longer ones inside them. Keys that are no prefix of a known
    /// family are left out.
    pub fn entries(&self) -> Result<Vec<(IpNetwork, IpCacheEntry)>> {
        let mut entries = Vec::new();
        for row in &self.map {
            let (key, value) = row?;
            match key.prefix() {
                Some(prefix) => entries.push((prefix, IpCacheEntry::from(value))),
                None => log::warn!("{}: key {key:?} is no prefix", self.map.label()),
            }
        }
        entries.sort_unstable_by_key(|(prefix, _)| (prefix.ip(), prefix.prefix()));
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> IpNetwork {
        text.parse().expect("valid prefix")
    }

    #[test]
    fn bytes_are_cilium_s() {
        let golden = [56, 0, 0, 0, 0, 0, 0, 1, 10, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytemuck::bytes_of(&IpCacheKey::of(prefix("10.0.2.0/24"))), golden);
        let v6 = IpCacheKey::of(prefix("fd00:10:0:2::/96"));
        assert_eq!((v6.prefixlen, v6.family, &v6.ip[..8]), (128, 2, &[0xfd, 0, 0, 0x10, 0, 0, 0, 2][..]));
        let entry = IpCacheEntry::tunnelled(SecurityId::new(9), "192.168.0.2".parse().expect("valid"));
        let golden = [9, 0, 0, 0, 192, 168, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(bytemuck::bytes_of(&RemoteEndpointInfo::from(entry)), golden);
    }

    #[test]
    fn prints_as_operators_know_it() {
        let tunnelled = IpCacheEntry::tunnelled(SecurityId::new(10), "192.168.0.2".parse().expect("valid"));
        assert_eq!(tunnelled.to_string(), "identity=10 encryptkey=0 tunnelendpoint=192.168.0.2 flags=hastunnel");
        let direct = IpCacheEntry::direct(SecurityId::new(16_777_218));
        assert_eq!(direct.to_string(), "identity=16777218 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>");
        let v6 = IpCacheEntry::tunnelled(SecurityId::new(6), "fd00:192::2".parse().expect("valid"));
        assert_eq!(v6.to_string(), "identity=6 encryptkey=0 tunnelendpoint=fd00:192::2 flags=hastunnel,ipv6tunnel");
        assert_eq!(IpCacheKey::of(prefix("0.0.0.0/0")).to_string(), "0.0.0.0/0");
        assert_eq!(IpCacheKey::of(prefix("fd00::1/128")).to_string(), "fd00::1/128");
    }

    #[test]
    fn keys_and_entries_round_trip() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.0.1.4/32", "::/0", "fd00:10:0:2::/96", "fd00::1/128"] {
            assert_eq!(IpCacheKey::of(prefix(text)).prefix(), Some(prefix(text)));
        }
        let impossible = IpCacheKey { prefixlen: 31, family: 1, ..IpCacheKey::default() };
        assert_eq!(impossible.prefix(), None);
        let entry = IpCacheEntry {
            encrypt_key: 3,
            flags: IpCacheFlags::REMOTE_CLUSTER,
            ..IpCacheEntry::tunnelled(SecurityId::new(7), "fd00::2".parse().expect("valid"))
        };
        let stored = IpCacheEntry::from(RemoteEndpointInfo::from(entry));
        assert_eq!(stored.tunnel_endpoint, entry.tunnel_endpoint);
        assert_eq!(stored.flags, IpCacheFlags::REMOTE_CLUSTER | IpCacheFlags::HAS_TUNNEL | IpCacheFlags::TUNNEL_IPV6);
    }
}
