//! Sessions: who is in, which generation of the key is in use, and what is left of old ones.
//!
//! Owns the rows of [`Space::Session`], [`Space::Generation`] and [`Space::Chain`]. The
//! invariants: a session's suite, members and signed mode never change (SPEC.md §7); RK is gone
//! once EX and the chains are derived; the newest generation that may be used is the one with the
//! longest chain of parents, then the smaller GEN; an old chain ends when PREV shows it complete,
//! or [`limits::OLD_GENERATION_AGE_MS_MAX`] after the next generation was opened.

pub(crate) mod accept;
pub(crate) mod awaited;
pub(crate) mod line;
pub(crate) mod offer;

use std::collections::BTreeMap;

use protocol::member::Members;
use protocol::policy::Policy;
use protocol::record::Record;
use protocol::signature::{Algorithm, PublicKey};
use protocol::{Address, Timestamp};
use serde::{Deserialize, Serialize};

use crate::chain::{ReceivingChain, RootKey, SendingChain};
use crate::identity::Identity;
use crate::limits;
use crate::prekey::PrekeyError;
use crate::random::NoRandom;
use crate::secret::Secret32;
use crate::state::{Space, State, StateError};
use crate::suite::{Suite, SuiteError};

/// Why a session line cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Resource: a legacy generation reached its hard volume limit and could not be refreshed.
    #[error("the legacy session key has reached its volume limit")]
    Exhausted,
    /// Misuse: no such session or generation, or it is closed.
    #[error("the session is gone")]
    Gone,
    /// Resource or misbehaved: prekeys.
    #[error(transparent)]
    Prekey(#[from] PrekeyError),
    /// Malformed, or the signer refused.
    #[error(transparent)]
    Protocol(#[from] protocol::Error),
    /// Resource: the state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// A key does not fit.
    #[error(transparent)]
    Suite(#[from] SuiteError),
}

impl From<NoRandom> for SessionError {
    fn from(error: NoRandom) -> Self {
        Self::Suite(error.into())
    }
}

impl From<protocol::error::StatementError> for SessionError {
    fn from(error: protocol::error::StatementError) -> Self {
        Self::Protocol(error.into())
    }
}

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    /// SID.
    pub(crate) sid: String,
    /// WITH, sorted.
    pub(crate) accounts: Vec<String>,
    /// SUITE.
    suite: String,
    /// SIGNED.
    pub(crate) is_signed: bool,
    /// Every covered device.
    pub(crate) members: Vec<Member>,
    /// MEM.
    pub(crate) mem: String,
    /// TS of the 700 that began it, in milliseconds since 1970.
    pub(crate) offered_at: u64,
    /// Whether it has ended: nothing more is sealed in it, and no offer of it is taken.
    pub(crate) is_closed: bool,
    /// When it ended.
    #[serde(default)]
    pub(crate) closed_at: u64,
    /// Its generations in the order in which they were opened.
    pub(crate) generations: Vec<String>,
}

/// A covered device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The full address.
    pub(crate) device: String,
    /// KR of its account's record when the session began.
    pub(crate) record: String,
    /// The algorithm of its signature key.
    algorithm: u8,
    /// Its signature key in base64.
    key: String,
}

impl Member {
    /// The device's signature key, as its record had it when the session began.
    pub(crate) fn key(&self) -> Result<PublicKey, StateError> {
        let damaged = || StateError::Damaged(Space::Session);
        let algorithm = Algorithm::from_number(self.algorithm).ok_or_else(damaged)?;
        let octets = protocol::base64::decode(&self.key).map_err(|_| damaged())?;
        PublicKey::parse(algorithm, &octets).map_err(|_| damaged())
    }
}

impl Session {
    /// A session over the devices that `records` list.
    pub(crate) fn new(
        sid: String,
        suite: Suite,
        is_signed: bool,
        records: &[&Record],
        offered_at: Timestamp,
    ) -> Result<Self, SessionError> {
        let members = Members::new(records.iter().copied())?;
        let mut list = Vec::with_capacity(members.as_slice().len());
        for (address, name) in members.as_slice() {
            let record = records.iter().find(|record| record.name() == *name);
            let key = record
                .zip(address.as_address().device())
                .and_then(|(record, device)| record.device(device))
                .map(|device| &device.key)
                .ok_or(protocol::error::StatementError::UnknownDevice)?;
            list.push(Member {
                device: address.as_str().into(),
                record: name.as_str().into(),
                algorithm: key.algorithm().number(),
                key: protocol::base64::encode(key.as_octets()),
            });
        }
        let mut accounts: Vec<String> =
            records.iter().map(|record| record.account().as_str().to_owned()).collect();
        accounts.sort_unstable();
        accounts.dedup();
        Ok(Self {
            sid,
            accounts,
            suite: suite.name().into(),
            is_signed,
            members: list,
            mem: members.hash().as_str().into(),
            offered_at: offered_at.0,
            is_closed: false,
            closed_at: 0,
            generations: Vec::new(),
        })
    }

