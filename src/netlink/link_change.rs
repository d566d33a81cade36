//! Creating and changing devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Arphrd, Iff, Ifla, IflaInfo, RtAddrFamily, Rtm};
use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder};
use neli::types::{Buffer, RtBuffer};

use super::link::{IFLA_GRO_IPV4_MAX_SIZE, IFLA_GRO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE, signed};
use super::names;
use super::request::Request;
use super::wire::{self, Attributes};
use crate::{Error, IfIndex, MacAddr, Result};

/// The attribute of a veth's data that holds its peer (`VETH_INFO_PEER` of linux/veth.h).
const VETH_INFO_PEER: u16 = 1;

/// The attribute of IPv4's part that holds settings (`IFLA_INET_CONF` of linux/if_link.h), and one of these
/// (`IPV4_DEVCONF_RP_FILTER` of linux/ip.h).
const IFLA_INET_CONF: u16 = 1;
const RP_FILTER: u16 = 8;

/// A device to be created; what is `None` is left to the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceSpec<'a> {
    /// Its name: 1 to 15 bytes.
    pub name: &'a str,
    /// Its index; free unless given.
    pub index: Option<IfIndex>,
    /// Its Ethernet address: a unicast one. Set it even where a random one would do: systemd-udevd changes the address of
    /// a veth that got a random one.
    pub mac: Option<MacAddr>,
    /// Longest packet in bytes, without the Ethernet header.
    pub mtu: Option<u32>,
    /// Its group.
    pub group: Option<u32>,
    /// The namespace to create it in; the socket's own unless given.
    pub netns: Option<BorrowedFd<'a>>,
    /// Longest packet that segmentation offload may build, in bytes.
    pub gso_max_size: Option<u32>,
    /// Longest packet that receive offload may build, in bytes (kernel 5.19).
    pub gro_max_size: Option<u32>,
    /// The same for IPv4 (kernel 6.3; ignored before).
    pub gso_ipv4_max_size: Option<u32>,
    /// The same for IPv4 (kernel 6.3; ignored before).
    pub gro_ipv4_max_size: Option<u32>,
    /// Number of transmit queues.
    pub tx_queues: Option<u32>,
    /// Number of receive queues.
    pub rx_queues: Option<u32>,
}

/// A veth pair to be created.
#[derive(Clone, Copy, Debug, Default)]
pub struct VethSpec<'a> {
    /// The end that stays, usually in the socket's own namespace.
    pub device: DeviceSpec<'a>,
    /// Whether to bring that end up at once. The other can be brought up only once both exist.
    pub up: bool,
    /// The other end, created directly in its namespace.
    pub peer: DeviceSpec<'a>,
}

/// A veth pair that was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VethPair {
    /// The index of [`VethSpec::device`] in its namespace.
    pub index: IfIndex,
    /// The index of [`VethSpec::peer`] in its own namespace.
    pub peer_index: IfIndex,
    /// The Ethernet address of [`VethSpec::device`].
    pub mac: MacAddr,
}

/// What to change about a device; `None` leaves things as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    /// A new name of 1 to 15 bytes. Kernels before 6.3 want the device down.
    pub name: Option<&'a str>,
    /// A note of up to 255 bytes; an empty one removes it.
    pub alias: Option<&'a str>,
    /// Whether the device is up.
    pub up: Option<bool>,
    /// Its Ethernet address: a unicast one.
    pub mac: Option<MacAddr>,
    /// Longest packet in bytes, without the Ethernet header.
    pub mtu: Option<u32>,
    /// Its group.
    pub group: Option<u32>,
    /// The namespace to move it to. It arrives there down and without addresses; its index may change. The kernel waits
    /// for running packet handlers: about 14 ms.
    pub netns: Option<BorrowedFd<'a>>,
    /// Whether neighbours are looked up by ARP and neighbour solicitations.
    pub arp: Option<bool>,
    /// How IPv4 checks that the route back leads where a packet came from (`rp_filter`): 0 not at all, 1 strictly, 2 loosely.
    pub rp_filter: Option<u32>,
    /// Longest packet that segmentation offload may build, in bytes.
    pub gso_max_size: Option<u32>,
    /// Longest packet that receive offload may build, in bytes (kernel 5.19).
    pub gro_max_size: Option<u32>,
    /// The same for IPv4 (kernel 6.3; ignored before).
    pub gso_ipv4_max_size: Option<u32>,
    /// The same for IPv4 (kernel 6.3; ignored before).
    pub gro_ipv4_max_size: Option<u32>,
}

impl Request {
    /// The request of [`Socket::link_create_veth`](super::Socket::link_create_veth).
    pub fn link_create_veth(spec: &VethSpec<'_>) -> Result<Self> {
        let mut data = Attributes::<u16>::new();
        let peer = body(spec.peer.index, Iff::empty(), Iff::empty(), device_attributes(&spec.peer)?)?;
        data.put(VETH_INFO_PEER, peer)?;
        let mut info = Attributes::<IflaInfo>::new();
        info.put(IflaInfo::Kind, "veth")?;
        info.put(IflaInfo::Data, data.finish())?;
        let mut attributes = device_attributes(&spec.device)?;
        attributes.put(Ifla::Linkinfo, info.finish())?;
        let object = format!("{} with peer {}", spec.device.name, spec.peer.name);
        let flags = if spec.up { Iff::UP } else { Iff::empty() };
        let body = body(spec.device.index, flags, flags, attributes)?;
        Self::new("create veth", object, Rtm::Newlink, NlmF::CREATE | NlmF::EXCL, &body)
    }

