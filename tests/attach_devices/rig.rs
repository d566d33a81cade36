//! A device in a namespace of its own, with a neighbour that sends it packets.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use podwire::netlink::{AddressSpec, DeviceSpec, FilterSpec, NeighbourSpec, Socket, VethSpec};
use podwire::program::{AttachMode, Attacher, Constants, Device, Direction, Loader, Program, ProgramSet};
use podwire::{IfIndex, MacAddr};

use super::common::bpf::{BpfRoot, PROBE, read_u64, tcx_or_skip};
use super::common::netns::TestNetns;

pub(crate) const INGRESS: &str = "probe_from_the_device";
pub(crate) const EGRESS: &str = "probe_to_the_device";

/// What this kernel has: tcx came with Linux 6.6.
pub(crate) fn modes() -> Vec<AttachMode> {
    if tcx_or_skip() { vec![AttachMode::Tcx, AttachMode::Clsact] } else { vec![AttachMode::Clsact] }
}

/// Runs a test in a namespace of its own, with pins of its own.
pub(crate) fn in_netns(test: impl Fn(&BpfRoot, &Socket) + Sync) {
    let netns = TestNetns::with_loopback();
    let root = BpfRoot::new();
    netns.run(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("no packet but ours");
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("no packet but ours");
        test(&root, &Socket::open().expect("a routing socket"));
    });
}

/// Runs a test with a device and an attacher of each mode, each time in another namespace.
pub(crate) fn in_each_mode(test: impl Fn(&BpfRoot, &Socket, Device<'_>, &Attacher) + Sync) {
    for mode in modes() {
        in_netns(|root, socket| {
            let attacher = Attacher::new(root.path(), mode).expect("an attacher");
            test(root, socket, make_device(socket, "dev0"), &attacher);
        });
    }
}

/// A veth device whose other end, `peer0`, sends it what goes to 192.0.2.2.
pub(crate) fn make_device<'a>(socket: &Socket, name: &'a str) -> Device<'a> {
    let mac: MacAddr = "02:00:00:00:00:02".parse().expect("a MAC address");
    let device = DeviceSpec { name, mac: Some(mac), ..DeviceSpec::default() };
    let peer = DeviceSpec { name: "peer0", ..DeviceSpec::default() };
    let pair = socket.link_create_veth(&VethSpec { device, up: true, peer }).expect("create a veth pair");
    socket.link_set_up(pair.peer_index).expect("bring the peer up");
    let prefix = "192.0.2.1/24".parse().expect("a prefix");
    socket.address_add(&AddressSpec::new(pair.peer_index, prefix)).expect("an address");
    let address = "192.0.2.2".parse().expect("an address");
    socket.neighbour_set(&NeighbourSpec { device: pair.peer_index, address, mac }).expect("a neighbour");
    Device { name, index: pair.index }
}

pub(crate) fn make_bare_device<'a>(socket: &Socket, name: &'a str) -> Device<'a> {
    let device = DeviceSpec { name, ..DeviceSpec::default() };
    let peer = name.replace("lxc", "tmp");
    let peer = DeviceSpec { name: &peer, ..DeviceSpec::default() };
    let pair = socket.link_create_veth(&VethSpec { device, up: true, peer }).expect("create a veth pair");
    Device { name, index: pair.index }
}

pub(crate) fn send(count: usize) {
    let socket = UdpSocket::bind("192.0.2.1:0").expect("a socket");
    for _ in 0..count {
        socket.send_to(b"probe", "192.0.2.2:9").expect("send");
    }
}

pub(crate) fn load(root: &BpfRoot, verdict: i32) -> ProgramSet {
    let mut constants = Constants::new();
    constants.set("cfg_verdict", verdict);
    Loader::new(root.maps()).object(PROBE).constants(constants).load().expect("the probe loads")
}

pub(crate) fn program(set: &ProgramSet) -> &Program {
    set.program(INGRESS).expect("the probe has it")
}

pub(crate) fn attach_both(
    attacher: &Attacher,
    device: Device<'_>,
    set: &ProgramSet,
) -> Vec<podwire::program::PinnedAttachment> {
    let egress = set.program(EGRESS).expect("the probe has it");
    let wanted = [(Direction::Ingress, program(set)), (Direction::Egress, egress)];
    let attachments = attacher.attach_all(device, &wanted).expect("attach");
    attachments.into_iter().map(|attachment| attachment.pin().expect("pin")).collect()
}

/// How many packets the program on ingress saw.
pub(crate) fn packets(set: &ProgramSet) -> u64 {
    read_u64(set, "probe.bss", 0)
}

pub(crate) fn count(attacher: &Attacher, device: Device<'_>) -> usize {
    attacher.query(device, Direction::Ingress).expect("query").len()
}

pub(crate) fn filters(socket: &Socket, device: Device<'_>) -> Vec<podwire::netlink::Filter> {
    let of = |direction| socket.filters(device.index, direction).expect("the filters");
    [of(Direction::Ingress), of(Direction::Egress)].concat()
}

pub(crate) fn foreign_filter<'a>(
    device: Device<'_>,
    program: &'a Program,
    priority: u16,
    name: &'a str,
) -> FilterSpec<'a> {
    let device: IfIndex = device.index;
    let direction = Direction::Ingress;
    FilterSpec { device, direction, priority, handle: 1, program: program.fd(), name, direct_action: true }
}

pub(crate) fn link_pin(root: &BpfRoot, device: &str) -> PathBuf {
    root.path().join("podwire/devices").join(device).join("links").join(INGRESS)
}

/// Runs tc in the calling thread's namespace.
pub(crate) fn tc(arguments: &[&str]) -> String {
    let output = Command::new("tc").args(arguments).output().expect("tc is installed");
    assert!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        std::thread::yield_now();
    }
}
