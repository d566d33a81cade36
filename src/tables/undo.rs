//! Several writes that stand or fall together.

use crate::Result;

/// Steps that undo writes already done. Dropped without [`commit`](Undo::commit), it runs them, the last one first.
#[derive(Default)]
pub(super) struct Undo<'a> {
    steps: Vec<Box<dyn FnOnce() -> Result<()> + 'a>>,
}

impl<'a> Undo<'a> {
    pub(super) fn push(&mut self, step: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push(Box::new(step));
    }

    /// Keeps what was written.
    pub(super) fn commit(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.steps.pop() {
            if let Err(error) = step() {
                // The write's own error is on its way to the caller already.
                log::error!("undo of a table write: {error}");
            }
        }
    }
}
