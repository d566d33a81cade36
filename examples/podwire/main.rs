//! `podwire`: the operator's command line.
//!
//! Talks to an agent through its socket; the `bpf` commands and `cleanup` need none.

mod bpf;
mod cleanup;
mod config;
mod debuginfo;
mod endpoint;
mod endpoint_config;
mod identity;
mod ip;
mod ipam;
mod map;
mod metrics;
mod monitor;
mod node;
mod policy;
mod policy_trace;
mod policy_wait;
mod report;
mod status;
mod table;
mod version;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use podwire::api::{Client, DEFAULT_SOCKET};
use podwire::shortened_words;

use crate::report::{Format, Report};

/// Look at and operate a node's container datapath.
#[derive(Parser)]
#[command(name = "podwire", version, disable_version_flag = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    agent: AgentArgs,
    /// Print JSON instead of text.
    #[arg(short, long, global = true, value_enum)]
    output: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

/// Which agent to talk to.
#[derive(clap::Args)]
struct AgentArgs {
    /// The agent's socket.
    #[arg(long, global = true, env = "PODWIRE_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// The agent's socket as a URI: unix:///var/run/podwire/podwire.sock. Wins over --socket.
    #[arg(short = 'H', long, global = true, value_name = "URI", value_parser = socket_of_uri)]
    host: Option<PathBuf>,
}

impl AgentArgs {
    fn socket(&self) -> &PathBuf {
        self.host.as_ref().unwrap_or(&self.socket)
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }
}

#[derive(Subcommand)]
enum Command {
    /// Direct access to pinned BPF maps; needs no agent.
    Bpf(bpf::Args),
    /// Remove everything that an agent made on this machine; needs no agent.
    Cleanup(cleanup::Args),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Show or change the agent's configuration.
    Config(config::Args),
    /// Show everything that helps to find a fault.
    Debuginfo,
    /// Manage endpoints.
    #[command(subcommand)]
    Endpoint(endpoint::Command),
    /// Show security identities and their labels.
    #[command(subcommand)]
    Identity(identity::Command),
    /// Show addresses and the identities behind them.
    #[command(subcommand)]
    Ip(ip::Command),
    /// Show allocated addresses.
    #[command(subcommand)]
    Ipam(ipam::Command),
    /// Show what the agent wants in BPF maps, and whether the kernel has it.
    #[command(subcommand)]
    Map(map::Command),
    /// Show the agent's metrics.
    #[command(subcommand)]
    Metrics(metrics::Command),
    /// Show events of the BPF programs as they happen.
    Monitor(monitor::Args),
    /// Show the nodes of the cluster.
    #[command(subcommand)]
    Node(node::Command),
    /// Manage policies.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Show how the node does.
    Status(status::Args),
    /// Print the versions of this program and of the agent.
    Version,
}

impl Command {
    /// How a process ends that could not do this.
    fn failure(&self) -> ExitCode {
        match self {
            // 1 is an answer: denied.
            Self::Policy(policy::Command::Trace(_)) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Accepts `unix://` and a path.
fn socket_of_uri(uri: &str) -> Result<PathBuf, String> {
    match uri.strip_prefix("unix://") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("expected unix:// and the path of a socket, as in unix:///var/run/podwire/podwire.sock".to_owned()),
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "Error: {}", one_line(&error));
            cli.command.failure()
        }
    }
}

/// Prints help as it is, and what is wrong with the arguments as one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let _ = writeln!(io::stderr(), "{} (see --help)", shortened_words(&lines.join(" ")));
    ExitCode::from(2)
}

/// What was attempted and why it failed. The library's errors name their own causes.
fn one_line(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        match cause.downcast_ref() {
            // The reason names what is wrong; which request it was is of no interest.
            Some(podwire::Error::Api { status: 400..500, message, .. }) => parts.push(message.clone()),
            _ => parts.push(cause.to_string()),
        }
        if cause.is::<podwire::Error>() {
            break;
        }
    }
    shortened_words(&parts.join(": "))
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let format = cli.output;
    let client = || cli.agent.client();
    let report = match &cli.command {
        Command::Bpf(args) => bpf::run(args, &client())?,
        Command::Cleanup(args) => cleanup::run(args)?,
        Command::Completion { shell } => completion(*shell),
        Command::Config(args) => config::run(args, &client())?,
        Command::Debuginfo => debuginfo::run(&client())?,
        Command::Endpoint(command) => endpoint::run(command, &client())?,
        Command::Identity(command) => identity::run(command, &client())?,
        Command::Ip(command) => ip::run(command, &client())?,
        Command::Ipam(command) => ipam::run(command, &client())?,
        Command::Map(command) => map::run(command, &client())?,
        Command::Metrics(command) => metrics::run(command, &client())?,
        Command::Monitor(args) => return monitor::run(args, cli.agent.socket(), format),
        Command::Node(command) => node::run(command, &client())?,
        Command::Policy(command) => policy::run(command, &client())?,
        Command::Status(args) => status::run(args, cli.agent.socket())?,
        Command::Version => version::run(&client()),
    };
    report.print(format).context("print")
}

fn completion(shell: Shell) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "podwire", &mut script);
    Report::text(String::from_utf8_lossy(&script).into_owned())
}
