//! Recurring work, and how it goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use podwire::Result;
use podwire::api::{ControllerConfiguration, ControllerRuns, ControllerStatus, NEVER, timestamp_millis};
use tokio::time::{self, MissedTickBehavior};

use crate::agent::Agent;

/// The status of each recurring work, by name.
#[derive(Default)]
pub(crate) struct Controllers(Mutex<BTreeMap<&'static str, ControllerStatus>>);

impl Controllers {
    pub(crate) fn all(&self) -> Vec<ControllerStatus> {
        self.0.lock().values().cloned().collect()
    }

    /// What fails, if anything does.
    pub(crate) fn failure(&self) -> Option<String> {
        self.0.lock().values().find(|controller| controller.status.consecutive_failure_count > 0).map(|controller| {
            let reason = controller.status.last_failure_msg.as_deref().unwrap_or("failed");
            format!("{}: {reason}", controller.name)
        })
    }

    fn note(&self, name: &'static str, interval: Duration, outcome: &Result<(), String>) {
        let mut all = self.0.lock();
        let controller = all.entry(name).or_insert_with(|| new(name, interval));
        let runs = &mut controller.status;
        match outcome {
            Ok(()) => {
                runs.success_count += 1;
                runs.consecutive_failure_count = 0;
                runs.last_success_timestamp = Some(timestamp_millis(Some(SystemTime::now())));
            }
            Err(error) => {
                runs.failure_count += 1;
                runs.consecutive_failure_count += 1;
                runs.last_failure_msg = Some(error.clone());
                runs.last_failure_timestamp = Some(timestamp_millis(Some(SystemTime::now())));
            }
        }
    }
}

fn new(name: &str, interval: Duration) -> ControllerStatus {
    ControllerStatus {
        configuration: ControllerConfiguration {
            error_retry: true,
            error_retry_base: None,
            interval: Some(format!("{}s", interval.as_secs())),
        },
        name: name.to_owned(),
        status: ControllerRuns {
            last_failure_timestamp: Some(NEVER.to_owned()),
            last_success_timestamp: Some(NEVER.to_owned()),
            ..ControllerRuns::default()
        },
        uuid: None,
    }
}

/// Does `work` now and every `interval`, until the agent ends. A failure is told once, not at each repetition.
pub(crate) async fn repeat(agent: Arc<Agent>, name: &'static str, interval: Duration, work: fn(&Agent) -> Result<()>) {
    let mut ending = agent.ending();
    let mut ticks = time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = ending.changed() => return,
        }
        let outcome = run(Arc::clone(&agent), work).await;
        match &outcome {
            Err(error) if !failing => log::warn!("{name}: {error}"),
            Ok(()) if failing => log::info!("{name}: works again"),
            _ => {}
        }
        failing = outcome.is_err();
        agent.controllers.note(name, interval, &outcome);
    }
}

/// Does `work` once. That it panicked is told like any other failure: the next time may go well.
async fn run(agent: Arc<Agent>, work: fn(&Agent) -> Result<()>) -> Result<(), String> {
    match tokio::task::spawn_blocking(move || work(&agent)).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(cause) => Err(format!("{cause}: see the log")),
    }
}
