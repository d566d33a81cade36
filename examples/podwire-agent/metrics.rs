//! Metrics: what the agent measures itself, and what it reads from the datapath when asked.
//!
//! Names are those of Cilium's agent where it has the same metric, so that its dashboards go on working.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use podwire::Datapath;
use podwire::api::Metric;
use podwire::endpoint::Timings;
use podwire::ipam::Family as AddressFamily;
use podwire::tables::Reason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::monitor::LossCounters;

type Labels = Vec<(&'static str, String)>;

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
}

impl Metrics {
    pub(crate) fn new(datapath: Arc<Datapath>, losses: Arc<LossCounters>) -> Self {
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
        registry.register_collector(Box::new(FromDatapath { datapath, losses }));
        Self { registry, answers, stages, regenerations }
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

/// Reads the datapath each time it is asked.
struct FromDatapath {
    datapath: Arc<Datapath>,
    losses: Arc<LossCounters>,
}

impl Debug for FromDatapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromDatapath").finish_non_exhaustive()
    }
}

impl Collector for FromDatapath {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.endpoints(&mut out)?;
        self.packets(&mut out)?;
        self.maps(&mut out)?;
        self.addresses(&mut out)?;
        let lost = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let rows = [
            (vec![("reason", "limited".to_owned())], lost(&self.losses.limited)),
            (vec![("reason", "buffer_full".to_owned())], lost(&self.losses.lost)),
        ];
        out.counters("podwire_events_lost", "Events that no monitor got", rows)
    }
}

impl FromDatapath {
    fn endpoints(&self, out: &mut Out<'_>) -> fmt::Result {
        let states = podwire::endpoint::EndpointState::ALL;
        let endpoints = self.datapath.endpoints().list();
        out.gauges("cilium_endpoint", "Endpoints of this node", [(vec![], endpoints.len() as f64)])?;
        let rows = states.iter().map(|state| {
            let count = endpoints.iter().filter(|endpoint| endpoint.state == *state).count();
            (vec![("endpoint_state", state.name().to_owned())], count as f64)
        });
        out.gauges("cilium_endpoint_state", "Endpoints by state", rows)
    }

    fn packets(&self, out: &mut Out<'_>) -> fmt::Result {
        let metrics = self.datapath.metrics();
        let copied = self.datapath.forwards().copy_to(metrics);
        let counters = copied.and_then(|()| metrics.counters()).unwrap_or_else(|error| {
            log::warn!("packet counters can't be read: {error}");
            Vec::new()
        });
        let mut drops: Vec<(Labels, u64, u64)> = Vec::new();
        let mut forwards: Vec<(Labels, u64, u64)> = Vec::new();
        for counter in &counters {
            let (reason, direction) = (counter.counted.reason, counter.counted.direction);
            let direction = ("direction", direction.to_string());
            let (rows, labels) = match reason {
                Reason::Forwarded => (&mut forwards, vec![direction]),
                reason if reason.is_drop() => (&mut drops, vec![("reason", reason.to_string()), direction]),
                _ => continue,
            };
            // Several places in the programs count for the same reason.
            match rows.iter_mut().find(|(known, ..)| *known == labels) {
                Some((_, packets, bytes)) => {
                    *packets += counter.packets;
                    *bytes += counter.bytes;
                }
                None => rows.push((labels, counter.packets, counter.bytes)),
            }
        }
        for (name, help, rows) in [("cilium_drop", "dropped", &drops), ("cilium_forward", "forwarded", &forwards)] {
            let packets = rows.iter().map(|(labels, packets, _)| (labels.clone(), *packets));
            out.counters(&format!("{name}_count"), &format!("Packets {help}"), packets)?;
            let bytes = rows.iter().map(|(labels, _, bytes)| (labels.clone(), *bytes));
            out.counters(&format!("{name}_bytes"), &format!("Bytes {help}"), bytes)?;
        }
        Ok(())
    }

    fn maps(&self, out: &mut Out<'_>) -> fmt::Result {
        let maps = self.datapath.maps().unwrap_or_else(|error| {
            log::warn!("maps can't be read: {error}");
            Vec::new()
        });
        let named = |name: &str| vec![("map_name", name.to_owned())];
        let capacity = maps.iter().map(|map| (named(&map.name), f64::from(map.max_entries)));
        out.gauges("cilium_bpf_map_capacity", "Entries that a map can hold", capacity)?;
        let pressure = maps.iter().filter_map(|map| Some((named(&map.name), map.pressure?)));
        out.gauges("cilium_bpf_map_pressure", "How full a map is, from 0 to 1", pressure)?;
        let errors = maps.iter().filter(|map| map.cached).map(|map| (named(&map.name), map.errors as f64));
        out.gauges("podwire_bpf_map_errors", "Entries that are not as they should be", errors)?;
        let operations = maps.iter().flat_map(|map| {
            let counted = map.operations.iter().flat_map(|operations| operations.labelled());
            counted.map(|(operation, outcome, count)| {
                let mut labels = named(&map.name);
                labels.extend([("operation", operation.to_owned()), ("outcome", outcome.to_owned())]);
                (labels, count)
            })
        });
        out.counters("cilium_bpf_map_ops", "Operations on a map", operations.collect::<Vec<_>>())
    }

    fn addresses(&self, out: &mut Out<'_>) -> fmt::Result {
        let ipam = self.datapath.ipam();
        let usage = [(AddressFamily::Ipv4, "ipv4"), (AddressFamily::Ipv6, "ipv6")];
        let usage: Vec<_> = usage
            .into_iter()
            .filter_map(|(family, name)| Some((vec![("family", name.to_owned())], ipam.usage(family)?)))
            .collect();
        let allocated = usage.iter().map(|(labels, usage)| (labels.clone(), usage.allocated as f64));
        out.gauges("cilium_ip_addresses", "Addresses in use", allocated)?;
        let capacity = usage.iter().map(|(labels, usage)| (labels.clone(), usage.capacity as f64));
        out.gauges("cilium_ipam_capacity", "Addresses that can be in use", capacity)
    }
}

/// Writes families of metrics.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauges(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, f64)>) -> fmt::Result {
        self.family(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value))))
    }

    fn counters(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        self.family(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    fn family<M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Labels, M)>,
    ) -> fmt::Result {
        let kind: MetricType = M::TYPE;
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, metric) in rows {
            match labels.is_empty() {
                true => metric.encode(encoder.encode_family(&[] as &[(&str, &str); 0])?)?,
                false => metric.encode(encoder.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }
}
