//! Kernel settings, with their old values.
