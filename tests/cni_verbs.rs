//! The verbs against an agent in memory, in namespaces of their own. Needs root.
mod common {
    #![allow(dead_code, unreachable_pub, reason = "every test program uses a part of what they share")]
    pub mod cni;
    pub mod netns;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::cni::{AFTER_CREATION, Call, Host, answered, ended, unreachable};
use common::netns::TestNetns;
use podwire::cni::{Attachment, DeletionQueue, Outcome};
use podwire::endpoint::veth::{OffloadLimits, Veth, VethSpec};
use podwire::netlink::{LinkChange, RouteSpec, Socket};
use podwire::{Error, ErrorKind};
use serde_json::{Value, json};

const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn call<'a>(command: &'a str, container: &'a str, netns: &'a Path) -> Call<'a> {
    Call { command, container, ifname: "eth0", netns }
}

fn with_result(mut conf: Value, result: &Value) -> Value {
    conf["prevResult"] = result.clone();
    conf
}

#[test]
fn a_life_in_every_version() {
    for version in VERSIONS {
        let (host, pod) = (Host::new(), TestNetns::new());
        let conf = host.conf(version);
        let result = host.add("abc", &pod, &conf);
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"][0]["name"], host.devices()[0]);
        assert_eq!(result["interfaces"][1]["sandbox"], pod.path().to_str().expect("ASCII"));
        assert_eq!(result["ips"][0]["address"], "10.8.0.1/32");
        assert_eq!(result["ips"][1]["gateway"], "fd00:8::fe");
        assert_eq!(result["ips"][0]["version"], if version < "1" { json!("4") } else { json!(null) });
        let default = &result["routes"][1];
        assert_eq!((&default["dst"], &default["gw"]), (&json!("0.0.0.0/0"), &json!("10.8.0.254")));
        assert_eq!(default["mtu"], if version == "1.1.0" { json!(1450) } else { json!(null) });
        {
            let state = host.agent.state();
            let endpoint = state.endpoints.values().next().expect("an endpoint");
            assert_eq!(endpoint.pod, Some(("default".into(), "web".into())));
            assert_eq!(endpoint.addresses[0].expiration, "claim-10.8.0.1");
            assert_eq!(result["interfaces"][0]["mac"], endpoint.host_mac.to_string());
            assert_eq!(state.calls, ["allocate", "settings", "create_endpoint"], "no needless request");
        }
        let check = host.call(&call("CHECK", "abc", pod.path()), &with_result(conf.clone(), &result));
        match version {
            "0.3.1" => assert_eq!(check.expect_err("no CHECK yet").error.code(), 1),
            _ => assert_eq!(check.expect("as ADD left it"), Outcome::Silent),
        }
        for netns in [pod.path(), pod.path(), Path::new("")] {
            assert_eq!(host.call(&call("DEL", "abc", netns), &conf).expect("DEL succeeds"), Outcome::Silent);
            host.assert_clean(&[&pod]);
        }
    }
}

#[test]
fn what_an_agent_tells_with_the_addresses_is_not_asked_for() {
    let (host, pod) = (Host::new(), TestNetns::new());
    host.agent.state().tells_settings = true;
    let result = host.add("abc", &pod, &host.conf("1.1.0"));
    assert_eq!(result["routes"][1]["mtu"], 1450);
    assert_eq!(host.agent.state().calls, ["allocate", "create_endpoint"]);
}

#[test]
fn clsact_is_added_for_an_agent_that_attaches_by_it() {
    for (clsact, tells_settings) in [(true, true), (true, false), (false, true), (false, false)] {
        let (host, pod) = (Host::new(), TestNetns::new());
        (host.agent.state().clsact, host.agent.state().tells_settings) = (clsact, tells_settings);
        host.add("abc", &pod, &host.conf("1.1.0"));
        let socket = host.netns.socket();
        let device = socket.link_by_name(&host.devices()[0]).expect("the host's side").index;
        assert_eq!(socket.clsact_exists(device).expect("asked"), clsact);
        host.call(&call("DEL", "abc", pod.path()), &host.conf("1.1.0")).expect("DEL succeeds");
        host.assert_clean(&[&pod]);
    }
}

