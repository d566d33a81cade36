//! A running agent in a namespace of its own.
#![allow(dead_code, unreachable_pub, reason = "every test program compiles all of this and uses some")]

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use podwire::api::{Client, Endpoint, EndpointChangeRequest, EndpointState};
use podwire::{Datapath, EndpointId};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::bpf::BpfRoot;
use super::example::example;
use super::netns::TestNetns;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node: a namespace, a root of pins, a folder for state, socket and log.
pub struct Node {
    pub netns: TestNetns,
    pub root: BpfRoot,
    pub folder: TempDir,
}

impl Node {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { netns: TestNetns::with_loopback(), root: BpfRoot::new(), folder }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn client(&self) -> Client {
        Client::builder(self.socket()).wait_for_agent(PATIENCE).build()
    }

    /// The agent's flags that keep it apart from others.
    pub fn flags(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let own = [("--bpf-root", path(self.root.path())), ("--state-dir", path(&self.state_dir()))];
        let own = own.into_iter().chain([("--socket", path(&self.socket()))]);
        own.flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// Starts the agent with these flags besides its own; returns at once.
    pub fn spawn(&self, flags: &[&str]) -> Agent {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let program = example("podwire-agent");
        let child = self.netns.run(|| {
            let mut command = Command::new(program);
            command.args(self.flags()).args(flags).env_remove("JOURNAL_STREAM").stderr(log);
            command.spawn().expect("the agent starts")
        });
        Agent(child)
    }

    /// Starts the agent with both families and waits until it serves.
    pub fn start(&self) -> Agent {
        self.start_with(&[])
    }

    /// The same with these flags besides.
    pub fn start_with(&self, flags: &[&str]) -> Agent {
        let usual = ["--ipv4-range", "10.66.0.0/24", "--ipv6-range", "fd66::/112", "--node-name", "node1"];
        let agent = self.spawn(&[&usual, flags].concat());
        self.client().status(true).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        agent
    }

    /// Runs the command line against this node.
    pub fn podwire(&self, args: &[&str]) -> std::process::Output {
        let program = example("podwire");
        self.netns.run(|| {
            Command::new(program).arg("--socket").arg(self.socket()).args(args).output().expect("the program starts")
        })
    }

    /// Creates an endpoint in a namespace; the agent makes its device.
    pub fn create(&self, pod: &TestNetns, name: &str, labels: &[&str]) -> Endpoint {
        let request = EndpointChangeRequest {
            container_id: Some(format!("container-of-{name}")),
            container_interface_name: Some("eth0".to_owned()),
            container_netns_path: Some(pod.path().display().to_string()),
            k8s_namespace: Some("default".to_owned()),
            k8s_pod_name: Some(name.to_owned()),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            state: Some(EndpointState::WaitingForIdentity),
            sync_build_endpoint: true,
            ..EndpointChangeRequest::default()
        };
        self.client().create_endpoint(&request).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let (root, state) = (self.root.path().to_owned(), self.state_dir());
        if let Err(error) = self.netns.run(|| Datapath::cleanup(&root, &state)) {
            eprintln!("{error}");
        }
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// The agent's process; killed when dropped.
pub struct Agent(Child);

impl Agent {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("our own child");
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> ExitStatus {
        until("the agent ends", || self.0.try_wait().expect("our own child"))
    }

    /// Ends it as an operator would.
    pub fn terminate(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Ends it as a crash would.
    pub fn kill(self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn id(endpoint: &Endpoint) -> EndpointId {
    endpoint.id.expect("the agent numbers its endpoints")
}

/// The endpoint's addresses.
pub fn addresses(endpoint: &Endpoint) -> podwire::api::AddressPair {
    let networking = endpoint.status.as_ref().and_then(|status| status.networking.as_ref());
    networking.and_then(|networking| networking.addressing.first()).expect("the agent says the addresses").clone()
}

/// A folder that only its owner may enter, as configuration is mounted.
pub fn private_folder(parent: &Path, name: &str) -> PathBuf {
    let path = parent.join(name);
    fs::DirBuilder::new().mode(0o700).create(&path).expect("a folder in a temporary one");
    path
}

/// Sends bytes and returns everything that comes back until the agent closes.
pub fn raw(socket: &Path, request: &[u8]) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut stream = UnixStream::connect(socket).expect("the agent serves");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive timeout");
    // The agent may have refused before it read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}
