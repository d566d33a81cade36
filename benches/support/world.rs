//! A world of one's own: the bench runs in fresh mount and network namespaces, so that nothing it does is seen outside, and
//! nothing of it is left however it ends. The kernel takes back mounts, pins, devices and namespaces with the process.

use std::env;
use std::ffi::CString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use podwire::netlink::Socket;
use podwire::netns::NetNs;
use podwire::{Datapath, Devices, NodeConfig};
use rustix::mount::{MountFlags, mount};

const ENTERED: &str = "PODWIRE_BENCH_WORLD";

/// Puts the process into a world of its own by starting it again there: with a tmpfs at /run, as a node has one.
pub fn enter() {
    if env::var_os(ENTERED).is_none() {
        let own = env::current_exe().expect("a running program has a path");
        let error = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "--"])
            .arg(own)
            .args(env::args_os().skip(1))
            .env(ENTERED, "1")
            .exec();
        panic!("start unshare (of util-linux): {error}");
    }
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>).expect("the benches run as root");
}

/// A node: a network namespace, a bpffs and a state directory.
pub struct World {
    pub netns: NetNs,
    pub folder: PathBuf,
}

impl World {
    pub fn new(name: &str) -> Self {
        let folder = Path::new("/run").join(name);
        fs::create_dir_all(folder.join("bpf")).expect("room in /run");
        let options = CString::new("mode=0700").expect("no zero in it");
        mount("bpf", folder.join("bpf"), "bpf", MountFlags::empty(), Some(&*options)).expect("a bpffs of its own");
        let netns = NetNs::create().expect("the benches run as root");
        loopback_up(&netns);
        Self { netns, folder }
    }

    pub fn bpf_root(&self) -> PathBuf {
        self.folder.join("bpf")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("podwire.sock")
    }

    /// The ranges of every node here. Agents are given the same.
    pub const RANGES: [&'static str; 2] = ["10.64.0.0/16", "fd00:64::/112"];

    /// A datapath, in this process.
    pub fn open(&self) -> Datapath {
        let config = NodeConfig::new("bench")
            .ipv4(Self::RANGES[0].parse().expect("a range"))
            .ipv6(Self::RANGES[1].parse().expect("a range"))
            .devices(Devices::Named(Vec::new()));
        let builder = Datapath::builder().bpf_root(self.bpf_root()).state_dir(self.state_dir());
        self.run(|| builder.open(config)).expect("the node opens")
    }

    /// A routing socket of the node.
    pub fn routing(&self) -> Socket {
        Socket::open_in(&self.netns).expect("a routing socket")
    }

    /// Executes `work` in the node's namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).expect("run in the node's namespace")
    }
}

/// A pod's namespace, mounted where a runtime would.
pub struct Pod {
    pub netns: NetNs,
    pub path: PathBuf,
}

impl Pod {
    pub fn new(name: &str) -> Self {
        let path = Path::new("/run/netns").join(name);
        Self { netns: NetNs::create_named(&path).expect("the benches run as root"), path }
    }
}

pub fn loopback_up(netns: &NetNs) {
    let socket = Socket::open_in(netns).expect("a routing socket");
    let loopback = socket.link_by_name("lo").expect("every namespace has one");
    socket.link_set_up(loopback.index).expect("bring lo up");
}
