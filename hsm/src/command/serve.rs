//! `serve`: the service's life from configuration to SIGTERM.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::exit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hsm::service::config::Config;
use hsm::service::pool::{Pool, Restart};
use hsm::service::process;
use hsm::service::server::Server;
use hsm::token::{Pkcs11, View};
use hsm::{Error, Phase, Purpose};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, log};

/// `EX_TEMPFAIL`: a supervisor should start the process again.
const TEMPORARY: i32 = 75;
/// A process that lived longer starts counting its restarts anew.
const SETTLED: Duration = Duration::from_secs(600);

/// Serves until told to stop.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let config = Config::read(path)?;
    log(&config.log, &format!("error,hsm={0},cipherim_hsmd={0}", config.log.level));
    let notes = process::harden(&config.process).map_err(files)?;
    process::drop_privileges(&config.process).map_err(files)?;
    for note in notes {
        tracing::warn!(note, "process");
    }
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(files)?;
    let module = Box::new(Pkcs11::new(config.module(), config.pin()));
    let pool = Arc::new(Pool::start(module, config.pool(), restart()));
    let state = pool.wait_until_started();
    if let Some(error) = pool.failure()
        && is_fatal(&error, &config)
    {
        pool.stop(Duration::ZERO);
        return Err(error.into());
    }
    say_missing(&pool.view(), &config, state.phase);
    let access =
        config.access().map_err(|(key, reason)| Failure::Files(format!("{key} {reason}")))?;
    let mut server = Server::start(&config.service.socket, access, Arc::clone(&pool))
        .map_err(|error| Failure::Files(format!("{}: {error}", config.service.socket.display())))?;
    tracing::info!(socket = %server.path().display(), "listening");
    notify("READY=1");
    for signal in signals.forever() {
        if signal == SIGHUP {
            tracing::info!("SIGHUP: looking at the token again");
            pool.refresh();
        } else {
            break;
        }
    }
    notify("STOPPING=1");
    tracing::info!("stopping");
    pool.stop(config.service.stop_grace);
    server.stop();
    tracing::info!("stopped");
    // Not returning: a thread may be stuck in the vendor's library, and its exit handlers race.
    exit(0);
}

/// Whether it is no use to wait for this to go away.
fn is_fatal(error: &Error, config: &Config) -> bool {
    let is_first = process::restarts() == 0;
    match error {
        Error::PinRefused { .. } => false,
        Error::Pin { .. } | Error::Module { .. } => is_first,
        _ => is_first && !config.service.start_without_token,
    }
}

fn say_missing(view: &View, config: &Config, phase: Phase) {
    if phase != Phase::Ready {
        return;
    }
    for purpose in Purpose::ALL {
        if view.find(purpose.into()).is_none() {
            let key = purpose.name().into();
            let domain = config.domain.clone().into();
            tracing::warn!("{}", Error::KeyMissing { key, domain });
        }
    }
    tracing::info!(
        token = view.token.label,
        serial = view.token.serial,
        proven = view.proven.join(", "),
        "attached"
    );
}

fn restart() -> Restart {
    let started = Instant::now();
    Box::new(move |_| {
        let in_a_row = if started.elapsed() > SETTLED { 0 } else { process::restarts() };
        let error = process::restart(in_a_row);
        tracing::error!(%error, "the process cannot restart itself");
        exit(TEMPORARY);
    })
}

fn files(error: std::io::Error) -> Failure {
    Failure::Files(error.to_string())
}

/// Tells systemd, where it asked to be told (`sd_notify(3)`).
fn notify(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(message.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
