//! The commands of `cipherim-relay`, one file each.

mod check_config;
mod ctl;
mod provision;
mod serve;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, Subcommand};

use relay::config::Configuration;

/// The message relay of CIM/1: connections on io_uring, keys in a PKCS#11 token.
#[derive(Parser)]
#[command(name = "cipherim-relay", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  cipherim-relay check-config --print-default > /etc/cipherim/relay.toml
  cipherim-relay provision --config /etc/cipherim/relay.toml
  cipherim-relay serve --config /etc/cipherim/relay.toml
  cipherim-relay ctl invite alice@example.org
  cipherim-relay ctl status --json";

/// Where the configuration is if nothing else is said.
const CONFIG: &str = "/etc/cipherim/relay.toml";

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C.
    Serve {
        /// The configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Make the certificate, the domain's record and its first policy with keys in the token.
    /// Does nothing that is done already.
    Provision {
        /// The configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask the running relay, or tell it something.
    Ctl(ctl::Arguments),
    /// Check a configuration file and say what is wrong with it.
    CheckConfig {
        /// The configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// Print the annotated default file instead.
        #[arg(long)]
        print_default: bool,
    },
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Manual,
}

/// The exit status of a failure: 3 if no relay answered `ctl`, else 1. Wrong arguments are 2.
pub(crate) fn exit_status(error: &anyhow::Error) -> u8 {
    if error.is::<ctl::Unanswered>() { 3 } else { 1 }
}

/// Does what the arguments ask for.
///
/// # Errors
/// What went wrong, for a person: each cause says what to do where something can be done.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Serve { config } => serve::run(&read(&config)?),
        Command::Provision { config, json } => provision::run(&read(&config)?, json),
        Command::Ctl(arguments) => ctl::run(arguments),
        Command::CheckConfig { print_default: true, .. } => check_config::print_default(),
        Command::CheckConfig { config, print_default: false } => check_config::run(&config),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            let mut program = Arguments::command();
            clap_complete::generate(shell, &mut program, "cipherim-relay", &mut script);
            print_whole(&script)
        }
        Command::Manual => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command())
                .render(&mut page)
                .context("cannot make the manual page")?;
            print_whole(&page)
        }
    }
}

/// Prints all of it, or as much as its reader wants.
fn print_whole(text: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the output"),
    }
}

fn read(path: &Path) -> Result<Configuration> {
    Ok(Configuration::read(path)?)
}
