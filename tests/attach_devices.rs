//! Attaching to devices: both modes, replacement in place, other owners, death and return.

mod common;
#[path = "attach_devices/rig.rs"]
mod rig;

use std::fs;

use common::bpf::{BpfRoot, PROBE, kernel_at_least, tcx_or_skip};
use common::netns::TestNetns;
use podwire::ErrorKind;
use podwire::netlink::{FilterSpec, Socket};
use podwire::program::{AttachMode, Attached, Attacher, Device, Direction, Loader, Via};
use rig::*;

#[test]
fn both_modes_put_the_programs_on_their_hooks() {
    in_each_mode(|root, _, device, attacher| {
        let set = load(root, 0);
        let held = attach_both(attacher, device, &set);
        send(20);
        wait_until("every packet was seen", || packets(&set) == 20);

        for (direction, name) in [(Direction::Ingress, INGRESS), (Direction::Egress, EGRESS)] {
            let found = attacher.query(device, direction).expect("query");
            let [attached] = found.as_slice() else { panic!("{found:?}") };
            assert!(attached.ours);
            let program = set.program(name).expect("loaded");
            let info = attached.program.as_ref().expect("a program");
            assert_eq!((info.id, info.tag), (program.id(), program.tag()));
            assert_eq!(info.name, name[..15], "the kernel's name");
            match (&attached.via, attacher.mode()) {
                (Via::Filter { priority: 1, handle: 1, name: Some(name), .. }, AttachMode::Clsact) => {
                    assert_eq!(name, "cilium-dev0");
                }
                (Via::Tcx { link_id: Some(_), pin: Some(pin) }, AttachMode::Tcx) => {
                    assert_eq!(*pin, root.path().join("podwire/devices/dev0/links").join(name));
                }
                (via, mode) => panic!("{via:?} with {mode}"),
            }
        }
        drop(held);
    });
}

#[test]
fn the_filter_is_what_tc_shows() {
    in_netns(|root, socket| {
        let device = make_device(socket, "dev0");
        let attacher = Attacher::new(root.path(), AttachMode::Auto).expect("an attacher");
        assert_eq!(attacher.mode(), AttachMode::Clsact);
        let set = load(root, 0);
        let _held = attach_both(&attacher, device, &set);
        let shown = tc(&["filter", "show", "dev", "dev0", "ingress"]);
        let line = shown.lines().last().expect("a filter");
        for part in
            ["protocol all pref 1 bpf chain 0 handle 0x1 cilium-dev0 direct-action", "name probe_from_the", "jited"]
        {
            assert!(line.contains(part), "{part} in {shown}");
        }
    });
}

#[test]
fn dropping_detaches_and_pinning_does_not() {
    in_each_mode(|root, socket, device, attacher| {
        let set = load(root, 0);
        let attachment = attacher.attach(device, Direction::Ingress, program(&set)).expect("attach");
        assert_eq!(count(attacher, device), 1);
        drop(attachment);
        assert_eq!(count(attacher, device), 0);
        assert!(!socket.clsact_exists(device.index).expect("query"), "clsact goes with its last filter");

        let attachment = attacher.attach(device, Direction::Ingress, program(&set)).expect("attach");
        let pinned = attachment.pin().expect("pin");
        assert_eq!(pinned.mode(), attacher.mode());
        drop(pinned);
        assert_eq!(count(attacher, device), 1);
        attacher.find(device, Direction::Ingress).expect("find").expect("attached").detach().expect("detach");
        assert_eq!(count(attacher, device), 0);
        assert!(attacher.find(device, Direction::Ingress).expect("find").is_none());
    });
}

#[test]
fn a_program_is_replaced_in_place_without_missing_a_packet() {
    in_each_mode(|root, _, device, attacher| {
        let (old, new) = (load(root, 0), load(root, 0));
        let first = attacher.attach(device, Direction::Ingress, program(&old)).expect("attach");
        let link = first.pin().expect("pin").link_id();
        assert_eq!(link.is_some(), attacher.mode() == AttachMode::Tcx);
        let rounds = 50;
        for round in 0..rounds {
            let next = if round % 2 == 0 { &new } else { &old };
            send(10);
            let again = attacher.attach(device, Direction::Ingress, program(next)).expect("attach again");
            let again = again.pin().expect("pin again");
            assert_eq!(again.link_id(), link, "the same link");
            assert_eq!(again.program_id(), program(next).id());
            assert_eq!(count(attacher, device), 1);
        }
        wait_until("each packet was seen by one of the two", || packets(&old) + packets(&new) == 10 * rounds);
        assert!(packets(&new) > 0 && packets(&old) > 0);
    });
}

