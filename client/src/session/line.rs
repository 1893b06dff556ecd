//! Sealed lines: one place in a chain each, sealed once, opened once.
//!
//! Owns the step from a plaintext to a line and back. The invariants: SEQ and message key are used
//! for one text; the chain on disk moves before the line can leave; an incoming line moves its
//! chain only after it has opened, and then for good (SPEC.md §7, §8).

use protocol::code::Code;
use protocol::identifier::{KeyCommitment, MessageId};
use protocol::message::{Part, Place};
use protocol::{Address, Command, Timestamp};
use zeroize::Zeroizing;

use super::{Generation, Session, SessionError, chain_name};
use crate::chain::{ChainError, ReceivingChain, SendingChain};
use crate::identity::Identity;
use crate::limits;
use crate::state::{Space, State, StateError};
use crate::suite;

/// What a line says beside its place.
pub(crate) struct Draft<'a> {
    pub(crate) code: Code,
    /// The account it is for.
    pub(crate) to: Address<'a>,
    /// MID.
    pub(crate) mid: &'a str,
    /// RE, as on the wire.
    pub(crate) about: Option<&'a str>,
    /// PART.
    pub(crate) part: Option<Part>,
    /// Parameters of an 800.
    pub(crate) extra: &'a [(&'static str, String)],
    /// The plaintext; `None` for a receipt, whose body is a tag over nothing.
    pub(crate) plaintext: Option<&'a [u8]>,
}

/// Seals a draft in `generation`; the chain moves on. Returns the line.
pub(crate) fn seal(
    state: &mut State,
    identity: &Identity,
    session: &Session,
    generation: &mut Generation,
    draft: &Draft<'_>,
    now: Timestamp,
) -> Result<String, SessionError> {
    let suite = session.suite()?;
    if suite.is_legacy() && generation.octets >= limits::LEGACY_OCTETS_MAX {
        return Err(SessionError::Exhausted);
    }
    let name = chain_name(&generation.name, identity.device().as_str());
    let mut chain: SendingChain = state.get(Space::Chain, &name)?.ok_or(SessionError::Gone)?;
    let (sequence, key) = chain.step();
    state.put(Space::Chain, &name, &chain)?;
    let previous = match (&generation.parent, sequence) {
        (Some(parent), 1) => Some(leave(state, identity, parent)?),
        _ => None,
    };
    let is_signed = session.is_signed || draft.code == Code::FILE_OFFER;
    let kc = suite::commitment(&key, draft.mid)?;
    let mut line = Command::builder(draft.code)
        .to(draft.to)
        .from(identity.device())
        .parameter("SID", &session.sid)
        .parameter("GEN", &generation.name)
        .parameter("SEQ", sequence)
        .parameter("TS", now)
        .parameter("MID", draft.mid)
        .parameter_if("KC", is_signed.then(|| KeyCommitment::from_octets(&kc)))
        .parameter_if("PREV", previous)
        .parameter_if("RE", draft.about)
        .parameter_if("PART", draft.part);
    for (name, value) in draft.extra {
        line = line.parameter(name, value);
    }
    let aad = line.aad()?;
    let body = match draft.plaintext {
        Some(plaintext) => suite::seal(suite, &key, draft.mid, &aad, plaintext)?,
        None => suite::seal_receipt(suite, &key, draft.mid, &aad)?,
    };
    generation.last_sent = sequence;
    generation.count(body.len(), now);
    generation.store(state)?;
    if is_signed { Ok(identity.sign(line, &body)?) } else { Ok(line.body(&body)) }
}

/// Erases the own chain of the generation that is left behind; returns its last SEQ.
fn leave(state: &mut State, identity: &Identity, parent: &str) -> Result<u64, StateError> {
    let last = Generation::load(state, parent)?.map_or(0, |parent| parent.last_sent);
    state.remove(Space::Chain, &chain_name(parent, identity.device().as_str()))?;
    Ok(last)
}

/// Why a sealed line is not opened.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The sender is no member, or the line is for an account outside the session.
    Foreign,
    /// The generation is not known (yet), but the session is.
    NoGeneration,
    /// The session is not known.
    NoSession,
    /// Seen before, or its key is erased.
    Repeat,
    /// SEQ is too far ahead.
    Ahead,
    /// Signature, commitment or seal do not hold.
    Tampered,
    /// The engine itself failed.
    Failed(SessionError),
}

