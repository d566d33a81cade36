//! Policy on a node, with pods in namespaces: labels decide who talks to whom, over restarts and changes. Needs root.
mod common;

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use common::netns::TestNetns;
use common::node::{TestNode, arrives};
use podwire::endpoint::{Endpoint, EndpointSpec};
use podwire::policy::{EnforcementMode, Policy, PolicyOptions};
use podwire::tables::{PolicyDirection, PolicyMap, PolicyMaps};
use podwire::{Datapath, Label, Labels, SecurityId};

const ALLOW_CLIENTS: &str = r#"{"endpointSelector": {"matchLabels": {"app": "web"}},
    "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}]}]}"#;

fn create(node: &TestNode, datapath: &Datapath, name: &str, pod: &TestNetns) -> Endpoint {
    let labels = Labels::parse([format!("k8s:app={name}")]).expect("labels");
    let spec = EndpointSpec::new(format!("default/{name}")).labels(labels).netns(pod.path());
    node.netns.run(|| datapath.endpoints().create(spec)).expect("created")
}

fn addresses(endpoint: &Endpoint) -> [IpAddr; 2] {
    [endpoint.ipv4().expect("IPv4").into(), endpoint.ipv6().expect("IPv6").into()]
}

fn allow_clients() -> Vec<Policy> {
    Policy::from_json(ALLOW_CLIENTS).expect("a policy")
}

fn reaches(from: &TestNetns, to: &TestNetns, endpoint: &Endpoint) -> bool {
    let [ipv4, ipv6] = addresses(endpoint).map(|address| arrives(from, to, address));
    assert_eq!(ipv4, ipv6, "the families are judged differently");
    ipv4
}

fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

/// Two sockets that know each other.
struct Talk {
    client: UdpSocket,
    server: UdpSocket,
}

impl Talk {
    fn new(from: &TestNetns, to: &TestNetns, address: IpAddr) -> Self {
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
        let server = to.run(|| UdpSocket::bind((address, 0)).expect("bind in the pod"));
        let client = from.run(|| UdpSocket::bind((any, 0)).expect("bind"));
        client.connect(server.local_addr().expect("bound")).expect("an address");
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set a timeout");
        }
        Self { client, server }
    }

    /// Whether a datagram goes there and another back.
    fn works(&self) -> bool {
        let mut buffer = [0; 16];
        let sent = self.client.send(b"ping");
        let Ok((_, peer)) = sent.and_then(|_| self.server.recv_from(&mut buffer)) else { return false };
        self.server.send_to(b"pong", peer).is_ok() && self.client.recv(&mut buffer).is_ok()
    }
}

/// By direction: let pass, audited.
fn verdicts(datapath: &Datapath) -> [[u64; 2]; 2] {
    let counts = datapath.verdicts().counts().expect("readable");
    [PolicyDirection::Egress, PolicyDirection::Ingress].map(|direction| {
        [false, true].map(|audited| {
            let count = counts.iter().find(|count| count.direction == direction && count.audited == audited);
            count.expect("of every kind").connections
        })
    })
}

#[test]
fn verdicts_are_counted_though_nobody_listens() {
    let (node, [web, other]) = (TestNode::new(), [(); 2].map(|()| TestNetns::new()));
    let datapath = node.open();
    let server = create(&node, &datapath, "web", &web);
    create(&node, &datapath, "other", &other);
    assert_eq!(verdicts(&datapath), [[0, 0], [0, 0]]);
    assert!(reaches(&other, &web, &server));
    assert_eq!(verdicts(&datapath), [[2, 0], [2, 0]], "one of each family");
    datapath.policy().upsert(allow_clients()).expect("in force");
    assert!(!reaches(&other, &web, &server));
    assert_eq!(verdicts(&datapath), [[2, 0], [2, 0]], "what is denied is counted with the drops");
    node.netns.run(|| datapath.endpoints().set_audit(server.id(), true)).expect("set");
    assert!(reaches(&other, &web, &server));
    assert_eq!(verdicts(&datapath), [[4, 0], [2, 2]]);
}

