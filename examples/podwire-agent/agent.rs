//! What all parts of the agent share.

use std::sync::Arc;

use parking_lot::Mutex;
use podwire::api::StatusResponse;
use podwire::{Datapath, Result};
use tokio::sync::watch;

use crate::controllers::Controllers;
use crate::flags::Settings;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::options::RunOptions;

/// The running agent.
pub(crate) struct Agent {
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) settings: Settings,
    pub(crate) options: RunOptions,
    pub(crate) monitor: Monitor,
    pub(crate) metrics: Metrics,
    pub(crate) controllers: Controllers,
    /// Held while rules that are part of no policy change: who looks whether some would go must not be overtaken.
    pub(crate) nameless: Mutex<()>,
    ending: watch::Sender<bool>,
}

/// What the agent calls itself.
pub(crate) fn version() -> String {
    let machine = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    format!("podwire {} {machine}", env!("CARGO_PKG_VERSION"))
}

impl Agent {
    /// Around a datapath that is open.
    pub(crate) fn new(datapath: Datapath, settings: Settings) -> Result<Self> {
        let datapath = Arc::new(datapath);
        let monitor = Monitor::start(&datapath)?;
        Ok(Self {
            metrics: Metrics::new(Arc::clone(&datapath), &monitor),
            options: RunOptions::new(datapath.policy_audit()),
            controllers: Controllers::default(),
            nameless: Mutex::default(),
            ending: watch::Sender::new(false),
            datapath,
            settings,
            monitor,
        })
    }

    /// How the node does.
    pub(crate) fn status(&self, brief: bool) -> StatusResponse {
        let mut status = match brief {
            true => StatusResponse::brief(&self.datapath, &version()),
            false => StatusResponse::new(&self.datapath, &version()),
        };
        let failures = [self.controllers.failure(), self.monitor.failure()];
        failures.into_iter().flatten().for_each(|failure| status.warn(&failure));
        if !brief {
            status.controllers = self.controllers.all();
            status.node_monitor = self.monitor.failure().is_none().then(|| self.monitor.status());
        }
        status
    }

    /// Removes connections that have ended, when it is time for that.
    pub(crate) fn collect_connections(&self) -> Result<()> {
        let ending = self.ending();
        if let Some(pass) = self.datapath.collect_connections(|| *ending.borrow())? {
            self.metrics.collected(&pass);
            log::debug!("{} of {} connections had ended; {:?}", pass.removed, pass.looked_at, pass.time);
        }
        Ok(())
    }

    /// Changes once, when the agent is about to end.
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Ends what would otherwise last for ever.
    pub(crate) fn end(&self) {
        self.ending.send_replace(true);
    }
}