    /// The request of [`Socket::link_set`](super::Socket::link_set).
    pub fn link_set(index: IfIndex, change: &LinkChange<'_>) -> Result<Self> {
        let mut attributes = Attributes::new();
        attributes.put_some(Ifla::Ifname, change.name.map(names::check_name).transpose()?)?;
        attributes.put_some(Ifla::Ifalias, change.alias)?;
        put_settings(&mut attributes, &change.settings())?;
        if let Some(mode) = change.rp_filter {
            attributes.put(Ifla::AfSpec, inet_setting(RP_FILTER, mode)?)?;
        }
        let (mut flags, mut mask) = (Iff::empty(), Iff::empty());
        if let Some(up) = change.up {
            mask |= Iff::UP;
            flags |= if up { Iff::UP } else { Iff::empty() };
        }
        if let Some(arp) = change.arp {
            mask |= Iff::NOARP;
            flags |= if arp { Iff::empty() } else { Iff::NOARP };
        }
        let body = body(Some(index), flags, mask, attributes)?;
        Self::new("change device", index.to_string(), Rtm::Setlink, NlmF::empty(), &body)
    }
}

impl DeviceSpec<'_> {
    fn settings(&self) -> Settings<'_> {
        Settings {
            mac: self.mac,
            mtu: self.mtu,
            group: self.group,
            netns: self.netns,
            gso_max_size: self.gso_max_size,
            gro_max_size: self.gro_max_size,
            gso_ipv4_max_size: self.gso_ipv4_max_size,
            gro_ipv4_max_size: self.gro_ipv4_max_size,
        }
    }
}

impl LinkChange<'_> {
    fn settings(&self) -> Settings<'_> {
        Settings {
            mac: self.mac,
            mtu: self.mtu,
            group: self.group,
            netns: self.netns,
            gso_max_size: self.gso_max_size,
            gro_max_size: self.gro_max_size,
            gso_ipv4_max_size: self.gso_ipv4_max_size,
            gro_ipv4_max_size: self.gro_ipv4_max_size,
        }
    }
}

/// What can be said of a new device and of an existing one alike.
struct Settings<'a> {
    mac: Option<MacAddr>,
    mtu: Option<u32>,
    group: Option<u32>,
    netns: Option<BorrowedFd<'a>>,
    gso_max_size: Option<u32>,
    gro_max_size: Option<u32>,
    gso_ipv4_max_size: Option<u32>,
    gro_ipv4_max_size: Option<u32>,
}

fn device_attributes(spec: &DeviceSpec<'_>) -> Result<Attributes<Ifla>> {
    let mut attributes = Attributes::new();
    attributes.put(Ifla::Ifname, names::check_name(spec.name)?)?;
    put_settings(&mut attributes, &spec.settings())?;
    attributes.put_some(Ifla::NumTxQueues, spec.tx_queues)?;
    attributes.put_some(Ifla::NumRxQueues, spec.rx_queues)?;
    Ok(attributes)
}

fn put_settings(attributes: &mut Attributes<Ifla>, settings: &Settings<'_>) -> Result<()> {
    if let Some(mac) = settings.mac
        && !mac.is_unicast()
    {
        return Err(Error::invalid("MAC address", mac.to_string(), "a device needs a unicast address"));
    }
    attributes.put_some(Ifla::NetNsFd, settings.netns.map(|netns| netns.as_raw_fd()))?;
    attributes.put_some(Ifla::Address, settings.mac.map(MacAddr::octets))?;
    attributes.put_some(Ifla::Mtu, settings.mtu)?;
    attributes.put_some(Ifla::Group, settings.group)?;
    attributes.put_some(Ifla::GsoMaxSize, settings.gso_max_size)?;
    attributes.put_some(IFLA_GRO_MAX_SIZE, settings.gro_max_size)?;
    attributes.put_some(IFLA_GSO_IPV4_MAX_SIZE, settings.gso_ipv4_max_size)?;
    attributes.put_some(IFLA_GRO_IPV4_MAX_SIZE, settings.gro_ipv4_max_size)
}

/// A setting of IPv4, as `IFLA_AF_SPEC` holds it.
fn inet_setting(setting: u16, value: u32) -> Result<RtBuffer<u16, Buffer>> {
    let mut settings = Attributes::<u16>::new();
    settings.put(setting, value)?;
    let mut inet = Attributes::<u16>::new();
    inet.put(IFLA_INET_CONF, settings.finish())?;
    let mut families = Attributes::<u16>::new();
    families.put(u16::from(libc::AF_INET as u8), inet.finish())?;
    Ok(families.finish())
}

fn body(index: Option<IfIndex>, flags: Iff, mask: Iff, attributes: Attributes<Ifla>) -> Result<Ifinfomsg> {
    IfinfomsgBuilder::default()
        .ifi_family(RtAddrFamily::Unspecified)
        .ifi_type(Arphrd::from(0))
        .ifi_index(signed(index))
        .ifi_flags(flags)
        .ifi_change(mask)
        .rtattrs(attributes.finish())
        .build()
        .map_err(wire::encode_error)
}
