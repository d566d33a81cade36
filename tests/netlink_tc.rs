//! clsact and BPF filters, ours beside those of others.
#![allow(unsafe_code, reason = "loads two instructions without an object around them")]

mod common;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::ptr;

use common::netns::TestNetns;
use podwire::netlink::{DeviceSpec, Direction, Filter, FilterSpec, Socket, VethSpec};
use podwire::{ErrorKind, IfIndex};

/// A program of type `sched_cls` that returns `verdict`.
fn program(verdict: i32) -> OwnedFd {
    let instruction = |code, imm| {
        let mut instruction = libbpf_sys::bpf_insn { code, imm, ..Default::default() };
        instruction.set_dst_reg(0);
        instruction
    };
    // r0 = verdict; exit
    let instructions = [instruction(0xb7, verdict), instruction(0x95, 0)];
    let (name, license) = (CString::new("two_insns").expect("no zero"), CString::new("GPL").expect("no zero"));
    // SAFETY: all pointers lead to live data of the lengths given; no options are passed.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            name.as_ptr(),
            license.as_ptr(),
            instructions.as_ptr(),
            instructions.len() as u64,
            ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "load: {}", io::Error::from_raw_os_error(-fd));
    // SAFETY: the descriptor was just opened and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn id(program: &OwnedFd) -> Option<u32> {
    Some(libbpf_rs::Program::id_from_fd(program.as_fd()).expect("query the program"))
}

fn device(socket: &Socket) -> IfIndex {
    let spec = VethSpec {
        device: DeviceSpec { name: "lxc1", ..DeviceSpec::default() },
        up: true,
        peer: DeviceSpec { name: "peer", ..DeviceSpec::default() },
    };
    socket.link_create_veth(&spec).expect("create a veth pair").index
}

fn ours(device: IfIndex, direction: Direction, program: BorrowedFd<'_>) -> FilterSpec<'_> {
    FilterSpec { device, direction, priority: 1, handle: 1, program, name: "cilium-lxc1", direct_action: true }
}

fn named<'a>(filters: &'a [Filter], name: &str) -> &'a Filter {
    filters.iter().find(|filter| filter.name.as_deref() == Some(name)).expect("listed")
}

