//! What several test programs share. Each uses only a part of it.
#![allow(dead_code, unreachable_pub, reason = "every test program compiles all of this and uses some")]

pub mod bpf;
pub mod netns;
pub mod node;