#[test]
fn a_place_that_is_taken_is_the_agents_to_report() {
    let (host, pod) = (Host::new(), TestNetns::new());
    host.agent.state().clsact = true;
    host.agent.state().ingress_first = true;
    host.add("abc", &pod, &host.conf("1.1.0"));
    let device = host.netns.socket().link_by_name(&host.devices()[0]).expect("the host's side").index;
    assert!(!host.netns.socket().clsact_exists(device).expect("asked"));
}

#[test]
fn the_pair_gets_the_limits_that_the_agent_tells() {
    let offload = OffloadLimits { gro: 65_000, gso: 64_000, ..OffloadLimits::default() };
    for (wish, mtu) in [(None, 1400), (Some(1300), 1300)] {
        let (host, pod) = (Host::new(), TestNetns::new());
        host.agent.state().limits = Some((1400, offload));
        let mut conf = host.conf("1.1.0");
        if let Some(wish) = wish {
            conf["mtu"] = json!(wish);
        }
        let result = host.add("abc", &pod, &conf);
        let outside = host.netns.socket().link_by_name(&host.devices()[0]).expect("the host's side");
        let inside = pod.socket().link_by_name("eth0").expect("the pod's side");
        for (link, interface) in [outside, inside].iter().zip(0..) {
            assert_eq!((link.mtu, link.gro_max_size, link.gso_max_size), (mtu, Some(65_000), Some(64_000)));
            assert_eq!(result["interfaces"][interface]["mtu"], mtu);
        }
    }
}

#[test]
fn a_busy_agent_is_asked_again_and_the_pair_is_made_once() {
    let (host, pod) = (Host::new(), TestNetns::new());
    let mut conf = host.conf("1.0.0");
    conf["agent-timeout"] = json!(10);
    host.agent.fail("allocate", answered(503));
    host.agent.fail("allocate", unreachable());
    host.add("abc", &pod, &conf);
    // a second pair would have met the first one, and asked whose it is
    assert_eq!(host.agent.state().calls, ["allocate", "allocate", "allocate", "settings", "create_endpoint"]);
}

/// An agent that is started anew while a pod is attached: nothing is asked for that may have been done, and nothing made twice.
#[test]
fn an_agent_that_ends_meanwhile_costs_no_attachment() {
    let again = ["allocate", "settings", "create_endpoint", "endpoint_health", "create_endpoint"];
    let cases: [(&str, Error, &[&str]); 4] = [
        ("allocate", ended(), &["allocate", "allocate", "settings", "create_endpoint"]),
        ("create_endpoint", unreachable(), &["allocate", "settings", "create_endpoint", "create_endpoint"]),
        ("create_endpoint", ended(), &again),
        (AFTER_CREATION, ended(), &["allocate", "settings", "create_endpoint", "endpoint_health"]),
    ];
    for (at, error, calls) in cases {
        let (host, pod) = (Host::new(), TestNetns::new());
        let mut conf = host.conf("1.0.0");
        conf["agent-timeout"] = json!(10);
        host.agent.fail(at, error);
        host.add("abc", &pod, &conf);
        assert_eq!(host.agent.state().calls, calls, "{at}");
        assert_eq!(host.agent.state().endpoints.len(), 1, "{at}");
    }
}

