//! A stack of steps back.

/// What has to be taken back, last done first, unless the work is [kept](Undo::keep).
///
/// Steps run when the stack is dropped, so that an early return takes back everything done so far. They can't fail as far
/// as the stack is concerned: each logs what it could not do.
pub(crate) struct Undo<'a> {
    steps: Vec<Box<dyn FnOnce() + 'a>>,
}

impl<'a> Undo<'a> {
    pub(crate) fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// Remembers how to take back what was just done.
    pub(crate) fn push(&mut self, step: impl FnOnce() + 'a) {
        self.steps.push(Box::new(step));
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
        undo.push(|| log.borrow_mut().push(2));
        drop(undo);
        assert_eq!(*log.borrow(), [2, 1]);

        let mut undo = Undo::new();
        undo.push(|| log.borrow_mut().push(3));
        undo.keep();
        assert_eq!(*log.borrow(), [2, 1]);
    }
}