#[test]
fn labels_decide_who_talks_to_whom() {
    let (node, [web, client, other]) = (TestNode::new(), [(); 3].map(|()| TestNetns::new()));
    let datapath = node.open();
    let server = create(&node, &datapath, "web", &web);
    let known = create(&node, &datapath, "client", &client);
    let stranger = create(&node, &datapath, "other", &other);
    let identities = [&server, &known, &stranger].map(|endpoint| endpoint.record.identity());
    assert!(identities.iter().all(|identity| identity.get() >= 256), "{identities:?}");
    assert!(reaches(&other, &web, &server), "without rules all is allowed");

    let talks = addresses(&server).map(|address| [&client, &other].map(|from| Talk::new(from, &web, address)));
    assert!(talks.iter().flatten().all(Talk::works));
    datapath.policy().upsert(allow_clients()).expect("in force");
    for [of_client, of_other] in &talks {
        assert!(of_client.works(), "an allowed conversation goes on");
        assert!(!of_other.works(), "one that is denied by now ends with its next packet");
    }
    assert!(reaches(&client, &web, &server) && !reaches(&other, &web, &server));
    assert!(reaches(&web, &other, &stranger), "answers to the server's own requests need no rule");
    assert!(reaches(&node.netns, &web, &server), "the host is let in");
    let status = node.netns.run(|| datapath.status());
    assert!(status.is_ok(), "{:?}", status.parts);

    // Labels change at run time.
    let changed = node.netns.run(|| datapath.endpoints().change_labels(stranger.id(), &[label("k8s:app=client")], &[]));
    assert_eq!(changed.expect("changed").record.identity(), identities[1]);
    assert!(reaches(&other, &web, &server));
    let changed = node.netns.run(|| datapath.endpoints().change_labels(stranger.id(), &[label("k8s:app=other")], &[]));
    assert_eq!(changed.expect("changed").record.identity(), identities[2], "the number was kept");
    assert!(!reaches(&other, &web, &server));

    // Audit, of one and of all; modes.
    let set_audit = |on| node.netns.run(|| datapath.endpoints().set_audit(server.id(), on)).expect("set");
    assert!(set_audit(true).record.audit && reaches(&other, &web, &server));
    assert!(!set_audit(false).record.audit && !reaches(&other, &web, &server));
    for (on, outcome) in [(true, true), (false, false)] {
        node.netns.run(|| datapath.set_policy_audit(on)).expect("set");
        assert_eq!((datapath.policy_audit(), reaches(&other, &web, &server)), (on, outcome));
    }
    datapath.policy().set_mode(EnforcementMode::Never).expect("in force");
    assert!(reaches(&other, &web, &server));
    datapath.policy().set_mode(EnforcementMode::Always).expect("in force");
    assert!(!reaches(&web, &other, &stranger), "no rule allows it");
    datapath.policy().set_mode(EnforcementMode::Default).expect("in force");

    // Who goes leaves nothing; the policy goes, and all is allowed again.
    let pin = node.bpf.maps().join(PolicyMap::name(known.id()));
    assert!(pin.exists());
    node.netns.run(|| datapath.endpoints().delete(known.id())).expect("deleted");
    assert!(!pin.exists());
    assert_eq!(
        datapath.ipcache().longest_match(addresses(&known)[0]).expect("the world").entry.identity,
        SecurityId::WORLD_IPV4
    );
    datapath.policy().delete(&Labels::new()).expect("deleted");
    assert!(reaches(&other, &web, &server));
}

