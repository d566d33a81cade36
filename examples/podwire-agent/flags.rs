//! Settings: from flags, and from a folder with a file per key. A flag beats a file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, Command};
use ipnetwork::{Ipv4Network, Ipv6Network};
use podwire::conntrack::{CtLifetimes, Interval};
use podwire::policy::{EnforcementMode, PolicyOptions};
use podwire::program::AttachMode;
use podwire::{Devices, Error, Node, Result};
use serde_json::{Map, Value, json};

/// The longest file of a setting, in bytes.
const LONGEST_VALUE: u64 = 4096;

/// The shortest interval of collections: they are looked after every few seconds only.
const SHORTEST_GC_INTERVAL: Duration = Duration::from_secs(1);

/// Every setting: its key, what its value is called, what it means. A key is the name of a flag and of a file; what its
/// text means is decided in one place, whichever it came from.
const KEYS: [(&str, &str, &str); 20] = [
    ("node-name", "NAME", "The node's name [default: the machine's host name]"),
    ("cluster-name", "NAME", "The name of the cluster [default: default]"),
    ("ipv4-range", "CIDR", "The prefix of pods' IPv4 addresses, as in 10.0.0.0/24; without it there is no IPv4"),
    ("ipv6-range", "CIDR", "The prefix of pods' IPv6 addresses, as in fd00::/96; without it there is no IPv6"),
    (
        "device",
        "DEVICES",
        "Devices that lead to the network, joined by commas, or none [default: those of the default routes]",
    ),
    ("attach-mode", "MODE", "How programs are attached: auto, tcx or clsact [default: auto]"),
    (
        "enable-policy",
        "MODE",
        "When traffic needs a rule that allows it: default (where a rule selects the endpoint), always or never",
    ),
    ("policy-audit-mode", "BOOL", "Let through and report what policy denies: true or false [default: false]"),
    (
        "allow-localhost",
        "MODE",
        "Whether the host may reach its endpoints without a rule: always or policy [default: always]",
    ),
    (
        "bpf-policy-map-max",
        "ENTRIES",
        "How many entries one endpoint's policy may have, from 256 to 65536 [default: 16384]",
    ),
    ("bpf-root", "PATH", "Where the BPF file system is mounted [default: /sys/fs/bpf]"),
    ("state-dir", "PATH", "Where state is kept [default: /var/run/podwire/state]"),
    ("socket", "PATH", "The socket to serve [default: /var/run/podwire/podwire.sock]"),
    ("bpf-ct-timeout-regular-tcp", "TIME", "How long a TCP connection lasts without packets [default: 6h]"),
    ("bpf-ct-timeout-regular-tcp-syn", "TIME", "How long one lasts of which only SYNs were seen [default: 60s]"),
    ("bpf-ct-timeout-regular-tcp-fin", "TIME", "How long one is kept after it was closed [default: 10s]"),
    ("bpf-ct-timeout-regular-any", "TIME", "How long other connections last without packets [default: 60s]"),
    ("conntrack-gc-interval", "TIME", "How often ended connections are collected [default: as often as it takes]"),
    ("conntrack-gc-max-interval", "TIME", "How long to wait for that at most [default: 30m]"),
    ("metrics-addr", "ADDRESS", "Where Prometheus finds metrics, as in 127.0.0.1:9962; without it there are none"),
];

fn command() -> Command {
    let command = Command::new("podwire-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The agent of a node: gives pods their addresses and carries their packets")
        .max_term_width(100)
        .arg(
            Arg::new("config-dir")
                .long("config-dir")
                .value_name("FOLDER")
                .help("A folder with a file per setting, named like the flag without its dashes; a flag beats a file"),
        );
    KEYS.iter().fold(command, |command, (key, value, help)| {
        command.arg(Arg::new(*key).long(*key).value_name(*value).help(*help))
    })
}