    pub(crate) fn load(state: &State, sid: &str) -> Result<Option<Self>, StateError> {
        state.get(Space::Session, sid)
    }

    pub(crate) fn store(&self, state: &mut State) -> Result<(), StateError> {
        state.put(Space::Session, &self.sid, self)
    }

    pub(crate) fn suite(&self) -> Result<Suite, StateError> {
        Suite::from_name(&self.suite).ok_or(StateError::Damaged(Space::Session))
    }

    pub(crate) fn member(&self, device: Address<'_>) -> Option<&Member> {
        self.members.iter().find(|member| member.device == device.as_str())
    }

    /// The covered devices but this one.
    pub(crate) fn others<'s>(&'s self, own: Address<'s>) -> impl Iterator<Item = &'s Member> {
        self.members.iter().filter(move |member| member.device != own.as_str())
    }

    /// The account on the other side: the first that is not `own`.
    pub(crate) fn peer(&self, own: Address<'_>) -> Option<&str> {
        self.accounts.iter().map(String::as_str).find(|account| *account != own.as_str())
    }

    /// Its generations, in the order in which they were opened.
    pub(crate) fn load_generations(&self, state: &State) -> Result<Vec<Generation>, StateError> {
        let mut list = Vec::with_capacity(self.generations.len());
        for name in &self.generations {
            list.extend(Generation::load(state, name)?);
        }
        Ok(list)
    }
}

/// What became of an offer that this device made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum OfferState {
    /// The device will never take it: it refused it for good, or the session has ended there.
    Void,
    /// The device refused it because its prekeys were gone; it is to be offered anew.
    Refused,
    /// Not yet confirmed by the relay.
    Queued,
    /// The relay has it.
    Taken,
    /// The device sent 701.
    Accepted,
}

/// One generation of a session's key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generation {
    /// GEN.
    pub(crate) name: String,
    /// SID.
    pub(crate) sid: String,
    /// PGEN.
    pub(crate) parent: Option<String>,
    /// How many generations lead to it.
    pub(crate) depth: u32,
    /// The device that offered it.
    pub(crate) offerer: String,
    /// When it was offered.
    pub(crate) offered_at: u64,
    /// When its first line was sealed or opened here.
    pub(crate) first_used_at: Option<u64>,
    /// EX.
    pub(crate) exporter: Secret32,
    /// GS, kept by the offerer alone.
    pub(crate) seed: Option<Secret32>,
    /// Until when GS is kept.
    pub(crate) seed_until: u64,
    /// The offers made here, by device.
    pub(crate) offers: BTreeMap<String, OfferState>,
    /// Lines sealed or opened here.
    pub(crate) lines: u32,
    /// Octets sealed or opened here.
    pub(crate) octets: u64,
    /// SEQ of the last line sent here.
    pub(crate) last_sent: u64,
    /// When a newer generation was opened.
    pub(crate) superseded_at: Option<u64>,
    /// How often it was offered again, by device.
    #[serde(default)]
    pub(crate) offers_again: BTreeMap<String, u32>,
}

impl Generation {
    pub(crate) fn load(state: &State, name: &str) -> Result<Option<Self>, StateError> {
        state.get(Space::Generation, name)
    }

    pub(crate) fn store(&self, state: &mut State) -> Result<(), StateError> {
        state.put(Space::Generation, &self.name, self)
    }

    /// Whether this device may seal in it: it opened it, or every offer of its own is with the
    /// relay, so that no line can overtake the key it needs.
    pub(crate) fn is_usable(&self) -> bool {
        self.offers.values().all(|state| *state > OfferState::Queued)
    }

    /// Whether a device of `account` has it.
    pub(crate) fn is_accepted_by(&self, account: &str) -> bool {
        self.offers_to(account).any(|state| state == OfferState::Accepted)
    }

    /// Whether lines were sealed in it that `account` may or may not open: no device of the
    /// account has accepted it, and one may still do so.
    pub(crate) fn is_in_doubt(&self, account: &str) -> bool {
        self.last_sent > 0
            && !self.is_accepted_by(account)
            && self.offers_to(account).any(|state| state != OfferState::Void)
    }

    /// Whether no device of `account` will ever open what was sealed in it.
    pub(crate) fn is_void(&self, account: &str) -> bool {
        let mut offers = self.offers_to(account).peekable();
        offers.peek().is_some() && offers.all(|state| state == OfferState::Void)
    }