#[test]
fn whatever_fails_is_undone() {
    let cases = [
        ("settings", unreachable(), 11),
        ("settings", answered(500), 999),
        ("allocate", answered(502), 104),
        ("allocate", answered(503), 11),
        ("allocate", unreachable(), 11),
        ("create_endpoint", answered(400), 999),
        ("create_endpoint", answered(500), 999),
        ("create_endpoint", answered(503), 11),
        ("create_endpoint", unreachable(), 11),
    ];
    for (at, error, code) in cases {
        let (host, pod) = (Host::new(), TestNetns::new());
        let what = format!("{at}: {error}");
        host.agent.fail(at, error);
        host.refused(&call("ADD", "abc", pod.path()), &host.conf("1.0.0"), code);
        host.assert_clean(&[&pod]);
        if at == "allocate" {
            assert_eq!(host.agent.state().calls, ["allocate"], "there is nothing else to ask for");
        }
        let deletes = host.agent.state().calls.iter().filter(|call| **call == "delete_endpoint").count();
        let may_exist = at == "create_endpoint" && what.contains("status 5");
        assert_eq!(deletes, usize::from(may_exist), "{what}: what was refused is not deleted");
    }
}

#[test]
fn a_namespace_that_vanishes_at_any_step() {
    for at in ["settings", "allocate", "create_endpoint"] {
        let (host, path) =
            (Host::new(), std::path::PathBuf::from(format!("/run/netns/podwire-gone-{at}-{}", std::process::id())));
        let pod = podwire::netns::NetNs::create_named(&path).expect("a namespace");
        host.agent.state().remove_at = Some((at, path.clone()));
        let error = host.refused(&call("ADD", "abc", &path), &host.conf("1.1.0"), 3);
        assert!(error["msg"].as_str().expect("text").contains("vanished"), "{error}");
        host.assert_clean(&[]);
        drop(pod);
    }
}

#[test]
fn unusable_namespaces() {
    let host = Host::new();
    let file = host.dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let conf = host.conf("1.0.0");
    for command in ["ADD", "CHECK"] {
        let previous = json!({ "interfaces": [{ "name": "eth0", "sandbox": "x" }] });
        let conf = if command == "ADD" { conf.clone() } else { with_result(conf.clone(), &previous) };
        host.refused(&call(command, "abc", Path::new("/run/netns/podwire-no-such")), &conf, 3);
        host.refused(&call(command, "abc", &file), &conf, 4);
        host.refused(&call(command, "abc", host.netns.path()), &conf, 4);
        host.refused(&call(command, "abc", Path::new("/proc/thread-self/ns/mnt")), &conf, 4);
    }
    host.assert_clean(&[]);
    assert!(host.agent.state().calls.is_empty(), "nothing is asked for in vain");
}

#[test]
fn an_attachment_is_made_once() {
    let (host, pod, other) = (Host::new(), TestNetns::new(), TestNetns::new());
    let conf = host.conf("1.0.0");
    let result = host.add("abc", &pod, &conf);
    let error = host.refused(&call("ADD", "abc", pod.path()), &conf, 103);
    assert!(error["msg"].as_str().expect("text").contains("abc:eth0 is attached already"), "{error}");
    host.refused(&call("ADD", "abc", other.path()), &conf, 103);
    // another container in the same namespace: its eth0 is taken
    let error = host.refused(&call("ADD", "def", pod.path()), &conf, 103);
    assert!(error["msg"].as_str().expect("text").contains("interface eth0 exists already"), "{error}");
    assert_eq!(host.agent.state().allocated.len(), 2, "the first keeps its addresses, the others released theirs");
    host.call(&call("CHECK", "abc", pod.path()), &with_result(conf, &result)).expect("the first is untouched");
}

#[test]
fn what_a_killed_add_left_is_replaced_or_deleted() {
    let (host, pod) = (Host::new(), TestNetns::new());
    let attachment = Attachment::new("abc", "eth0").expect("valid");
    let leave = |alias: Option<&str>| {
        host.netns.run(|| {
            let name = attachment.host_ifname();
            let spec = VethSpec::new(&name, "eth0", pod.netns()).expect("random bytes");
            Veth::create(&Socket::open().expect("a socket"), &VethSpec { alias, ..spec }).expect("a pair");
        });
    };
    // it can die before the device is marked, too
    for alias in [Some("podwire_cni:pods:abc:eth0"), None] {
        leave(alias);
        host.add("abc", &pod, &host.conf("1.0.0"));
        host.call(&call("DEL", "abc", pod.path()), &host.conf("1.0.0")).expect("DEL succeeds");
        host.assert_clean(&[&pod]);
        leave(alias);
        host.call(&call("DEL", "abc", pod.path()), &host.conf("1.0.0")).expect("DEL succeeds");
        host.assert_clean(&[&pod]);
    }
}

