//! A server that answers with fixtures, for the command line.
#![allow(dead_code, unreachable_pub, reason = "every test program compiles all of this and uses some")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};
use std::{fs, thread};

use tempfile::TempDir;

use crate::example;

/// An agent that answers each path, or method and path, with a fixture and writes down what was asked. In place of a fixture's
/// name, `json:` is followed by the answer itself, and `400:` by the body of a refusal.
pub struct FakeAgent {
    _folder: TempDir,
    pub socket: PathBuf,
    seen: Arc<Mutex<Vec<String>>>,
}

impl FakeAgent {
    pub fn new(answers: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).expect("a socket in an empty folder");
        let answers: HashMap<String, (&str, Vec<u8>)> =
            answers.iter().map(|(path, fixture)| ((*path).to_owned(), status_and_body(fixture))).collect();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that is killed takes its connection along.
                let _ = stream.and_then(|stream| answer(&stream, &answers, &log));
            }
        });
        Self { _folder: folder, socket, seen }
    }

    pub fn run(&self, args: &[&str]) -> Output {
        podwire().arg("--socket").arg(&self.socket).args(args).output().expect("the program starts")
    }

    pub fn prints(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic while holding it").clone()
    }
}

fn status_and_body(fixture: &str) -> (&'static str, Vec<u8>) {
    match fixture.strip_prefix("400:") {
        Some(body) => ("400 Bad Request", body.as_bytes().to_vec()),
        None => ("200 OK", fixture_text(fixture)),
    }
}

pub fn fixture_text(name: &str) -> Vec<u8> {
    match name.strip_prefix("json:") {
        Some(json) => json.as_bytes().to_vec(),
        None => {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/api/{name}.json"));
            fs::read(path).unwrap_or_else(|cause| panic!("fixture {name}: {cause}"))
        }
    }
}

fn answer(
    stream: &UnixStream,
    answers: &HashMap<String, (&str, Vec<u8>)>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let line = format!("{method} {path} {}", String::from_utf8_lossy(&body));
    log.lock().expect("no panic while holding it").push(line.trim_end().to_owned());
    let mut stream = stream;
    match answers.get(&format!("{method} {path}")).or_else(|| answers.get(path)) {
        Some((status, body)) => {
            write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(body)
        }
        None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
    }
}

pub fn podwire() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(PROGRAM.get_or_init(|| example::example("podwire")));
    command.env_remove("PODWIRE_SOCKET");
    command
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