/// What the agent runs with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) node_name: String,
    pub(crate) cluster_name: String,
    pub(crate) ipv4_range: Option<Ipv4Network>,
    pub(crate) ipv6_range: Option<Ipv6Network>,
    pub(crate) devices: Devices,
    pub(crate) attach_mode: AttachMode,
    pub(crate) policy: PolicyOptions,
    pub(crate) policy_audit: bool,
    pub(crate) bpf_root: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) ct_lifetimes: CtLifetimes,
    pub(crate) gc_interval: Interval,
    pub(crate) metrics_addr: Option<SocketAddr>,
}

/// Why there are no settings.
pub(crate) enum Refused {
    /// Help or the version was asked for, or a flag is wrong.
    Usage(clap::Error),
    /// A value is wrong.
    Value(Error),
}

impl Settings {
    /// From the process's arguments, and the folder they name.
    pub(crate) fn load() -> Result<Self, Refused> {
        let matches = command().try_get_matches().map_err(Refused::Usage)?;
        let mut texts = match matches.get_one::<String>("config-dir") {
            Some(folder) => files(Path::new(folder)).map_err(Refused::Value)?,
            None => BTreeMap::new(),
        };
        for (key, ..) in KEYS {
            texts.extend(matches.get_one::<String>(key).map(|text| (key, text.clone())));
        }
        Self::parse(&texts).map_err(Refused::Value)
    }

    fn parse(texts: &BTreeMap<&'static str, String>) -> Result<Self> {
        let ipv4_range = parsed(texts, "ipv4-range", prefix::<Ipv4Network>)?;
        let ipv6_range = parsed(texts, "ipv6-range", prefix::<Ipv6Network>)?;
        if ipv4_range.is_none() && ipv6_range.is_none() {
            return Err(Error::invalid(
                "ipv4-range",
                "",
                "give this or ipv6-range: without either there are no addresses",
            ));
        }
        let name = |key, default: &dyn Fn() -> Result<String>| match parsed(texts, key, name)? {
            Some(name) => Ok(name),
            None => default(),
        };
        let path = |key, default| Ok(parsed(texts, key, absolute)?.unwrap_or_else(|| PathBuf::from(default)));
        Ok(Self {
            node_name: name("node-name", &host_name)?,
            cluster_name: name("cluster-name", &|| Ok("default".to_owned()))?,
            ipv4_range,
            ipv6_range,
            devices: parsed(texts, "device", devices)?.unwrap_or_default(),
            attach_mode: parsed(texts, "attach-mode", attach_mode)?.unwrap_or_default(),
            policy: PolicyOptions {
                mode: parsed(texts, "enable-policy", enforcement)?.unwrap_or_default(),
                allow_localhost: parsed(texts, "allow-localhost", allow_localhost)?.unwrap_or(true),
                max_entries: parsed(texts, "bpf-policy-map-max", policy_entries)?
                    .unwrap_or(PolicyOptions::default().max_entries),
            },
            policy_audit: parsed(texts, "policy-audit-mode", boolean)?.unwrap_or(false),
            bpf_root: path("bpf-root", "/sys/fs/bpf")?,
            state_dir: path("state-dir", "/var/run/podwire/state")?,
            socket: parsed(texts, "socket", socket)?.unwrap_or_else(|| PathBuf::from(podwire::api::DEFAULT_SOCKET)),
            ct_lifetimes: ct_lifetimes(texts)?,
            gc_interval: gc_interval(texts)?,
            metrics_addr: parsed(texts, "metrics-addr", |text| {
                text.parse::<SocketAddr>().map_err(|_| "expected an address and a port, as in 127.0.0.1:9962")
            })?,
        })
    }
}