    /// What became of the offers to an account's devices.
    fn offers_to(&self, account: &str) -> impl Iterator<Item = OfferState> {
        let is_theirs = move |device: &str| {
            Address::parse(device).is_ok_and(|device| device.account().as_str() == account)
        };
        let offers = self.offers.iter().filter(move |(device, _)| is_theirs(device));
        offers.map(|(_, state)| *state)
    }

    /// Whether it is time for another one (SPEC.md §7).
    pub(crate) fn is_due(&self, refresh: &Refresh, now: Timestamp) -> bool {
        let is_old = self
            .first_used_at
            .is_some_and(|first| now.ms_since(Timestamp(first)) >= refresh.age_ms);
        is_old || self.lines >= refresh.lines || self.octets >= refresh.octets
    }

    /// Counts a line of `octets`.
    pub(crate) fn count(&mut self, octets: usize, now: Timestamp) {
        self.first_used_at.get_or_insert(now.0);
        self.lines = self.lines.saturating_add(1);
        self.octets = self.octets.saturating_add(octets as u64);
    }
}

/// After how much use a generation is due for refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refresh {
    age_ms: u64,
    lines: u32,
    octets: u64,
}

impl Refresh {
    /// The shortest of the protocol's default and what the policies of the domains ask.
    pub(crate) fn new<'p>(suite: Suite, policies: impl Iterator<Item = &'p Policy>) -> Self {
        let mut refresh = Self {
            age_ms: limits::REFRESH_AGE_MS,
            lines: limits::REFRESH_LINES,
            octets: limits::REFRESH_OCTETS,
        };
        if suite.is_legacy() {
            refresh.octets = limits::LEGACY_OCTETS_MAX;
        }
        for policy in policies {
            refresh.age_ms = refresh.age_ms.min(u64::from(policy.refresh_seconds) * 1_000);
            refresh.lines = refresh.lines.min(policy.refresh_messages);
            refresh.octets = refresh.octets.min(policy.refresh_octets);
        }
        refresh
    }
}

/// Which generation of a session to seal in.
#[derive(Debug)]
pub(crate) enum Choice {
    /// There is none, or the session is closed.
    None,
    /// This one.
    Use(Box<Generation>),
    /// A newer one is on its way to the relay.
    Wait,
}

/// Chooses the newest generation that this device may use.
///
/// While lines are in doubt in a generation of its own, it stays with that one or what it made
/// later: should the other side refuse it, those lines and all behind them are sealed again in
/// their order (SPEC.md §7).
pub(crate) fn choose(
    state: &State,
    session: &Session,
    own: Address<'_>,
) -> Result<Choice, StateError> {
    if session.is_closed {
        return Ok(Choice::None);
    }
    let peer = session.peer(own.account()).unwrap_or_default();
    let mut generations = session.load_generations(state)?;
    let doubtful = |one: &&Generation| one.is_in_doubt(peer);
    if generations.iter().filter(doubtful).any(|one| !one.is_usable()) {
        return Ok(Choice::Wait);
    }
    if let Some(depth) = generations.iter().filter(doubtful).map(|one| one.depth).min() {
        generations.retain(|one| one.depth >= depth && one.offerer == own.as_str());
    }
    let pending = generations.iter().filter(|one| !one.is_usable()).map(|one| one.depth).max();
    generations.retain(Generation::is_usable);
    let newest = generations
        .into_iter()
        .min_by(|one, other| other.depth.cmp(&one.depth).then(one.name.cmp(&other.name)));
    Ok(match (newest, pending) {
        (None, None) => Choice::None,
        (Some(newest), pending) if pending.is_none_or(|depth| depth <= newest.depth) => {
            Choice::Use(Box::new(newest))
        }
        _ => Choice::Wait,
    })
}

/// Whether this device sealed lines in the session that its other side may never open.
pub(crate) fn is_in_doubt(
    state: &State,
    session: &Session,
    own: Address<'_>,
) -> Result<bool, StateError> {
    let peer = session.peer(own.account()).unwrap_or_default();
    let generations = session.load_generations(state)?;
    Ok(generations.iter().any(|generation| generation.is_in_doubt(peer)))
}

/// Writes down a generation: EX, one chain for each member, and that it follows on the others.
pub(crate) fn establish(
    state: &mut State,
    identity: &Identity,
    session: &mut Session,
    generation: &Generation,
    root: &RootKey,
    now: Timestamp,
) -> Result<(), StateError> {
    for member in &session.members {
        let chain = root.chain(&member.device);
        let name = chain_name(&generation.name, &member.device);
        if member.device == identity.device().as_str() {
            state.put(Space::Chain, &name, &SendingChain::new(chain))?;
        } else {
            state.put(Space::Chain, &name, &ReceivingChain::new(chain))?;
        }
    }
    for mut older in session.load_generations(state)? {
        if older.depth < generation.depth && older.superseded_at.is_none() {
            older.superseded_at = Some(now.0);
            older.store(state)?;
        }
    }
    generation.store(state)?;
    session.generations.push(generation.name.clone());
    // Nobody refreshes so often; whoever does loses the oldest first.
    while session.generations.len() > limits::GENERATIONS_MAX {
        let oldest = session.generations.remove(0);
        erase(state, session, &oldest)?;
    }
    session.store(state)
}