#[test]
fn an_attachment_that_was_replaced_leaves_the_newer_program() {
    in_each_mode(|root, _, device, attacher| {
        let (old, new) = (load(root, 0), load(root, 0));
        let first = attacher.attach(device, Direction::Ingress, program(&old)).expect("attach");
        let second = attacher.attach(device, Direction::Ingress, program(&new)).expect("attach the newer");
        let second = second.pin().expect("pin");
        drop(first);
        let found = attacher.query(device, Direction::Ingress).expect("query");
        let ids: Vec<u32> = found.iter().flat_map(|attached| &attached.program).map(|program| program.id).collect();
        assert_eq!(ids, [program(&new).id()]);
        second.detach().expect("detach");
        assert_eq!(count(attacher, device), 0);
    });
}

#[test]
fn what_was_permanent_remains_when_a_replacement_is_dropped() {
    in_each_mode(|root, _, device, attacher| {
        let (old, new) = (load(root, 0), load(root, 0));
        attacher.attach(device, Direction::Ingress, program(&old)).expect("attach").pin().expect("pin");
        drop(attacher.attach(device, Direction::Ingress, program(&new)).expect("attach the newer"));
        let found = attacher.find(device, Direction::Ingress).expect("find").expect("no hole was opened");
        assert_eq!(found.program_id(), program(&new).id());

        let again = attacher.attach(device, Direction::Ingress, program(&new)).expect("attach again");
        again.detach().expect("detach");
        assert_eq!(count(attacher, device), 0);
    });
}

#[test]
fn a_device_may_have_a_dot_in_its_name() {
    for mode in modes() {
        in_netns(|root, socket| {
            let device = make_device(socket, "eth0.100");
            let attacher = Attacher::new(root.path(), mode).expect("an attacher");
            let set = load(root, 0);
            attach_both(&attacher, device, &set);
            assert_eq!(attacher.known_devices().expect("the devices"), ["eth0.100"]);
            let found = attacher.query(device, Direction::Egress).expect("query");
            assert!(matches!(found.as_slice(), [Attached { ours: true, .. }]), "{found:?}");
            attacher.detach_all(device).expect("detach all");
            assert!(attacher.known_devices().expect("the devices").is_empty());
        });
    }
}

#[test]
fn a_new_process_takes_over_what_the_old_one_left() {
    for mode in modes() {
        in_netns(|root, socket| {
            let device = make_device(socket, "dev0");
            let load = || {
                let loader = Loader::new(root.maps()).object(PROBE);
                loader.load_or_adopt(&root.programs()).expect("load or adopt")
            };
            let (link, id) = {
                let set = load();
                let attacher = Attacher::new(root.path(), mode).expect("an attacher");
                let attachments = attacher.attach_all(device, &[(Direction::Ingress, program(&set))]).expect("attach");
                let pinned: Vec<_> = attachments.into_iter().map(|it| it.pin().expect("pin")).collect();
                (pinned[0].link_id(), program(&set).id())
            };
            // Nothing of the first process is held any more.
            send(5);
            let set = load();
            assert!(set.adopted());
            wait_until("packets were seen meanwhile", || packets(&set) == 5);
            let attacher = Attacher::new(root.path(), mode).expect("another attacher");
            let found = attacher.find(device, Direction::Ingress).expect("find").expect("still attached");
            assert_eq!((found.link_id(), found.program_id(), found.mode()), (link, id, mode));
            let again = attacher.attach(device, Direction::Ingress, program(&set)).expect("attach again");
            assert_eq!(again.pin().expect("pin").link_id(), link);
            attacher.detach_all(device).expect("detach all");
            assert_eq!(count(&attacher, device), 0);
            assert!(!root.path().join("podwire/devices/dev0").exists(), "no pin stays");
            assert!(!socket.clsact_exists(device.index).expect("query"));
        });
    }
}

#[test]
fn tcx_where_there_is_none_says_what_to_do() {
    in_netns(|root, socket| {
        let device = make_device(socket, "dev0");
        let attacher = Attacher::new(root.path(), AttachMode::Tcx).expect("an attacher");
        let set = load(root, 0);
        match attacher.attach(device, Direction::Ingress, program(&set)) {
            Ok(_) => assert!(kernel_at_least(6, 6)),
            Err(error) => {
                assert!(!kernel_at_least(6, 6), "{error}");
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(error.to_string().contains("clsact"), "{error}");
            }
        }
    });
}

