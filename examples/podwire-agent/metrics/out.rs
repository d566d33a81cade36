//! Writing families of metrics whose values are known at once.

use std::fmt;

use podwire::enforcement::Span;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Names and values that tell a metric from others of its family.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Writes families of metrics.
pub(super) struct Out<'a>(pub(super) DescriptorEncoder<'a>);

impl Out<'_> {
    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        self.family(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value))))
    }

    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.family(name, help, rows.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
    }

    /// `rows` are spans of time, as histograms of seconds.
    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, Span)>,
    ) -> fmt::Result {
        self.family(name, help, rows.into_iter().map(|(labels, span)| (labels, Times(span))))
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

/// Times that were noted elsewhere.
#[derive(Debug)]
struct Times(Span);

impl TypedMetric for Times {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut buckets: Vec<_> = self.0.distribution().map(|(bound, count)| (bound.as_secs_f64(), count)).collect();
        let longer = self.0.count - buckets.iter().map(|(_, count)| count).sum::<u64>();
        // The encoder takes the greatest number for infinity.
        buckets.push((f64::MAX, longer));
        encoder.encode_histogram::<NoLabelSet>(self.0.total.as_secs_f64(), self.0.count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