#[test]
fn a_device_of_somebody_else_is_left_alone() {
    let (host, pod, other) = (Host::new(), TestNetns::new(), TestNetns::new());
    let name = Attachment::new("abc", "eth0").expect("valid").host_ifname();
    host.netns.run(|| {
        let spec = VethSpec::new(&name, "theirs", other.netns()).expect("random bytes").alias("uplink");
        Veth::create(&Socket::open().expect("a socket"), &spec).expect("a pair");
    });
    host.refused(&call("ADD", "abc", pod.path()), &host.conf("1.0.0"), 103);
    host.call(&call("DEL", "abc", pod.path()), &host.conf("1.0.0")).expect("DEL succeeds");
    assert_eq!(host.devices(), [name]);
}

#[test]
fn deletions_without_an_agent_are_queued() {
    let (host, pod) = (Host::new(), TestNetns::new());
    let conf = host.conf("1.0.0");
    host.add("abc", &pod, &conf);
    for _ in 0..3 {
        host.agent.fail("delete_endpoint", unreachable());
        host.agent.fail("delete_endpoint", unreachable());
        host.call(&call("DEL", "abc", Path::new("")), &conf).expect("DEL succeeds");
        assert_eq!(host.devices(), [""; 0], "traffic ends with DEL");
    }
    let queue = DeletionQueue::beside(&host.socket_path());
    let mut seen = Vec::new();
    let lock = queue.drain(|attachment| {
        seen.push(attachment.to_string());
        Ok(())
    });
    assert_eq!(seen, ["abc:eth0"]);
    assert!(lock.expect("drained").is_empty().expect("readable"));

    // an agent that starts between the two questions gets the request itself
    host.add("def", &pod, &conf);
    host.agent.fail("delete_endpoint", unreachable());
    host.call(&call("DEL", "def", Path::new("")), &conf).expect("DEL succeeds");
    assert_eq!(host.agent.state().endpoints.len(), 1, "only abc, whose deletion the agent never got");
    assert_eq!(std::fs::read_dir(queue.dir()).expect("the queue").count(), 1, "only the lock file");
}

/// The runtime has its DEL done and attaches the same container again, as podman does at a restart of it.
#[test]
fn what_is_queued_of_an_attachment_is_carried_out_before_it_is_made_anew() {
    let (host, pod) = (Host::new(), TestNetns::new());
    let conf = host.conf("1.0.0");
    let queue = DeletionQueue::beside(&host.socket_path());
    let queued = || queue.lock(PATIENCE).expect("free").len().expect("readable");
    // The agent carried out the first deletion although it did not answer, and never got the second.
    for is_known in [false, true] {
        host.add("abc", &pod, &conf);
        let lost = host.agent.state().endpoints.clone();
        for _ in 0..2 {
            host.agent.fail("delete_endpoint", unreachable());
        }
        host.call(&call("DEL", "abc", Path::new("")), &conf).expect("DEL succeeds");
        assert_eq!(queued(), 1);
        host.agent.state().endpoints = if is_known { lost } else { BTreeMap::new() };

        host.agent.fail("delete_endpoint", answered(500));
        host.refused(&call("ADD", "abc", pod.path()), &conf, 999);
        host.agent.fail("delete_endpoint", unreachable());
        host.refused(&call("ADD", "abc", pod.path()), &conf, 11);
        assert_eq!((queued(), host.devices().len()), (1, 0), "nothing was begun");

        host.agent.state().calls.clear();
        host.add("abc", &pod, &conf);
        assert_eq!(host.agent.state().calls, ["delete_endpoint", "allocate", "settings", "create_endpoint"]);
        let lock = queue.drain(|attachment| panic!("{attachment} is another one by now"));
        assert!(lock.expect("drained").is_empty().expect("readable"));
        host.call(&call("DEL", "abc", pod.path()), &conf).expect("DEL succeeds");
    }
    // What is queued of others is not this one's.
    queue.lock(PATIENCE).expect("free").push(&Attachment::new("def", "eth0").expect("valid")).expect("room");
    host.add("abc", &pod, &conf);
    assert_eq!(queued(), 1);
}

