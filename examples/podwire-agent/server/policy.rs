//! `/v1/policy`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use podwire::api::{NumberedRule, Policy, PolicyTrace, PolicyTraceRequest, SelectorIdentityMapping};
use podwire::policy;
use podwire::{Label, Labels};

use super::Node;
use super::reply::{Asked, MaybeSent, Refusal, Reply, Sent, Text, blocking};
use crate::agent::Agent;

/// The body may hold labels, all of which the rules must have.
pub(super) async fn get(State(agent): Node, wanted: MaybeSent<Vec<String>>) -> Reply<Json<Policy>> {
    blocking(move || shown(&agent, &Labels::parse(wanted.0.unwrap_or_default())?)).await
}

/// The body is a document, of YAML or JSON. Its policies take the place of those with their names. They are in force when
/// this answers; of a document that is refused nothing is. Rules that are part of no policy take the place of other such rules
/// only where `replace` says so: whoever sends them may not know of the others.
pub(super) async fn put(State(agent): Node, asked: Asked, Text(document): Text) -> Reply<Json<Policy>> {
    let replace = asked.flag("replace")?;
    blocking(move || {
        let began = Instant::now();
        let imported = policy::Policy::from_yaml(&document).map_err(Refusal::from).and_then(|policies| {
            let has_nameless = policies.iter().any(|policy| policy.name.is_empty());
            let _alone = has_nameless.then(|| agent.nameless.lock());
            if !replace {
                refuse_to_replace_nameless(&agent, &policies)?;
            }
            let names: Vec<_> = policies.iter().map(|policy| policy.name.clone()).collect();
            Ok((names, agent.datapath.policy().upsert(policies)?))
        });
        agent.metrics.policy_changed(imported.as_ref().ok().map(|_| began.elapsed()));
        let (names, revision) = imported?;
        agent.monitor.policy("Policy updated", &names, revision);
        shown(&agent, &Labels::new())
    })
    .await
}

/// Rules that are part of no policy have no name by which one could tell whether they are meant to go. Those that are sent again
/// as they are stay.
fn refuse_to_replace_nameless(agent: &Agent, sent: &[policy::Policy]) -> Reply<()> {
    let nameless = |policies: &[policy::Policy]| policies.iter().find(|policy| policy.name.is_empty()).cloned();
    let (Some(new), Some(old)) = (nameless(sent), nameless(&agent.datapath.policy().policies())) else { return Ok(()) };
    let going = old.rules.iter().filter(|rule| !new.rules.contains(rule)).count();
    if going == 0 {
        return Ok(());
    }
    let rules = if going == 1 { "1 rule that is".to_owned() } else { format!("{going} rules that are") };
    Err(Refusal::plain(
        409,
        format!("{rules} part of no policy would be replaced: give the rules a policy's name, or ask for replace"),
    ))
}

/// The body has labels, all of which the rules that go must have; an empty list is for all rules. Answers with those left.
pub(super) async fn delete(State(agent): Node, Sent(wanted): Sent<Vec<String>>) -> Reply<Json<Policy>> {
    blocking(move || {
        let labels = Labels::parse(wanted)?;
        let began = Instant::now();
        let deleted = agent.datapath.policy().delete(&labels);
        agent.metrics.policy_changed(deleted.as_ref().ok().map(|_| began.elapsed()));
        let (count, revision) = deleted?;
        if count == 0 && !labels.is_empty() {
            return Err(Refusal::plain(404, "no rule has these labels"));
        }
        let texts: Vec<_> = labels.iter().map(Label::to_string).collect();
        agent.monitor.policy("Policy deleted", &texts, revision);
        shown(&agent, &Labels::new())
    })
    .await
}

/// A path of our own.
pub(super) async fn rules(State(agent): Node) -> Reply<Json<Vec<NumberedRule>>> {
    blocking(move || Ok(Json(NumberedRule::all(agent.datapath.policy())))).await
}

pub(super) async fn selectors(State(agent): Node) -> Reply<Json<Vec<SelectorIdentityMapping>>> {
    blocking(move || Ok(Json(SelectorIdentityMapping::peers(agent.datapath.policy())))).await
}

pub(super) async fn subject_selectors(State(agent): Node) -> Reply<Json<Vec<SelectorIdentityMapping>>> {
    blocking(move || Ok(Json(SelectorIdentityMapping::subjects(agent.datapath.policy())))).await
}

/// The body describes a packet; nothing that is in force changes.
pub(super) async fn trace(State(agent): Node, Sent(request): Sent<PolicyTraceRequest>) -> Reply<Json<PolicyTrace>> {
    blocking(move || {
        let packet = request.packet()?;
        let policies = request.policy.as_deref().map(policy::Policy::from_yaml).transpose()?;
        let trial = policies.map(|policies| agent.datapath.policy().try_out(policies)).transpose()?;
        let mut simulator = agent.datapath.simulator()?;
        let verdict = match &trial {
            Some(trial) => simulator.run_under(trial, &packet),
            None => simulator.run(&packet),
        };
        Ok(Json(PolicyTrace::from(&verdict?)))
    })
    .await
}

fn shown(agent: &Arc<Agent>, labels: &Labels) -> Reply<Json<Policy>> {
    Policy::of(agent.datapath.policy(), labels)?
        .map(Json)
        .ok_or_else(|| Refusal::plain(404, "no rule has these labels"))
}
