//! Policies in advance for endpoints to come.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use log::{debug, warn};
use parking_lot::Mutex;

use crate::EndpointId;
use crate::enforcement::Enforcement;

/// How many endpoints may come at once without one of them having to wait for its policy's slot.
pub(super) const STOCK: usize = 32;

/// The thread that fills slots, where one runs.
#[derive(Default)]
pub(super) struct Stocker(Mutex<Option<JoinHandle<()>>>);

impl Stocker {
    /// Sees to it that there is a stock for these endpoints, and does not wait for it.
    pub(super) fn refill(&self, enforcement: &Arc<Enforcement>, upcoming: Vec<EndpointId>) {
        if enforcement.writer().stocked(&upcoming) > STOCK / 2 {
            return;
        }
        let mut thread = self.0.lock();
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let enforcement = enforcement.clone();
        let started = thread::Builder::new().name("policy-stock".to_owned()).spawn(move || {
            if let Err(error) = enforcement.writer().stock(&upcoming) {
                warn!("endpoints to come will wait for their policies: {error}");
            }
        });
        match started {
            Ok(started) => *thread = Some(started),
            Err(error) => debug!("no thread to make policies in advance: {error}"),
        }
    }
}

impl Drop for Stocker {
    /// What the thread holds is free when this is gone.
    fn drop(&mut self) {
        if let Some(thread) = self.0.lock().take()
            && thread.join().is_err()
        {
            warn!("the thread that makes policies in advance panicked");
        }
    }
}
