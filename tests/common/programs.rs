//! What the tests of the programs share that compare them with the model.
#![allow(dead_code, unused_imports, reason = "every test program compiles all of this and uses some")]

pub(crate) mod bpf;
pub(crate) mod datapath;
pub(crate) mod model;
pub(crate) mod netns;
pub(crate) mod packets;
pub(crate) mod rig;
pub(crate) mod scene;
pub(crate) mod story;
