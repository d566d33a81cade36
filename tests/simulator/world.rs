//! The node on which packets are simulated.

use std::net::Ipv4Addr;

use podwire::endpoint::{Endpoint, EndpointSpec};
use podwire::policy::Policy;
use podwire::simulator::{Packet, Place, Verdict};
use podwire::{Datapath, Labels, Simulator};

use crate::common::netns::TestNetns;
use crate::common::node::TestNode;

pub(crate) const ONLY_CLIENTS: &str = r#"{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}],
                     "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}, {"port": "53", "protocol": "UDP"}]}]}],
        "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}],
                         "toPorts": [{"ports": [{"port": "81", "protocol": "TCP"}]}]}]}}"#;

pub(crate) const CLIENTS_TO_OTHERS: &str = r#"{"endpointSelector": {"matchLabels": {"app": "client"}},
    "egress": [{"toEndpoints": [{"matchLabels": {"app": "other"}}]}]}"#;

/// A node with a client, a web server and somebody else.
pub(crate) struct World {
    pub(crate) datapath: Datapath,
    pub(crate) client: Endpoint,
    pub(crate) web: Endpoint,
    pub(crate) other: Endpoint,
    pub(crate) pods: [TestNetns; 3],
    pub(crate) node: TestNode,
}

impl World {
    pub(crate) fn new() -> Self {
        let (node, pods) = (TestNode::new(), [(); 3].map(|()| TestNetns::new()));
        let datapath = node.open();
        let create = |name: &str, pod: &TestNetns| {
            let labels =
                Labels::parse([format!("k8s:app={name}"), "k8s:io.kubernetes.pod.namespace=default".to_owned()]);
            let spec = EndpointSpec::new(format!("default/{name}")).netns(pod.path()).labels(labels.expect("labels"));
            node.netns.run(|| datapath.endpoints().create(spec)).expect("an endpoint")
        };
        let [client, web, other] =
            [("client", &pods[0]), ("web", &pods[1]), ("other", &pods[2])].map(|(n, p)| create(n, p));
        Self { datapath, client, web, other, pods, node }
    }

    pub(crate) fn with_policy() -> Self {
        let world = Self::new();
        world.datapath.policy().upsert(policy(ONLY_CLIENTS)).expect("in force");
        world
    }

    pub(crate) fn simulate<T: Send>(&self, work: impl FnOnce(&mut Simulator<'_>) -> T + Send) -> T {
        self.node.netns.run(|| work(&mut self.datapath.simulator().expect("it loads")))
    }

    pub(crate) fn run(&self, packet: &Packet) -> Verdict {
        self.simulate(|simulator| simulator.run(packet).expect("a packet"))
    }

    pub(crate) fn web4(&self) -> Ipv4Addr {
        self.web.ipv4().expect("IPv4")
    }
}

pub(crate) fn policy(text: &str) -> Vec<Policy> {
    Policy::from_json(text).expect("a policy")
}

pub(crate) fn at(endpoint: &Endpoint) -> Place {
    endpoint.id().into()
}

pub(crate) fn place(text: &str) -> Place {
    text.parse().expect("a place")
}
