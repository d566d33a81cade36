//! Devices as the kernel reports them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Arphrd, Iff, Ifla, IflaInfo, RtAddrFamily, Rtm};
use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder};
use neli::types::{Buffer, RtBuffer};

use super::request::Request;
use super::socket::Socket;
use super::wire::{self, Attributes, Frame, NESTED};
use super::{LinkChange, VethPair, VethSpec, names};
use crate::netns::NetNs;
use crate::{Error, ErrorKind, IfIndex, MacAddr, Result};

/// `IFLA_GRO_MAX_SIZE`, `IFLA_GSO_IPV4_MAX_SIZE` and `IFLA_GRO_IPV4_MAX_SIZE` of linux/if_link.h, unknown to neli.
pub(super) const IFLA_GRO_MAX_SIZE: u16 = 58;
pub(super) const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
pub(super) const IFLA_GRO_IPV4_MAX_SIZE: u16 = 64;

/// Leaves the statistics out of replies (`RTEXT_FILTER_SKIP_STATS`).
const SKIP_STATS: u32 = 1 << 3;

/// `RTM_NEWLINKPROP` and `RTM_DELLINKPROP`, unknown to neli.
const RTM_NEWLINKPROP: u16 = 108;
const RTM_DELLINKPROP: u16 = 109;

/// The group in which every device starts.
const DEFAULT_GROUP: u32 = 0;

/// How often to try for a list of devices during which none came or went.
const LIST_ATTEMPTS: u32 = 4;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Its index in its namespace.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// Its further names.
    pub alt_names: Vec<String>,
    /// A note of its administrator's; `None` where there is none.
    pub alias: Option<String>,
    /// Its Ethernet address; `None` for devices of other kinds.
    pub mac: Option<MacAddr>,
    /// The longest packet it sends, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Whether it was brought up by its administrator.
    pub is_up: bool,
    /// Whether it can pass packets: up, and so is what it needs below (a veth's peer).
    pub is_running: bool,
    /// Whether it is a loopback device.
    pub is_loopback: bool,
    /// `IFF_…` flags of linux/if.h, all of them.
    pub flags: u32,
    /// What it is ("veth"); `None` for hardware and the loopback device.
    pub kind: Option<String>,
    /// The other end of a veth, the lower device of a VLAN: an index in [`Link::peer_netns_id`], or in the same
    /// namespace when that is `None`.
    pub peer_index: Option<IfIndex>,
    /// The number by which this namespace knows that of the other end.
    pub peer_netns_id: Option<i32>,
    /// The bridge or bond to which it belongs.
    pub master: Option<IfIndex>,
    /// Its group; 0 unless set.
    pub group: u32,
    /// Longest packet that segmentation offload may build, in bytes.
    pub gso_max_size: Option<u32>,
    /// Longest packet that receive offload may build, in bytes (kernel 5.19).
    pub gro_max_size: Option<u32>,
    /// The same for IPv4 (kernel 6.3).
    pub gso_ipv4_max_size: Option<u32>,
    /// The same for IPv4 (kernel 6.3).
    pub gro_ipv4_max_size: Option<u32>,
    /// Number of transmit queues.
    pub tx_queues: u32,
    /// Number of receive queues.
    pub rx_queues: u32,
}

impl Socket {
    /// All devices of the namespace, by index. Those that come or go meanwhile may be in it or not.
    pub fn links(&self) -> Result<Vec<Link>> {
        let body = query_body(None, Attributes::new())?;
        let request = Request::new("list", "devices", Rtm::Getlink, NlmF::DUMP, &body)?;
        let mut seen = BTreeMap::new();
        for _ in 0..LIST_ATTEMPTS {
            let (links, consistent) = self.dump_once(&request, parse)?;
            let links: BTreeMap<_, _> = links.into_iter().map(|link| (link.index, link)).collect();
            if consistent {
                return Ok(links.into_values().collect());
            }
            // where pods come and go all the time no attempt may succeed: what one missed, another has
            for index in std::mem::replace(&mut seen, links).into_keys() {
                if let Entry::Vacant(missing) = seen.entry(index)
                    && let Some(link) = self.link_if_any(index)?
                {
                    missing.insert(link);
                }
            }
        }
        Ok(seen.into_values().collect())
    }

    /// The device with this name or alternative name.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is none.
    pub fn link_by_name(&self, name: &str) -> Result<Link> {
        let mut attributes = Attributes::new();
        let kind = if names::is_long(name) { Ifla::AltIfname } else { Ifla::Ifname };
        attributes.put(kind, names::check_alt_name(name)?)?;
        let body = query_body(None, attributes)?;
        self.query_one(&Request::new("query device", name, Rtm::Getlink, NlmF::empty(), &body)?, parse)
    }

    /// The device with this index.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is none.
    pub fn link_by_index(&self, index: IfIndex) -> Result<Link> {
        let body = query_body(Some(index), Attributes::new())?;
        self.query_one(&Request::new("query device", index.to_string(), Rtm::Getlink, NlmF::empty(), &body)?, parse)
    }