impl<E: Into<SessionError>> From<E> for LineError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The parts of a sealed line that say where it stands.
pub(crate) struct Standing<'a> {
    pub(crate) to: Address<'a>,
    pub(crate) from: Address<'a>,
    pub(crate) place: Place,
    pub(crate) id: MessageId,
    pub(crate) commitment: Option<KeyCommitment>,
    pub(crate) body: &'a [u8],
    pub(crate) is_receipt: bool,
}

/// A line that opened.
pub(crate) struct OpenedLine {
    pub(crate) session: Session,
    /// Empty for a receipt.
    pub(crate) plaintext: Zeroizing<Vec<u8>>,
    pub(crate) is_signed: bool,
}

/// Opens a line and erases its key.
pub(crate) fn open(
    state: &mut State,
    identity: &Identity,
    command: &Command<'_>,
    standing: &Standing<'_>,
    now: Timestamp,
) -> Result<OpenedLine, LineError> {
    let sid = standing.place.session;
    let gen_id = standing.place.generation;
    let session = Session::load(state, sid.as_str())?.ok_or(LineError::NoSession)?;
    let is_to_member = session.accounts.iter().any(|account| account == standing.to.as_str());
    let member = session.member(standing.from).ok_or(LineError::Foreign)?;
    if !is_to_member || standing.from == identity.device() {
        return Err(LineError::Foreign);
    }
    let is_signed = command.signature_text().is_some();
    if (session.is_signed || standing.commitment.is_some()) && !is_signed {
        return Err(LineError::Tampered);
    }
    if is_signed && command.verify(&member.key()?).is_err() {
        return Err(LineError::Tampered);
    }
    let generation = Generation::load(state, gen_id.as_str())?;
    let mut generation = generation
        .filter(|generation| generation.sid == session.sid)
        .ok_or(LineError::NoGeneration)?;
    let name = chain_name(gen_id.as_str(), standing.from.as_str());
    let mut chain: ReceivingChain = state.get(Space::Chain, &name)?.ok_or(LineError::Repeat)?;
    let candidate = chain.candidate(standing.place.sequence).map_err(|error| match error {
        ChainError::Ahead => LineError::Ahead,
        _ => LineError::Repeat,
    })?;
    let plaintext = unseal(session.suite()?, candidate.key(), command, standing)?;
    chain.accept(candidate, now.0);
    let has_skipped = chain.skipped_count() > 0;
    put_or_remove(state, &name, &chain)?;
    if has_skipped {
        super::bound_skipped_keys(state, identity.device(), &session)?;
    }
    generation.count(standing.body.len(), now);
    generation.store(state)?;
    if let (Some(last), Some(parent)) = (standing.place.previous, &generation.parent) {
        end_chain(state, parent, standing.from, last, now)?;
        super::expire(state, identity.device(), &session.sid, now)?;
    }
    Ok(OpenedLine { session, plaintext, is_signed })
}

fn unseal(
    suite: suite::Suite,
    key: &suite::MessageKey,
    command: &Command<'_>,
    standing: &Standing<'_>,
) -> Result<Zeroizing<Vec<u8>>, LineError> {
    let mid = standing.id.as_str();
    let kc = standing.commitment.map(|kc| kc.to_octets());
    if kc.is_some_and(|kc| !suite::is_commitment(key, mid, &kc)) {
        return Err(LineError::Tampered);
    }
    let aad = command.aad();
    let opened = if standing.is_receipt {
        suite::open_receipt(suite, key, mid, &aad, standing.body).map(|()| Zeroizing::default())
    } else {
        suite::open(suite, key, mid, &aad, standing.body)
    };
    opened.map_err(|_| LineError::Tampered)
}

/// Ends a device's chain in the generation it left: `last` was its last SEQ there.
fn end_chain(
    state: &mut State,
    parent: &str,
    device: Address<'_>,
    last: u64,
    now: Timestamp,
) -> Result<(), StateError> {
    let name = chain_name(parent, device.as_str());
    if let Some(mut chain) = state.get::<ReceivingChain>(Space::Chain, &name)? {
        chain.end(last, now.0);
        put_or_remove(state, &name, &chain)?;
    }
    Ok(())
}

fn put_or_remove(state: &mut State, name: &str, chain: &ReceivingChain) -> Result<(), StateError> {
    if chain.is_spent() {
        state.remove(Space::Chain, name)?;
        Ok(())
    } else {
        state.put(Space::Chain, name, chain)
    }
}