/// Erases a generation with its chains.
pub(crate) fn erase(
    state: &mut State,
    session: &mut Session,
    generation: &str,
) -> Result<(), StateError> {
    for member in &session.members {
        state.remove(Space::Chain, &chain_name(generation, &member.device))?;
    }
    state.remove(Space::Generation, generation)?;
    session.generations.retain(|name| name != generation);
    session.store(state)
}

/// Erases a session with everything in it.
pub(crate) fn erase_session(state: &mut State, sid: &str) -> Result<(), StateError> {
    let Some(mut session) = Session::load(state, sid)? else { return Ok(()) };
    for generation in session.generations.clone() {
        erase(state, &mut session, &generation)?;
    }
    state.remove(Space::Session, sid)?;
    Ok(())
}

/// Erases what time has ended: skipped keys, GS, chains that PREV showed complete, and
/// generations of long ago.
pub(crate) fn expire(
    state: &mut State,
    own: Address<'_>,
    sid: &str,
    now: Timestamp,
) -> Result<(), StateError> {
    let Some(mut session) = Session::load(state, sid)? else { return Ok(()) };
    for mut generation in session.load_generations(state)? {
        if generation.seed.is_some() && now.0 >= generation.seed_until {
            generation.seed = None;
            generation.store(state)?;
        }
        let is_over = generation
            .superseded_at
            .is_some_and(|at| now.ms_since(Timestamp(at)) >= limits::OLD_GENERATION_AGE_MS_MAX);
        let chains = receiving_chains(state, own, &session, &generation.name)?;
        let mut are_spent = true;
        for (name, mut chain) in chains {
            let has_expired = chain.expire(now.0);
            if chain.is_spent() {
                state.remove(Space::Chain, &name)?;
                continue;
            }
            are_spent = false;
            if has_expired {
                state.put(Space::Chain, &name, &chain)?;
            }
        }
        let is_done = is_over || (are_spent && generation.superseded_at.is_some());
        let is_needed = is_undecided(&generation, &session, own, now)
            || (is_done && awaited::is_parent(state, &generation.name)?);
        if is_done && !is_needed {
            erase(state, &mut session, &generation.name)?;
        }
    }
    Ok(())
}

/// Whether the other side may still refuse what was sealed in it: as long as its offer may wait at
/// the relay.
fn is_undecided(
    generation: &Generation,
    session: &Session,
    own: Address<'_>,
    now: Timestamp,
) -> bool {
    let peer = session.peer(own.account()).unwrap_or_default();
    let age = now.ms_since(Timestamp(generation.offered_at));
    generation.is_in_doubt(peer) && age < limits::OFFER_MEMORY_MS
}

/// The receiving chains that a generation still has.
fn receiving_chains(
    state: &State,
    own: Address<'_>,
    session: &Session,
    generation: &str,
) -> Result<Vec<(String, ReceivingChain)>, StateError> {
    let mut chains = Vec::new();
    for member in session.others(own) {
        let name = chain_name(generation, &member.device);
        if let Some(chain) = state.get::<ReceivingChain>(Space::Chain, &name)? {
            chains.push((name, chain));
        }
    }
    Ok(chains)
}

/// The name of a chain's row.
pub(crate) fn chain_name(generation: &str, device: &str) -> String {
    format!("{generation} {device}")
}

/// Keeps the skipped keys of a session within [`limits::SKIPPED_KEYS_MAX`]: the oldest
/// generations lose theirs first.
pub(crate) fn bound_skipped_keys(
    state: &mut State,
    own: Address<'_>,
    session: &Session,
) -> Result<(), StateError> {
    let mut chains = Vec::new();
    for generation in &session.generations {
        chains.extend(receiving_chains(state, own, session, generation)?);
    }
    let mut total: usize = chains.iter().map(|(_, chain)| chain.skipped_count()).sum();
    for (name, mut chain) in chains {
        let surplus = total.saturating_sub(limits::SKIPPED_KEYS_MAX);
        if surplus == 0 {
            break;
        }
        let erased = chain.shrink(chain.skipped_count().saturating_sub(surplus));
        if erased > 0 {
            total -= erased;
            state.put(Space::Chain, &name, &chain)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
