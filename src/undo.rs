//! A stack of steps back.

use log::warn;

use crate::{ErrorKind, Result};

/// What has to be taken back, last done first, unless the work is [kept](Undo::keep).
///
/// Steps run when the stack is dropped, so that an early return takes back everything done so far. What a step can't do is
/// logged: the error that made it necessary is on its way to the caller already.
#[derive(Default)]
pub(crate) struct Undo<'a> {
    steps: Vec<Box<dyn FnOnce() + 'a>>,
}

impl<'a> Undo<'a> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Remembers how to take back what was just done.
    pub(crate) fn push(&mut self, step: impl FnOnce() + 'a) {
        self.steps.push(Box::new(step));
    }

    /// The same for a step that may fail; what it takes back may be gone already.
    pub(crate) fn attempt<T>(&mut self, what: &'static str, step: impl FnOnce() -> Result<T> + 'a) {
        self.push(move || match step() {
            Err(error) if error.kind() != ErrorKind::NotFound => warn!("undoing failed: {what}: {error}"),
            _ => {}
        });
    }

    /// The work is complete: nothing is taken back.
    pub(crate) fn keep(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.steps.pop() {
            step();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn steps_run_backwards_unless_kept() {
        let log = RefCell::new(Vec::new());
        let mut undo = Undo::new();
        undo.push(|| log.borrow_mut().push(1));
        undo.attempt("nothing", || {
            log.borrow_mut().push(2);
            Err::<(), _>(crate::Error::not_found("thing", "gone"))
        });
        drop(undo);
        assert_eq!(*log.borrow(), [2, 1], "a step that fails stopped those before it");

        let mut undo = Undo::new();
        undo.push(|| log.borrow_mut().push(3));
        undo.keep();
        assert_eq!(*log.borrow(), [2, 1]);
    }
}
