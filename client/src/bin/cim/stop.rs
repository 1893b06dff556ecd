//! The wish to end: Ctrl-C, SIGTERM, or a terminal that is gone.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::terminal;

/// Listens from its making on; what came before it is waited for is not lost.
///
/// A signal that was ignored when the program began stays ignored: `nohup` and shells ask for
/// that on behalf of programs behind the scenes.
pub(crate) struct Stop {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Stop {
    /// Takes the signals over from the system, which would end the process at once.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored_signals(&status);
        let listen = |kind: SignalKind| {
            let number = u32::try_from(kind.as_raw_value()).unwrap_or(u32::MAX);
            if number
                .checked_sub(1)
                .is_some_and(|bit| ignored.checked_shr(bit).unwrap_or(0) & 1 == 1)
            {
                return Ok(None);
            }
            signal(kind)
                .map(Some)
                .map_err(|error| Failure::internal(format!("no signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits until somebody wants the program to end. May be cancelled at any time.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            () = heard(&mut self.interrupt) => {}
            () = heard(&mut self.terminate) => {}
            () = heard(&mut self.hangup) => {}
        }
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        // The system tells of signals as long as the process lives.
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that a process ignores, the lowest bit for signal 1 (proc_pid_status(5)).
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Does `work` unless the program is to end before; the terminal is then as it was.
pub(crate) async fn unless_stopped<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut stop = Stop::listen()?;
    tokio::select! {
        biased;
        result = work => result,
        () = stop.asked() => {
            terminal::restore();
            Err(Failure::stopped("stopped"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        let status = "Name:\tcim\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\n";
        assert_eq!(ignored_signals(status), 0x1003);
        assert_eq!(ignored_signals("SigIgn:\tnonsense\n"), 0);
        assert_eq!(ignored_signals(""), 0);
    }
}
