//! `hammer`: load on a relay of its own, and what it cost.
//!
//! Builds a site in a temporary folder (a SoftHSM2 token, `cipherim-hsmd`, `cipherim-relay`, the
//! programs beside this one), enrols people, loads the relay over real TLS and prints counts,
//! latencies and the processor time and memory of the relay as the kernel accounts for them. The
//! generator runs on the same machine: what it uses, the relay cannot use.

mod idle;
mod login;
mod message;
mod report;
mod usage;

use anyhow::Result;
use clap::{Parser, Subcommand};
use system::site::Site;

use report::Report;

/// Loads a relay of its own and says what it cost.
#[derive(Parser)]
#[command(after_help = "Examples:
  hammer message --pairs 4 --window 32 --seconds 10
  hammer message --pairs 8 --absent            every message goes to the spool
  hammer login --parallel 8 --seconds 10
  hammer idle --connections 10000
Run it alone on the machine and with `--release`; figures of a debug build mean nothing.")]
struct Arguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Messages from one half of the people to the other.
    Message(message::Plan),
    /// Full handshakes and logins of known devices.
    Login(login::Plan),
    /// Connections that have logged in and say nothing.
    Idle(idle::Plan),
}

/// Octets of lines that may wait for one device here: a load run must not end at a quota.
const QUEUE_SIZE: &str = "4 GiB";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::Builder::new().prefix("hammer-").tempdir()?;
    let policy = match &arguments.load {
        Load::Message(plan) if plan.signed => "[policy]\nsigned = true\n",
        _ => "",
    };
    let overrides = format!(
        "{policy}[limits]\nconnections_per_address = 50000\nlogins_per_minute = 1000000\n\
         queue_lines = 10000000\nqueue_size = \"{QUEUE_SIZE}\"\n"
    );
    let site = Site::build(folder.path(), "hammer.local", &overrides)?;
    let report: Report = match arguments.load {
        Load::Message(plan) => message::run(&site, &plan)?,
        Load::Login(plan) => login::run(&site, &plan)?,
        Load::Idle(plan) => idle::run(&site, &plan)?,
    };
    report.print(arguments.json);
    Ok(())
}
