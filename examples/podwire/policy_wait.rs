//! `podwire policy wait`.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podwire::api::{Client, Endpoint, EndpointHealthStatus, EndpointState};

use crate::report::Report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The revision, as `policy import` prints it.
    revision: u64,
    /// Seconds after which to give up.
    #[arg(long, default_value_t = 360, value_name = "SECONDS")]
    max_wait_time: u64,
    /// Seconds after which to give up if an endpoint is not ready, or its policy can't come into force.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    fail_wait_time: u64,
    /// Seconds from one look to the next.
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    sleep_time: u64,
}

/// Looks at the endpoints until all are at the revision. Those about to go are not waited for.
pub(crate) fn run(args: &Args, client: &Client) -> anyhow::Result<Report> {
    let began = Instant::now();
    loop {
        let endpoints = client.endpoints(&[]).context("cannot list endpoints")?;
        let behind: Vec<&Endpoint> = endpoints.iter().filter(|endpoint| is_behind(endpoint, args.revision)).collect();
        let Some(first) = behind.first() else { return Ok(Report::done()) };
        let ill = behind.iter().find_map(|endpoint| Some((id(endpoint), trouble(endpoint)?)));
        if let Some((id, (trouble, verb))) = ill.filter(|_| began.elapsed() >= Duration::from_secs(args.fail_wait_time))
        {
            bail!("endpoint {id} {trouble} after {} s: see `podwire endpoint {verb} {id}`", args.fail_wait_time);
        }
        if began.elapsed() >= Duration::from_secs(args.max_wait_time) {
            let (id, revision, seconds) = (id(first), args.revision, args.max_wait_time);
            let others = match behind.len() - 1 {
                0 => String::new(),
                others => format!(", nor are {others} others"),
            };
            bail!("endpoint {id} is not at revision {revision} after {seconds} s{others}");
        }
        thread::sleep(Duration::from_secs(args.sleep_time));
    }
}

fn is_behind(endpoint: &Endpoint, revision: u64) -> bool {
    let policy = endpoint.status.as_ref().and_then(|status| status.policy.as_ref()?.realized.as_ref());
    let leaving = matches!(state(endpoint), Some(EndpointState::Disconnecting | EndpointState::Disconnected));
    !leaving && policy.is_none_or(|policy| policy.policy_revision < revision)
}

/// Why an endpoint won't be at the revision by itself, and what tells more.
fn trouble(endpoint: &Endpoint) -> Option<(&'static str, &'static str)> {
    let policy = endpoint.status.as_ref().and_then(|status| status.health.as_ref()?.policy.as_ref());
    match (state(endpoint), policy) {
        (Some(EndpointState::NotReady), _) => Some(("is not ready", "log")),
        (_, Some(EndpointHealthStatus::Failure)) => Some(("has a policy that can't come into force", "health")),
        _ => None,
    }
}

fn state(endpoint: &Endpoint) -> Option<&EndpointState> {
    endpoint.status.as_ref()?.state.as_ref()
}

fn id(endpoint: &Endpoint) -> String {
    endpoint.id.map_or_else(|| "without number".to_owned(), |id| id.to_string())
}
