//! Many Blowfish messages at once, each under its own key.
//!
//! Owns the grouping: key schedules run [`SCHEDULES`] abreast, and so do the chains of CBC
//! encryption, as long as all messages of a group last. **Not constant time**, as all of Blowfish.

use super::interleave::{SCHEDULES, State, block, encrypt_each, halves, schedule};
use super::{Blowfish, Choice, cbc_decrypt, ctr};
use crate::Error;

/// What is done with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    CbcDecrypt,
    CbcEncrypt,
    Ctr,
}

/// One message; the key has 4 to 56 octets.
pub(crate) struct Lane<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) iv: &'a [u8; 8],
    pub(crate) mode: Mode,
    /// Whole blocks unless the mode is [`Mode::Ctr`].
    pub(crate) text: &'a mut [u8],
}

/// Runs all messages.
///
/// # Errors
/// [`Error::KeyLength`] if a key has a length that the caller should have refused.
pub(crate) fn run(choice: Choice, messages: &mut [Lane<'_>]) -> Result<(), Error> {
    messages.sort_unstable_by_key(|message| (message.mode != Mode::CbcEncrypt, message.text.len()));
    let (groups, rest) = messages.as_chunks_mut::<SCHEDULES>();
    let (groups, rest) = match choice {
        Choice::Portable => (groups, rest),
        Choice::Soft => {
            for message in groups.as_flattened_mut().iter_mut().chain(rest) {
                alone(choice, message)?;
            }
            return Ok(());
        }
    };
    for group in groups {
        abreast(group);
    }
    for message in rest {
        alone(choice, message)?;
    }
    Ok(())
}

fn alone(choice: Choice, message: &mut Lane<'_>) -> Result<(), Error> {
    let cipher = Blowfish::new(choice, message.key)?;
    let (blocks, _) = message.text.as_chunks_mut();
    match message.mode {
        Mode::CbcDecrypt => cipher.cbc_decrypt(&mut message.iv.clone(), blocks),
        Mode::CbcEncrypt => cipher.cbc_encrypt(&mut message.iv.clone(), blocks),
        Mode::Ctr => cipher.ctr(u64::from_be_bytes(*message.iv), message.text),
    }
    Ok(())
}

fn abreast(group: &mut [Lane<'_>; SCHEDULES]) {
    let states = schedule(group.each_ref().map(|message| message.key));
    let states = states.each_ref().map(AsRef::as_ref);
    let mut done = [0; SCHEDULES];
    let mut chain = group.each_ref().map(|message| halves(*message.iv));
    if group.iter().all(|message| message.mode == Mode::CbcEncrypt) {
        let steps = group.iter().map(|message| message.text.len() / 8).min().unwrap_or(0);
        for step in 0..steps {
            for (chain, message) in chain.iter_mut().zip(group.iter()) {
                let text = message.text.as_chunks().0.get(step).copied().unwrap_or_default();
                let [a, b] = halves(text);
                *chain = [chain[0] ^ a, chain[1] ^ b];
            }
            chain = encrypt_each(&states, chain);
            for (chain, message) in chain.iter().zip(group.iter_mut()) {
                if let Some(text) = message.text.as_chunks_mut().0.get_mut(step) {
                    *text = block(*chain);
                }
            }
        }
        done = [steps; SCHEDULES];
    }
    for (((message, state), chain), done) in group.iter_mut().zip(states).zip(chain).zip(done) {
        finish(message, state, chain, done);
    }
}

/// What is left of a message after `done` blocks.
fn finish(message: &mut Lane<'_>, state: &State, chain: [u32; 2], done: usize) {
    let (blocks, _) = message.text.as_chunks_mut::<8>();
    match message.mode {
        Mode::CbcDecrypt => cbc_decrypt(state, &mut message.iv.clone(), blocks),
        Mode::CbcEncrypt => {
            let [mut l, mut r] = chain;
            for text in blocks.iter_mut().skip(done) {
                let [a, b] = halves(*text);
                [[l, r]] = state.encrypt([[l ^ a, r ^ b]]);
                *text = block([l, r]);
            }
        }
        Mode::Ctr => ctr(state, u64::from_be_bytes(*message.iv), message.text),
    }
}
