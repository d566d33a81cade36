//! Events, and many devices at once.

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::netns::TestNetns;
use podwire::IfIndex;
use podwire::netlink::{
    AddressEvents, AddressSpec, DeviceSpec, LinkChange, LinkEvent, LinkEvents, Request, RouteSpec, Socket, VethSpec,
};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn veth(socket: &Socket, name: &str, pod: &TestNetns) -> IfIndex {
    let spec = VethSpec {
        device: DeviceSpec { name, group: Some(5), ..DeviceSpec::default() },
        up: true,
        peer: DeviceSpec { name, netns: Some(pod.netns().as_fd()), ..DeviceSpec::default() },
    };
    socket.link_create_veth(&spec).expect("create a veth pair").index
}

/// Passes events by until one is wanted.
fn find(events: &mut LinkEvents, wanted: impl Fn(&LinkEvent) -> bool) -> LinkEvent {
    let deadline = soon();
    loop {
        let event = events.next(deadline).expect("receive").expect("it comes in time");
        if wanted(&event) {
            return event;
        }
    }
}

#[test]
fn devices_are_seen_coming_changing_and_going() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    let mut events = LinkEvents::open_in(host.netns()).expect("open");
    assert_eq!(events.next(Instant::now()).expect("receive"), None, "nothing has happened");

    let index = veth(&socket, "lxc1", &pod);
    find(&mut events, |event| matches!(event, LinkEvent::New(link) if link.index == index && link.is_up));
    // In two steps: on Linux 6.1 a device that is up keeps its name.
    socket.link_set_down(index).expect("change");
    socket.link_set(index, &LinkChange { name: Some("other"), ..LinkChange::default() }).expect("change");
    find(&mut events, |event| matches!(event, LinkEvent::New(link) if link.name == "other" && !link.is_up));
    socket.link_delete(index).expect("delete");
    let gone = find(&mut events, |event| matches!(event, LinkEvent::Deleted { .. }));
    assert_eq!(gone, LinkEvent::Deleted { index, name: "other".to_owned() });
    assert_eq!(events.next(Instant::now()).expect("receive"), None, "nothing else has happened");
}

#[test]
fn a_deletion_is_known_while_another_thread_waits_for_it() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    let (first, second) = (veth(&socket, "a", &pod), veth(&socket, "b", &pod));
    let mut events = LinkEvents::open_in(host.netns()).expect("open");
    thread::scope(|scope| {
        let deletion = scope.spawn(|| socket.links_delete_group(5));
        assert!(events.wait_deleted(first, soon()).expect("receive"));
        assert!(events.wait_deleted(second, soon()).expect("receive"));
        deletion.join().expect("no panic").expect("delete");
    });
    let long_gone = events.wait_deleted(first, Instant::now()).expect("receive");
    assert!(!long_gone, "its event was taken; nothing more comes");
}

#[test]
fn a_device_that_leaves_for_another_namespace_counts_as_deleted() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    let index = veth(&socket, "lxc1", &pod);
    let elsewhere = TestNetns::new();
    let mut events = LinkEvents::open_in(host.netns()).expect("open");
    let change = LinkChange { netns: Some(elsewhere.netns().as_fd()), ..LinkChange::default() };
    socket.link_set(index, &change).expect("move");
    assert!(events.wait_deleted(index, soon()).expect("receive"));
}

#[test]
fn a_reader_that_falls_behind_is_told() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    let index = veth(&socket, "lxc1", &pod);
    let kept = veth(&socket, "kept", &pod);
    let mut events = LinkEvents::open_in(host.netns()).expect("open");
    // each change is an event of a kilobyte or two, and the buffer has room for a few megabytes
    let toggle = |group| Request::link_set(kept, &LinkChange { group: Some(group), ..LinkChange::default() });
    let batch: Vec<_> = (0..2_000).map(|number| toggle(100 + number % 2).expect("encode")).collect();
    for _ in 0..5 {
        socket.execute_all(&batch).expect("change");
    }
    socket.link_delete(index).expect("delete, unseen");
    let mut lost = false;
    let deadline = soon();
    while !lost {
        let event = events.next(deadline).expect("receive").expect("it comes in time");
        lost = event == LinkEvent::Lost;
    }

    // the same again, for the one who waits for the deletion that was lost
    let mut events = LinkEvents::open_in(host.netns()).expect("open");
    let index = veth(&socket, "lxc2", &pod);
    for _ in 0..5 {
        socket.execute_all(&batch).expect("change");
    }
    socket.link_delete(index).expect("delete, unseen");
    assert!(events.wait_deleted(index, soon()).expect("receive"));
}

