//! The network configuration a runtime passes on standard input.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use serde_json::{Map, Value};

use super::attachment::{Attachment, is_identifier};
use super::error::{CniError, ErrorCode};
use super::runtime::RuntimeConfig;
use super::version::CniVersion;
use crate::api::DEFAULT_SOCKET;

/// The largest configuration that is read, in bytes. GC lists every attachment of a node.
const CONFIG_MAX: u64 = 8 << 20;
/// How long ADD waits for an agent unless the configuration says otherwise.
const DEFAULT_AGENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that can be asked for: runtimes give up after two to four minutes.
const AGENT_TIMEOUT_MAX: u64 = 120;
/// The smallest and the largest MTU the kernel accepts for a veth device, in bytes.
const MTU_RANGE: std::ops::RangeInclusive<u64> = 68..=65535;

/// A network configuration; keys that are not listed are tolerated.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NetConf {
    /// `cniVersion`.
    pub version: CniVersion,
    /// `name`: of the network.
    pub name: String,
    /// `type`: the plugin's file name; may be empty.
    pub plugin: String,
    /// `prevResult`, as it came.
    pub prev_result: Option<Value>,
    /// `runtimeConfig`.
    pub runtime: RuntimeConfig,
    /// `dns`, passed on in the result.
    pub dns: Option<Value>,
    /// `cni.dev/valid-attachments` (GC): `None` when the key is missing, which is not the same as an empty list.
    pub valid_attachments: Option<Vec<Attachment>>,
    /// `socket`: where the agent listens; `/var/run/podwire/podwire.sock`.
    pub socket: PathBuf,
    /// `mtu`: of the pod's device in bytes, instead of the agent's.
    pub mtu: Option<u32>,
    /// `agent-timeout`: how long ADD waits for an agent, in seconds; 10.
    pub agent_timeout: Duration,
    /// `log-file`: where messages go instead of standard error.
    pub log_file: Option<PathBuf>,
    /// `log-level`: `error`, `warn`, `info`, `debug` or `trace`; `warn`. `enable-debug` is short for `debug`.
    pub log_level: LevelFilter,
}

impl NetConf {
    /// Reads a configuration of bounded size.
    pub fn read(input: impl Read) -> Result<Value, CniError> {
        let mut bytes = Vec::new();
        input
            .take(CONFIG_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| CniError::new(ErrorCode::Io, format!("read the network configuration: {error}")))?;
        if bytes.len() as u64 > CONFIG_MAX {
            let message = format!("the network configuration is longer than {CONFIG_MAX} bytes");
            return Err(CniError::new(ErrorCode::Decoding, message));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            CniError::new(ErrorCode::Decoding, "the network configuration is not valid JSON")
                .with_details(error.to_string())
        })
    }

    /// Interprets a configuration. Errors are of code 1 (version) or 7, and name the key.
    pub fn parse(config: &Value) -> Result<Self, CniError> {
        let fields = Fields::of(config)?;
        let version = CniVersion::parse(&fields.string("cniVersion")?.unwrap_or_default())?;
        let name = fields.string("name")?.unwrap_or_default();
        if !is_identifier(&name) {
            let reason = "must start with a letter or digit and go on with letters, digits, '_', '.' or '-'";
            return Err(invalid("name", &name.into(), reason));
        }
        let log_level = match fields.string("log-level")? {
            Some(level) => level.parse().map_err(|_| {
                invalid("log-level", &level.clone().into(), "must be error, warn, info, debug, trace or off")
            })?,
            None if fields.boolean("enable-debug")? => LevelFilter::Debug,
            None => LevelFilter::Warn,
        };
        Ok(Self {
            version,
            name,
            plugin: fields.string("type")?.unwrap_or_default(),
            prev_result: fields.object("prevResult")?.cloned(),
            runtime: RuntimeConfig::parse(fields.object("runtimeConfig")?)?,
            dns: fields.object("dns")?.cloned(),
            valid_attachments: fields.attachments()?,
            socket: fields.path("socket")?.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            // 0 means "not set", as for other plugins
            mtu: fields.number("mtu", 0, *MTU_RANGE.end())?.filter(|mtu| *mtu != 0).map(checked_mtu).transpose()?,
            agent_timeout: fields
                .number("agent-timeout", 0, AGENT_TIMEOUT_MAX)?
                .map_or(DEFAULT_AGENT_TIMEOUT, Duration::from_secs),
            log_file: fields.path("log-file")?,
            log_level,
        })
    }
}

