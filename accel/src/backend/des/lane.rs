//! Many 3DES messages at once, each under its own key: one message or block per bitsliced lane.
//!
//! Owns the packing of messages into lanes. CBC encryption is a chain, so each lane carries one
//! message, longest first, and all advance together; CBC decryption and counter mode are
//! independent blocks, which fill the lanes in order whoever they belong to. What is too little to
//! pay goes through the scalar tables. The invariant: which kernel runs depends on lengths only.

use super::bitslice::{Bits, KeyPlanes, LANES_MAX, Word64, lanes};
use super::scalar::Schedule;
use super::{Choice, SLICED_MIN, TripleDes, numbers};
use zeroize::Zeroize;

/// What is done with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    CbcDecrypt,
    CbcEncrypt,
    Ctr,
}

/// One message.
pub(crate) struct Lane<'a> {
    pub(crate) key: &'a [u8; 24],
    pub(crate) iv: &'a [u8; 8],
    pub(crate) mode: Mode,
    /// Whole blocks unless the mode is [`Mode::Ctr`].
    pub(crate) text: &'a mut [u8],
}

/// An engine that can run a group of lanes, each under its own key.
trait Engine: Copy {
    type B: Bits;
    fn keys(self, keys: &mut [[[u8; 8]; LANES_MAX]; 3]) -> Box<KeyPlanes<Self::B>>;
    fn crypt(self, planes: &KeyPlanes<Self::B>, decrypt: bool, blocks: &mut [[u8; 8]; LANES_MAX]);
    fn wipe(self, planes: &mut KeyPlanes<Self::B>);
}

impl Engine for Word64 {
    type B = Self;

    fn keys(self, keys: &mut [[[u8; 8]; LANES_MAX]; 3]) -> Box<KeyPlanes<Self>> {
        let groups = keys.each_ref().map(|key| key.first_chunk().copied().unwrap_or([[0; 8]; 64]));
        Box::new(KeyPlanes::per_lane(self, &groups))
    }

    fn crypt(self, planes: &KeyPlanes<Self>, decrypt: bool, blocks: &mut [[u8; 8]; LANES_MAX]) {
        if let Some(group) = blocks.first_chunk_mut() {
            super::bitslice::crypt(self, planes, decrypt, group);
        }
    }

    fn wipe(self, planes: &mut KeyPlanes<Self>) {
        planes.wipe(self);
    }
}

#[cfg(target_arch = "x86_64")]
impl Engine for super::HaveAvx2 {
    type B = Self;

    fn keys(self, keys: &mut [[[u8; 8]; LANES_MAX]; 3]) -> Box<KeyPlanes<Self>> {
        let groups = keys
            .each_mut()
            .map(|key| Self::split(key).first_chunk().copied().unwrap_or([[[0; 8]; 4]; 64]));
        self.des_keys(&groups)
    }

    fn crypt(self, planes: &KeyPlanes<Self>, decrypt: bool, blocks: &mut [[u8; 8]; LANES_MAX]) {
        if let Some(group) = Self::split(blocks).first_chunk_mut() {
            self.des_lanes(planes, decrypt, group);
        }
    }

    fn wipe(self, planes: &mut KeyPlanes<Self>) {
        self.des_wipe(planes);
    }
}