/// What the distribution's own tool says, or does.
fn tc(netns: &TestNetns, arguments: &str) -> String {
    let output = Command::new("tc")
        .args(["-n", netns.name()])
        .args(arguments.split(' '))
        .output()
        .expect("iproute2 is installed on a machine that tests");
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn clsact_comes_once_and_goes() {
    let host = TestNetns::new();
    let socket = host.socket();
    let device = device(&socket);
    assert!(!socket.clsact_exists(device).expect("query"));
    assert!(socket.clsact_add(device).expect("add"), "it was not there");
    assert!(!socket.clsact_add(device).expect("again"), "it was there");
    assert!(socket.clsact_exists(device).expect("query"));
    assert!(tc(&host, "qdisc show dev lxc1").contains("clsact"));
    socket.clsact_delete(device).expect("delete");
    assert!(!socket.clsact_exists(device).expect("query"));
    let gone = socket.clsact_delete(device).expect_err("twice").kind();
    assert!(matches!(gone, ErrorKind::NotFound | ErrorKind::InvalidInput), "{gone:?}");
    let nowhere = IfIndex::new(4_000_000).expect("not 0");
    assert_eq!(socket.clsact_add(nowhere).expect_err("no such device").kind(), ErrorKind::NotFound);
}

#[test]
fn an_older_ingress_discipline_is_somebody_elses() {
    let host = TestNetns::new();
    let socket = host.socket();
    let device = device(&socket);
    tc(&host, "qdisc add dev lxc1 ingress");
    assert!(!socket.clsact_exists(device).expect("query"));
    let error = socket.clsact_add(device).expect_err("its place is taken");
    assert_eq!(error.kind(), ErrorKind::Foreign);
    assert!(error.to_string().contains("tc qdisc del dev"), "{error}");
    assert!(tc(&host, "qdisc show dev lxc1").contains("ingress"), "left alone");
}

#[test]
fn a_filter_is_what_was_asked_for() {
    let host = TestNetns::new();
    let socket = host.socket();
    let device = device(&socket);
    socket.clsact_add(device).expect("add");
    let (first, second) = (program(0), program(2));
    for direction in [Direction::Ingress, Direction::Egress] {
        assert_eq!(socket.filters(device, direction).expect("list"), []);
        socket.filter_create(&ours(device, direction, first.as_fd())).expect("create");
        let filters = socket.filters(device, direction).expect("list");
        let [filter] = &filters[..] else { panic!("expected one filter: {filters:?}") };
        assert_eq!((filter.device, filter.direction, filter.kind.as_str()), (device, direction, "bpf"));
        assert_eq!((filter.priority, filter.handle, filter.protocol), (1, 1, 3));
        assert_eq!((filter.name.as_deref(), filter.direct_action), (Some("cilium-lxc1"), true));
        assert_eq!(filter.program_id, id(&first));

        let twice = socket.filter_create(&ours(device, direction, second.as_fd())).expect_err("it exists");
        assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
        socket.filter_replace(&ours(device, direction, second.as_fd())).expect("replace");
        let filters = socket.filters(device, direction).expect("list");
        assert_eq!((filters.len(), filters[0].program_id), (1, id(&second)));
        assert_ne!(filters[0].program_tag, filter.program_tag);
        assert!(filters[0].program_tag.is_some());
    }
    let shown = tc(&host, "filter show dev lxc1 egress");
    let wanted = "pref 1 bpf chain 0 handle 0x1 cilium-lxc1 direct-action";
    assert!(shown.contains(wanted), "{shown}");
    socket.filter_delete(device, Direction::Ingress, 1, 1).expect("delete");
    assert_eq!(socket.filters(device, Direction::Ingress).expect("list"), []);
    assert_eq!(socket.filters(device, Direction::Egress).expect("list").len(), 1, "the other direction's stays");
    let gone = socket.filter_delete(device, Direction::Ingress, 1, 1).expect_err("twice");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn filters_of_others_survive_ours() {
    let host = TestNetns::new();
    let socket = host.socket();
    let device = device(&socket);
    socket.clsact_add(device).expect("add");
    let (mine, theirs) = (program(0), program(-1));
    let foreign = FilterSpec {
        priority: 7,
        handle: 3,
        name: "somebody",
        direct_action: false,
        ..ours(device, Direction::Ingress, theirs.as_fd())
    };
    let neighbour = FilterSpec { handle: 2, name: "same-priority", ..ours(device, Direction::Ingress, theirs.as_fd()) };
    socket.filter_create(&foreign).expect("create");
    socket.filter_create(&neighbour).expect("create");
    tc(&host, "filter add dev lxc1 ingress pref 9 protocol ip u32 match u32 0 0 flowid 1:1");
    let theirs_before = socket.filters(device, Direction::Ingress).expect("list");
    // u32 shows its hash table, too
    let kinds: Vec<_> = theirs_before.iter().map(|filter| filter.kind.as_str()).collect();
    assert_eq!(kinds, ["bpf", "bpf", "u32", "u32"]);

    socket.filter_replace(&ours(device, Direction::Ingress, mine.as_fd())).expect("ours");
    socket.filter_replace(&ours(device, Direction::Ingress, mine.as_fd())).expect("ours again");
    let all = socket.filters(device, Direction::Ingress).expect("list");
    assert_eq!(all.len(), theirs_before.len() + 1, "{all:?}");
    assert_eq!(named(&all, "somebody").program_id, id(&theirs));
    assert!(!named(&all, "somebody").direct_action);
    let u32 = all.iter().rfind(|filter| filter.kind == "u32").expect("listed");
    assert_eq!((u32.priority, u32.protocol, u32.name.as_deref()), (9, 0x0800, None));
    let priorities: Vec<_> = all.iter().map(|filter| filter.priority).collect();
    assert!(priorities.is_sorted(), "{priorities:?}");

    socket.filter_delete(device, Direction::Ingress, 1, 1).expect("delete ours");
    assert_eq!(socket.filters(device, Direction::Ingress).expect("list"), theirs_before);
    let wrong_kind = socket.filter_delete(device, Direction::Ingress, 9, u32.handle).expect_err("not BPF");
    assert!(matches!(wrong_kind.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound), "{wrong_kind}");
    assert_eq!(socket.filters(device, Direction::Ingress).expect("list"), theirs_before);
}

#[test]
fn impossible_filters_are_refused() {
    let host = TestNetns::new();
    let socket = host.socket();
    let device = device(&socket);
    let program = program(0);
    let good = ours(device, Direction::Ingress, program.as_fd());
    let long = "x".repeat(257);
    for bad in [
        FilterSpec { priority: 0, ..good },
        FilterSpec { handle: 0, ..good },
        FilterSpec { name: "", ..good },
        FilterSpec { name: &long, ..good },
    ] {
        assert_eq!(socket.filter_create(&bad).expect_err("refused").kind(), ErrorKind::InvalidInput);
    }
    assert!(socket.filter_create(&good).is_err(), "there is no clsact");
    assert_eq!(socket.filters(device, Direction::Ingress).expect("list"), []);
    socket.clsact_add(device).expect("add");
    let file: OwnedFd = std::fs::File::open("/dev/null").expect("open").into();
    let error = socket.filter_create(&FilterSpec { program: file.as_fd(), ..good }).expect_err("not a program");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
