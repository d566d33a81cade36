//! Kernel settings that a node needs, with the old values kept for the clean-up.

use std::collections::HashMap;
use std::path::Path;

use log::{info, warn};

use super::host::{HOST, NET};
use crate::state::{load_document, save_document};
use crate::sysctl::{Applied, Key, Recorder, Restored, Setting, Sysctls};
use crate::{ErrorKind, Result};

const VERSION: u32 = 1;
/// The file of old values in the state directory.
pub(super) const FILE: &str = "sysctls.json";

/// The file of the devices that forwarded by themselves, in the state directory.
pub(super) const FORWARDING: &str = "forwarding.json";

/// Applies every setting; the old values are on disk before the first is changed.
pub(super) fn apply(state: &Path) -> Result<()> {
    let sysctls = Sysctls::system();
    note_forwarders(&sysctls, state)?;
    let path = state.join(FILE);
    let mut recorder = load_document::<Recorder>(&path, VERSION)?.unwrap_or_default();
    let settings = settings()?;
    let outcomes = recorder.set_all(&sysctls, &settings, |recorder| save_document(&path, VERSION, recorder))?;
    for (setting, outcome) in settings.iter().zip(outcomes) {
        match outcome {
            Applied::Changed { before } => info!("sysctl {} = {} (was {before})", setting.key(), setting.value()),
            Applied::Kept { current } => info!("sysctl {} stays {current}", setting.key()),
            _ => {}
        }
    }
    Ok(())
}

/// The settings that do not hold (any more) and without which nothing is forwarded. The others are looked at only at the start.
pub(super) fn unmet() -> Result<Vec<Key>> {
    let sysctls = Sysctls::system();
    let is_met = |setting: &Setting| sysctls.read(setting.key()).map_or(true, |value| value == setting.value());
    Ok(forwarding()?.iter().filter(|setting| !is_met(setting)).map(|setting| setting.key().clone()).collect())
}

/// Puts the old values back where nobody changed them since.
pub(super) fn restore(state: &Path) -> Result<Vec<String>> {
    let path = state.join(FILE);
    let Some(mut recorder) = load_document::<Recorder>(&path, VERSION)? else { return Ok(Vec::new()) };
    let sysctls = Sysctls::system();
    let mut forwarders = load_document::<Forwarders>(&state.join(FORWARDING), VERSION)?.unwrap_or_default();
    // What somebody turned off since stays off.
    forwarders.retain(|key| forwards(&sysctls, key));
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
    for key in forwarders.into_iter().filter(|key| !forwards(&sysctls, key)) {
        match sysctls.write(&key, "1") {
            Ok(()) => restored.push(format!("{key} = 1")),
            Err(error) => warn!("sysctl {key}: {error}"),
        }
    }
    Ok(restored)
}

/// The settings of devices that forwarded before the node did: whenever the node's changes, the kernel gives its value to every device.
type Forwarders = Vec<Key>;

/// Keeps which devices forward by themselves, as long as the node does not.
fn note_forwarders(sysctls: &Sysctls, state: &Path) -> Result<()> {
    let path = state.join(FORWARDING);
    let before = load_document::<Forwarders>(&path, VERSION)?.unwrap_or_default();
    let mut forwarders = Forwarders::new();
    for (family, node) in [
        ("ipv4", Key::new(["net", "ipv4", "ip_forward"])?),
        ("ipv6", Key::new(["net", "ipv6", "conf", "all", "forwarding"])?),
    ] {
        let devices = match sysctls.names(&Key::new(["net", family, "conf"])?) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            devices => devices?,
        };
        let key = |device: &String| Key::new(["net", family, "conf", device.as_str(), "forwarding"]);
        let keys = devices.iter().filter(|device| *device != "all").map(key).collect::<Result<Vec<_>>>()?;
        // Once the node forwards, all of them do.
        let own = |key: &Key| if forwards(sysctls, &node) { before.contains(key) } else { forwards(sysctls, key) };
        forwarders.extend(keys.into_iter().filter(own));
    }
    if forwarders == before { Ok(()) } else { save_document(&path, VERSION, &forwarders) }
}

fn forwards(sysctls: &Sysctls, key: &Key) -> bool {
    sysctls.read(key).is_ok_and(|value| value != "0")
}

/// What a clean-up would put back, in words.
pub(super) fn changed(state: &Path) -> Result<Vec<String>> {
    let recorder = load_document::<Recorder>(&state.join(FILE), VERSION)?.unwrap_or_default();
    let in_words = recorder.changes().iter().map(|change| {
        let (key, before, written) = (change.key(), change.before(), change.written());
        format!("sysctl {key} = {written}: back to {before} unless somebody changed it")
    });
    Ok(in_words.collect())
}

fn settings() -> Result<Vec<Setting>> {
    let mut settings = forwarding()?;
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

/// What lets the host pass packets on, in the order in which it has to be written: the node's sets that of every device.
fn forwarding() -> Result<Vec<Setting>> {
    let mut settings = vec![
        setting(["net", "ipv4", "ip_forward"], "1")?,
        setting(["net", "ipv6", "conf", "all", "forwarding"], "1")?.optional(),
    ];
    for device in [HOST, NET] {
        settings.push(setting(["net", "ipv4", "conf", device, "forwarding"], "1")?);
        settings.push(setting(["net", "ipv6", "conf", device, "forwarding"], "1")?.optional());
    }
    Ok(settings)
}

fn setting<const N: usize>(key: [&str; N], value: &str) -> Result<Setting> {
    Ok(Setting::new(Key::new(key)?, value))
}