#[test]
fn a_pod_is_judged_from_its_first_packet_on() {
    let (node, [web, client]) = (TestNode::new(), [(); 2].map(|()| TestNetns::new()));
    let options = PolicyOptions { mode: EnforcementMode::Always, ..PolicyOptions::default() };
    let datapath = node.try_open(TestNode::config().policy(options)).expect("opens");
    let server = create(&node, &datapath, "web", &web);
    create(&node, &datapath, "client", &client);
    assert!(!reaches(&client, &web, &server));
    let both = r#"[{"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"fromEndpoints": [{}]}]},
        {"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [{"toEndpoints": [{"matchLabels": {"app": "web"}}]}]}]"#;
    datapath.policy().replace(Policy::from_json(both).expect("policies")).expect("in force");
    assert!(reaches(&client, &web, &server));
    // A pod made anew finds everything in force.
    let late = TestNetns::new();
    create(&node, &datapath, "client", &late);
    assert!(reaches(&late, &web, &server));
}

#[test]
fn a_restart_changes_nothing() {
    let (node, [web, client, other]) = (TestNode::new(), [(); 3].map(|()| TestNetns::new()));
    let datapath = node.open();
    let server = create(&node, &datapath, "web", &web);
    create(&node, &datapath, "client", &client);
    let stranger = create(&node, &datapath, "other", &other);
    let revision = datapath.policy().upsert(allow_clients()).expect("in force");
    node.netns.run(|| datapath.mark_synced()).expect("synced");
    let talk = Talk::new(&client, &web, addresses(&server)[0]);
    assert!(talk.works());
    let maps = || {
        let outer = PolicyMaps::open_pinned(node.bpf.maps()).expect("pinned");
        [&server, &stranger].map(|endpoint| outer.policy_id(endpoint.id()).expect("readable"))
    };
    let before = maps();
    drop(datapath);
    assert!(talk.works() && !reaches(&other, &web, &server), "nothing depends on a process");

    let datapath = node.open();
    assert!(datapath.adopted(), "the same programs");
    assert_eq!((maps(), datapath.policy().revision()), (before, revision));
    assert!(talk.works() && reaches(&client, &web, &server) && !reaches(&other, &web, &server));
    let leftovers = node.netns.run(|| datapath.mark_synced()).expect("synced");
    assert_eq!(leftovers.policies, []);
    node.netns.run(|| datapath.maintain()).expect("nothing fails");
    assert!(talk.works() && !reaches(&other, &web, &server));
    let status = node.netns.run(|| datapath.status());
    assert!(status.is_ok(), "{:?}", status.parts);
}

/// What is pinned still says by their numbers whose addresses are whose: nobody new may be taken for one of them.
#[test]
fn a_lost_state_directory_gives_no_number_to_somebody_new() {
    let (node, [web, client]) = (TestNode::new(), [(); 2].map(|()| TestNetns::new()));
    let prefixes = ["192.0.2.0/24", "198.51.100.0/24"].map(|prefix| prefix.parse().expect("a prefix"));
    let datapath = node.open();
    let of_pods =
        [("web", &web), ("client", &client)].map(|(name, pod)| create(&node, &datapath, name, pod).record.identity());
    let to_prefixes = r#"{"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.0/24", "198.51.100.0/24"]}]}"#;
    datapath.policy().upsert(Policy::from_json(to_prefixes).expect("a policy")).expect("in force");
    let of_prefix = |datapath: &Datapath, prefix| datapath.ipcache().exact(prefix).expect("in force").entry.identity;
    let of_prefixes = prefixes.map(|prefix| of_prefix(&datapath, prefix));
    drop(datapath);
    fs::remove_dir_all(node.state_dir()).expect("lost");

    let datapath = node.open();
    assert_eq!(datapath.endpoints().list().len(), 0, "nobody is known");
    assert_eq!(prefixes.map(|prefix| of_prefix(&datapath, prefix)), of_prefixes, "but the map is as it was");
    for number in 0..4 {
        let labels = Labels::parse([format!("k8s:app=new-{number}")]).expect("labels");
        let identity = datapath.identities().acquire(&labels).expect("free").id();
        assert!(!of_pods.contains(&identity), "{identity} is a pod's of old");
        let prefix = format!("203.0.113.{number}/32").parse().expect("a prefix");
        let identity = datapath.identities().acquire_cidr(prefix).expect("free").id();
        assert!(!of_prefixes.contains(&identity), "{identity} is a prefix's of old");
    }
}

/// A node of before there was policy: endpoints on disk without identities, no policy anywhere.
#[test]
fn a_node_without_policy_is_taken_over() {
    let (node, [web, client]) = (TestNode::new(), [(); 2].map(|()| TestNetns::new()));
    let datapath = node.open();
    let server = create(&node, &datapath, "web", &web);
    create(&node, &datapath, "client", &client);
    drop(datapath);
    let state = node.state_dir();
    let _ = fs::remove_file(state.join("policy.json"));
    fs::remove_dir_all(state.join("identities")).expect("removed");
    for file in fs::read_dir(state.join("endpoints")).expect("a folder") {
        let path = file.expect("readable").path();
        let mut document: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
        document["content"].as_object_mut().expect("a record").remove("identity").expect("was there");
        fs::write(&path, document.to_string()).expect("writable");
    }
    let outer = PolicyMaps::open_pinned(node.bpf.maps()).expect("pinned");
    // Those in use and in stock: asking for all that are filled takes minutes before Linux 6.8.
    for endpoint in (1..=48).filter_map(podwire::EndpointId::new) {
        outer.remove(endpoint).expect("removed");
        // those of endpoints to come have no pins
        let _ = fs::remove_file(node.bpf.maps().join(PolicyMap::name(endpoint)));
    }
    assert!(!reaches(&client, &web, &server), "without a slot nothing passes");

    let datapath = node.open();
    assert!(reaches(&client, &web, &server));
    let record = datapath.endpoints().get(server.id()).expect("restored").record;
    assert!(record.identity().get() >= 256);
    node.netns.run(|| datapath.mark_synced()).expect("synced");
    assert!(reaches(&client, &web, &server));
}
