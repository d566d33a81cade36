//! Metrics: what the agent measures itself, and what it reads from the datapath when asked.
//!
//! Names are those of Cilium's agent where it has the same metric, so that its dashboards go on working.

mod connections;
mod datapath;
mod out;
mod policy;

use std::sync::Arc;
use std::time::Duration;

use podwire::Datapath;
use podwire::api::Metric;
use podwire::conntrack::Collected;
use podwire::endpoint::Timings;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use self::datapath::FromDatapath;
use self::out::Labels;

use crate::monitor::Monitor;

/// Methods that requests of clients have.
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "PATCH", "DELETE"];

/// Durations from 10 microseconds to 10 seconds.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 2.0, 21))
}

/// The agent's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    answers: Family<Labels, Histogram, fn() -> Histogram>,
    stages: Family<Labels, Histogram, fn() -> Histogram>,
    regenerations: Family<Labels, Counter>,
    policy_changes: Family<Labels, Counter>,
    policy_delay: Histogram,
    collections: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(crate) fn new(datapath: Arc<Datapath>, monitor: &Monitor) -> Self {
        let mut registry = Registry::default();
        let answers = Family::new_with_constructor(durations as fn() -> Histogram);
        let stages = Family::new_with_constructor(durations as fn() -> Histogram);
        let regenerations = Family::default();
        let name = "cilium_agent_api_process_time_seconds";
        registry.register(name, "Time to answer a request", answers.clone());
        let name = "cilium_endpoint_regeneration_time_stats_seconds";
        registry.register(name, "Time of each stage of an endpoint's creation or regeneration", stages.clone());
        let name = "cilium_endpoint_regenerations";
        registry.register(name, "Creations and regenerations of endpoints", regenerations.clone());
        let (policy_changes, policy_delay) = (Family::default(), durations());
        registry.register("cilium_policy_change", "Changes of the policies", policy_changes.clone());
        let help = "Time from a change of the policies until every packet is judged by it, in seconds";
        registry.register("cilium_policy_implementation_delay", help, policy_delay.clone());
        let collections = Family::new_with_constructor(durations as fn() -> Histogram);
        let name = "cilium_datapath_conntrack_gc_duration_seconds";
        registry.register(name, "Time of a collection of ended connections", collections.clone());
        registry.register_collector(Box::new(FromDatapath::new(datapath, monitor.losses())));
        Self { registry, answers, stages, regenerations, policy_changes, policy_delay, collections }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, method: &str, path: &str, status: u16, time: Duration) {
        // Clients must not be able to make up labels without end.
        let method = METHODS.iter().find(|known| **known == method).unwrap_or(&"other");
        let labels =
            vec![("method", (*method).to_owned()), ("path", path.to_owned()), ("return_code", status.to_string())];
        self.answers.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// An endpoint was created or regenerated, in these stages; without them it failed.
    pub(crate) fn regenerated(&self, timings: Option<&Timings>) {
        let outcome = if timings.is_some() { "success" } else { "fail" };
        self.regenerations.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
        let Some(timings) = timings else { return };
        let stages = timings.iter().map(|(stage, time)| (stage.name(), time));
        for (scope, time) in stages.chain([("total", timings.total())]) {
            let labels = vec![("scope", scope.to_owned()), ("status", outcome.to_owned())];
            self.stages.get_or_create(&labels).observe(time.as_secs_f64());
        }
    }

    /// The policies were changed, in this time; without one it failed.
    pub(crate) fn policy_changed(&self, time: Option<Duration>) {
        let outcome = if time.is_some() { "success" } else { "fail" };
        self.policy_changes.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
        if let Some(time) = time {
            self.policy_delay.observe(time.as_secs_f64());
        }
    }

    /// Ended connections were collected.
    pub(crate) fn collected(&self, pass: &Collected) {
        let labels = vec![("status", if pass.complete { "completed" } else { "uncompleted" }.to_owned())];
        self.collections.get_or_create(&labels).observe(pass.time.as_secs_f64());
    }

    /// All metrics in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        if text::encode(&mut out, &self.registry).is_err() {
            log::error!("metrics can't be encoded");
        }
        out
    }

    /// All metrics, each with its value; of histograms the sum and the count.
    pub(crate) fn values(&self) -> Vec<Metric> {
        self.text().lines().filter_map(value).collect()
    }
}

/// Reads `name{label="text",…} value`.
fn value(line: &str) -> Option<Metric> {
    let (name, value) = line.rsplit_once(' ')?;
    if line.starts_with('#') {
        return None;
    }
    let (name, labels) = name.split_once('{').map_or((name, ""), |(name, labels)| (name, labels.trim_end_matches('}')));
    if name.ends_with("_bucket") {
        return None;
    }
    let labels = labels.split("\",").filter(|label| !label.is_empty()).filter_map(|label| {
        let (key, text) = label.split_once("=\"")?;
        Some((key.to_owned(), text.trim_end_matches('"').to_owned()))
    });
    Some(Metric { labels: labels.collect(), name: name.to_owned(), value: value.parse().ok()? })
}