#[test]
fn a_deletion_that_cannot_be_kept_is_the_runtimes_again() {
    let (host, pod) = (Host::new(), TestNetns::new());
    let conf = host.conf("1.0.0");
    std::fs::write(host.dir.path().join("deleteQueue"), "in the way").expect("written");
    host.add("abc", &pod, &conf);
    host.agent.fail("delete_endpoint", unreachable());
    host.refused(&call("DEL", "abc", pod.path()), &conf, 11);
    host.call(&call("DEL", "abc", pod.path()), &conf).expect("with an agent it succeeds");
    host.assert_clean(&[&pod]);
}

#[test]
fn a_second_way_out_of_a_container_is_refused_by_name() {
    let (host, pod) = (Host::new(), TestNetns::new());
    let conf = host.conf("1.0.0");
    let result = host.add("abc", &pod, &conf);
    let second = Call { ifname: "net1", ..call("ADD", "abc", pod.path()) };
    let error = host.refused(&second, &conf, 106);
    for named in ["net1", "of eth0", "0.0.0.0/0", "::/0", "10.8.0.254/32", "DEL"] {
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
    assert!(pod.socket().link_by_name("net1").is_err(), "taken back");
    assert_eq!(host.devices().len(), 1);
    host.call(&call("CHECK", "abc", pod.path()), &with_result(conf.clone(), &result)).expect("the first is as it was");
    host.call(&Call { command: "DEL", ..second }, &conf).expect("there is none");
    host.call(&call("CHECK", "abc", pod.path()), &with_result(conf.clone(), &result)).expect("still");
}

const PATIENCE: Duration = Duration::from_secs(5);

/// What may be wrong, and how CHECK names it.
type Damage = (&'static str, &'static str, fn(&Host, &TestNetns));

const DAMAGES: [Damage; 9] = [
    ("1.0.0", "eth0 is down", |_, pod| {
        let socket = pod.socket();
        socket.link_set_down(socket.link_by_name("eth0").expect("eth0").index).expect("down");
    }),
    ("1.0.0", "eth0 has no carrier", |host, pod| {
        let (socket, name) = (host.netns.socket(), host.devices().remove(0));
        socket.link_set_down(socket.link_by_name(&name).expect("the host side").index).expect("down");
        // Linux 6.1 says so a little later.
        let (socket, deadline) = (pod.socket(), Instant::now() + PATIENCE);
        while socket.link_by_name("eth0").expect("eth0").is_running {
            assert!(Instant::now() < deadline, "eth0 kept its carrier");
        }
    }),
    ("1.1.0", "eth0 has the MTU 1300, not 1500", |_, pod| {
        let socket = pod.socket();
        let change = LinkChange { mtu: Some(1300), ..LinkChange::default() };
        socket.link_set(socket.link_by_name("eth0").expect("eth0").index, &change).expect("changed");
    }),
    ("0.4.0", "eth0 has the MAC address 02:00:00:00:00:09, not", |_, pod| {
        let socket = pod.socket();
        let mac = Some("02:00:00:00:00:09".parse().expect("an address"));
        let change = LinkChange { mac, ..LinkChange::default() };
        socket.link_set(socket.link_by_name("eth0").expect("eth0").index, &change).expect("changed");
    }),
    ("1.0.0", "address 10.8.0.1/32 is missing", |_, pod| {
        let socket = pod.socket();
        let device = socket.link_by_name("eth0").expect("eth0").index;
        socket.address_delete(device, "10.8.0.1/32".parse().expect("a network")).expect("deleted");
    }),
    ("1.0.0", "address fd00:8::1/128 is missing", |_, pod| {
        let socket = pod.socket();
        let device = socket.link_by_name("eth0").expect("eth0").index;
        socket.address_delete(device, "fd00:8::1/128".parse().expect("a network")).expect("deleted");
    }),
    ("1.0.0", "route to ::/0 via fd00:8::fe is missing", |_, pod| {
        pod.socket().route_delete(&RouteSpec::new("::/0".parse().expect("a network"))).expect("deleted");
    }),
    ("1.1.0", "route to 0.0.0.0/0 via 10.8.0.254 has the MTU none, not 1450", |_, pod| {
        let socket = pod.socket();
        let default = RouteSpec::new("0.0.0.0/0".parse().expect("a network"));
        socket.route_replace(&default.gateway("10.8.0.254".parse().expect("an address"))).expect("replaced");
    }),
    ("1.0.0", "eth0 does not exist", |host, _| {
        let (socket, name) = (host.netns.socket(), host.devices().remove(0));
        socket.link_delete(socket.link_by_name(&name).expect("the host side").index).expect("deleted");
    }),
];

#[test]
fn check_sees_what_changed() {
    for (version, named, damage) in DAMAGES {
        let (host, pod) = (Host::new(), TestNetns::new());
        let conf = host.conf(version);
        let conf = with_result(conf.clone(), &host.add("abc", &pod, &conf));
        host.call(&call("CHECK", "abc", pod.path()), &conf).expect("nothing changed yet");
        damage(&host, &pod);
        let error = host.refused(&call("CHECK", "abc", pod.path()), &conf, 102);
        assert!(error["details"].as_str().expect("text").contains(named), "{named}: {error}");
    }
}

#[test]
fn check_asks_the_agent() {
    let (host, pod) = (Host::new(), TestNetns::new());
    let conf = host.conf("1.0.0");
    let result = host.add("abc", &pod, &conf);
    let check = call("CHECK", "abc", pod.path());
    host.refused(&check, &conf, 7);
    let conf = with_result(conf, &result);
    host.agent.fail("endpoint_health", unreachable());
    host.refused(&check, &conf, 11);
    host.agent.fail("endpoint_health", answered(404));
    host.refused(&check, &conf, 100);
    host.agent.state().unhealthy = true;
    host.refused(&check, &conf, 101);
    host.agent.state().unhealthy = false;
    host.call(&check, &conf).expect("all is well");
    let other = Call { ifname: "net1", ..check };
    host.refused(&other, &conf, 7);
}

#[test]
fn status_says_whether_add_can_be_served() {
    let host = Host::new();
    let status = call("STATUS", "", Path::new(""));
    host.call(&status, &host.conf("1.1.0")).expect("it can");
    for at in ["health", "settings"] {
        host.agent.fail(at, unreachable());
        let error = host.refused(&status, &host.conf("1.1.0"), 50);
        assert!(error["details"].as_str().expect("text").contains("is it running"), "{error}");
    }
    for command in ["STATUS", "GC"] {
        host.refused(&call(command, "", Path::new("")), &host.conf("1.0.0"), 1);
    }
}

#[test]
fn garbage_of_this_network_is_collected_and_nothing_else() {
    let host = Host::new();
    let pods: Vec<TestNetns> = (0..4).map(|_| TestNetns::new()).collect();
    let conf = host.conf("1.1.0");
    let mut other = conf.clone();
    other["name"] = json!("other");
    host.add("valid", &pods[0], &conf);
    host.add("stale", &pods[1], &conf);
    host.add("foreign", &pods[2], &other);
    // an endpoint without a device, and a device without an endpoint
    host.add("orphan", &pods[3], &conf);
    let orphan = Attachment::new("orphan", "eth0").expect("valid");
    let socket = host.netns.socket();
    socket.link_delete(socket.link_by_name(&orphan.host_ifname()).expect("its device").index).expect("deleted");
    host.netns.run(|| {
        let name = Attachment::new("killed", "eth0").expect("valid").host_ifname();
        let spec = VethSpec::new(&name, "eth0", pods[3].netns()).expect("random bytes");
        Veth::create(&socket, &spec.alias("podwire_cni:pods:killed:eth0")).expect("a pair");
    });

    let gc = call("GC", "", Path::new(""));
    host.refused(&gc, &conf, 7);
    assert_eq!(host.agent.state().endpoints.len(), 4, "without a list nothing goes");
    let mut listed = conf.clone();
    listed["cni.dev/valid-attachments"] = json!([{ "containerID": "valid", "ifname": "eth0" }]);
    host.agent.fail("delete_endpoint", answered(500));
    let error = host.refused(&gc, &listed, 105);
    assert!(error["msg"].as_str().expect("text").starts_with("1 stale"), "{error}");
    host.call(&gc, &listed).expect("the second time all goes well");
    let left: Vec<String> = host.agent.state().endpoints.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["foreign:eth0", "valid:eth0"]);
    let mut names = ["foreign", "valid"].map(|id| Attachment::new(id, "eth0").expect("valid").host_ifname());
    names.sort();
    let mut devices = host.devices();
    devices.sort();
    assert_eq!(devices, names);

    other["cni.dev/valid-attachments"] = json!([]);
    host.call(&gc, &other).expect("nothing is valid there");
    assert_eq!(host.agent.state().endpoints.len(), 1);
    assert_eq!(pods[2].socket().link_by_name("eth0").expect_err("gone").kind(), ErrorKind::NotFound);
}

