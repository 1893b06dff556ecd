//! What the engine tells its driver.
//!
//! Owns the two kinds of news: [`Notice`]s, which are written down and told again until the driver
//! confirms that they were shown, and everything else, which is told once and can be asked for.

use protocol::message::{Alternative, Availability};
use protocol::{AddressBuf, Timestamp};
use serde::{Deserialize, Serialize};

/// What the driver has to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Put these octets, one line with its CRLF, on the link.
    Send(Vec<u8>),
    /// Tell the user.
    Event(Event),
    /// Close the link once everything before is out; connect again after a pause.
    Disconnect(&'static str),
}

/// The name of a notice; rises, and stays the same when a notice is told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NoticeId(pub u64);

/// News for the user.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Something to be shown exactly once: show it, then call
    /// [`Engine::shown`](super::Engine::shown) with its id.
    Notice {
        /// Its name.
        id: NoticeId,
        /// Whether it was told before, by an engine whose driver shows notices
        /// ([`Config::shows_notices`](super::Config::shows_notices)), and never confirmed: the
        /// program ended in between, and the user may have seen it.
        is_repeated: bool,
        /// What it says.
        notice: Notice,
    },
    /// The login succeeded.
    Online {
        /// Whether this login opened the account.
        is_new_account: bool,
    },
    /// Every line that waited at the relay has arrived.
    CaughtUp,
    /// The relay refused the login, or the driver should stop trying.
    LoginFailed {
        /// The code of the reply; 0 if the relay broke the protocol.
        code: u16,
        /// The text for eyes.
        text: String,
    },
    /// What became of a message of this device.
    Status {
        /// The account it was for.
        contact: AddressBuf,
        /// The message.
        mid: String,
        /// How far it came.
        status: Status,
    },
    /// The relay put a line off and will get it again.
    PutOff {
        /// The account it is for.
        contact: AddressBuf,
        /// The code of the reply.
        code: u16,
        /// The text for eyes.
        text: String,
    },
    /// The recipient is busy: ask the user, then call
    /// [`Engine::answer_busy`](super::Engine::answer_busy).
    Busy {
        /// The busy account.
        contact: AddressBuf,
        /// The message that waits.
        mid: String,
        /// Other ways that the recipient offers.
        alternatives: Vec<Alternative>,
        /// Until when.
        until: Option<Timestamp>,
    },
    /// The presence of a contact, as the relay tells it.
    Presence {
        /// The contact.
        contact: AddressBuf,
        /// The state.
        state: Availability,
        /// Until when.
        until: Option<Timestamp>,
    },
    /// A contact is typing, as the relay tells it; holds until `until` or the next message.
    Typing {
        /// The contact.
        contact: AddressBuf,
        /// Until when.
        until: Timestamp,
    },
    /// A contact stopped typing.
    TypingStopped {
        /// The contact.
        contact: AddressBuf,
    },
    /// A contact's identity key changed. Nothing is sent to the contact until the driver has
    /// shown this and called [`Engine::identity_shown`](super::Engine::identity_shown).
    IdentityChanged {
        /// The contact.
        contact: AddressBuf,
    },
    /// A line was dropped because its signature, seal or sender does not hold.
    Tampering {
        /// The address in FROM, which nothing proves.
        from: String,
        /// What does not hold.
        what: &'static str,
    },
    /// Lines that can never be opened were dropped.
    Unopened {
        /// The address in FROM.
        from: String,
        /// Why.
        what: &'static str,
    },
    /// A key or device was revoked; nothing more is taken from it or sent to it.
    Revoked {
        /// The account.
        contact: AddressBuf,
        /// The device; `None` for the identity key.
        device: Option<String>,
        /// Whether the domain's administrator did it.
        is_by_domain: bool,
    },
    /// A session with a contact has a new key.
    Session {
        /// The contact.
        contact: AddressBuf,
        /// The suite.
        suite: protocol::suite::Suite,
        /// Whether every line is signed.
        is_signed: bool,
        /// Whether it is a refresh of a session that went on.
        is_refresh: bool,
        /// Whether the offers made here used one-time keys of every device.
        has_one_time_keys: bool,
    },
    /// An entry of the roster is new or changed.
    Roster(RosterEntry),
    /// An entry of the roster is gone.
    RosterRemoved {
        /// The contact.
        contact: AddressBuf,
    },
    /// A command to the relay was refused.
    Refused {
        /// What was asked.
        what: &'static str,
        /// Whom it was about.
        contact: Option<AddressBuf>,
        /// The code of the reply.
        code: u16,
        /// The text for eyes.
        text: String,
    },
    /// A command to the relay was done.
    Done {
        /// What was asked.
        what: &'static str,
        /// Whom it was about.
        contact: Option<AddressBuf>,
    },
    /// How far a file came.
    FileProgress {
        /// The file.
        fid: String,
        /// The other side.
        contact: AddressBuf,
        /// Chunks done.
        done: u64,
        /// Chunks in all.
        of: u64,
        /// Whether the relay keeps what is done, because the other side is away.
        is_kept: bool,
    },
    /// A file was offered, and stays here until the other side takes it.
    FileWaits {
        /// The file.
        fid: String,
        /// The other side.
        contact: AddressBuf,
        /// What the relay says to it; the text for eyes.
        text: String,
    },
    /// The relay of this account said something that nothing here expects.
    Strange {
        /// What.
        what: String,
    },
}

