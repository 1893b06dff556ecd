//! Project tooling: `cargo xtask dev`, `cargo xtask test`, `cargo xtask check`.
//!
//! Small on purpose: it is the first thing that a newcomer's machine builds, before the packages
//! that the rest needs are there.

mod check;
mod dev;
mod layer;
mod package;
mod run;
mod test;
mod tidy;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, tries and checks CipherIM.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "Examples:
  cargo xtask dev                 a relay, a token and two people on this machine
  cargo xtask dev --once          the same, ends after the exchange with status 0 if all worked
  cargo xtask test                every test, real processes and a real token included
  cargo xtask test -- spool       only tests whose name contains `spool`
  cargo xtask check               formatting, lints, layers, licences, generated documents";

#[derive(Subcommand)]
enum Task {
    /// Starts a relay with a throw-away token on loopback and lets alice and bob talk through it.
    Dev {
        /// End after the exchange; status 0 only if all of it worked.
        #[arg(long)]
        once: bool,
        /// Keep the state in this folder instead of a temporary one.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Runs all tests.
    Test {
        /// Passed on to the test runner, for example a part of a test's name.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Checks what tools can check: formatting, lints, layers, tidiness, licences.
    Check,
    /// Checks only that no layer imports a higher one.
    Layers,
    /// Checks only the rules of form: file heads, lengths, names, leftovers.
    Tidy,
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Dev { once, dir } => dev::run(once, dir),
        Task::Test { arguments } => test::run(&arguments),
        Task::Check => check::run(),
        Task::Layers => layer::run(),
        Task::Tidy => tidy::run(),
    }
}
