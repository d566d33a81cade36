//! Changing settings so that they can be put back.

use serde::{Deserialize, Serialize};

use super::{Key, Sysctls};
use crate::{Error, ErrorKind, Result};

/// Settings that guard the machine, whose value is never lowered: the higher number protects more.
const HARDENING: [&str; 6] = [
    "kernel.unprivileged_bpf_disabled",
    "kernel.kptr_restrict",
    "kernel.dmesg_restrict",
    "kernel.perf_event_paranoid",
    "net.core.bpf_jit_harden",
    "net.ipv4.conf.all.rp_filter",
];

/// A setting and the value that it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    key: Key,
    value: String,
    optional: bool,
}

impl Setting {
    /// A setting that must exist.
    pub fn new(key: Key, value: impl Into<String>) -> Self {
        Self { key, value: value.into(), optional: false }
    }

    /// The same, but a kernel without it is fine.
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Its name.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The value that it should have.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// What became of a [`Setting`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// It has the value now.
    Changed {
        /// The value before.
        before: String,
    },
    /// It had the value already.
    Unchanged,
    /// It guards the machine and has a higher value, which it keeps.
    Kept {
        /// That value.
        current: String,
    },
    /// An optional setting that this kernel does not have.
    Missing,
}

/// What became of a recorded setting on restoring.
#[derive(Debug)]
#[non_exhaustive]
pub enum Restored {
    /// It has its old value again.
    Done,
    /// It does not hold what was written, so somebody else changed it since (or it was never written): left alone.
    Left {
        /// The value that it has.
        current: String,
    },
    /// It does not exist any more.
    Missing,
    /// It could not be read or written; it stays in the record.
    Failed(Error),
}

/// One recorded change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    key: Key,
    before: String,
    written: String,
}

impl Change {
    /// The setting.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its value before the first change.
    pub fn before(&self) -> &str {
        &self.before
    }

    /// The value that was written last.
    pub fn written(&self) -> &str {
        &self.written
    }
}

/// Changes settings and remembers their old values, in order. Serialise it to keep it over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recorder {
    changes: Vec<Change>,
}

impl Recorder {
    /// What was changed so far, oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Changes one setting; see [`Recorder::set_all`].
    pub fn set(&mut self, sysctls: &Sysctls, setting: &Setting) -> Result<Applied> {
        let applied = self.set_all(sysctls, std::slice::from_ref(setting), |_| Ok(()))?;
        Ok(applied.into_iter().next().unwrap_or(Applied::Unchanged))
    }

