//! 010 HELLO, 015 ping, 019 quit: the link itself (SPEC.md §5).

use protocol::limits::{LINE_OCTETS_DEFAULT, LINE_OCTETS_MAX};
use protocol::parameter::number;
use protocol::{Code, Command, Error};

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
        let from = command.from().filter(|from| from.is_device());
        let Some(from) = from else { return Answer::error(Error::BadAddress) };
        if from.domain() != self.settings.domain {
            return Answer::text(521, "this relay serves another domain");
        }
        connection.state = State::Greeted;
        connection.hello_from = Some(from.to_buf());
        connection.peer_line_octets_max = line_octets_max(command.parameter("CAP"));
        AnswerLine::new(250, "hello").with("CAP", self.settings.capabilities()).into()
    }
}

/// The longest line that the other side takes: what `CAP=LINE:n` says, within the protocol's
/// limits, else the default.
fn line_octets_max(capabilities: Option<&str>) -> usize {
    let words = capabilities.unwrap_or_default().split(',');
    let offered = words.filter_map(|word| number(word.strip_prefix("LINE:")?)).next_back();
    let offered = offered.and_then(|octets| usize::try_from(octets).ok());
    offered.unwrap_or_default().clamp(LINE_OCTETS_DEFAULT, LINE_OCTETS_MAX)
}
