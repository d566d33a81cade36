//! Programs: open, load once, attach.