impl Settings {
    /// The settings and what became of them, under the names that Cilium's agent has for them.
    pub(crate) fn as_map(&self, node: &Node) -> Map<String, Value> {
        let names: Vec<_> = node.devices.iter().map(|device| device.name.as_str()).collect();
        let text = |value: Option<String>| value.unwrap_or_default();
        let nanoseconds = |seconds: u16| u64::from(seconds) * 1_000_000_000;
        let settings = json!({
            "AllowLocalhost": if self.policy.allow_localhost { "always" } else { "policy" },
            "BPFRoot": self.bpf_root,
            "PolicyMapEntries": self.policy.max_entries,
            "CTMapEntriesTimeoutAny": nanoseconds(self.ct_lifetimes.any),
            "CTMapEntriesTimeoutFIN": nanoseconds(self.ct_lifetimes.closing),
            "CTMapEntriesTimeoutSYN": nanoseconds(self.ct_lifetimes.tcp_syn),
            "CTMapEntriesTimeoutTCP": nanoseconds(self.ct_lifetimes.tcp),
            "ClusterID": 0,
            "ClusterName": self.cluster_name,
            "DatapathMode": "veth",
            "Devices": names,
            "EnableIPv4": self.ipv4_range.is_some(),
            "EnableIPv6": self.ipv6_range.is_some(),
            "EnablePolicy": self.policy.mode.to_string(),
            "EnableTCX": node.attach_mode == "tcx",
            "IPAM": "kubernetes",
            "IPv4Range": text(self.ipv4_range.map(|range| range.to_string())),
            "IPv6Range": text(self.ipv6_range.map(|range| range.to_string())),
            "MetricsAddress": text(self.metrics_addr.map(|address| address.to_string())),
            "NodeName": self.node_name,
            "PolicyAuditMode": self.policy_audit,
            "RoutingMode": "native",
            "SocketPath": self.socket,
            "StateDir": self.state_dir,
        });
        match settings {
            Value::Object(settings) => settings,
            _ => Map::new(),
        }
    }
}

/// The files of a folder whose names are settings. Others are warned of; hidden ones are left alone, since mounted
/// configuration comes with links of that kind.
fn files(folder: &Path) -> Result<BTreeMap<&'static str, String>> {
    let refused = |key, path: &Path, cause: io::Error| {
        Error::invalid(key, path.display().to_string(), format!("can't be read: {cause}"))
    };
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|cause| refused("config-dir", folder, cause))? {
        let path = entry.map_err(|cause| refused("config-dir", folder, cause))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        match KEYS.iter().map(|(key, ..)| *key).find(|key| *key == name) {
            Some(key) => {
                let text = read(&path).map_err(|cause| refused(key, &path, cause))?;
                texts.insert(key, text.trim().to_owned());
            }
            None => log::warn!("{}: {name} is no setting of this agent: ignored", folder.display()),
        }
    }
    Ok(texts)
}

/// A file that has no more than a value can have.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_VALUE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_VALUE {
        return Err(io::Error::other(format!("it is longer than {LONGEST_VALUE} bytes")));
    }
    Ok(text)
}

/// The value of a setting that is given and not empty.
fn parsed<T, E: Display>(
    texts: &BTreeMap<&'static str, String>,
    key: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>> {
    match texts.get(key).map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => parse(text).map(Some).map_err(|reason| Error::invalid(key, text, reason.to_string())),
    }
}

/// A time such as 6h, 2h13m20s or 60s.
fn time(texts: &BTreeMap<&'static str, String>, key: &'static str) -> Result<Option<Duration>> {
    parsed(texts, key, |text| {
        humantime::parse_duration(text).map_err(|cause| format!("{cause}: expected a time as in 2h13m20s"))
    })
}

fn ct_lifetimes(texts: &BTreeMap<&'static str, String>) -> Result<CtLifetimes> {
    let lifetime = |key, default| time(texts, key)?.map_or(Ok(default), |time| CtLifetimes::seconds(key, time));
    let default = CtLifetimes::default();
    Ok(CtLifetimes {
        tcp: lifetime("bpf-ct-timeout-regular-tcp", default.tcp)?,
        tcp_syn: lifetime("bpf-ct-timeout-regular-tcp-syn", default.tcp_syn)?,
        closing: lifetime("bpf-ct-timeout-regular-tcp-fin", default.closing)?,
        any: lifetime("bpf-ct-timeout-regular-any", default.any)?,
    })
}