#[test]
fn switching_modes_leaves_one_attachment() {
    if !tcx_or_skip() {
        return; // there is one mode alone
    }
    in_netns(|root, socket| {
        let device = make_device(socket, "dev0");
        let set = load(root, 0);
        for mode in [AttachMode::Tcx, AttachMode::Clsact, AttachMode::Tcx, AttachMode::Auto] {
            let attacher = Attacher::new(root.path(), mode).expect("an attacher");
            for attachment in attach_both(&attacher, device, &set) {
                assert_eq!(attachment.mode(), mode.resolved());
            }
            for direction in [Direction::Ingress, Direction::Egress] {
                let found = attacher.query(device, direction).expect("query");
                let [attached] = found.as_slice() else { panic!("{found:?}") };
                assert_eq!(matches!(attached.via, Via::Tcx { .. }), mode == AttachMode::Tcx, "{mode}");
            }
        }
    });
}

#[test]
fn a_defunct_link_is_made_anew() {
    if !tcx_or_skip() {
        return; // there are no links
    }
    in_netns(|root, socket| {
        let set = load(root, 0);
        let attacher = Attacher::new(root.path(), AttachMode::Tcx).expect("an attacher");
        let device = make_device(socket, "dev0");
        let old = attach_both(&attacher, device, &set)[0].link_id();
        socket.link_delete(device.index).expect("delete the device");
        assert!(link_pin(root, "dev0").exists(), "the pin of a link outlives the device");

        let device = make_device(socket, "dev0");
        assert!(attacher.find(device, Direction::Ingress).expect("find").is_none());
        let new = attach_both(&attacher, device, &set)[0].link_id();
        assert_ne!(new, old);
        send(3);
        wait_until("packets are seen", || packets(&set) == 3);
        let pins = fs::read_dir(root.path().join("podwire/devices/dev0/links")).expect("the pins").count();
        assert_eq!(pins, 2, "nothing is left aside");

        socket.link_delete(device.index).expect("delete the device");
        attacher.forget("dev0").expect("forget it");
        assert!(!link_pin(root, "dev0").exists());
        attacher.forget("dev0").expect("twice is fine");
    });
}

#[test]
fn a_link_of_another_namespace_is_not_taken_for_ours() {
    if !tcx_or_skip() {
        return; // there are no links
    }
    in_netns(|root, socket| {
        let set = load(root, 0);
        let device = make_device(socket, "dev0");
        let attacher = Attacher::new(root.path(), AttachMode::Tcx).expect("an attacher");
        let elsewhere = attach_both(&attacher, device, &set)[0].link_id();
        TestNetns::with_loopback().run(|| {
            let twin = make_device(&Socket::open().expect("a routing socket"), "dev0");
            assert_eq!(twin, device, "the same name and index");
            let attacher = Attacher::new(root.path(), AttachMode::Tcx).expect("another attacher");
            assert!(attacher.find(twin, Direction::Ingress).expect("find").is_none());
            assert_ne!(attach_both(&attacher, twin, &set)[0].link_id(), elsewhere);
            assert_eq!(count(&attacher, twin), 1);
        });
    });
}

#[test]
fn somebody_elses_filter_in_our_place_is_refused_and_stays() {
    in_netns(|root, socket| {
        let device = make_device(socket, "dev0");
        let (ours, theirs) = (load(root, 0), load(root, 1));
        socket.clsact_add(device.index).expect("clsact of somebody else");
        let spec = foreign_filter(device, program(&theirs), 1, "their-filter");
        let egress = FilterSpec { direction: Direction::Egress, ..spec };
        socket.filter_create(&egress).expect("their filter");
        let before = filters(socket, device);

        let attacher = Attacher::new(root.path(), AttachMode::Clsact).expect("an attacher");
        let wanted = [(Direction::Ingress, program(&ours)), (Direction::Egress, program(&ours))];
        let error = attacher.attach_all(device, &wanted).expect_err("the place is taken");
        assert_eq!(error.kind(), ErrorKind::Foreign);
        let text = error.to_string();
        let id = program(&theirs).id().to_string();
        assert!(text.contains("their-filter") && text.contains(&id) && text.contains("dev0"), "{text}");
        assert_eq!(filters(socket, device), before, "everything is as it was, the other hook included");

        // All filters of a priority see one protocol: here a classic program that sees IPv4 alone.
        let classic = ["filter", "add", "dev", "dev0", "ingress", "pref", "1", "protocol", "ip", "handle", "9", "bpf"];
        tc(&[&classic[..], &["bytecode", "1,6 0 0 0,"]].concat());
        let before = filters(socket, device);
        let error = attacher.attach(device, Direction::Ingress, program(&ours)).expect_err("another protocol");
        assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
        assert!(error.to_string().contains("ingress filter 1:9 of dev0"), "{error}");
        assert_eq!(filters(socket, device), before);
    });
}