/// Runs all messages.
pub(crate) fn run(choice: Choice, messages: &mut [Lane<'_>]) {
    match choice {
        Choice::Soft => messages.iter_mut().for_each(|message| alone(choice, message)),
        Choice::Portable => run_on(Word64, choice, messages),
        #[cfg(target_arch = "x86_64")]
        Choice::Avx2(have) => run_on(have, choice, messages),
    }
}

fn run_on<E: Engine>(engine: E, choice: Choice, messages: &mut [Lane<'_>]) {
    let width = lanes::<E::B>();
    messages.sort_unstable_by_key(|message| {
        (
            message.mode != Mode::CbcEncrypt,
            message.mode != Mode::CbcDecrypt,
            usize::MAX - message.text.len(),
        )
    });
    let chained = messages.partition_point(|message| message.mode == Mode::CbcEncrypt);
    let (chains, rest) = messages.split_at_mut(chained);
    for group in chains.chunks_mut(width) {
        encrypt_chains(engine, group);
    }
    let decrypting = rest.partition_point(|message| message.mode == Mode::CbcDecrypt);
    let (decrypts, counters) = rest.split_at_mut(decrypting);
    for (messages, decrypt) in [(decrypts, true), (counters, false)] {
        // A message that fills a group by itself needs no keys per lane.
        let long = messages.partition_point(|message| message.text.len() >= 8 * width);
        let (long, short) = messages.split_at_mut(long);
        long.iter_mut().for_each(|message| alone(choice, message));
        independent(engine, choice, decrypt, short);
    }
}

/// One message by itself.
fn alone(choice: Choice, message: &mut Lane<'_>) {
    let cipher = TripleDes::new(choice, message.key);
    let (blocks, _) = message.text.as_chunks_mut();
    match message.mode {
        Mode::CbcDecrypt => cipher.cbc_decrypt(&mut message.iv.clone(), blocks),
        Mode::CbcEncrypt => cipher.cbc_encrypt(&mut message.iv.clone(), blocks),
        Mode::Ctr => cipher.ctr(u64::from_be_bytes(*message.iv), message.text),
    }
}

/// Keys of each lane as the planes want them, wiped on drop.
struct Keys([[[u8; 8]; LANES_MAX]; 3]);

impl Drop for Keys {
    fn drop(&mut self) {
        self.0 = [[[0; 8]; LANES_MAX]; 3];
        core::hint::black_box(&mut self.0);
    }
}

impl Keys {
    fn set(&mut self, lane: usize, key: &[u8; 24]) {
        for (keys, part) in self.0.iter_mut().zip(key.as_chunks().0) {
            keys[lane] = *part;
        }
    }
}

/// CBC encryption of at most a group of messages, the longest first.
fn encrypt_chains<E: Engine>(engine: E, messages: &mut [Lane<'_>]) {
    // As many steps as at least `SLICED_MIN` messages want; the longer ones end alone.
    let steps = messages.get(SLICED_MIN - 1).map_or(0, |message| message.text.len() / 8);
    let mut chain = [[0u8; 8]; LANES_MAX];
    for (chain, message) in chain.iter_mut().zip(messages.iter()) {
        *chain = *message.iv;
    }
    if steps > 0 {
        let mut keys = Keys([[[0; 8]; LANES_MAX]; 3]);
        for (lane, message) in messages.iter().enumerate() {
            keys.set(lane, message.key);
        }
        let mut planes = engine.keys(&mut keys.0);
        for step in 0..steps {
            for (chain, message) in chain.iter_mut().zip(messages.iter()) {
                if let Some(block) = message.text.as_chunks().0.get(step) {
                    *chain = xor(*chain, *block);
                }
            }
            engine.crypt(&planes, false, &mut chain);
            for (chain, message) in chain.iter().zip(messages.iter_mut()) {
                if let Some(block) = message.text.as_chunks_mut().0.get_mut(step) {
                    *block = *chain;
                }
            }
        }
        engine.wipe(&mut planes);
    }
    for (chain, message) in chain.iter().zip(messages) {
        let (blocks, _) = message.text.as_chunks_mut::<8>();
        let Some(rest) = blocks.get_mut(steps..).filter(|rest| !rest.is_empty()) else { continue };
        let schedule = Schedule::new(&numbers(message.key));
        let mut chain = *chain;
        for block in rest {
            let text = u64::from_be_bytes(xor(chain, *block));
            [*block] = schedule.encrypt([text]).map(u64::to_be_bytes);
            chain = *block;
        }
    }
}

fn xor(a: [u8; 8], b: [u8; 8]) -> [u8; 8] {
    (u64::from_ne_bytes(a) ^ u64::from_ne_bytes(b)).to_ne_bytes()
}

/// Where a lane's block comes from, and what is combined with the result.
#[derive(Clone, Copy, Default)]
struct Source {
    message: usize,
    block: usize,
    mask: [u8; 8],
}

/// CBC decryption or counter mode of short messages: blocks fill lanes in order.
fn independent<E: Engine>(engine: E, choice: Choice, decrypt: bool, messages: &mut [Lane<'_>]) {
    let width = lanes::<E::B>();
    let total: usize = messages.iter().map(|message| message.text.len().div_ceil(8)).sum();
    if total < SLICED_MIN {
        messages.iter_mut().for_each(|message| alone(choice, message));
        return;
    }
    let mut keys = Keys([[[0; 8]; LANES_MAX]; 3]);
    let mut blocks = [[0u8; 8]; LANES_MAX];
    let mut sources = [Source::default(); LANES_MAX];
    let mut filled = 0;
    for message in 0..messages.len() {
        let mut previous = *messages[message].iv;
        for block in 0..messages[message].text.len().div_ceil(8) {
            let lane = &messages[message];
            keys.set(filled, lane.key);
            sources[filled] = Source { message, block, mask: previous };
            if decrypt {
                blocks[filled] = lane.text.as_chunks().0.get(block).copied().unwrap_or_default();
                previous = blocks[filled];
            } else {
                let counter = u64::from_be_bytes(*lane.iv).wrapping_add(block as u64);
                blocks[filled] = counter.to_be_bytes();
            }
            filled += 1;
            if filled == width {
                flush(engine, decrypt, &mut keys, &mut blocks, &sources, messages);
                filled = 0;
            }
        }
    }
    if filled > 0 {
        flush(engine, decrypt, &mut keys, &mut blocks, &sources[..filled], messages);
    }
    blocks.zeroize();
}

/// Runs the lanes and writes the results where they belong.
fn flush<E: Engine>(
    engine: E,
    decrypt: bool,
    keys: &mut Keys,
    blocks: &mut [[u8; 8]; LANES_MAX],
    sources: &[Source],
    messages: &mut [Lane<'_>],
) {
    let mut planes = engine.keys(&mut keys.0);
    engine.crypt(&planes, decrypt, blocks);
    engine.wipe(&mut planes);
    for (block, source) in blocks.iter().zip(sources) {
        let text = &mut messages[source.message].text;
        let Some(rest) = text.get_mut(8 * source.block..) else { continue };
        if decrypt {
            if let Some(to) = rest.first_chunk_mut() {
                *to = xor(*block, source.mask);
            }
        } else {
            for (octet, key) in rest.iter_mut().zip(block) {
                *octet ^= key;
            }
        }
    }
}
