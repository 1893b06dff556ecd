//! The frames between the service and its clients, and a decoder over any chunking.
//!
//! ```text
//! frame    = length (4) ‖ version 1 (1) ‖ kind (1) ‖ id (8) ‖ body      length counts from version
//! request  : body = deadline in milliseconds (4) ‖ fields
//! response : body = fields; kind 255 is an error
//! fields   : lp(x) = length (4) ‖ x for octets and texts, fixed width for numbers, big-endian
//! ```
//!
//! Ids are the client's; id 0 is the service's own, for [`Response::State`] notices and for the
//! last word before it closes a connection. No I/O here: a relay's ring drives this codec as well
//! as [`crate::client`] does. Octets that are no frame are [`Error::Wire`], never a panic, and
//! nothing after them is read. Consumed octets are wiped, since they may hold data keys.

use std::borrow::Cow;
use std::time::Duration;

use zeroize::Zeroize;

use crate::error::{Error, Fault};
use crate::job::{
    Algorithm, Description, KeyKind, KeyName, Phase, PublicKey, Purpose, Request, Response, Secret,
    State,
};
use crate::limits;

/// The version in every frame.
pub const VERSION: u8 = 1;
/// Octets before the body: length, version, kind, id.
pub const HEADER_BYTES: usize = 14;
const KIND_ERROR: u8 = 255;

/// A request with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFrame {
    /// The client's number for this job; comes back with the response. Not 0.
    pub id: u64,
    /// How long the client waits, in milliseconds from arrival.
    pub deadline_ms: u32,
    /// The job.
    pub request: Request,
}

/// A response with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseFrame {
    /// The job's number, or 0 for a notice.
    pub id: u64,
    /// The result.
    pub outcome: Result<Response, Error>,
}

/// Appends a request to `out`. On an error `out` is as before.
///
/// # Errors
/// [`Error::Malformed`] if the job breaks a limit ([`Request::check`]).
pub fn encode_request(
    out: &mut Vec<u8>,
    id: u64,
    deadline: Duration,
    request: &Request,
) -> Result<(), Error> {
    request.check()?;
    let deadline = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).max(1);
    let mut frame = Frame::begin(out, request_kind(request), id);
    frame.number(deadline);
    match request {
        Request::Describe | Request::Ping => {}
        Request::Generate { key } | Request::PublicKey { key } => frame.key(*key),
        Request::Random { length } => frame.number(*length),
        Request::Sign { key, algorithm, message } => {
            frame.key(*key);
            frame.octet(algorithm.code());
            frame.octets(message);
        }
        Request::Unwrap { blob } => frame.octets(blob),
        Request::Verify { algorithm, public_key, message, signature } => {
            frame.octet(algorithm.code());
            frame.octets(public_key);
            frame.octets(signature);
            frame.octets(message);
        }
        Request::Wrap { kek, data_key } => {
            frame.key(*kek);
            frame.octets(data_key.expose());
        }
    }
    frame.end();
    Ok(())
}

/// Appends a response to `out`.
pub fn encode_response(out: &mut Vec<u8>, id: u64, outcome: &Result<Response, Error>) {
    match outcome {
        Ok(response) => encode_success(out, id, response),
        Err(error) => encode_error(out, id, error),
    }
}

fn request_kind(request: &Request) -> u8 {
    match request {
        Request::Ping => 1,
        Request::Describe => 2,
        Request::Generate { .. } => 3,
        Request::PublicKey { .. } => 4,
        Request::Random { .. } => 5,
        Request::Sign { .. } => 6,
        Request::Unwrap { .. } => 7,
        Request::Verify { .. } => 8,
        Request::Wrap { .. } => 9,
    }
}

fn encode_success(out: &mut Vec<u8>, id: u64, response: &Response) {
    let kind = match response {
        Response::State(_) => 1,
        Response::Described(_) => 2,
        Response::Generated(_) => 3,
        Response::PublicKey(_) => 4,
        Response::Random(_) => 5,
        Response::Signature(_) => 6,
        Response::Unwrapped(_) => 7,
        Response::Verified(_) => 8,
        Response::Wrapped(_) => 9,
    };
    let mut frame = Frame::begin(out, kind, id);
    match response {
        Response::State(state) => {
            frame.octet(phase_code(state.phase));
            frame.long(state.generation);
            frame.text(&state.reason);
        }
        Response::Described(description) => {
            // A structure of numbers and texts: serialising it cannot fail.
            frame.octets(&serde_json::to_vec(description).unwrap_or_default());
        }
        Response::Generated(key) | Response::PublicKey(key) => {
            frame.key(key.key);
            frame.octet(match key.kind {
                KeyKind::Aes256 => 1,
                KeyKind::P256 => 2,
            });
            frame.octets(&key.point);
        }
        Response::Random(secret) | Response::Unwrapped(secret) => frame.octets(secret.expose()),
        Response::Signature(bytes) | Response::Wrapped(bytes) => frame.octets(bytes),
        Response::Verified(holds) => frame.octet(u8::from(*holds)),
    }
    frame.end();
}

