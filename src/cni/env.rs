//! The environment variables a runtime sets.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use super::attachment::{Attachment, ContainerId, IfName};
use super::error::{CniError, ErrorCode};
use super::version::CniVersion;

/// What the runtime wants (CNI_COMMAND).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// See whether it is attached as the result of ADD says; from 0.4.0 on.
    Check,
    /// Free what belongs to no valid attachment; from 1.1.0 on.
    Gc,
    /// Say whether ADD can be served; from 1.1.0 on.
    Status,
    /// List the versions supported.
    Version,
}

impl Command {
    /// The name in CNI_COMMAND.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The oldest version of the specification that has the command.
    pub const fn since(self) -> CniVersion {
        match self {
            Self::Add | Self::Del | Self::Version => CniVersion::V0_3_1,
            Self::Check => CniVersion::V0_4_0,
            Self::Gc | Self::Status => CniVersion::V1_1_0,
        }
    }

    /// Whether the command concerns one attachment.
    const fn has_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    /// Whether the command can't do without the namespace; DEL can, it may be gone.
    const fn needs_netns(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }
}

impl FromStr for Command {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version]
            .into_iter()
            .find(|command| command.as_str() == text)
            .ok_or_else(|| {
                CniError::new(ErrorCode::InvalidEnvironment, format!("unknown CNI_COMMAND: {text:?}"))
                    .with_details("known are ADD, DEL, CHECK, GC, STATUS and VERSION")
            })
    }
}

/// The environment of one call, validated as far as the command needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// What is wanted.
    pub command: Command,
    /// The attachment; present exactly for ADD, DEL and CHECK.
    pub attachment: Option<Attachment>,
    /// The container's network namespace; always present for ADD and CHECK.
    pub netns: Option<PathBuf>,
    /// Further arguments.
    pub args: CniArgs,
}

impl Environment {
    /// Reads the variables through `lookup`. `None` when CNI_COMMAND is not set: the caller is a person, not a runtime.
    /// Every variable that is missing is named in one error; variables of no meaning to the command are not looked at.
    /// CNI_PATH is never asked for, since no other plugin is delegated to.
    pub fn parse(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, CniError> {
        let variable = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let Some(command) = variable("CNI_COMMAND") else { return Ok(None) };
        let command: Command = utf8("CNI_COMMAND", command)?.parse()?;
        if !command.has_attachment() {
            return Ok(Some(Self { command, attachment: None, netns: None, args: CniArgs::default() }));
        }
        let container_id = variable("CNI_CONTAINERID");
        let netns = variable("CNI_NETNS");
        let ifname = variable("CNI_IFNAME");
        let missing: Vec<_> = [
            ("CNI_CONTAINERID", container_id.is_none()),
            ("CNI_NETNS", netns.is_none() && command.needs_netns()),
            ("CNI_IFNAME", ifname.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        let (Some(container_id), Some(ifname), true) = (container_id, ifname, missing.is_empty()) else {
            let message = format!("required env variables [{}] missing", missing.join(","));
            return Err(CniError::new(ErrorCode::InvalidEnvironment, message));
        };
        let container_id: ContainerId = utf8("CNI_CONTAINERID", container_id)?.parse()?;
        let ifname: IfName = utf8("CNI_IFNAME", ifname)?.parse()?;
        let args = match variable("CNI_ARGS") {
            Some(args) => utf8("CNI_ARGS", args)?.parse()?,
            None => CniArgs::default(),
        };
        let attachment = Some(Attachment { container_id, ifname });
        Ok(Some(Self { command, attachment, netns: netns.map(PathBuf::from), args }))
    }
}

fn utf8(name: &str, value: OsString) -> Result<String, CniError> {
    value.into_string().map_err(|value| {
        CniError::new(ErrorCode::InvalidEnvironment, format!("invalid {name}: {value:?} is not valid UTF-8"))
    })
}

/// CNI_ARGS: `KEY=value` pairs separated by semicolons. Unknown keys are kept and ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniArgs {
    pairs: Vec<(String, String)>,
}

impl CniArgs {
    /// A key's value; the last one when it is given more than once.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The pod's namespace and name, when Kubernetes gave both.
    pub fn pod(&self) -> Option<(&str, &str)> {
        let known = |key| self.value(key).filter(|value| !value.is_empty());
        Some((known("K8S_POD_NAMESPACE")?, known("K8S_POD_NAME")?))
    }
}

impl FromStr for CniArgs {
    type Err = CniError;

    fn from_str(text: &str) -> Result<Self, CniError> {
        let pairs = text
            .split(';')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                    CniError::new(ErrorCode::InvalidEnvironment, format!("invalid CNI_ARGS: {pair:?} is not KEY=value"))
                })?;
                Ok((key.to_owned(), value.to_owned()))
            })
            .collect::<Result<_, CniError>>()?;
        Ok(Self { pairs })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Option<Environment>, CniError> {
        Environment::parse(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    const FULL: [(&str, &str); 4] =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "abc"), ("CNI_NETNS", "/var/run/netns/x"), ("CNI_IFNAME", "eth0")];

    fn with(replaced: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
        FULL.iter().map(|(key, old)| if *key == replaced { (*key, value) } else { (*key, *old) }).collect()
    }

    #[test]
    fn without_a_command_nobody_calls() {
        assert_eq!(parse(&[]).expect("no error"), None);
        assert_eq!(parse(&[("CNI_COMMAND", "")]).expect("no error"), None);
    }

    #[test]
    fn missing_variables_are_all_named() {
        let cases: [(&str, &[&str]); 3] = [
            ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
            ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
            ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
        ];
        for (command, names) in cases {
            let error = parse(&[("CNI_COMMAND", command)]).expect_err(command);
            assert_eq!(error.code(), 4);
            assert_eq!(error.msg(), format!("required env variables [{}] missing", names.join(",")));
        }
        for command in ["GC", "STATUS", "VERSION"] {
            let environment = parse(&[("CNI_COMMAND", command), ("CNI_IFNAME", "dummy")]).expect(command);
            assert_eq!(environment.expect("a command").attachment, None);
        }
    }

    #[test]
    fn values_are_validated() {
        for (name, value) in
            [("CNI_COMMAND", "add"), ("CNI_COMMAND", "PLUG"), ("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a/b")]
        {
            let error = parse(&with(name, value)).expect_err(value);
            assert_eq!(error.code(), 4, "{name}={value}");
            assert!(error.msg().contains(name), "{error}");
        }
        let mut del = with("CNI_NETNS", "");
        del[0] = ("CNI_COMMAND", "DEL");
        assert_eq!(parse(&del).expect("valid").expect("a command").netns, None);
        let bad_utf8 = Environment::parse(|name| match name {
            "CNI_CONTAINERID" => Some(OsString::from_vec(vec![0xff, 0xfe])),
            other => FULL.iter().find(|(key, _)| *key == other).map(|(_, value)| value.into()),
        });
        assert_eq!(bad_utf8.expect_err("not UTF-8").code(), 4);
    }

    #[test]
    fn arguments() {
        let args: CniArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;X=a=b;".parse().expect("valid");
        assert_eq!(args.pod(), Some(("default", "web")));
        assert_eq!(args.value("X"), Some("a=b"));
        assert_eq!("K8S_POD_NAMESPACE=x".parse::<CniArgs>().expect("valid").pod(), None);
        for bad in ["novalue", "=x", "A=1;b"] {
            assert_eq!(bad.parse::<CniArgs>().expect_err(bad).code(), 4);
        }
    }
}