    /// Changes settings, in their order. All old values are recorded, then `save` is called (if there is anything new to
    /// save), then the values are written: should the process die in between, a saved record still tells the truth.
    /// A setting that guards the machine (unprivileged BPF, hardening of the JIT, hidden kernel pointers, the reverse path
    /// filter of `all`, …) is never lowered.
    ///
    /// # Errors
    ///
    /// Those of [`Sysctls::read`] and [`Sysctls::write`], and that of `save`, after which nothing was written. When a
    /// value can't be written, those before it are and stay recorded.
    pub fn set_all(
        &mut self,
        sysctls: &Sysctls,
        settings: &[Setting],
        save: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Vec<Applied>> {
        let applied: Vec<Applied> = settings.iter().map(|setting| plan(sysctls, setting)).collect::<Result<_>>()?;
        let unsaved = self.clone();
        for (setting, applied) in settings.iter().zip(&applied) {
            if let Applied::Changed { before } = applied {
                self.record(setting, before);
            }
        }
        if *self != unsaved
            && let Err(error) = save(self)
        {
            *self = unsaved;
            return Err(error);
        }
        for (setting, applied) in settings.iter().zip(&applied) {
            if matches!(applied, Applied::Changed { .. }) {
                sysctls.write(&setting.key, &setting.value)?;
            }
        }
        Ok(applied)
    }

    /// Puts the old values back, latest change first, where a setting still holds what was written. What was dealt with
    /// leaves the record. This also undoes what raised a guard of the machine.
    pub fn restore(&mut self, sysctls: &Sysctls) -> Vec<(Key, Restored)> {
        let mut outcomes = Vec::with_capacity(self.changes.len());
        let mut failed = Vec::new();
        while let Some(change) = self.changes.pop() {
            let outcome = put_back(sysctls, &change);
            outcomes.push((
                change.key.clone(),
                match outcome {
                    Ok(outcome) => outcome,
                    Err(error) if error.kind() == ErrorKind::NotFound => Restored::Missing,
                    Err(error) => {
                        failed.push(change);
                        Restored::Failed(error)
                    }
                },
            ));
        }
        self.changes.extend(failed.into_iter().rev());
        outcomes
    }

    fn record(&mut self, setting: &Setting, before: &str) {
        let Setting { key, value, .. } = setting;
        match self.changes.iter_mut().find(|change| change.key == *key) {
            Some(change) => {
                // what somebody else wrote in between is what they will want back
                if !same(&change.written, before) {
                    before.clone_into(&mut change.before);
                }
                value.clone_into(&mut change.written);
            }
            None => {
                self.changes.push(Change { key: key.clone(), before: before.to_owned(), written: value.clone() });
            }
        }
    }
}

/// What is to be done about a setting.
fn plan(sysctls: &Sysctls, setting: &Setting) -> Result<Applied> {
    let current = match sysctls.read(&setting.key) {
        Ok(current) => current,
        Err(error) if setting.optional && error.kind() == ErrorKind::NotFound => return Ok(Applied::Missing),
        Err(error) => return Err(error),
    };
    Ok(if same(&current, &setting.value) {
        Applied::Unchanged
    } else if would_lower_a_guard(&setting.key, &current, &setting.value) {
        Applied::Kept { current }
    } else {
        Applied::Changed { before: current }
    })
}

fn put_back(sysctls: &Sysctls, change: &Change) -> Result<Restored> {
    let current = sysctls.read(&change.key)?;
    if !same(&current, &change.written) {
        return Ok(Restored::Left { current });
    }
    sysctls.write(&change.key, &change.before)?;
    Ok(Restored::Done)
}

/// Values of several numbers come back with tabs between them.
fn same(left: &str, right: &str) -> bool {
    left.split_whitespace().eq(right.split_whitespace())
}

fn would_lower_a_guard(key: &Key, current: &str, wanted: &str) -> bool {
    let name = key.to_string();
    if !HARDENING.contains(&name.as_str()) {
        return false;
    }
    match (current.trim().parse::<i64>(), wanted.trim().parse::<i64>()) {
        (Ok(current), Ok(wanted)) => wanted < current,
        // what can't be compared is left to the administrator
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A tree with these settings.
    fn tree(settings: &[(&str, &str)]) -> (TempDir, Sysctls) {
        let directory = tempfile::tempdir().expect("a directory");
        for (key, value) in settings {
            let path = directory.path().join(key.replace('.', "/"));
            fs::create_dir_all(path.parent().expect("has one")).expect("create");
            fs::write(path, format!("{value}\n")).expect("write");
        }
        let sysctls = Sysctls::at(directory.path());
        (directory, sysctls)
    }

    fn key(text: &str) -> Key {
        text.parse().expect("valid")
    }

    fn setting(text: &str, value: &str) -> Setting {
        Setting::new(key(text), value)
    }

    #[test]
    fn old_values_come_back_unless_changed_since() {
        let (_directory, sysctls) =
            tree(&[("net.ipv4.ip_forward", "0"), ("net.a.b", "1"), ("net.a.range", "1024\t65000")]);
        let mut recorder = Recorder::default();
        let settings =
            [setting("net.ipv4.ip_forward", "1"), setting("net.a.b", "2"), setting("net.a.range", "1024 65000")];
        let mut saved = String::new();
        let applied = recorder.set_all(&sysctls, &settings, |recorder| {
            // nothing is written before it is saved
            assert_eq!(sysctls.read(&key("net.a.b")).expect("read"), "1");
            saved = serde_json::to_string(recorder).expect("serialise");
            Ok(())
        });
        let changed = |before: &str| Applied::Changed { before: before.to_owned() };
        assert_eq!(applied.expect("set"), [changed("0"), changed("1"), Applied::Unchanged]);
        assert_eq!(sysctls.read(&key("net.a.b")).expect("read"), "2");

        // a restart, a second setting, somebody else's hand
        let mut recorder: Recorder = serde_json::from_str(&saved).expect("parse");
        assert_eq!(recorder.set(&sysctls, &setting("net.a.b", "3")).expect("set"), changed("2"));
        sysctls.write(&key("net.ipv4.ip_forward"), "7").expect("write");
        let outcomes = recorder.restore(&sysctls);
        assert!(matches!(&outcomes[0], (at, Restored::Done) if *at == key("net.a.b")), "{outcomes:?}");
        assert!(matches!(&outcomes[1].1, Restored::Left { current } if current == "7"), "{outcomes:?}");
        assert_eq!(sysctls.read(&key("net.a.b")).expect("read"), "1");
        assert_eq!(recorder.changes(), []);
    }

    #[test]
    fn guards_are_raised_but_never_lowered() {
        for name in HARDENING {
            let (_directory, sysctls) = tree(&[(name, "1")]);
            let mut recorder = Recorder::default();
            let kept = recorder.set(&sysctls, &setting(name, "0")).expect("set");
            assert_eq!(kept, Applied::Kept { current: "1".to_owned() }, "{name}");
            assert_eq!((sysctls.read(&key(name)).expect("read").as_str(), recorder.changes()), ("1", &[][..]));
            let raised = recorder.set(&sysctls, &setting(name, "2")).expect("set");
            assert_eq!(raised, Applied::Changed { before: "1".to_owned() }, "{name}");
        }
        let (_directory, sysctls) = tree(&[("net.ipv4.conf.lxc1.rp_filter", "1")]);
        let lowered = Recorder::default().set(&sysctls, &setting("net.ipv4.conf.lxc1.rp_filter", "0"));
        assert_eq!(lowered.expect("set"), Applied::Changed { before: "1".to_owned() });
    }

    #[test]
    fn a_kernel_without_the_setting() {
        let (directory, sysctls) = tree(&[("net.a.b", "1")]);
        let mut recorder = Recorder::default();
        let missing = setting("net.ipv6.conf.all.forwarding", "1");
        let error = recorder.set_all(&sysctls, &[setting("net.a.b", "2"), missing.clone()], |_| Ok(()));
        let error = error.expect_err("not there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "sysctl net.ipv6.conf.all.forwarding not found");
        assert_eq!(sysctls.read(&key("net.a.b")).expect("read"), "1", "nothing was written");
        assert_eq!(recorder.set(&sysctls, &missing.optional()).expect("fine"), Applied::Missing);

        recorder.set(&sysctls, &setting("net.a.b", "2")).expect("set");
        fs::remove_file(directory.path().join("net/a/b")).expect("remove");
        let outcomes = recorder.restore(&sysctls);
        assert!(matches!(outcomes[..], [(_, Restored::Missing)]), "{outcomes:?}");
    }

    #[test]
    fn nothing_is_written_when_saving_fails() {
        let (_directory, sysctls) = tree(&[("net.a.b", "1")]);
        let mut recorder = Recorder::default();
        let error = recorder.set_all(&sysctls, &[setting("net.a.b", "2")], |_| {
            Err(Error::system("save", "record", std::io::Error::from_raw_os_error(libc::ENOSPC)))
        });
        assert_eq!(error.expect_err("the disk is full").errno(), Some(libc::ENOSPC));
        assert_eq!((sysctls.read(&key("net.a.b")).expect("read").as_str(), recorder.changes()), ("1", &[][..]));
    }
}