fn encode_error(out: &mut Vec<u8>, id: u64, error: &Error) {
    let mut frame = Frame::begin(out, KIND_ERROR, id);
    match error {
        Error::Away { reason, retry_after } => {
            frame.error(1, &[reason]);
            frame.millis(*retry_after);
        }
        Error::Busy { what, limit } => {
            frame.error(2, &[what]);
            frame.long(*limit);
        }
        Error::Damaged { what } => frame.error(3, &[what]),
        Error::Deadline { after } => {
            frame.error(4, &[]);
            frame.millis(*after);
        }
        Error::Disconnected { path, reason } => frame.error(5, &[path, reason]),
        Error::Forbidden { what } => frame.error(6, &[what]),
        Error::KeyChanged { key } => frame.error(7, &[key]),
        Error::KeyMissing { key, domain } => frame.error(8, &[key, domain]),
        Error::Malformed { what } => frame.error(9, &[what]),
        Error::MechanismMissing { what } => frame.error(10, &[what]),
        Error::Module { path, reason } => frame.error(11, &[path, reason]),
        Error::OtherToken { wrapped_by, present } => frame.error(12, &[wrapped_by, present]),
        Error::Pin { reason } => frame.error(13, &[reason]),
        Error::PinRefused { fault } => frame.fault(14, fault),
        Error::Refused { fault } => frame.fault(15, fault),
        Error::Stopping => frame.error(16, &[]),
        Error::Token { fault } => frame.fault(17, fault),
        Error::Wire { what } => frame.error(18, &[what]),
        Error::WrongAnswer { what } => frame.error(19, &[what]),
    }
    frame.end();
}

fn phase_code(phase: Phase) -> u8 {
    let position = Phase::ALL.iter().position(|&other| other == phase).unwrap_or_default();
    u8::try_from(position).unwrap_or_default()
}

