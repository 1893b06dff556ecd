//! 110 and 111: somebody types. Passed to who is there, never queued, dropped first under load.
//!
//! Answered only if asked, and always the same, so that nobody learns who is there. SPEC.md §3.

use protocol::Command;

use super::Domain;
use super::answer::Answer;
use super::connection::ConnectionId;
use crate::route::fan_out;

impl Domain {
    /// Handles 110 and 111.
    pub(super) fn typing(&mut self, id: ConnectionId, command: &Command<'_>) -> Answer {
        match self.pass_typing(id, command) {
            Ok(()) if command.parameter("H-ID").is_none() => Answer::Later,
            Ok(()) => Answer::text(252, "nothing told"),
            Err(refusal) => refusal,
        }
    }

    fn pass_typing(&mut self, id: ConnectionId, command: &Command<'_>) -> Result<(), Answer> {
        let from = self.proven(id)?;
        let to = self.local_recipient(command)?;
        if !self.relation(to, from.as_address())?.is_open() {
            return Ok(());
        }
        let devices = fan_out(to, from.as_address(), self.devices_of(to)?, Vec::new());
        for device in devices.recipients {
            let Some(&link) = self.online.get(&device) else { continue };
            let Some(connection) = self.connections.get(&link) else { continue };
            if connection.is_half_empty() && !connection.is_closing {
                let mut line = Vec::with_capacity(command.as_str().len() + 2);
                command.forward(&[], &mut line);
                self.send(link, line);
            }
        }
        Ok(())
    }
}
