//! The desk where the loop leaves what a key of the token has to sign, so that it never waits.
//!
//! One thread takes jobs in order and gives results back over a channel of the ring. At most
//! [`JOBS_MAX`] wait; more are answered "away, try later" at once.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::keys::{KeyError, KeyService, SigningKeyName};
use crate::ring::{Receiver, Sender, TrySendError as Crowded, channel};
use crate::session::Ticket;

/// Signatures that may wait for the token.
pub(super) const JOBS_MAX: usize = 1_024;

/// A signature, or why there is none, under the ticket it was asked for.
pub(super) type Signed = (Ticket, Result<Vec<u8>, KeyError>);

/// Takes jobs for the token.
pub(super) struct SigningDesk {
    jobs: SyncSender<(Ticket, SigningKeyName, Vec<u8>)>,
}

impl SigningDesk {
    /// Starts the thread; results come out of the receiver.
    ///
    /// # Errors
    /// The system's, if it gives no thread.
    pub(super) fn open(keys: Arc<dyn KeyService>) -> std::io::Result<(Self, Receiver<Signed>)> {
        let (jobs, waiting) = sync_channel::<(Ticket, SigningKeyName, Vec<u8>)>(JOBS_MAX);
        let (done, results): (Sender<Signed>, _) = channel(JOBS_MAX);
        std::thread::Builder::new().name("signing-desk".to_owned()).spawn(move || {
            for (ticket, key, message) in waiting {
                if !deliver(&done, (ticket, keys.sign(key, &message).map(|s| s.to_vec()))) {
                    return;
                }
            }
        })?;
        Ok((Self { jobs }, results))
    }

    /// Leaves a job; gives it back as an answer if too many wait.
    ///
    /// # Errors
    /// The answer to give at once.
    pub(super) fn ask(
        &self,
        ticket: Ticket,
        key: SigningKeyName,
        message: Vec<u8>,
    ) -> Result<(), Signed> {
        self.jobs.try_send((ticket, key, message)).map_err(|error| {
            let (ticket, _, _) = match error {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
            };
            let away = KeyError::Away {
                retry_after: Duration::from_secs(1),
                text: format!("{JOBS_MAX} signatures wait for the token already"),
            };
            (ticket, Err(away))
        })
    }
}

/// Gives a result to the loop; false if the loop is gone.
fn deliver(done: &Sender<Signed>, mut result: Signed) -> bool {
    loop {
        match done.try_send(result) {
            Ok(()) => return true,
            Err(Crowded::Closed(_)) => return false,
            // The loop empties its channel every turn; a full one means it is very busy.
            Err(Crowded::Full(back)) => result = back,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
