//! What the benches of whole nodes share: a world of their own to run in, real agents, and figures.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "every bench compiles all of this and uses some")]

pub mod agent;
pub mod figures;
pub mod programs;
pub mod world;

/// How much a bench is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Enough to see that it works: `cargo test --benches` runs it like this.
    Check,
    /// Enough for figures on a quiet machine: `-- --quick`.
    Quick,
    /// Enough for figures that can be quoted.
    Full,
}

impl Effort {
    /// As the command line says; `cargo bench` adds `--bench`.
    pub fn asked() -> Self {
        let given = |flag: &str| std::env::args().any(|argument| argument == flag);
        match (given("--bench"), given("--quick")) {
            (false, _) => Self::Check,
            (true, true) => Self::Quick,
            (true, false) => Self::Full,
        }
    }

    /// One of three amounts.
    pub const fn choose(self, check: usize, quick: usize, full: usize) -> usize {
        match self {
            Self::Check => check,
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}
