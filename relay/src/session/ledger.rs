//! Lines for tests: a person's sealed line, and what came out at the other end.

use protocol::identifier::{GenerationId, MessageId, SessionId};
use protocol::{AddressBuf, Code, Command, CommandBuilder};

use super::simulation::{Person, Simulation};

/// A session between two people, as far as the relay sees it.
pub(super) struct Talk<'a> {
    pub(super) from: &'a Person,
    pub(super) to: AddressBuf,
    pub(super) session: SessionId,
    pub(super) sequence: u64,
}

impl<'a> Talk<'a> {
    pub(super) fn new(from: &'a Person, to: &AddressBuf) -> Self {
        let session = SessionId::from_octets(&[7; 16]);
        Self { from, to: to.clone(), session, sequence: 0 }
    }

    /// Begins the next sealed line.
    pub(super) fn begin(
        &mut self,
        simulation: &mut Simulation,
        code: Code,
    ) -> (CommandBuilder, MessageId) {
        self.sequence += 1;
        let id = simulation.message_id();
        let line = self
            .from
            .line_to(code, &self.to)
            .parameter("SID", self.session)
            .parameter("GEN", GenerationId::from_octets(&[9; 32]))
            .parameter("SEQ", self.sequence)
            .parameter("TS", simulation.now.timestamp.0)
            .parameter("MID", id);
        (line, id)
    }

    /// The next message, unsigned; its body tells its sequence.
    pub(super) fn message(&mut self, simulation: &mut Simulation) -> (String, MessageId) {
        let (line, id) = self.begin(simulation, Code::MESSAGE);
        (line.body(format!("message {}", self.sequence).as_bytes()), id)
    }
}

/// A line of a queue as a device got it: its number, and the line without hop parameters.
pub(super) fn numbered(line: &str) -> Option<(u64, String)> {
    let command = Command::parse(line.as_bytes()).ok()?;
    let number = command.parameters().number("H-Q").ok()??;
    let mut bare = Vec::new();
    command.forward(&[], &mut bare);
    Some((number, String::from_utf8(bare).unwrap().trim_end().to_owned()))
}