fn checked_mtu(mtu: u64) -> Result<u32, CniError> {
    u32::try_from(mtu).ok().filter(|_| MTU_RANGE.contains(&mtu)).ok_or_else(|| {
        invalid("mtu", &mtu.into(), &format!("must be 0 or from {} to {}", MTU_RANGE.start(), MTU_RANGE.end()))
    })
}

/// A JSON object, read key by key so that an error can name the key.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn of(value: &'a Value) -> Result<Self, CniError> {
        let Value::Object(map) = value else {
            return Err(CniError::new(ErrorCode::InvalidConfig, "the network configuration is not a JSON object"));
        };
        Ok(Self(map))
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn string(&self, key: &str) -> Result<Option<String>, CniError> {
        self.value(key)
            .map(|value| value.as_str().map(str::to_owned).ok_or_else(|| invalid(key, value, "must be a string")))
            .transpose()
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, CniError> {
        let path = self.string(key)?.filter(|path| !path.is_empty()).map(PathBuf::from);
        match path {
            Some(path) if !path.is_absolute() => {
                Err(invalid(key, &path.display().to_string().into(), "must be an absolute path"))
            }
            path => Ok(path),
        }
    }

    fn boolean(&self, key: &str) -> Result<bool, CniError> {
        let value = self.value(key);
        let flag = value.map(|value| value.as_bool().ok_or_else(|| invalid(key, value, "must be true or false")));
        Ok(flag.transpose()?.unwrap_or(false))
    }

    fn number(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, CniError> {
        let number = |value: &Value| {
            value
                .as_u64()
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| invalid(key, value, &format!("must be a whole number from {least} to {most}")))
        };
        self.value(key).map(number).transpose()
    }

    fn object(&self, key: &str) -> Result<Option<&'a Value>, CniError> {
        match self.value(key) {
            Some(value) if !value.is_object() => Err(invalid(key, value, "must be an object")),
            value => Ok(value),
        }
    }

    /// The list of GC. Its key was misnamed in some texts of the specification; runtimes send both. A runtime written in Go
    /// sends null for an empty list.
    fn attachments(&self) -> Result<Option<Vec<Attachment>>, CniError> {
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            match self.0.get(key) {
                None => {}
                Some(Value::Null) => return Ok(Some(Vec::new())),
                Some(Value::Array(list)) => {
                    return list.iter().map(|entry| attachment(key, entry)).collect::<Result<_, _>>().map(Some);
                }
                Some(other) => return Err(invalid(key, other, "must be a list")),
            }
        }
        Ok(None)
    }
}

fn attachment(key: &str, entry: &Value) -> Result<Attachment, CniError> {
    let field = |name: &str| entry.get(name).and_then(Value::as_str);
    let (Some(container_id), Some(ifname)) = (field("containerID"), field("ifname")) else {
        return Err(invalid(key, entry, "every entry must have the strings containerID and ifname"));
    };
    Attachment::new(container_id, ifname).map_err(|error| invalid(key, entry, error.msg()))
}