#[test]
fn an_endpoint_whose_device_bears_no_mark_is_not_garbage_while_the_device_is_there() {
    let host = Host::new();
    let pods: Vec<TestNetns> = (0..2).map(|_| TestNetns::new()).collect();
    let mut conf = host.conf("1.1.0");
    ["renamed", "unnamed"].iter().zip(&pods).for_each(|(container, pod)| _ = host.add(container, pod, &conf));
    let socket = host.netns.socket();
    for name in host.devices() {
        let change = LinkChange { alias: Some("an operator's"), ..LinkChange::default() };
        socket.link_set(socket.link_by_name(&name).expect("there").index, &change).expect("changed");
    }
    // Its agent does not say which device it has.
    let unnamed = Attachment::new("unnamed", "eth0").expect("valid");
    host.agent.state().endpoints.get_mut(&unnamed).expect("known").host_ifname.clear();
    conf["cni.dev/valid-attachments"] = json!([]);
    host.call(&call("GC", "", Path::new("")), &conf).expect("there is nothing to do");
    assert_eq!(host.agent.state().endpoints.len(), 2);

    for name in host.devices() {
        socket.link_delete(socket.link_by_name(&name).expect("there").index).expect("deleted");
    }
    host.call(&call("GC", "", Path::new("")), &conf).expect("freed");
    assert_eq!(host.agent.state().endpoints.keys().collect::<Vec<_>>(), [&unnamed]);
}

#[test]
fn a_plugin_later_in_the_list_is_no_place_for_this_one() {
    let (host, pod) = (Host::new(), TestNetns::new());
    let conf = with_result(host.conf("1.0.0"), &json!({ "cniVersion": "1.0.0", "interfaces": [] }));
    let error = host.refused(&call("ADD", "abc", pod.path()), &conf, 7);
    assert!(error["msg"].as_str().expect("text").contains("prevResult"), "{error}");
    let mut small = host.conf("1.0.0");
    small["mtu"] = json!(1000);
    let error = host.refused(&call("ADD", "abc", pod.path()), &small, 7);
    assert!(error["msg"].as_str().expect("text").contains("1280"), "{error}");
    host.assert_clean(&[&pod]);
}
