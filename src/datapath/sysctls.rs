//! Kernel settings that a node needs, with the old values kept for the clean-up.

use std::collections::HashMap;
use std::path::Path;

use log::{info, warn};

use super::forwarding::{self, Noted};
use super::host::{HOST, NET};
use super::node::Node;
use crate::Result;
use crate::netlink::Socket;
use crate::state::{load_document, save_document};
use crate::sysctl::{Applied, Key, Recorder, Restored, Setting, Sysctls};

pub(super) const VERSION: u32 = 1;
/// The file of old values in the state directory.
pub(super) const FILE: &str = "sysctls.json";

/// Applies every setting; the old values are on disk before the first is changed.
pub(super) fn apply(state: &Path, socket: &Socket, node: &Node) -> Result<()> {
    let sysctls = Sysctls::system();
    forwarding::note(&sysctls, state)?;
    let recorder = load(state)?;
    let mut wanted = forwarding::advertisements(&sysctls, &recorder, state, socket, node)?;
    wanted.extend(settings(node)?);
    set(&sysctls, recorder, state, &wanted)
}

/// Applies those of native devices that have come.
pub(super) fn follow(state: &Path, socket: &Socket, node: &Node) -> Result<()> {
    let (sysctls, recorder) = (Sysctls::system(), load(state)?);
    let wanted = forwarding::advertisements(&sysctls, &recorder, state, socket, node)?;
    set(&sysctls, recorder, state, &wanted)
}

fn set(sysctls: &Sysctls, mut recorder: Recorder, state: &Path, wanted: &[Setting]) -> Result<()> {
    let save = |recorder: &Recorder| save_document(&state.join(FILE), VERSION, recorder);
    let outcomes = recorder.set_all(sysctls, wanted, save)?;
    for (setting, outcome) in wanted.iter().zip(outcomes) {
        match outcome {
            Applied::Changed { before } => info!("sysctl {} = {} (was {before})", setting.key(), setting.value()),
            Applied::Kept { current } => info!("sysctl {} stays {current}", setting.key()),
            _ => {}
        }
    }
    Ok(())
}

fn load(state: &Path) -> Result<Recorder> {
    Ok(load_document(&state.join(FILE), VERSION)?.unwrap_or_default())
}

/// The settings that do not hold (any more) and without which nothing is forwarded. The others are looked at only at the start.
pub(super) fn unmet(node: &Node) -> Result<Vec<Key>> {
    let sysctls = Sysctls::system();
    let is_met = |setting: &Setting| sysctls.read(setting.key()).map_or(true, |value| value == setting.value());
    let settings = forwarding::settings(node)?;
    Ok(settings.iter().filter(|setting| !is_met(setting)).map(|setting| setting.key().clone()).collect())
}

/// Puts the old values back where nobody changed them since.
pub(super) fn restore(state: &Path) -> Result<Vec<String>> {
    let (sysctls, mut recorder) = (Sysctls::system(), load(state)?);
    if recorder.changes().is_empty() {
        return Ok(Vec::new());
    }
    let noted = Noted::of(&sysctls, &recorder, state)?;
    let before: HashMap<Key, String> =
        recorder.changes().iter().map(|change| (change.key().clone(), change.before().to_owned())).collect();
    let mut restored = Vec::new();
    for (key, outcome) in recorder.restore(&sysctls) {
        match outcome {
            Restored::Done => restored.push(format!("{key} = {}", before.get(&key).map_or("", String::as_str))),
            Restored::Left { current } => warn!("sysctl {key} is {current} by now and stays so"),
            Restored::Failed(error) => warn!("sysctl {key}: {error}"),
            _ => {}
        }
    }
    restored.extend(noted.put_back(&sysctls));
    Ok(restored)
}

/// What a clean-up would put back, in words.
pub(super) fn changed(state: &Path) -> Result<Vec<String>> {
    let recorder = load(state)?;
    let in_words = recorder.changes().iter().map(|change| {
        let (key, before, written) = (change.key(), change.before(), change.written());
        format!("sysctl {key} = {written}: back to {before} unless somebody changed it")
    });
    Ok(in_words.collect())
}

fn settings(node: &Node) -> Result<Vec<Setting>> {
    let mut settings = forwarding::settings(node)?;
    settings.extend([
        setting(["net", "ipv4", "fib_multipath_use_neigh"], "1")?.optional(),
        // Only the first namespace has these two.
        setting(["net", "core", "bpf_jit_enable"], "1")?.optional(),
        setting(["kernel", "unprivileged_bpf_disabled"], "2")?.optional(),
    ]);
    for device in [HOST, NET] {
        for name in ["rp_filter", "send_redirects"] {
            settings.push(setting(["net", "ipv4", "conf", device, name], "0")?);
        }
    }
    Ok(settings)
}

pub(super) fn setting<const N: usize>(key: [&str; N], value: &str) -> Result<Setting> {
    Ok(Setting::new(Key::new(key)?, value))
}