pub(super) fn invalid(key: &str, value: &Value, reason: &str) -> CniError {
    let mut shown = value.to_string();
    if let Some((end, _)) = shown.char_indices().nth(120) {
        shown.truncate(end);
        shown.push('…');
    }
    CniError::new(ErrorCode::InvalidConfig, format!("invalid network configuration: {key}: {shown}: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn minimal() -> Value {
        json!({ "cniVersion": "1.0.0", "name": "pods", "type": "podwire-cni" })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut config = minimal();
        config[key] = value;
        config
    }

    #[test]
    fn defaults_and_unknown_keys() {
        let mut config = minimal();
        config["chaining-mode"] = json!("x");
        config["ipam"] = json!({ "type": "host-local" });
        let conf = NetConf::parse(&config).expect("valid");
        assert_eq!(conf.version, CniVersion::V1_0_0);
        assert_eq!(conf.socket, PathBuf::from(DEFAULT_SOCKET));
        assert_eq!((conf.mtu, conf.log_level, conf.valid_attachments), (None, LevelFilter::Warn, None));
    }

    #[test]
    fn our_own_keys() {
        let config = json!({
            "cniVersion": "1.1.0", "name": "pods", "socket": "/s", "mtu": 1400, "agent-timeout": 3,
            "log-file": "/l", "enable-debug": true, "prevResult": null
        });
        let conf = NetConf::parse(&config).expect("valid");
        assert_eq!((conf.socket.as_path(), conf.mtu), (std::path::Path::new("/s"), Some(1400)));
        assert_eq!((conf.agent_timeout, conf.log_level), (Duration::from_secs(3), LevelFilter::Debug));
        assert_eq!(NetConf::parse(&with("mtu", json!(0))).expect("unset").mtu, None);
        let both = NetConf::parse(&with("log-level", json!("ERROR"))).expect("valid");
        assert_eq!(both.log_level, LevelFilter::Error);
    }

    #[test]
    fn errors_name_the_key() {
        let cases = [
            ("name", json!("")),
            ("name", json!("../x")),
            ("name", json!(7)),
            ("type", json!(["podwire-cni"])),
            ("mtu", json!("1500")),
            ("mtu", json!(67)),
            ("mtu", json!(65536)),
            ("mtu", json!(-1)),
            ("socket", json!("relative.sock")),
            ("agent-timeout", json!(100_000)),
            ("log-level", json!("loud")),
            ("enable-debug", json!("yes")),
            ("prevResult", json!("text")),
            ("runtimeConfig", json!([])),
            ("cni.dev/valid-attachments", json!({})),
            ("cni.dev/valid-attachments", json!([{ "containerID": "a" }])),
            ("cni.dev/valid-attachments", json!([{ "containerID": "a/b", "ifname": "eth0" }])),
        ];
        for (key, value) in cases {
            let error = NetConf::parse(&with(key, value.clone())).expect_err(key);
            assert_eq!(error.code(), 7, "{key} = {value}");
            assert!(error.msg().contains(key), "{error}");
        }
        assert_eq!(NetConf::parse(&with("cniVersion", json!("0.2.0"))).expect_err("old").code(), 1);
        assert_eq!(NetConf::parse(&json!({ "name": "pods" })).expect_err("none").code(), 1);
        assert_eq!(NetConf::parse(&json!([])).expect_err("a list").code(), 7);
    }

    #[test]
    fn an_absent_list_of_attachments_is_not_an_empty_one() {
        let list = |config| NetConf::parse(&config).expect("valid").valid_attachments;
        assert_eq!(list(minimal()), None);
        assert_eq!(list(with("cni.dev/valid-attachments", json!(null))), Some(vec![]));
        assert_eq!(list(with("cni.dev/attachments", json!([]))), Some(vec![]));
        let one = json!([{ "containerID": "abc", "ifname": "eth0" }]);
        let expected = vec![Attachment::new("abc", "eth0").expect("valid")];
        assert_eq!(list(with("cni.dev/valid-attachments", one)), Some(expected));
    }

    #[test]
    fn undecodable_input() {
        for bad in [&b""[..], b"{", b"{\"name\": \"\xff\"}", b"{} {}", b"\0"] {
            assert_eq!(NetConf::read(bad).expect_err("malformed").code(), 6, "{bad:?}");
        }
        let long = vec![b' '; CONFIG_MAX as usize + 2];
        assert_eq!(NetConf::read(&long[..]).expect_err("too long").code(), 6);
        let deep = "[".repeat(100_000);
        assert_eq!(NetConf::read(deep.as_bytes()).expect_err("too deep").code(), 6);
    }
}
