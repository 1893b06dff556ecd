//! Who may send what: the state of a link and its proof decide, before any family looks at a line.
//!
//! After 012 a line's FROM is the proven device and nothing else, save the bare account in 600 to
//! 604 (SPEC.md §5). Before it only the commands of the link itself are taken; after a proof by a
//! key that no record lists, only 600.

use protocol::{AddressBuf, Code, Command};

use super::Domain;
use super::answer::Answer;
use super::connection::{ConnectionId, State};

impl Domain {
    /// Refuses a line that this link may not send now.
    pub(super) fn permit(&self, id: ConnectionId, command: &Command<'_>) -> Result<(), Answer> {
        let Some(connection) = self.connections.get(&id) else { return Err(Answer::Later) };
        if is_of_the_link(command.code()) {
            return Ok(());
        }
        match (connection.state, &connection.device) {
            (State::Proven, Some(device)) => permit_from(command, device),
            (State::Registering, _) if command.code() == Code::REGISTER => Ok(()),
            (State::Registering, _) => Err(Answer::text(530, "no record lists this key: register")),
            _ => Err(Answer::error(protocol::Error::LogInFirst)),
        }
    }

    /// The device that sends on this link; refuses a link without proof.
    pub(super) fn proven(&self, id: ConnectionId) -> Result<AddressBuf, Answer> {
        let device = self.connections.get(&id).and_then(|connection| connection.device.clone());
        device.ok_or(Answer::error(protocol::Error::LogInFirst))
    }
}

/// Whether a command is about the link itself, and so taken before any proof.
fn is_of_the_link(code: Code) -> bool {
    [Code::HELLO, Code::IDENTITY, Code::PROOF, Code::PING, Code::QUIT].contains(&code)
}

fn permit_from(command: &Command<'_>, device: &AddressBuf) -> Result<(), Answer> {
    let Some(from) = command.from() else { return Ok(()) };
    let device = device.as_address();
    let is_of_the_account = (600..=604).contains(&command.code().number());
    if from == device || (is_of_the_account && from == device.account()) {
        return Ok(());
    }
    Err(Answer::error(protocol::Error::NotYours))
}
