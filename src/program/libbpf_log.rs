//! libbpf's messages: kept while an object is loaded, otherwise handed to the `log` crate.

use std::cell::RefCell;

use libbpf_rs::{PrintLevel, set_print};
use parking_lot::Mutex;

/// The verifier writes a line per instruction; what it objects to is at the end.
const LAST_LINES: usize = 40;

const LOG_BEGIN: &str = "-- BEGIN PROG LOAD LOG --";
const LOG_END: &str = "-- END PROG LOAD LOG --";

// libbpf has one callback per process, which knows nothing of who called: one load at a time, and the messages of this
// thread are this load's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

thread_local! {
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `load` and returns what libbpf said meanwhile. The process's own callback is put back afterwards.
pub(super) fn capture<T>(load: impl FnOnce() -> T) -> (T, String) {
    let _guard = ONE_AT_A_TIME.lock();
    let previous = set_print(Some((PrintLevel::Info, receive)));
    CAPTURED.set(Some(String::new()));
    let result = load();
    let messages = CAPTURED.take().unwrap_or_default();
    set_print(previous);
    (result, messages)
}

/// Hands messages that turned out to be of no consequence to the `log` crate.
pub(super) fn forward(messages: &str) {
    for line in messages.lines() {
        log::debug!("{line}");
    }
}

/// The part of libbpf's messages that says why a load failed: the end of the verifier's log where there is one.
pub(super) fn explain(messages: &str) -> String {
    let relevant = match messages.rfind(LOG_BEGIN) {
        Some(start) => messages[start..].split(LOG_END).next().unwrap_or_default(),
        None => messages,
    };
    let lines: Vec<&str> =
        relevant.lines().filter(|line| !line.trim().is_empty() && !line.contains(LOG_BEGIN)).collect();
    let skipped = lines.len().saturating_sub(LAST_LINES);
    lines[skipped..].join("\n")
}

/// The program whose verification failed, which libbpf names in front of the verifier's log.
pub(super) fn refused_program(messages: &str) -> Option<&str> {
    let before = &messages[..messages.rfind(LOG_BEGIN)?];
    before[before.rfind("prog '")?..].split('\'').nth(1)
}

/// Whether the verifier itself spoke, rather than libbpf.
pub(super) fn has_verifier_log(messages: &str) -> bool {
    messages.contains(LOG_BEGIN)
}

fn receive(level: PrintLevel, message: String) {
    let kept = CAPTURED.with_borrow_mut(|captured| match captured {
        Some(text) => {
            text.push_str(&message);
            true
        }
        None => false,
    });
    if !kept {
        match level {
            PrintLevel::Warn => log::warn!("{}", message.trim_end()),
            _ => log::debug!("{}", message.trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanation_is_the_end_of_the_verifier_log() {
        let log: String = (0..100).map(|n| format!("{n}: r0 = 0\n")).collect();
        let messages = format!(
            "libbpf: prog 'p': BPF program load failed: -13\nlibbpf: prog 'p': {LOG_BEGIN}\n{log}R1 invalid mem access\n{LOG_END}\nlibbpf: failed to load object\n"
        );
        let text = explain(&messages);
        assert_eq!(text.lines().count(), LAST_LINES);
        assert_eq!(text.lines().last(), Some("R1 invalid mem access"));
        assert_eq!(text.lines().next(), Some("61: r0 = 0"));
        assert_eq!(refused_program(&messages), Some("p"));
    }

    #[test]
    fn explanation_without_a_verifier_log_is_everything() {
        assert_eq!(explain("libbpf: map 'x': failed\n\n"), "libbpf: map 'x': failed");
        assert!(!has_verifier_log("libbpf: map 'x': failed"));
        assert_eq!(refused_program("libbpf: map 'x': failed"), None);
    }
}