#[test]
fn other_owners_are_left_alone() {
    for mode in modes() {
        in_netns(|root, socket| {
            let device = make_device(socket, "dev0");
            let (ours, theirs) = (load(root, -1), load(root, -1));
            // Another instance, whose link is foreign to this one, and a filter further back.
            let elsewhere = BpfRoot::new();
            if kernel_at_least(6, 6) {
                let other = Attacher::new(elsewhere.path(), AttachMode::Tcx).expect("another attacher");
                other.attach(device, Direction::Ingress, program(&theirs)).expect("attach").pin().expect("pin");
            }
            socket.clsact_add(device.index).expect("clsact of somebody else");
            socket.filter_create(&foreign_filter(device, program(&theirs), 7, "theirs")).expect("their filter");

            let attacher = Attacher::new(root.path(), mode).expect("an attacher");
            let before = attacher.query(device, Direction::Ingress).expect("query");
            assert_eq!(before.len(), if kernel_at_least(6, 6) { 2 } else { 1 });
            assert!(before.iter().all(|attached| !attached.ours));
            for _ in 0..2 {
                attacher.attach(device, Direction::Ingress, program(&ours)).expect("attach").pin().expect("pin");
                let found = attacher.query(device, Direction::Ingress).expect("query");
                assert_eq!(found.iter().filter(|attached| attached.ours).count(), 1);
                let others: Vec<Attached> = found.into_iter().filter(|attached| !attached.ours).collect();
                assert_eq!(others, before);
            }
            attacher.detach_all(device).expect("detach all");
            assert_eq!(attacher.query(device, Direction::Ingress).expect("query"), before);
            assert!(socket.clsact_exists(device.index).expect("query"), "it was not ours");
        });
    }
}

#[test]
fn clsact_that_was_there_stays_when_empty() {
    in_netns(|root, socket| {
        let device = make_device(socket, "dev0");
        socket.clsact_add(device.index).expect("clsact of somebody else");
        let attacher = Attacher::new(root.path(), AttachMode::Clsact).expect("an attacher");
        let set = load(root, 0);
        drop(attacher.attach(device, Direction::Ingress, program(&set)).expect("attach"));
        assert!(socket.clsact_exists(device.index).expect("query"));
    });
}

#[test]
fn the_older_ingress_discipline_is_refused() {
    in_netns(|root, socket| {
        let device = make_device(socket, "dev0");
        tc(&["qdisc", "add", "dev", "dev0", "ingress"]);
        let attacher = Attacher::new(root.path(), AttachMode::Clsact).expect("an attacher");
        let set = load(root, 0);
        let both = [(Direction::Ingress, program(&set)), (Direction::Egress, program(&set))];
        for wanted in [&both[..], &both[..1], &both[1..]] {
            let error = attacher.attach_all(device, wanted).expect_err("ingress is in the way");
            assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
            assert!(filters(socket, device).is_empty(), "nothing stays");
        }
        assert!(tc(&["qdisc", "show", "dev", "dev0"]).contains("ingress"));
    });
}

#[test]
fn a_device_that_is_gone_is_not_found() {
    in_each_mode(|root, socket, device, attacher| {
        let set = load(root, 0);
        let attachment = attacher.attach(device, Direction::Ingress, program(&set)).expect("attach");
        let pinned = attachment.pin().expect("pin");
        socket.link_delete(device.index).expect("delete the device");
        let error = attacher.attach(device, Direction::Ingress, program(&set)).expect_err("no device");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("dev0"), "{error}");
        pinned.detach().expect("what went with the device is fine");
        attacher.detach_all(device).expect("and again");
    });
}

#[test]
fn threads_share_an_attacher() {
    for mode in modes() {
        in_netns(|root, socket| {
            let attacher = Attacher::new(root.path(), mode).expect("an attacher");
            let set = load(root, 0);
            let names: Vec<String> = (0..16).map(|number| format!("lxc{number:012x}")).collect();
            let devices: Vec<Device<'_>> = names.iter().map(|name| make_bare_device(socket, name)).collect();
            std::thread::scope(|scope| {
                for half in devices.chunks(4) {
                    scope.spawn(|| half.iter().for_each(|device| drop(attach_both(&attacher, *device, &set))));
                }
            });
            for device in devices {
                assert_eq!(count(&attacher, device), 1, "{}", device.name);
            }
        });
    }
}

#[test]
fn attach_modes_have_names() {
    for (text, mode) in [("auto", AttachMode::Auto), ("tcx", AttachMode::Tcx), ("clsact", AttachMode::Clsact)] {
        assert_eq!(text.parse::<AttachMode>().expect("a mode"), mode);
        assert_eq!(mode.to_string(), text);
    }
    let error = "netkit".parse::<AttachMode>().expect_err("not a mode");
    assert_eq!(error.to_string(), "attach mode: \"netkit\": must be auto, tcx or clsact");
}