/// Writes one frame; the length is filled in at the end.
struct Frame<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Frame<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u8, id: u64) -> Self {
        let start = out.len();
        out.extend([0; 4]);
        out.extend([VERSION, kind]);
        out.extend(id.to_be_bytes());
        Self { out, start }
    }

    fn octet(&mut self, octet: u8) {
        self.out.push(octet);
    }

    fn number(&mut self, number: u32) {
        self.out.extend(number.to_be_bytes());
    }

    fn long(&mut self, number: u64) {
        self.out.extend(number.to_be_bytes());
    }

    fn millis(&mut self, duration: Duration) {
        self.number(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX));
    }

    /// Limits checked before keep every part far below 2^32 octets.
    fn octets(&mut self, octets: &[u8]) {
        self.number(u32::try_from(octets.len()).unwrap_or_default());
        self.out.extend_from_slice(octets);
    }

    fn text(&mut self, text: &str) {
        let end = text.floor_char_boundary(limits::ERROR_TEXT_BYTES_MAX);
        self.octets(text.get(..end).unwrap_or_default().as_bytes());
    }

    fn key(&mut self, key: KeyName) {
        self.octet(key.purpose.code());
        self.number(key.version.unwrap_or_default());
    }

    fn error(&mut self, code: u8, texts: &[&str]) {
        self.octet(code);
        for text in texts {
            self.text(text);
        }
    }

    fn fault(&mut self, code: u8, fault: &Fault) {
        self.error(code, &[&fault.function]);
        self.long(fault.code);
        self.octet(u8::from(fault.slot.is_some()));
        self.long(fault.slot.unwrap_or_default());
    }

    fn end(self) {
        let length = u32::try_from(self.out.len() - self.start - 4).unwrap_or(u32::MAX);
        if let Some(field) = self.out.get_mut(self.start..self.start + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// Collects octets and gives whole frames.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({} octets ..)", self.buffer.len() - self.start)
    }
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes octets as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > limits::READ_BYTES {
            let kept = self.buffer.len() - self.start;
            self.buffer.copy_within(self.start.., 0);
            if let Some(moved) = self.buffer.get_mut(kept..) {
                moved.zeroize();
            }
            self.buffer.truncate(kept);
            self.start = 0;
        }
        let needed = self.buffer.len() + bytes.len();
        if needed > self.buffer.capacity() {
            // Grown by hand, so that the old place of secrets can be wiped.
            let mut grown = Vec::with_capacity(needed.next_power_of_two());
            grown.extend_from_slice(&self.buffer);
            self.buffer.zeroize();
            self.buffer = grown;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next request, or `None` until more octets come.
    ///
    /// # Errors
    /// [`Error::Wire`]: the stream cannot be followed any further.
    pub fn next_request(&mut self) -> Result<Option<RequestFrame>, Error> {
        self.next(|kind, id, body| {
            if id == 0 {
                return Err(Error::wire("a request has the id 0"));
            }
            let deadline_ms = body.number()?;
            Ok(RequestFrame { id, deadline_ms, request: decode_request(kind, body)? })
        })
    }

    /// The next response, or `None` until more octets come.
    ///
    /// # Errors
    /// [`Error::Wire`]: the stream cannot be followed any further.
    pub fn next_response(&mut self) -> Result<Option<ResponseFrame>, Error> {
        self.next(|kind, id, body| {
            let outcome = match kind {
                KIND_ERROR => Err(decode_error(body)?),
                _ => Ok(decode_response(kind, body)?),
            };
            Ok(ResponseFrame { id, outcome })
        })
    }

    fn next<T>(
        &mut self,
        decode: impl FnOnce(u8, u64, &mut Body<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let waiting = self.buffer.get_mut(self.start..).unwrap_or_default();
        let Some((length, rest)) = waiting.split_first_chunk_mut::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length < HEADER_BYTES - 4 {
            return Err(Error::wire("it is shorter than its header"));
        }
        if length > limits::FRAME_BYTES_MAX {
            return Err(Error::wire("it is longer than any frame may be"));
        }
        let Some((frame, _)) = rest.split_at_mut_checked(length) else {
            return Ok(None);
        };
        let mut body = Body { bytes: frame };
        let [version, kind] = body.array()?;
        if version != VERSION {
            return Err(Error::wire("it has another version; update both programs together"));
        }
        let id = body.long()?;
        let value = decode(kind, id, &mut body)?;
        if !body.bytes.is_empty() {
            return Err(Error::wire("there is something behind its last field"));
        }
        frame.zeroize();
        self.start += 4 + length;
        Ok(Some(value))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

/// Reads the fields of one frame.
struct Body<'a> {
    bytes: &'a [u8],
}

impl Body<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (array, rest) =
            self.bytes.split_first_chunk().ok_or(Error::wire("it ends within a field"))?;
        self.bytes = rest;
        Ok(*array)
    }

    fn octet(&mut self) -> Result<u8, Error> {
        self.array().map(|[octet]| octet)
    }

    fn flag(&mut self) -> Result<bool, Error> {
        match self.octet()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::wire("a flag is neither 0 nor 1")),
        }
    }

    fn number(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    fn millis(&mut self) -> Result<Duration, Error> {
        self.number().map(|millis| Duration::from_millis(millis.into()))
    }

    fn octets(&mut self, max: usize) -> Result<Vec<u8>, Error> {
        let length = self.number()? as usize;
        if length > max {
            return Err(Error::wire("a field is longer than it may be"));
        }
        let (octets, rest) =
            self.bytes.split_at_checked(length).ok_or(Error::wire("it ends within a field"))?;
        self.bytes = rest;
        Ok(octets.to_vec())
    }

    fn text(&mut self) -> Result<Cow<'static, str>, Error> {
        let octets = self.octets(limits::ERROR_TEXT_BYTES_MAX)?;
        String::from_utf8(octets).map(Cow::Owned).map_err(|_| Error::wire("a text is not UTF-8"))
    }

    fn key(&mut self) -> Result<KeyName, Error> {
        let purpose =
            Purpose::from_code(self.octet()?).ok_or(Error::wire("a purpose is unknown"))?;
        let version = self.number()?;
        Ok(KeyName { purpose, version: (version != 0).then_some(version) })
    }

    fn algorithm(&mut self) -> Result<Algorithm, Error> {
        Algorithm::from_code(self.octet()?).ok_or(Error::wire("an algorithm is unknown"))
    }

    fn fault(&mut self) -> Result<Fault, Error> {
        let function = self.text()?;
        let code = self.long()?;
        let known = self.flag()?;
        let slot = self.long()?;
        Ok(Fault { slot: known.then_some(slot), function, code })
    }
}

