//! BPF programs as filters of a device's clsact.

use std::os::fd::{AsRawFd, BorrowedFd};

use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Rtm, Tca};
use neli::rtnl::Tcmsg;

use super::link::unsigned;
use super::qdisc;
use super::request::Request;
use super::socket::Socket;
use super::wire::{self, Attributes, Frame};
use crate::{Error, IfIndex, Result};

/// The places of filters within clsact (`TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` and `…_EGRESS`).
const PARENT_INGRESS: u32 = 0xffff_fff2;
const PARENT_EGRESS: u32 = 0xffff_fff3;

/// Attributes of linux/pkt_cls.h, unknown to neli.
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_TAG: u16 = 10;
const TCA_BPF_ID: u16 = 11;

/// The program's return value is the packet's fate (`TCA_BPF_FLAG_ACT_DIRECT`).
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

/// The kind of filter that is a BPF program.
const BPF: &str = "bpf";

/// Longest name of a filter, in bytes (`CLS_BPF_NAME_LEN`).
const NAME_MAX: usize = 256;

/// Which packets a filter sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Those that the device received.
    Ingress,
    /// Those that it is about to send.
    Egress,
}

impl Direction {
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => PARENT_INGRESS,
            Self::Egress => PARENT_EGRESS,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A BPF program to be made a filter, for all protocols.
#[derive(Clone, Copy, Debug)]
pub struct FilterSpec<'a> {
    /// The device, which must have clsact.
    pub device: IfIndex,
    /// Which packets it sees.
    pub direction: Direction,
    /// Its place among the filters: lower comes first. From 1.
    pub priority: u16,
    /// Its number among the filters of that priority. From 1.
    pub handle: u32,
    /// The program, of type `sched_cls`.
    pub program: BorrowedFd<'a>,
    /// The name that `tc filter show` prints; up to 256 bytes.
    pub name: &'a str,
    /// Whether the program's return value is the packet's fate.
    pub direct_action: bool,
}

/// A filter on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// The device.
    pub device: IfIndex,
    /// Which packets it sees.
    pub direction: Direction,
    /// Its place among the filters: lower comes first.
    pub priority: u16,
    /// The Ethernet protocol that it sees; 3 (`ETH_P_ALL`) for all.
    pub protocol: u16,
    /// Its number among the filters of that priority.
    pub handle: u32,
    /// What it is: "bpf", "flower", ….
    pub kind: String,
    /// The name of a BPF filter.
    pub name: Option<String>,
    /// The id of its program.
    pub program_id: Option<u32>,
    /// The tag of its program, a hash of its instructions.
    pub program_tag: Option<[u8; 8]>,
    /// Whether the program's return value is the packet's fate.
    pub direct_action: bool,
}

impl Socket {
    /// Adds a filter.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) when one with this priority and handle exists, whoever made it.
    pub fn filter_create(&self, spec: &FilterSpec<'_>) -> Result<()> {
        self.execute(&Request::filter_create(spec)?)
    }

    /// Adds a filter, or puts the program in place of that of the filter with this priority and handle; no packet sees
    /// neither or both. Look with [`Socket::filters`] whose it is before.
    pub fn filter_replace(&self, spec: &FilterSpec<'_>) -> Result<()> {
        self.execute(&Request::filter_replace(spec)?)
    }

    /// Deletes one BPF filter.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is none with this priority and handle;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the device has no clsact, or another kind of filter has the
    /// priority.
    pub fn filter_delete(&self, device: IfIndex, direction: Direction, priority: u16, handle: u32) -> Result<()> {
        self.execute(&Request::filter_delete(device, direction, priority, handle)?)
    }

    /// The filters of a device, whoever made them, in the order in which packets see them; none without clsact.
    pub fn filters(&self, device: IfIndex, direction: Direction) -> Result<Vec<Filter>> {
        let body = qdisc::body(device, 0, direction.parent(), 0, Attributes::new())?;
        let object = format!("device {device} {}", direction.word());
        let request = Request::new("list filters of", object, Rtm::Gettfilter, NlmF::DUMP, &body)?;
        self.dump(&request, |frame| parse(frame, direction))
    }
}

impl Request {
    /// The request of [`Socket::filter_create`].
    pub fn filter_create(spec: &FilterSpec<'_>) -> Result<Self> {
        Self::new("create filter", object(spec), Rtm::Newtfilter, NlmF::CREATE | NlmF::EXCL, &new_body(spec)?)
    }

