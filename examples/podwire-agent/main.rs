//! `podwire-agent`: keeps a node's datapath and serves the API that CNI plugins and operators ask.

mod agent;
mod controllers;
mod flags;
mod metrics;
mod monitor;
mod options;
mod scrape;
mod server;
mod socket;
mod startup;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use podwire::cni::{DeletionQueue, QueueLock};
use podwire::endpoint::{EndpointRef, EndpointState};
use podwire::netlink::AddressEvents;
use podwire::{Datapath, Error, NodeConfig, Result, shortened_words};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::Agent;
use crate::flags::{Refused, Settings};

/// How often the datapath is compared with what it should be.
const MAINTENANCE: Duration = Duration::from_secs(5);
/// How often it is asked whether connections should be collected.
const CONNTRACK: Duration = Duration::from_secs(5);
/// How long address events are waited for before it is asked whether the agent ends.
const PAUSE: Duration = Duration::from_millis(500);
/// How often deletions are tried again that failed while the agent ran.
const QUEUED: Duration = Duration::from_secs(30);
/// How long requests under way may take when the agent is told to end.
const FAREWELL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    start_log();
    let settings = match Settings::load() {
        Ok(settings) => settings,
        Err(Refused::Usage(error)) => return usage(&error),
        Err(Refused::Value(error)) => return refuse(&error),
    };
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

/// Logs to standard error; without times where the journal adds its own.
fn start_log() {
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(|out, record| {
            // The priorities of syslog(3), as sd-daemon(3) reads them.
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            writeln!(out, "<{priority}>{}", record.args())
        });
    }
    builder.init();
}

/// Prints help as it is, and what is wrong with the flags as one line.
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

fn refuse(error: &Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "podwire-agent: {error}");
    ExitCode::FAILURE
}

fn run(settings: Settings) -> Result<()> {
    let began = Instant::now();
    log::info!("{} starts", agent::version());
    // What may be somebody else's, or refused, is taken first: a start that fails for it has changed nothing.
    let mut claim = socket::Claim::new(&settings.socket)?;
    let metrics = settings.metrics_addr.map(scrape::listen).transpose()?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|cause| Error::system("start", "the runtime", cause))?;
    let inside = runtime.enter();
    let told_to_end = told_to_end()?;
    let metrics = metrics.map(scrape::served).transpose()?;
    let events = AddressEvents::open()?;

    let folders = (settings.bpf_root.clone(), settings.state_dir.clone());
    let builder = Datapath::builder().bpf_root(&folders.0).state_dir(&folders.1).socket(&settings.socket);
    let datapath = builder.open(node_config(&settings))?;
    let is_new = datapath.is_new();
    let (agent, listener) = begin(datapath, settings, &mut claim).inspect_err(|_| {
        // Where there was something, it serves on.
        if is_new && let Err(error) = Datapath::cleanup(&folders.0, &folders.1) {
            log::warn!("undoing failed: {error}");
        }
    })?;
    log::info!("serving {} after {:?}", agent.settings.socket.display(), began.elapsed());
    drop(inside);
    runtime.block_on(serve(&agent, listener, metrics, events, told_to_end));
    drop(claim);
    agent.monitor.end();
    runtime.shutdown_timeout(FAREWELL);
    Ok(())
}

/// Makes an agent of the datapath, and listens. Where this fails, nothing has the datapath open any more.
fn begin(datapath: Datapath, settings: Settings, claim: &mut socket::Claim) -> Result<(Arc<Agent>, UnixListener)> {
    datapath.conntrack().set_interval(settings.gc_interval);
    startup::tell(&datapath.node());
    let endpoints = datapath.endpoints().list();
    let ready = endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Ready).count();
    log::info!("{ready} of {} endpoints are back in service", endpoints.len());
    // Held until the socket listens.
    let _queue = delete_queued(&datapath, &settings.socket)?;
    let listener = claim.listen()?;
    // Last, because its threads have the datapath, too.
    Ok((Arc::new(Agent::new(datapath, settings)?), listener))
}

