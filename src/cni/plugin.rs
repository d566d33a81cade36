//! One call of a plugin: environment and configuration in, result or error out.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::add::Place;
use super::agent::Agent;
use super::conf::NetConf;
use super::env::{Command, Environment};
use super::error::{CniError, ErrorCode};
use super::http::HttpAgent;
use super::version::CniVersion;
use super::{add, check, del, gc, logging, status};

/// What a plugin says of itself to a person who calls it.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its own version.
    pub version: &'static str,
}

/// Serves the call that the process was started for, with the agent on the configured socket: a plugin's whole `main`.
/// The result or the error goes to standard output, and the exit status is 0 or 1.
pub fn main(about: About) -> ExitCode {
    let asked = env::args_os().nth(1);
    if let Some(argument) = asked {
        return explain(about, &argument);
    }
    let environment = |name: &str| env::var_os(name);
    let outcome = serve_in(Place::Own, environment, io::stdin().lock(), |conf| {
        if let Err(error) = logging::start(conf.log_file.as_deref(), conf.log_level, subject(environment)) {
            // no reason to leave a container without a network
            let _ = writeln!(io::stderr(), "{}: {error}", about.name);
        }
        log::debug!("called for network {}", conf.name);
        HttpAgent::new(&conf.socket, conf.agent_timeout)
    });
    let (text, code) = match outcome {
        Ok(Outcome::NobodyCalls) => {
            introduce(about);
            return ExitCode::SUCCESS;
        }
        Ok(Outcome::Silent) => return ExitCode::SUCCESS,
        Ok(Outcome::Result(value)) => (value, ExitCode::SUCCESS),
        Err(Failure { error, version }) => {
            log::error!("{error}");
            (error.to_json(version), ExitCode::FAILURE)
        }
    };
    match print(&text) {
        Ok(()) => code,
        // there is nowhere left to say it but here
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}: write the result: {error}", about.name);
            ExitCode::FAILURE
        }
    }
}

/// What messages of this call are about: command, container and interface.
fn subject(environment: impl Fn(&str) -> Option<OsString>) -> String {
    let words = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME"].map(|name| environment(name).unwrap_or_default());
    words.map(|word| word.to_string_lossy().into_owned()).join(" ").trim_end().to_owned()
}

/// What a call that succeeded has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// CNI_COMMAND is not set: the caller is a person.
    NobodyCalls,
    /// Success without a word.
    Silent,
    /// A result for standard output.
    Result(Value),
}

/// A failed call: the error, and the version in whose form it is to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error.
    pub error: CniError,
    /// The configuration's version, or the newest when that is not known.
    pub version: CniVersion,
}

/// Serves one call: reads the variables through `environment` and the configuration from `input`, and asks the agent that
/// `connect` gives for it.
pub fn serve<A: Agent>(
    environment: impl Fn(&str) -> Option<OsString>,
    input: impl Read,
    connect: impl FnOnce(&NetConf) -> A,
) -> Result<Outcome, Failure> {
    serve_in(Place::Shared, environment, input, connect)
}

fn serve_in<A: Agent>(
    place: Place,
    environment: impl Fn(&str) -> Option<OsString>,
    input: impl Read,
    connect: impl FnOnce(&NetConf) -> A,
) -> Result<Outcome, Failure> {
    let early = |error| Failure { error, version: CniVersion::LATEST };
    let Some(environment) = Environment::parse(environment).map_err(early)? else { return Ok(Outcome::NobodyCalls) };
    if environment.command == Command::Version {
        return versions(input).map(Outcome::Result).map_err(early);
    }
    let config = NetConf::read(input).map_err(early)?;
    let version = config.get("cniVersion").and_then(Value::as_str).and_then(|text| CniVersion::parse(text).ok());
    let version = version.unwrap_or(CniVersion::LATEST);
    let late = |error| Failure { error, version };
    let conf = NetConf::parse(&config).map_err(late)?;
    execute(place, &environment, &conf, connect).map_err(late)
}

fn execute<A: Agent>(
    place: Place,
    environment: &Environment,
    conf: &NetConf,
    connect: impl FnOnce(&NetConf) -> A,
) -> Result<Outcome, CniError> {
    let command = environment.command;
    if conf.version < command.since() {
        let message = format!("config version does not allow {}", command.as_str());
        let details = format!("cniVersion is {}, {} is the first with it", conf.version, command.since());
        return Err(CniError::new(ErrorCode::IncompatibleVersion, message).with_details(details));
    }
    let agent = connect(conf);
    // Environment::parse gives every command what it needs
    let incomplete =
        || CniError::new(ErrorCode::InvalidEnvironment, "CNI_CONTAINERID, CNI_NETNS or CNI_IFNAME missing");
    let attachment = || environment.attachment.as_ref().ok_or_else(incomplete);
    let netns = || environment.netns.as_deref().ok_or_else(incomplete);
    match command {
        Command::Add => {
            let result = add::add(place, &agent, conf, attachment()?, netns()?, &environment.args)?;
            return Ok(Outcome::Result(result.to_json(conf.version)));
        }
        Command::Del => del::del(&agent, conf, attachment()?)?,
        Command::Check => check::check(&agent, conf, attachment()?, netns()?)?,
        Command::Gc => gc::gc(&agent, conf)?,
        Command::Status => status::status(&agent)?,
        Command::Version => {}
    }
    Ok(Outcome::Silent)
}

/// VERSION: the caller's version back, and the list of those supported. Nothing on standard input means the newest.
fn versions(mut input: impl Read) -> Result<Value, CniError> {
    let mut text = Vec::new();
    let mut head = input.by_ref().take(1 << 16);
    head.read_to_end(&mut text)
        .map_err(|error| CniError::new(ErrorCode::Io, format!("read the network configuration: {error}")))?;
    let asked = if text.trim_ascii().is_empty() { json!({}) } else { NetConf::read(&text[..])? };
    let version = match asked.get("cniVersion") {
        None | Some(Value::Null) => CniVersion::LATEST.as_str(),
        Some(version) => {
            version.as_str().ok_or_else(|| super::conf::invalid("cniVersion", version, "must be a string"))?
        }
    };
    let supported: Vec<_> = CniVersion::ALL.iter().map(|version| version.as_str()).collect();
    Ok(json!({ "cniVersion": version, "supportedVersions": supported }))
}

fn print(value: &Value) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

fn introduce(about: About) {
    let supported: Vec<_> = CniVersion::ALL.iter().map(|version| version.as_str()).collect();
    let mut text = format!(
        "{} {}, a CNI plugin\nCNI protocol versions supported: {}\n",
        about.name,
        about.version,
        supported.join(", ")
    );
    if io::stdin().is_terminal() {
        text.push_str("It is called by a container runtime, with CNI_COMMAND in its environment and a network configuration on its\nstandard input; https://www.cni.dev/docs/spec/ tells how.\n");
    }
    let _ = io::stderr().write_all(text.as_bytes());
}

fn explain(about: About, argument: &OsString) -> ExitCode {
    match argument.to_str() {
        Some("-V" | "--version" | "-h" | "--help" | "help" | "version") => {
            introduce(about);
            ExitCode::SUCCESS
        }
        _ => {
            let _ = writeln!(io::stderr(), "{}: {argument:?}: takes no arguments; try --help", about.name);
            ExitCode::from(2)
        }
    }
}