/// A fixed interval, or one that adapts up to a longest one.
fn gc_interval(texts: &BTreeMap<&'static str, String>) -> Result<Interval> {
    let named = |key: &'static str, bounds: Result<Interval>| {
        bounds.map_err(|error| Error::invalid(key, texts.get(key).cloned().unwrap_or_default(), error.to_string()))
    };
    if let Some(fixed) = time(texts, "conntrack-gc-interval")? {
        let bounds = match fixed < SHORTEST_GC_INTERVAL {
            true => Err(Error::invalid(
                "collection interval",
                format!("{fixed:?}"),
                "must be at least 1s and at most a day",
            )),
            false => Interval::new(fixed, fixed),
        };
        return named("conntrack-gc-interval", bounds);
    }
    match time(texts, "conntrack-gc-max-interval")? {
        Some(longest) => named("conntrack-gc-max-interval", Interval::up_to(longest)),
        None => Ok(Interval::default()),
    }
}

fn prefix<N>(text: &str) -> Result<N, String>
where
    N: FromStr<Err = ipnetwork::IpNetworkError> + Copy + Display,
{
    match text.parse::<N>() {
        Ok(network) if text.contains('/') => Ok(network),
        Ok(_) => Err("expected a prefix length, as in 10.0.0.0/24 or fd00::/96".to_owned()),
        Err(cause) => Err(format!("{cause}: expected a prefix such as 10.0.0.0/24 or fd00::/96")),
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if text.len() <= 253 && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("at most 253 letters, digits, dots, dashes and underscores are allowed")
    }
}

fn devices(text: &str) -> Result<Devices, &'static str> {
    if text == "none" {
        return Ok(Devices::Named(Vec::new()));
    }
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().all(|name| (1..=15).contains(&name.len()) && !name.contains(['/', ' '])) {
        Ok(Devices::Named(names))
    } else {
        Err("expected none, or names of devices joined by commas, each of 1 to 15 characters")
    }
}

fn attach_mode(text: &str) -> Result<AttachMode, &'static str> {
    match text {
        "auto" => Ok(AttachMode::Auto),
        "tcx" => Ok(AttachMode::Tcx),
        "clsact" => Ok(AttachMode::Clsact),
        _ => Err("expected auto, tcx or clsact"),
    }
}

fn enforcement(text: &str) -> Result<EnforcementMode, &'static str> {
    text.parse().map_err(|_| "expected default, always or never")
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("expected true or false"),
    }
}

/// Between Cilium's bounds.
fn policy_entries(text: &str) -> Result<usize, &'static str> {
    let wrong = "expected a number from 256 to 65536";
    let entries = text.parse().map_err(|_| wrong)?;
    if (256..=65_536).contains(&entries) { Ok(entries) } else { Err(wrong) }
}

/// As with Cilium, whose `auto` means `always` outside of Kubernetes.
fn allow_localhost(text: &str) -> Result<bool, &'static str> {
    match text {
        "auto" | "always" => Ok(true),
        "policy" => Ok(false),
        _ => Err("expected always or policy"),
    }
}

/// `sun_path` of a Unix socket's address has room for 108 bytes, one of which ends the path (unix(7)).
fn socket(text: &str) -> Result<PathBuf, &'static str> {
    if text.len() < 108 {
        absolute(text)
    } else {
        Err("expected a path of at most 107 bytes, as for every Unix socket")
    }
}

fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path") }
}

fn host_name() -> Result<String> {
    let path = "/proc/sys/kernel/hostname";
    let text = fs::read_to_string(path).map_err(|cause| Error::system("read", path, cause))?;
    let name = text.trim().to_owned();
    self::name(&name).map_err(|reason| Error::invalid("node-name", name, format!("the machine's host name: {reason}")))
}