    /// The device with this index, if there is one.
    pub(crate) fn link_if_any(&self, index: IfIndex) -> Result<Option<Link>> {
        match self.link_by_index(index) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a veth pair, each end where and as the specification says.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when a name or a requested index is taken.
    pub fn link_create_veth(&self, spec: &VethSpec<'_>) -> Result<VethPair> {
        let request = Request::link_create_veth(spec)?.with_echo();
        // Kernels before 6.2 do not send the new device back; and what was created elsewhere can't be asked for here.
        let link = match self.query(&request, parse)?.pop() {
            Some(link) => link,
            None if spec.device.netns.is_none() => self.link_by_name(spec.device.name)?,
            None => elsewhere(spec)?.link_by_name(spec.device.name)?,
        };
        let peer_index = link.peer_index.ok_or_else(|| {
            let cause = wire::decode_error("a veth without the index of its peer");
            request.malformed(cause)
        })?;
        Ok(VethPair { index: link.index, peer_index, mac: link.mac.unwrap_or_default() })
    }

    /// Changes a device, all in one request.
    pub fn link_set(&self, index: IfIndex, change: &LinkChange<'_>) -> Result<()> {
        self.execute(&Request::link_set(index, change)?)
    }

    /// Brings a device up.
    pub fn link_set_up(&self, index: IfIndex) -> Result<()> {
        self.link_set(index, &LinkChange { up: Some(true), ..LinkChange::default() })
    }

    /// Takes a device down.
    pub fn link_set_down(&self, index: IfIndex) -> Result<()> {
        self.link_set(index, &LinkChange { up: Some(false), ..LinkChange::default() })
    }

    /// Adds an alternative name of up to 127 bytes.
    pub fn link_add_alt_name(&self, index: IfIndex, name: &str) -> Result<()> {
        self.execute(&Request::link_add_alt_name(index, name)?)
    }

    /// Removes an alternative name.
    pub fn link_remove_alt_name(&self, index: IfIndex, name: &str) -> Result<()> {
        self.execute(&Request::link_remove_alt_name(index, name)?)
    }

    /// Deletes a device, and with a veth its peer. The kernel waits for running packet handlers: about 20 ms.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when it is gone already.
    pub fn link_delete(&self, index: IfIndex) -> Result<()> {
        self.execute(&Request::link_delete(index)?)
    }

    /// Deletes every device of a group at once, so that they share one wait; see [`Socket::link_delete`].
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when the group is empty; [`InvalidInput`](crate::ErrorKind::InvalidInput)
    /// for group 0, to which every device belongs at first.
    pub fn links_delete_group(&self, group: u32) -> Result<()> {
        self.execute(&Request::links_delete_group(group)?)
    }
}

impl Request {
    /// The request of [`Socket::link_add_alt_name`].
    pub fn link_add_alt_name(index: IfIndex, name: &str) -> Result<Self> {
        let flags = NlmF::CREATE | NlmF::EXCL | NlmF::APPEND;
        Self::new(
            "add alternative name to device",
            index.to_string(),
            Rtm::from(RTM_NEWLINKPROP),
            flags,
            &alt_name(index, name)?,
        )
    }

    /// The request of [`Socket::link_remove_alt_name`].
    pub fn link_remove_alt_name(index: IfIndex, name: &str) -> Result<Self> {
        let kind = Rtm::from(RTM_DELLINKPROP);
        Self::new("remove alternative name of device", index.to_string(), kind, NlmF::empty(), &alt_name(index, name)?)
    }

    /// The request of [`Socket::link_delete`].
    pub fn link_delete(index: IfIndex) -> Result<Self> {
        let body = body(Some(index), Attributes::new())?;
        Self::new("delete device", index.to_string(), Rtm::Dellink, NlmF::empty(), &body)
    }

