//! Real agents.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::world::World;

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two attempts to reach an agent.
const PAUSE: Duration = Duration::from_micros(500);

/// A running agent; it ends with its handle.
pub struct Agent {
    child: Child,
    log: PathBuf,
    /// From its start to its first answer on `GET /v1/healthz`.
    pub started: Duration,
}

impl Agent {
    /// Starts the agent of a node and waits until it serves.
    pub fn start(program: &Path, world: &World) -> Self {
        let log = world.folder.join("agent.log");
        let output = File::create(&log).expect("room in /run");
        let mut command = Command::new(program);
        command
            .args(["--node-name", "bench", "--ipv4-range", World::RANGES[0], "--ipv6-range", World::RANGES[1]])
            .args(["--bpf-root".into(), world.bpf_root(), "--state-dir".into(), world.state_dir()])
            .args(["--socket".into(), world.socket()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output);
        let (child, start) = world.run(|| {
            let start = Instant::now();
            (command.spawn().expect("the agent's program runs"), start)
        });
        let mut agent = Self { child, log, started: Duration::ZERO };
        while !is_served(&world.socket()) {
            if start.elapsed() > PATIENCE || agent.child.try_wait().expect("a child").is_some() {
                panic!("the agent does not serve:\n{}", agent.log());
            }
            thread::sleep(PAUSE);
        }
        agent.started = start.elapsed();
        agent
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as an init system would; the datapath stays.
    pub fn stop(self) {}
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                eprintln!("the agent does not end:\n{}", self.log());
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Whether an agent answers there that it is well.
fn is_served(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"GET /v1/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
