//! Requests to the kernel's routing sockets, and their events.
