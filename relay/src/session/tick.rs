//! What happens because time passes: idle links, ends of presence, sweeps.
//!
//! [`Domain::tick`] is called about once a second; nothing depends on how exactly.

use protocol::table::State;

use super::connection::ConnectionId;
use super::{Answer, Domain, limits};
use crate::clock::Now;
use crate::directory::expired_invitations;
use crate::event::Event;

impl Domain {
    /// Time has passed: does what has become due. To be called about once a second.
    pub fn tick(&mut self, now: Now) {
        self.tick_post(now);
        self.close_idle(now);
        for account in self.presences.expire(now) {
            self.presence_changed(account.as_address(), now);
        }
        if now.since_start.saturating_sub(self.swept_at) >= limits::SWEEP_INTERVAL {
            self.swept_at = now.since_start;
            self.sweep(now);
        }
    }

    /// Closes links that do not log in, or from which nothing comes.
    fn close_idle(&mut self, now: Now) {
        let (login_max, idle_max) = (self.settings.login_time_max, self.settings.idle_time_max);
        let idle: Vec<(ConnectionId, String)> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.is_closing)
            .filter_map(|(id, connection)| {
                let since = |at: Now| now.since_start.saturating_sub(at.since_start);
                let is_proven = connection.handshake.state() == State::Proven;
                if is_proven && since(connection.heard_at) >= idle_max {
                    return Some((*id, format!("no line came for {} s", idle_max.as_secs())));
                }
                let is_slow = !is_proven && since(connection.opened_at) >= login_max;
                is_slow.then(|| (*id, format!("no login in {} s", login_max.as_secs())))
            })
            .collect();
        for (id, text) in idle {
            self.emit(Event::IdleClosed);
            self.close(id, Answer::text(421, &text));
        }
    }

    fn sweep(&mut self, now: Now) {
        self.logins.sweep(now.since_start);
        self.takes.sweep(now.since_start);
        if self.commits.is_empty() {
            self.rosters.settle();
        }
        let Ok((operations, next)) =
            expired_invitations(&*self.store, self.invitations_swept.take(), now.timestamp)
        else {
            return;
        };
        self.invitations_swept = next;
        if !operations.is_empty() {
            self.commit(operations, now, |_, _, _| {});
        }
    }
}
