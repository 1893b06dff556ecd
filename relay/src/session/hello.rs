//! 010 HELLO, 015 ping, 019 quit: the link itself (SPEC.md §5).

use protocol::{Code, Command};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::connection::{ConnectionId, State};
use crate::clock::Now;

impl Domain {
    /// Handles 010, 015 and 019.
    pub(super) fn hello(&mut self, id: ConnectionId, command: &Command<'_>, _now: Now) -> Answer {
        match command.code() {
            Code::HELLO => self.greet(id, command),
            Code::PING => Answer::text(250, "here"),
            Code::QUIT => {
                self.answer(id, command.parameter("H-ID"), Answer::text(221, "bye"));
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.is_closing = true;
                }
                self.effects.push(super::Effect::Close(id));
                Answer::Later
            }
            _ => Answer::text(502, "unknown command"),
        }
    }

    fn greet(&mut self, id: ConnectionId, command: &Command<'_>) -> Answer {
        let Some(connection) = self.connections.get_mut(&id) else { return Answer::Later };
        if connection.state != State::Connected {
            return Answer::text(503, "hello was said already");
        }
        if command.parameter("VER") != Some("1") {
            return Answer::text(501, "this relay speaks VER=1");
        }
        connection.state = State::Greeted;
        AnswerLine::new(250, "hello").with("CAP", self.settings.capabilities()).into()
    }
}
