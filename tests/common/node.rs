//! A node for one test: a network namespace with its own pins and state.
#![allow(dead_code, unreachable_pub, reason = "every test program compiles all of this and uses some")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use podwire::endpoint::{Endpoint, EndpointSpec};
use podwire::{AttachMode, Datapath, Devices, NodeConfig, Result};
use tempfile::TempDir;

use super::bpf::BpfRoot;
use super::netns::TestNetns;

/// How long a packet may take before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(5);

pub struct TestNode {
    pub netns: TestNetns,
    pub bpf: BpfRoot,
    pub state: TempDir,
}

impl TestNode {
    pub fn new() -> Self {
        Self { netns: TestNetns::with_loopback(), bpf: BpfRoot::new(), state: tempfile::tempdir().expect("a folder") }
    }

    pub fn config() -> NodeConfig {
        NodeConfig::new("test-node")
            .ipv4("10.50.0.0/24".parse().expect("a range"))
            .ipv6("fd00:50::/120".parse().expect("a range"))
            .devices(Devices::Named(Vec::new()))
    }

    pub fn state_dir(&self) -> std::path::PathBuf {
        self.state.path().join("state")
    }

    pub fn try_open(&self, config: NodeConfig) -> Result<Datapath> {
        let builder = Datapath::builder().bpf_root(self.bpf.path()).state_dir(self.state_dir());
        self.netns.run(|| builder.open(config))
    }

    pub fn open(&self) -> Datapath {
        self.try_open(Self::config()).expect("a node opens")
    }

    pub fn open_with(&self, mode: AttachMode) -> Datapath {
        self.try_open(Self::config().attach_mode(mode)).expect("a node opens")
    }

    /// Creates an endpoint, in the node's namespace.
    pub fn create(&self, datapath: &Datapath, name: &str, pod: &TestNetns) -> Endpoint {
        self.try_create(datapath, name, pod.path()).expect("an endpoint is created")
    }

    pub fn try_create(&self, datapath: &Datapath, name: &str, netns: &Path) -> Result<Endpoint> {
        self.netns.run(|| datapath.endpoints().create(EndpointSpec::new(name).netns(netns)))
    }

    /// The names of the node's devices.
    pub fn devices(&self) -> Vec<String> {
        self.netns.socket().links().expect("devices").into_iter().map(|link| link.name).collect()
    }
}

/// Sends one datagram from one namespace to another and back; panics if it does not come.
pub fn exchange_udp(from: &TestNetns, to: &TestNetns, address: IpAddr) {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
    let server = to.run(|| UdpSocket::bind((address, 0)).expect("bind in the pod"));
    let client = from.run(|| UdpSocket::bind((any, 0)).expect("bind"));
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    }
    client.send_to(b"ping", server.local_addr().expect("bound")).expect("send");
    let mut buffer = [0; 16];
    let (length, peer) = server.recv_from(&mut buffer).expect("the datagram arrives");
    assert_eq!(&buffer[..length], b"ping");
    server.send_to(b"pong", peer).expect("send");
    let length = client.recv(&mut buffer).expect("the answer arrives");
    assert_eq!(&buffer[..length], b"pong");
}

/// Whether a datagram sent once arrives within half a second.
pub fn arrives(from: &TestNetns, to: &TestNetns, address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u8; 16].into() };
    let server = to.run(|| UdpSocket::bind((any, 0)).expect("bind in the pod"));
    let client = from.run(|| UdpSocket::bind((any, 0)).expect("bind"));
    server.set_read_timeout(Some(Duration::from_millis(500))).expect("set a timeout");
    let port = server.local_addr().expect("bound").port();
    let sent = client.send_to(b"ping", (address, port));
    sent.is_ok() && server.recv(&mut [0; 16]).is_ok()
}

/// A TCP connection whose far end echoes, until it is dropped.
pub struct Echo {
    stream: TcpStream,
}

impl Echo {
    pub fn connect(from: &TestNetns, to: &TestNetns, address: IpAddr) -> Self {
        let listener = to.run(|| TcpListener::bind((address, 0)).expect("bind in the pod"));
        let target: SocketAddr = listener.local_addr().expect("bound");
        thread::spawn(move || {
            if let Ok((mut stream, _)) = listener.accept() {
                let mut buffer = [0; 65_536];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            }
        });
        let stream = from.run(|| TcpStream::connect_timeout(&target, PATIENCE).expect("connect"));
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        Self { stream }
    }

    /// Sends `size` bytes and reads them back.
    pub fn exchange(&mut self, size: usize) {
        let sent: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let mut stream = self.stream.try_clone().expect("another handle");
        let bytes = sent.clone();
        let writer = thread::spawn(move || stream.write_all(&bytes).expect("write"));
        let mut received = vec![0; size];
        self.stream.read_exact(&mut received).expect("everything comes back");
        writer.join().expect("written");
        assert!(received == sent, "the bytes came back changed");
    }
}
