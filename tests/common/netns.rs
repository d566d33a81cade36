//! A network namespace for one test.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use podwire::netlink::Socket;
use podwire::netns::NetNs;

/// A fresh named network namespace, removed on drop, even when the test panics.
pub struct TestNetns {
    netns: NetNs,
    path: PathBuf,
}

impl TestNetns {
    /// A namespace in which nothing but the loopback device exists, and that is down.
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/run/netns/podwire-test-{}-{number}", process::id()));
        let netns = NetNs::create_named(&path).expect("these tests need root");
        Self { netns, path }
    }

    /// As [`TestNetns::new`], with the loopback device up.
    pub fn with_loopback() -> Self {
        let netns = Self::new();
        let socket = netns.socket();
        let loopback = socket.link_by_name("lo").expect("every namespace has one");
        socket.link_set_up(loopback.index).expect("bring lo up");
        netns
    }

    /// The handle.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("made of ASCII")
    }

    /// A routing socket inside.
    pub fn socket(&self) -> Socket {
        Socket::open_in(&self.netns).expect("open a routing socket")
    }

    /// Executes `work` inside, on another thread.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.netns.run(work).expect("run in the namespace")
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        if let Err(error) = NetNs::remove(&self.path) {
            // a second panic while the first unwinds would abort the program
            if std::thread::panicking() {
                eprintln!("{error}");
            } else {
                panic!("{error}");
            }
        }
    }
}
