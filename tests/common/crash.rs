//! A test program that starts itself again, to be killed or to have its disk full in the middle of its work, and hears what it
//! said until then.
#![allow(unreachable_pub, reason = "every test program compiles this as a private module")]

use std::env;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DIR: &str = "PODWIRE_TEST_CRASH_DIR";
const RUN: &str = "PODWIRE_TEST_CRASH_RUN";

/// What a child is told: the directory to work in, and the number of the run.
pub struct Child {
    pub dir: PathBuf,
    pub run: usize,
}

impl Child {
    /// `None` in a process that nobody below has started.
    pub fn of_environment() -> Option<Self> {
        let dir = env::var_os(DIR)?.into();
        let run = env::var(RUN).expect("set with the directory").parse().expect("a number");
        Some(Self { dir, run })
    }
}

/// Says a line to the parent.
pub fn say(line: &str) {
    // in a single write, which a pipe takes whole or not at all up to 4096 bytes (pipe(7)): a kill leaves no half lines
    let mut out = stdout().lock();
    out.write_all(format!("@{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
}

/// What was said in a line of a child's output, which has lines of the test harness too.
fn said(line: &str) -> Option<&str> {
    line.split_once('@').map(|(_, said)| said)
}

/// Lets a test work in a directory, kills it after so many lines of output, and comes back when all that it said was heard.
pub fn kill_after(lines: usize, test: &str, dir: &Path, run: usize, mut hear: impl FnMut(&str)) {
    let program = env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]).env(DIR, dir).env(RUN, run.to_string());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped")).split(b'\n');
    let mut hear = |line: std::io::Result<Vec<u8>>| {
        let line = line.expect("readable");
        said(&String::from_utf8_lossy(&line)).map(&mut hear);
    };
    output.by_ref().take(lines).for_each(&mut hear);
    child.kill().expect("alive: it never ends by itself");
    child.wait().expect("reaped");
    // what it still said before it died counts too
    output.for_each(hear);
}

/// Lets a test work in a directory where no file can be larger than 20 KiB, and comes back with what it said: it has to succeed.
pub fn with_little_room(test: &str, dir: &Path) -> Vec<String> {
    // 40 blocks of 512 bytes; without the signal that would kill the process, as on a disk that is full
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture"]);
    let output = limited.env(DIR, dir).env(RUN, "0").output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter_map(said).map(str::to_owned).collect()
}
