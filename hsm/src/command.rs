//! The commands and their arguments.

mod doctor;
mod serve;
mod setup;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use hsm::service::config::{Config, ConfigError, Format, LogConfig};
use hsm::{Class, Error};
use tracing_subscriber::EnvFilter;

/// Where the configuration is unless told otherwise.
const CONFIG: &str = "/etc/cipherim/hsmd.toml";

/// Keys in a PKCS#11 token, for the relay of CipherIM.
#[derive(Debug, Parser)]
#[command(version, name = "cipherim-hsmd")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the token's keys to clients on a Unix socket.
    Serve {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Set label and PINs of a blank token. Never touches one that is initialised.
    InitToken(setup::InitToken),
    /// Make the domain's keys in the token: domain, log, tls, spool. Keys that exist are kept.
    Provision(setup::Provision),
    /// Show tokens and keys.
    List {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// Examine configuration, module, token, PIN, keys and service; say what to type.
    Doctor {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a running service does.
    Status {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// Write JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration without touching the token.
    CheckConfig {
        /// The configuration.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Write a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What a command failed with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Files(String),
    #[error("{0}")]
    Found(String),
    #[error(transparent)]
    Token(#[from] Error),
}

impl Failure {
    /// Exactly here an error becomes an exit code.
    fn code(&self) -> u8 {
        const UNAVAILABLE: u8 = 69;
        const CONFIG: u8 = 78;
        match self {
            Self::Config(_) | Self::Files(_) => CONFIG,
            Self::Found(_) => 1,
            Self::Token(Error::Module { .. } | Error::Pin { .. }) => CONFIG,
            Self::Token(error) if error.class() == Class::Away => UNAVAILABLE,
            Self::Token(_) => 1,
        }
    }
}

/// Runs a command.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Serve { config } => serve::run(&config),
        Command::InitToken(arguments) => quiet().and_then(|()| setup::init_token(&arguments)),
        Command::Provision(arguments) => quiet().and_then(|()| setup::provision(&arguments)),
        Command::List { config, json } => quiet().and_then(|()| setup::list(&config, json)),
        Command::Doctor { config, json } => quiet().and_then(|()| doctor::run(&config, json)),
        Command::Status { config, json } => quiet().and_then(|()| status::run(&config, json)),
        Command::CheckConfig { config } => check_config(&config),
        Command::Completion { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "cipherim-hsmd", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cipherim-hsmd: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn check_config(path: &Path) -> Result<(), Failure> {
    let config = Config::read(path)?;
    println!("{}: well", path.display());
    let pin = config.pin();
    if let Ok(metadata) = std::fs::metadata(pin.path()) {
        pin.check(&metadata)?;
    }
    Ok(())
}

/// Tools log warnings only; what they have to say goes to standard output.
fn quiet() -> Result<(), Failure> {
    log(&LogConfig::default(), "error");
    Ok(())
}

fn log(config: &LogConfig, level: &str) {
    // The wrapper of the C interface calls mechanisms it has no name for errors.
    let filter = EnvFilter::new(format!("{level},cryptoki=off"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second initialisation in one process is a mistake of ours and harmless.
    let _ = match config.format {
        Format::Json => builder.json().try_init(),
        Format::Text => builder.with_ansi(false).try_init(),
    };
}

/// Text that came from a token or a file, fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