    /// The request of [`Socket::links_delete_group`].
    pub fn links_delete_group(group: u32) -> Result<Self> {
        if group == DEFAULT_GROUP {
            return Err(Error::invalid(
                "device group",
                "0",
                "is every device's group; only others can be deleted whole",
            ));
        }
        let mut attributes = Attributes::new();
        attributes.put(Ifla::Group, group)?;
        let body = body(None, attributes)?;
        Self::new("delete devices of group", group.to_string(), Rtm::Dellink, NlmF::empty(), &body)
    }
}

/// A socket in the namespace of the veth's first end.
fn elsewhere(spec: &VethSpec<'_>) -> Result<Socket> {
    let Some(netns) = spec.device.netns else { return Socket::open() };
    let netns = netns.try_clone_to_owned().map_err(|error| Error::system("duplicate", "namespace handle", error))?;
    Socket::open_in(&NetNs::try_from(netns)?)
}

fn alt_name(index: IfIndex, name: &str) -> Result<Ifinfomsg> {
    let mut list = Attributes::<Ifla>::new();
    list.put(Ifla::AltIfname, names::check_alt_name(name)?)?;
    let mut attributes = Attributes::<Ifla>::new();
    attributes.put(u16::from(Ifla::PropList) | NESTED, list.finish())?;
    body(Some(index), attributes)
}

fn query_body(index: Option<IfIndex>, mut attributes: Attributes<Ifla>) -> Result<Ifinfomsg> {
    attributes.put(Ifla::ExtMask, SKIP_STATS)?;
    body(index, attributes)
}

fn body(index: Option<IfIndex>, attributes: Attributes<Ifla>) -> Result<Ifinfomsg> {
    IfinfomsgBuilder::default()
        .ifi_family(RtAddrFamily::Unspecified)
        .ifi_type(Arphrd::from(0))
        .ifi_index(signed(index))
        .rtattrs(attributes.finish())
        .build()
        .map_err(wire::encode_error)
}

/// An index as the messages hold it: signed, 0 for none.
pub(super) fn signed(index: Option<IfIndex>) -> i32 {
    index.map_or(0, |index| index.get().cast_signed())
}

/// An index from a message; `None` for 0 and for what no index can be.
pub(super) fn unsigned(index: i32) -> Option<IfIndex> {
    u32::try_from(index).ok().and_then(IfIndex::new)
}

/// Parses a device; `None` for messages of other kinds.
pub(super) fn parse(frame: &Frame<'_>) -> Result<Option<Link>> {
    if !frame.is(Rtm::Newlink) && !frame.is(Rtm::Dellink) {
        return Ok(None);
    }
    let message: Ifinfomsg = frame.parse()?;
    // bridges report their ports' settings in messages of another family
    if *message.ifi_family() != RtAddrFamily::Unspecified {
        return Ok(None);
    }
    let index = unsigned(*message.ifi_index()).ok_or_else(|| wire::decode_error("a device with index 0"))?;
    let flags: u32 = (*message.ifi_flags()).into();
    let is = |flag: Iff| flags & u32::from(flag) != 0;
    let mut link = Link {
        index,
        name: String::new(),
        alt_names: Vec::new(),
        alias: None,
        mac: None,
        mtu: 0,
        is_up: is(Iff::UP),
        is_running: is(Iff::RUNNING),
        is_loopback: is(Iff::LOOPBACK),
        flags,
        kind: None,
        peer_index: None,
        peer_netns_id: None,
        master: None,
        group: 0,
        gso_max_size: None,
        gro_max_size: None,
        gso_ipv4_max_size: None,
        gro_ipv4_max_size: None,
        tx_queues: 0,
        rx_queues: 0,
    };
    fill(&mut link, message.rtattrs())?;
    Ok(Some(link))
}

fn fill(link: &mut Link, attributes: &RtBuffer<Ifla, Buffer>) -> Result<()> {
    for (kind, payload) in wire::kinds(attributes) {
        match Ifla::from(kind) {
            Ifla::Ifname => link.name = wire::string(payload),
            Ifla::Ifalias => link.alias = Some(wire::string(payload)),
            Ifla::Address => link.mac = wire::mac(payload),
            Ifla::Mtu => link.mtu = wire::number(payload)?,
            Ifla::Link => link.peer_index = IfIndex::new(wire::number(payload)?),
            Ifla::LinkNetnsid => link.peer_netns_id = Some(wire::number(payload)?),
            Ifla::Master => link.master = IfIndex::new(wire::number(payload)?),
            Ifla::Group => link.group = wire::number(payload)?,
            Ifla::GsoMaxSize => link.gso_max_size = Some(wire::number(payload)?),
            Ifla::UnrecognizedConst(IFLA_GRO_MAX_SIZE) => link.gro_max_size = Some(wire::number(payload)?),
            Ifla::UnrecognizedConst(IFLA_GSO_IPV4_MAX_SIZE) => link.gso_ipv4_max_size = Some(wire::number(payload)?),
            Ifla::UnrecognizedConst(IFLA_GRO_IPV4_MAX_SIZE) => link.gro_ipv4_max_size = Some(wire::number(payload)?),
            Ifla::NumTxQueues => link.tx_queues = wire::number(payload)?,
            Ifla::NumRxQueues => link.rx_queues = wire::number(payload)?,
            Ifla::Linkinfo => link.kind = link_kind(payload)?,
            Ifla::PropList => link.alt_names = alt_names(payload)?,
            _ => (),
        }
    }
    Ok(())
}

fn link_kind(payload: &[u8]) -> Result<Option<String>> {
    let info = wire::nested(payload)?;
    let kind = wire::kinds(&info).find(|(kind, _)| *kind == u16::from(IflaInfo::Kind));
    Ok(kind.map(|(_, text)| wire::string(text)))
}

fn alt_names(payload: &[u8]) -> Result<Vec<String>> {
    let list = wire::nested(payload)?;
    let names = wire::kinds(&list).filter(|(kind, _)| *kind == u16::from(Ifla::AltIfname));
    Ok(names.map(|(_, text)| wire::string(text)).collect())
}