#[test]
fn a_thousand_devices_are_listed_and_deleted_together() {
    const PAIRS: usize = 500;
    let host = TestNetns::new();
    let socket = host.socket();
    let requests: Vec<_> = (0..PAIRS)
        .map(|number| {
            let (name, peer) = (format!("lxc{number}"), format!("peer{number}"));
            let spec = VethSpec {
                device: DeviceSpec { name: &name, group: Some(5), ..DeviceSpec::default() },
                up: false,
                peer: DeviceSpec { name: &peer, ..DeviceSpec::default() },
            };
            Request::link_create_veth(&spec).expect("encode")
        })
        .collect();
    socket.execute_all(&requests).expect("create");
    let links = socket.links().expect("list");
    assert_eq!(links.len(), 2 * PAIRS + 1);
    for number in 0..PAIRS {
        let name = format!("lxc{number}");
        let link = links.iter().find(|link| link.name == name).expect("listed");
        let peer = links.iter().find(|peer| Some(peer.index) == link.peer_index).expect("listed");
        assert_eq!(peer.name, format!("peer{number}"));
    }
    socket.links_delete_group(5).expect("delete");
    assert_eq!(socket.links().expect("list").len(), 1);
}

#[test]
fn a_list_is_whole_while_devices_come_and_go() {
    const STABLE: usize = 300;
    let host = TestNetns::new();
    let (socket, other) = (host.socket(), host.socket());
    let pair = |name: &str, peer: &str| {
        let device = DeviceSpec { name, group: Some(5), ..DeviceSpec::default() };
        let spec = VethSpec { device, up: false, peer: DeviceSpec { name: peer, ..DeviceSpec::default() } };
        Request::link_create_veth(&spec).expect("encode")
    };
    let stable: Vec<_> = (0..STABLE).map(|number| pair(&format!("s{number}"), &format!("p{number}"))).collect();
    socket.execute_all(&stable).expect("create");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) || rounds < 3 {
                other.execute(&pair("comes", "goes")).expect("create");
                other.link_delete(other.link_by_name("comes").expect("there").index).expect("delete");
                rounds += 1;
            }
        });
        let lists: Vec<_> = (0..20).map(|_| socket.links()).collect();
        done.store(true, Ordering::Relaxed);
        for list in lists {
            let links = list.expect("list");
            assert_eq!(links.iter().filter(|link| link.name.starts_with('s')).count(), STABLE);
            assert!(links.is_sorted_by(|one, next| one.index < next.index), "each once");
        }
        churn.join().expect("the churn went well");
    });
    socket.links_delete_group(5).expect("delete");
}

#[test]
fn one_socket_serves_many_threads() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (socket, pod) = (&socket, &pod);
            scope.spawn(move || {
                for round in 0..10 {
                    let name = format!("t{thread}r{round}");
                    let index = veth(socket, &name, pod);
                    assert_eq!(socket.link_by_name(&name).expect("found").index, index);
                    assert!(socket.links().expect("list").iter().any(|link| link.name == name));
                }
            });
        }
    });
    assert_eq!(socket.links().expect("list").len(), 41);
}

#[test]
fn addresses_and_default_routes_are_told_of() {
    let (host, pod) = (TestNetns::new(), TestNetns::new());
    let socket = host.socket();
    let index = veth(&socket, "eth0", &pod);
    let prefix = |text: &str| text.parse().expect("a prefix");
    let mut events = AddressEvents::open_in(host.netns()).expect("open");
    for other in ["198.51.100.0/24", "2001:db8:1::/64"] {
        socket.route_add(&RouteSpec::new(prefix(other)).device(index)).expect("added");
    }
    socket.address_add(&AddressSpec::new(index, prefix("fe80::77/64"))).expect("added");
    assert!(
        !events.changed(Instant::now()).expect("receive"),
        "only default routes matter, and no addresses of the link"
    );

    for text in ["192.0.2.1/24", "2001:db8::1/64"] {
        socket.address_add(&AddressSpec::new(index, prefix(text))).expect("added");
        assert!(events.changed(soon()).expect("receive"));
        let mut events = AddressEvents::open_in(host.netns()).expect("open");
        socket.address_delete(index, prefix(text)).expect("removed");
        assert!(events.changed(soon()).expect("receive"));
    }
    for default in ["0.0.0.0/0", "::/0"] {
        let default = RouteSpec::new(prefix(default)).device(index);
        for change in [Socket::route_add, Socket::route_delete] {
            let mut events = AddressEvents::open_in(host.netns()).expect("open");
            change(&socket, &default).expect("changed");
            assert!(events.changed(soon()).expect("receive"));
        }
    }
}
