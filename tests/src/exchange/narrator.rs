//! Tells a person what happens, or nobody.

use std::time::Instant;

/// Writes steps and sayings to standard output, with the time since the start.
#[derive(Clone, Copy, Debug)]
pub struct Narrator {
    start: Instant,
    is_silent: bool,
}

impl Narrator {
    /// One who tells everything.
    #[must_use]
    pub fn aloud() -> Self {
        Self { start: Instant::now(), is_silent: false }
    }

    /// One who tells only the steps.
    #[must_use]
    pub fn brief() -> Self {
        Self { start: Instant::now(), is_silent: true }
    }

    /// A new part begins.
    pub fn step(&self, title: &str) {
        println!("\n[{:6.1} s] {title}", self.start.elapsed().as_secs_f64());
    }

    /// Someone sees or does something.
    pub fn says(&self, who: &str, what: &str) {
        if !self.is_silent {
            println!("  {who:>6} {what}");
        }
    }
}