fn node_config(settings: &Settings) -> NodeConfig {
    let mut config = NodeConfig::new(&settings.node_name)
        .cluster_name(&settings.cluster_name)
        .attach_mode(settings.attach_mode)
        .devices(settings.devices.clone())
        .policy(settings.policy.clone())
        .policy_audit(settings.policy_audit)
        .drop_events(monitor::DROP_EVENTS)
        .connection_lifetimes(settings.ct_lifetimes);
    if let Some(range) = settings.ipv4_range {
        config = config.ipv4(range);
    }
    if let Some(range) = settings.ipv6_range {
        config = config.ipv6(range);
    }
    config
}

/// Deletes what CNI plugins wanted deleted while no agent ran, or what failed then. As long as the lock is held, none is added.
fn delete_queued(datapath: &Datapath, socket: &Path) -> Result<QueueLock> {
    DeletionQueue::beside(socket).drain(|attachment| {
        let reference = EndpointRef::CniAttachment {
            container: attachment.container_id.as_str().to_owned(),
            interface: Some(attachment.ifname.as_str().to_owned()),
        };
        let endpoints = datapath.endpoints();
        endpoints.find(&reference).iter().try_for_each(|endpoint| endpoints.delete(endpoint.id()).map(drop))
    })
}

async fn serve(
    agent: &Arc<Agent>,
    listener: UnixListener,
    metrics: Option<TcpListener>,
    events: AddressEvents,
    told_to_end: impl Future<Output = &'static str>,
) {
    if let Some(listener) = metrics {
        tokio::spawn(scrape::serve(Arc::clone(agent), listener));
    }
    let serving = tokio::spawn(serve_api(Arc::clone(agent), listener));
    tokio::spawn(maintain(Arc::clone(agent)));
    let follower = Arc::clone(agent);
    thread::spawn(move || follow_node(&follower, events));
    tokio::spawn(controllers::repeat(Arc::clone(agent), "conntrack", CONNTRACK, Agent::collect_connections));
    tokio::spawn(controllers::repeat(Arc::clone(agent), "cni-delete-queue", QUEUED, |agent| {
        delete_queued(&agent.datapath, &agent.settings.socket).map(drop)
    }));

    let signal = told_to_end.await;
    log::info!("{signal}: ending; the datapath stays as it is");
    agent.end();
    if tokio::time::timeout(FAREWELL, serving).await.is_err() {
        log::warn!("requests under way were cut off after {FAREWELL:?}");
    }
}

async fn serve_api(agent: Arc<Agent>, listener: UnixListener) {
    let mut ending = agent.ending();
    let ended = async move { drop(ending.changed().await) };
    if let Err(cause) = axum::serve(listener, server::router(agent)).with_graceful_shutdown(ended).await {
        log::error!("the API is not served any more: {cause}");
    }
}

/// What remains of others goes first, so that it is not taken for damage.
async fn maintain(agent: Arc<Agent>) {
    remove_leftovers(Arc::clone(&agent)).await;
    controllers::repeat(agent, "datapath-maintenance", MAINTENANCE, |agent| agent.datapath.maintain()).await;
}

/// All endpoints that should exist are there: what remains of others may go.
async fn remove_leftovers(agent: Arc<Agent>) {
    let outcome = tokio::task::spawn_blocking(move || agent.datapath.mark_synced()).await;
    match outcome {
        Ok(Ok(leftovers)) if leftovers == Default::default() => {}
        Ok(Ok(leftovers)) => log::info!("leftovers removed: {leftovers:?}"),
        Ok(Err(error)) => log::warn!("leftovers can't be removed: {error}"),
        Err(cause) => log::error!("leftovers can't be removed: {cause}"),
    }
}

/// Follows the node's addresses and default routes as soon as they change. What this misses, maintenance finds.
fn follow_node(agent: &Agent, mut events: AddressEvents) {
    let ending = agent.ending();
    while !*ending.borrow() {
        match events.changed(Instant::now() + PAUSE) {
            Ok(true) => {
                let followed = agent.datapath.follow_node();
                // Maintenance tries it again, and is the one to warn.
                log::debug!("addresses or default routes have changed: {followed:?}");
            }
            Ok(false) => {}
            Err(error) => {
                log::warn!("the node's addresses are looked at every {MAINTENANCE:?} from now on: {error}");
                return;
            }
        }
    }
}

/// Waits for SIGTERM or SIGINT and returns its name; both are noticed from now on.
fn told_to_end() -> Result<impl Future<Output = &'static str>> {
    let listen = |kind, name| signal(kind).map_err(|cause| Error::system("listen for", name, cause));
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