/// How far a message came; never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// Waits for a session, a choice, or the link.
    Waiting,
    /// Sealed and on its way to the relay.
    Sent,
    /// The relay has it safely (252).
    Taken,
    /// The relay handed it to a device (250).
    Passed,
    /// A device of the recipient has it (101); in signed sessions with proof.
    Delivered,
    /// The recipient read it (102).
    Read,
    /// It will not arrive.
    Failed,
}

/// What must be shown once and not be lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Notice {
    /// A message.
    Message(Message),
    /// Its sender gave a message another text.
    Edited {
        /// The message.
        about: String,
        /// The edit, as a message.
        message: Message,
    },
    /// Its sender took a message back.
    Retracted {
        /// The account.
        #[serde(with = "crate::keyfile::address")]
        contact: AddressBuf,
        /// The message.
        about: String,
    },
    /// A reaction to a message.
    Reaction {
        /// The message.
        about: String,
        /// The reaction, as a message.
        message: Message,
    },
    /// A message of this device will not arrive.
    Failed {
        /// The account it was for.
        #[serde(with = "crate::keyfile::address")]
        contact: AddressBuf,
        /// The message.
        mid: String,
        /// The code of the reply.
        code: u16,
        /// The text for eyes.
        text: String,
        /// Whether a domain says so later (190): it had taken the message.
        is_bounce: bool,
    },
    /// Somebody asks to see this account's presence and be approved.
    SubscriptionAsked {
        /// Who.
        #[serde(with = "crate::keyfile::address")]
        contact: AddressBuf,
    },
    /// Somebody approved this account.
    Approved {
        /// Who.
        #[serde(with = "crate::keyfile::address")]
        contact: AddressBuf,
    },
    /// Somebody denied this account, or withdrew the approval.
    Denied {
        /// Who.
        #[serde(with = "crate::keyfile::address")]
        contact: AddressBuf,
    },
    /// A file is offered: [`Engine::file_accept`](super::Engine::file_accept) or
    /// [`Engine::file_decline`](super::Engine::file_decline).
    FileOffered(FileOffered),
    /// A file is whole, its root and its signature hold; or was sent and the receiver says so.
    FileDone {
        /// The file.
        fid: String,
        /// The other side.
        #[serde(with = "crate::keyfile::address")]
        contact: AddressBuf,
        /// Whether it was received here.
        is_received: bool,
    },
    /// The relay has a file whole, with the signature over it, and gives it to the other side
    /// when that comes; this device is not needed for it.
    FileKept {
        /// The file.
        fid: String,
        /// The other side.
        #[serde(with = "crate::keyfile::address")]
        contact: AddressBuf,
    },
    /// A file did not arrive, here or there.
    FileFailed {
        /// The file.
        fid: String,
        /// The other side.
        #[serde(with = "crate::keyfile::address")]
        contact: AddressBuf,
        /// A reply code that says why.
        code: u16,
        /// In words.
        text: String,
    },
}

/// A message, opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The account on the other side: the sender, or the recipient of a copy of one's own.
    #[serde(with = "crate::keyfile::address")]
    pub contact: AddressBuf,
    /// The device that sent it.
    #[serde(with = "crate::keyfile::address")]
    pub from: AddressBuf,
    /// Its id.
    pub mid: String,
    /// The text.
    pub text: String,
    /// The message that it answers.
    pub about: Option<String>,
    /// When its sender made it, in milliseconds since 1970.
    pub at: u64,
    /// When the relay took it, as the relay says.
    pub relayed_at: Option<u64>,
    /// Whether it is a copy of one's own, sent from another device.
    pub is_own: bool,
    /// Whether it carries its sender's signature.
    pub is_signed: bool,
    /// Whether a legacy suite sealed it.
    pub is_legacy: bool,
    /// Whether it is more than five minutes old by this device's clock.
    pub is_delayed: bool,
}

/// A file that somebody offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOffered {
    /// The file.
    pub fid: String,
    /// Who offers it.
    #[serde(with = "crate::keyfile::address")]
    pub contact: AddressBuf,
    /// Its name without folders, as the sender gave it.
    pub name: String,
    /// Its media type, as the sender gave it.
    pub media_type: String,
    /// Its octets.
    pub size: u64,
}

/// A file that this device offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSent {
    /// The file.
    pub fid: String,
    /// Whom it is for.
    #[serde(with = "crate::keyfile::address")]
    pub contact: AddressBuf,
    /// Its name without folders.
    pub name: String,
    /// Its octets.
    pub size: u64,
    /// Chunks that the relay has taken.
    pub done: u64,
    /// Chunks in all.
    pub of: u64,
    /// How far it came.
    pub stage: FileStage,
}

/// How far a file came that this device offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileStage {
    /// Its chunks are on their way, to the other side or to the relay.
    Going,
    /// The relay has all of it and gives it to the other side.
    Kept,
    /// It waits until the other side takes it.
    Offered,
}

/// A contact in the roster that the relay keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterEntry {
    /// The contact.
    #[serde(with = "crate::keyfile::address")]
    pub contact: AddressBuf,
    /// Whether this account approved the contact, who then sees its presence and gets truthful
    /// answers.
    pub is_approved: bool,
    /// Whether the contact approved this account.
    pub approves_us: bool,
    /// Whether this account asked for approval.
    pub has_asked: bool,
    /// Whether the contact asked for approval.
    pub was_asked: bool,
    /// Whether the contact is blocked.
    pub is_blocked: bool,
    /// Whether the contact's urgent messages pass while this account is busy.
    pub may_be_urgent: bool,
    /// The name given to the contact; only this account's devices can read it.
    pub name: Option<String>,
}