fn decode_request(kind: u8, body: &mut Body<'_>) -> Result<Request, Error> {
    Ok(match kind {
        1 => Request::Ping,
        2 => Request::Describe,
        3 => Request::Generate { key: body.key()? },
        4 => Request::PublicKey { key: body.key()? },
        5 => Request::Random { length: body.number()? },
        6 => Request::Sign {
            key: body.key()?,
            algorithm: body.algorithm()?,
            message: body.octets(limits::MESSAGE_BYTES_MAX)?,
        },
        7 => Request::Unwrap { blob: body.octets(limits::BLOB_BYTES_MAX)? },
        8 => Request::Verify {
            algorithm: body.algorithm()?,
            public_key: body.octets(limits::PUBLIC_KEY_BYTES_MAX)?,
            signature: body.octets(limits::SIGNATURE_BYTES_MAX)?,
            message: body.octets(limits::MESSAGE_BYTES_MAX)?,
        },
        9 => Request::Wrap {
            kek: body.key()?,
            data_key: Secret::new(body.octets(limits::DATA_KEY_BYTES_MAX)?),
        },
        _ => return Err(Error::wire("its kind is unknown")),
    })
}

fn decode_response(kind: u8, body: &mut Body<'_>) -> Result<Response, Error> {
    Ok(match kind {
        1 => {
            let phase = *Phase::ALL
                .get(usize::from(body.octet()?))
                .ok_or(Error::wire("a phase is unknown"))?;
            let generation = body.long()?;
            Response::State(State { phase, generation, reason: body.text()?.into_owned() })
        }
        2 => {
            let json = body.octets(limits::DESCRIPTION_BYTES_MAX)?;
            let description: Description = serde_json::from_slice(&json)
                .map_err(|_| Error::wire("a description cannot be read"))?;
            Response::Described(Box::new(description))
        }
        3 => Response::Generated(decode_public_key(body)?),
        4 => Response::PublicKey(decode_public_key(body)?),
        5 => Response::Random(Secret::new(body.octets(limits::RANDOM_BYTES_MAX)?)),
        6 => Response::Signature(body.octets(limits::SIGNATURE_BYTES_MAX)?),
        7 => Response::Unwrapped(Secret::new(body.octets(limits::DATA_KEY_BYTES_MAX)?)),
        8 => Response::Verified(body.flag()?),
        9 => Response::Wrapped(body.octets(limits::BLOB_BYTES_MAX)?),
        _ => return Err(Error::wire("its kind is unknown")),
    })
}

fn decode_public_key(body: &mut Body<'_>) -> Result<PublicKey, Error> {
    let key = body.key()?;
    let kind = match body.octet()? {
        1 => KeyKind::Aes256,
        2 => KeyKind::P256,
        _ => return Err(Error::wire("a kind of key is unknown")),
    };
    Ok(PublicKey { key, kind, point: body.octets(limits::PUBLIC_KEY_BYTES_MAX)? })
}

fn decode_error(body: &mut Body<'_>) -> Result<Error, Error> {
    Ok(match body.octet()? {
        1 => Error::Away { reason: body.text()?, retry_after: body.millis()? },
        2 => Error::Busy { what: body.text()?, limit: body.long()? },
        3 => Error::Damaged { what: body.text()? },
        4 => Error::Deadline { after: body.millis()? },
        5 => Error::Disconnected { path: body.text()?, reason: body.text()? },
        6 => Error::Forbidden { what: body.text()? },
        7 => Error::KeyChanged { key: body.text()? },
        8 => Error::KeyMissing { key: body.text()?, domain: body.text()? },
        9 => Error::Malformed { what: body.text()? },
        10 => Error::MechanismMissing { what: body.text()? },
        11 => Error::Module { path: body.text()?, reason: body.text()? },
        12 => Error::OtherToken { wrapped_by: body.text()?, present: body.text()? },
        13 => Error::Pin { reason: body.text()? },
        14 => Error::PinRefused { fault: body.fault()? },
        15 => Error::Refused { fault: body.fault()? },
        16 => Error::Stopping,
        17 => Error::Token { fault: body.fault()? },
        18 => Error::Wire { what: body.text()? },
        19 => Error::WrongAnswer { what: body.text()? },
        _ => return Err(Error::wire("an error is unknown")),
    })
}

#[cfg(test)]
mod tests;
