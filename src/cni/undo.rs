//! What has to be taken back when a later step fails.

/// Steps to undo, the latest first. Dropped without [`Undo::disarm`] it executes them; failures are logged, since there
/// is an error on its way already.
#[derive(Default)]
pub(super) struct Undo<'a> {
    steps: Vec<Step<'a>>,
}

struct Step<'a> {
    what: String,
    action: Box<dyn FnOnce() -> crate::Result<()> + 'a>,
}

impl<'a> Undo<'a> {
    pub(super) fn push(&mut self, what: impl Into<String>, action: impl FnOnce() -> crate::Result<()> + 'a) {
        self.steps.push(Step { what: what.into(), action: Box::new(action) });
    }

    /// Everything succeeded: nothing is undone.
    pub(super) fn disarm(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(Step { what, action }) = self.steps.pop() {
            match action() {
                Ok(()) => log::info!("undone: {what}"),
                Err(error) if error.kind() == crate::ErrorKind::NotFound => log::info!("already gone: {what}"),
                Err(error) => log::error!("undo: {what}: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn steps_are_undone_in_reverse_unless_disarmed() {
        let log = RefCell::new(Vec::new());
        {
            let mut undo = Undo::default();
            for n in 0..3 {
                undo.push(n.to_string(), || {
                    log.borrow_mut().push(99);
                    Ok(())
                });
            }
            undo.disarm();
        }
        {
            let mut undo = Undo::default();
            for n in 0..3 {
                let log = &log;
                undo.push(n.to_string(), move || {
                    log.borrow_mut().push(n);
                    if n == 1 { Err(crate::Error::invalid("step", "1", "fails")) } else { Ok(()) }
                });
            }
        }
        assert_eq!(*log.borrow(), [2, 1, 0]);
    }
}
