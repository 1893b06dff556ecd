//! An orderly stop: no new lines, commits under way are finished and answered, then 421 to all.

use super::connection::ConnectionId;
use super::{Answer, Domain};
use crate::event::Event;

impl Domain {
    /// Takes no new lines from now on. When no commit and no signature is under way any more, all
    /// links get 421 and are closed; [`Domain::is_stopped`] says so.
    pub fn stop(&mut self) {
        if !self.is_stopping {
            self.is_stopping = true;
            self.emit(Event::Stopping);
            self.stop_if_settled();
        }
    }

    /// Whether a stop was asked for and all links were told.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopping && self.is_settled() && self.connections.values().all(|it| it.is_closing)
    }

    /// Closes all links once nothing is left that one of them waits for.
    pub(super) fn stop_if_settled(&mut self) {
        if !self.is_stopping || !self.is_settled() {
            return;
        }
        let mut links: Vec<ConnectionId> = self.connections.keys().copied().collect();
        links.sort_unstable();
        for id in links {
            self.close(id, Answer::text(421, "the relay stops"));
        }
    }

    fn is_settled(&self) -> bool {
        self.commits.is_empty() && self.signatures.is_empty()
    }
}
