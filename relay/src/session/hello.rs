//! 015 ping and 019 quit: the link itself (SPEC.md §5).

use protocol::{Code, Command};

use super::answer::Answer;
use super::connection::ConnectionId;
use super::{Domain, Effect};

/// What a connection gets in place of a greeting where there is no room for it (SPEC.md §5).
#[must_use]
pub const fn crowded(is_source_crowded: bool) -> &'static str {
    if is_source_crowded {
        "421 :too many connections from your address\r\n"
    } else {
        "421 :too many connections\r\n"
    }
}

impl Domain {
    /// Handles 015 and 019.
    pub(super) fn hello(&mut self, id: ConnectionId, command: &Command<'_>) -> Answer {
        if command.code() != Code::QUIT {
            return Answer::text(250, "here");
        }
        self.answer(id, command.parameter("H-ID"), Answer::text(221, "bye"));
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_closing = true;
        }
        self.effects.push(Effect::Close(id));
        Answer::Later
    }
}
