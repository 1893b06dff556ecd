//! 700–703: offers, acceptances, refreshes and refusals of session keys, passed on and learnt from.
//!
//! All are signed by the device and checked here before they are queued (553). An offer with
//! SIGNED=1 makes the relay ask for signatures in that session; a suite that the domain does not
//! allow is refused (504). SPEC.md §7.

use protocol::{Code, Command};

use super::Domain;
use super::answer::Answer;
use super::connection::ConnectionId;
use super::failure::Caller;
use crate::clock::Now;

impl Domain {
    /// Handles 700–703.
    pub(super) fn offer(&mut self, id: ConnectionId, command: &Command<'_>, now: Now) -> Answer {
        self.try_offer(id, command, now).unwrap_or_else(|refusal| refusal)
    }

    fn try_offer(
        &mut self,
        id: ConnectionId,
        command: &Command<'_>,
        now: Now,
    ) -> Result<Answer, Answer> {
        let caller = Caller::new(id, command);
        let mut operations = Vec::new();
        if matches!(command.code(), Code::OFFER | Code::REFRESH) {
            let suite = command.parameter("SUITE").unwrap_or_default();
            if !self.settings.suites.iter().any(|allowed| allowed == suite) {
                return Err(Answer::text(504, "this domain does not allow that suite"));
            }
            let is_signed = command.parameter("SIGNED") == Some("1");
            if let (true, Some(from), Some(to), Some(session)) =
                (is_signed, command.from(), command.to(), command.parameter("SID"))
            {
                let at = self.post.clock.read(now);
                operations.push(self.post.sessions.promise((from, to), session, at));
            }
        }
        Ok(self.pass(&caller, command, None, operations, now))
    }
}
