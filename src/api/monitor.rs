//! What a client asks of the stream of events.

use super::text::wire_enum;
use crate::EndpointId;

wire_enum! {
    /// A kind of event.
    MonitorType {
        /// Something the agent did.
        Agent = "agent",
        /// A packet that was dropped.
        Drop = "drop",
        /// A policy's verdict on a connection.
        PolicyVerdict = "policy-verdict",
        /// A packet that passed a point in the datapath.
        Trace = "trace",
    }
}

/// Which events of the stream a client wants; an empty list lets all through.
///
/// An event passes if its kind is wanted and each list of endpoints that is not empty names one of its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitorFilter {
    /// Only these kinds.
    pub types: Vec<MonitorType>,
    /// Only packets from these endpoints.
    pub from: Vec<EndpointId>,
    /// Only packets to these endpoints.
    pub to: Vec<EndpointId>,
    /// Only packets from or to these endpoints.
    pub related_to: Vec<EndpointId>,
}

impl MonitorFilter {
    /// The names and values that stand for the filter in a query.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let ids = |name, ids: &[EndpointId]| ids.iter().map(move |id| (name, id.to_string())).collect::<Vec<_>>();
        let types = self.types.iter().map(|kind| ("type", kind.to_string()));
        types
            .chain(ids("from", &self.from))
            .chain(ids("to", &self.to))
            .chain(ids("related-to", &self.related_to))
            .collect()
    }

    /// Whether an event of this kind between these endpoints passes.
    pub fn accepts(&self, kind: &MonitorType, from: Option<EndpointId>, to: Option<EndpointId>) -> bool {
        let among = |wanted: &[EndpointId], ids: &[Option<EndpointId>]| {
            wanted.is_empty() || ids.iter().flatten().any(|id| wanted.contains(id))
        };
        (self.types.is_empty() || self.types.contains(kind))
            && among(&self.from, &[from])
            && among(&self.to, &[to])
            && among(&self.related_to, &[from, to])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_narrows() {
        let [one, two, three] = [1, 2, 3].map(EndpointId::new);
        let ids = |id: Option<EndpointId>| id.into_iter().collect::<Vec<_>>();
        let cases = [
            (MonitorFilter::default(), true),
            (MonitorFilter { types: vec![MonitorType::Trace], ..Default::default() }, false),
            (MonitorFilter { types: vec![MonitorType::Trace, MonitorType::Drop], ..Default::default() }, true),
            (MonitorFilter { from: ids(one), ..Default::default() }, true),
            (MonitorFilter { from: ids(two), ..Default::default() }, false),
            (MonitorFilter { to: ids(two), ..Default::default() }, true),
            (MonitorFilter { to: ids(one), ..Default::default() }, false),
            (MonitorFilter { related_to: ids(one), ..Default::default() }, true),
            (MonitorFilter { related_to: ids(two), ..Default::default() }, true),
            (MonitorFilter { related_to: ids(three), ..Default::default() }, false),
            (MonitorFilter { from: ids(one), to: ids(three), ..Default::default() }, false),
        ];
        for (filter, expected) in cases {
            assert_eq!(filter.accepts(&MonitorType::Drop, one, two), expected, "{filter:?}");
        }
    }
}