    /// The request of [`Socket::filter_replace`].
    pub fn filter_replace(spec: &FilterSpec<'_>) -> Result<Self> {
        Self::new("replace filter", object(spec), Rtm::Newtfilter, NlmF::CREATE, &new_body(spec)?)
    }

    /// The request of [`Socket::filter_delete`].
    pub fn filter_delete(device: IfIndex, direction: Direction, priority: u16, handle: u32) -> Result<Self> {
        let mut attributes = Attributes::new();
        attributes.put(Tca::Kind, BPF)?;
        let body = qdisc::body(device, handle, direction.parent(), info(priority), attributes)?;
        let object = format!("{priority}:{handle} of device {device} {}", direction.word());
        Self::new("delete filter", object, Rtm::Deltfilter, NlmF::empty(), &body)
    }
}

fn object(spec: &FilterSpec<'_>) -> String {
    let FilterSpec { name, priority, handle, device, .. } = spec;
    format!("{name} {priority}:{handle} of device {device} {}", spec.direction.word())
}

fn new_body(spec: &FilterSpec<'_>) -> Result<Tcmsg> {
    // with 0 the kernel would choose, and so make another filter each time
    if spec.priority == 0 || spec.handle == 0 {
        let value = format!("{}:{}", spec.priority, spec.handle);
        return Err(Error::invalid("filter priority and handle", value, "both start from 1"));
    }
    if spec.name.is_empty() || spec.name.len() > NAME_MAX || spec.name.contains('\0') {
        return Err(Error::invalid("filter name", spec.name, "must have 1 to 256 bytes, none of them zero"));
    }
    let mut options = Attributes::<u16>::new();
    options.put(TCA_BPF_FD, spec.program.as_raw_fd().cast_unsigned())?;
    options.put(TCA_BPF_NAME, spec.name)?;
    options.put(TCA_BPF_FLAGS, if spec.direct_action { TCA_BPF_FLAG_ACT_DIRECT } else { 0 })?;
    let mut attributes = Attributes::new();
    attributes.put(Tca::Kind, BPF)?;
    attributes.put(Tca::Options, options.finish())?;
    qdisc::body(spec.device, spec.handle, spec.direction.parent(), info(spec.priority), attributes)
}

/// Priority above, protocol below, in network byte order.
fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

/// Parses a filter; `None` for messages of other kinds and for the entry that only stands for a priority.
pub(super) fn parse(frame: &Frame<'_>, direction: Direction) -> Result<Option<Filter>> {
    if !frame.is(Rtm::Newtfilter) {
        return Ok(None);
    }
    let message: Tcmsg = frame.parse()?;
    let Some(device) = unsigned(*message.tcm_ifindex()) else { return Ok(None) };
    if *message.tcm_handle() == 0 {
        return Ok(None);
    }
    let info = *message.tcm_info();
    let mut filter = Filter {
        device,
        direction,
        priority: (info >> 16) as u16,
        protocol: u16::from_be(info as u16),
        handle: *message.tcm_handle(),
        kind: String::new(),
        name: None,
        program_id: None,
        program_tag: None,
        direct_action: false,
    };
    let mut options = None;
    for (kind, payload) in wire::kinds(message.rtattrs()) {
        match Tca::from(kind) {
            Tca::Kind => filter.kind = wire::string(payload),
            Tca::Options => options = Some(payload),
            _ => (),
        }
    }
    if let Some(options) = options.filter(|_| filter.kind == BPF) {
        fill(&mut filter, options)?;
    }
    Ok(Some(filter))
}

fn fill(filter: &mut Filter, options: &[u8]) -> Result<()> {
    for (kind, payload) in wire::kinds(&wire::nested(options)?) {
        match kind {
            TCA_BPF_NAME => filter.name = Some(wire::string(payload)),
            TCA_BPF_FLAGS => {
                let flags: u32 = wire::number(payload)?;
                filter.direct_action = flags & TCA_BPF_FLAG_ACT_DIRECT != 0;
            }
            TCA_BPF_TAG => filter.program_tag = payload.try_into().ok(),
            TCA_BPF_ID => filter.program_id = Some(wire::number(payload)?),
            _ => (),
        }
    }
    Ok(())
}
