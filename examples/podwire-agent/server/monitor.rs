//! `/v1/monitor`: events as JSON lines, as they happen. A path of our own.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use podwire::EndpointId;
use podwire::api::{MonitorFilter, MonitorType};

use super::Node;
use super::reply::{Asked, Refusal, Reply};

/// Lasts until the client leaves or the agent ends.
pub(super) async fn stream(State(agent): Node, asked: Asked) -> Reply<Response> {
    let subscription = agent.monitor.subscribe(filter(&asked)?)?;
    let ending = agent.ending();
    let lines = stream::unfold((subscription, ending), |(mut subscription, mut ending)| async move {
        let line = tokio::select! {
            line = subscription.next() => line?,
            _ = ending.changed() => return None,
        };
        Some((Ok::<_, std::convert::Infallible>(line), (subscription, ending)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn filter(asked: &Asked) -> Reply<MonitorFilter> {
    let ids = |name| asked.all(name).map(|text| Ok(text.parse::<EndpointId>()?)).collect::<Reply<Vec<_>>>();
    let types = asked.all("type").map(|text| match MonitorType::from(text.to_owned()) {
        kind if kind.is_known() => Ok(kind),
        _ => Err(Refusal::plain(400, format!("type: {text:?}: should be one of [{}]", MonitorType::TEXTS.join(" ")))),
    });
    let types = types.collect::<Reply<Vec<_>>>()?;
    Ok(MonitorFilter { types, from: ids("from")?, to: ids("to")?, related_to: ids("related-to")? })
}
