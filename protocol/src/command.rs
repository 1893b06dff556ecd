//! Commands: `100 TO bob@b.example FROM alice@a.example/d1 … <body> <signature>` (SPEC.md §2).
//!
//! [`Command`] borrows from the octets it was read from; [`CommandBuilder`] writes one.

use crate::address::Address;
use crate::base64;
use crate::canonical;
use crate::code::Code;
use crate::error::{Error, Malformed};
use crate::line::check_octets;
use crate::parameter::{COMMAND_VALUE_OCTETS_MAX, Parameter, Parameters, WireValue};
use crate::signature::{PublicKey, SignatureError};

/// A command that follows the grammar; nothing else about it is known to be true.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    text: &'a str,
    code: Code,
    to: Option<Address<'a>>,
    from: Option<Address<'a>>,
    parameters: Parameters<'a>,
    body: Option<&'a str>,
    signature: Option<&'a str>,
}

impl<'a> Command<'a> {
    /// Reads a command from the octets of a line without its CRLF.
    ///
    /// # Errors
    /// [`Error::Malformed`] saying what does not follow the grammar.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Error> {
        Self::parse_text(check_octets(octets)?)
    }

    pub(crate) fn parse_text(text: &'a str) -> Result<Self, Error> {
        if !text.is_ascii() {
            return Err(Malformed::Text.into());
        }
        let mut words = text.split(' ');
        let code = words
            .next()
            .and_then(|word| Code::parse(word.as_bytes()))
            .filter(|code| !code.is_reply())
            .ok_or(Malformed::Code)?;
        let mut command = Self {
            text,
            code,
            to: None,
            from: None,
            parameters: Parameters::new(),
            body: None,
            signature: None,
        };
        let mut word = command.read_addresses(&mut words)?;
        while let Some(parameter) = word.filter(|word| word.contains('=')) {
            let parameter = Parameter::parse(parameter, COMMAND_VALUE_OCTETS_MAX)?;
            command.parameters.push(parameter)?;
            word = words.next();
        }
        command.read_slots(word, &mut words)?;
        Ok(command)
    }

    /// Reads TO and FROM; returns the first word behind them.
    fn read_addresses(
        &mut self,
        words: &mut core::str::Split<'a, char>,
    ) -> Result<Option<&'a str>, Error> {
        let mut word = words.next();
        if word == Some("TO") {
            self.to = Some(Address::parse(words.next().ok_or(Malformed::Address)?)?);
            word = words.next();
        }
        if word == Some("FROM") {
            self.from = Some(Address::parse(words.next().ok_or(Malformed::Address)?)?);
            word = words.next();
        }
        Ok(word)
    }

    /// Reads body and signature from `first` on; nothing may follow.
    fn read_slots(
        &mut self,
        first: Option<&'a str>,
        words: &mut core::str::Split<'a, char>,
    ) -> Result<(), Error> {
        let Some(first) = first else { return Ok(()) };
        if first.is_empty() {
            return Err(Malformed::Space.into());
        }
        if self.from.is_none() {
            return Err(Malformed::Surplus.into());
        }
        let second = words.next();
        if let Some(after) = words.next() {
            let what = if after.is_empty() { Malformed::Space } else { Malformed::Surplus };
            return Err(what.into());
        }
        let body_is_absent = first == "-" && second.is_some();
        if !body_is_absent {
            self.body = Some(check_slot(first)?);
        }
        self.signature = second.map(check_slot).transpose()?;
        Ok(())
    }

    /// Starts writing a command.
    pub fn builder(code: Code) -> CommandBuilder {
        CommandBuilder { text: code.to_string() }
    }

    /// The line without CRLF, as it was read.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// TO.
    #[must_use]
    pub const fn to(&self) -> Option<Address<'a>> {
        self.to
    }

    /// FROM.
    #[must_use]
    pub const fn from(&self) -> Option<Address<'a>> {
        self.from
    }

    /// The parameters.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters<'a> {
        &self.parameters
    }

    /// The value of a parameter as on the wire.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.get(name)
    }

    /// The body as on the wire (base64).
    #[must_use]
    pub const fn body_text(&self) -> Option<&'a str> {
        self.body
    }

    /// The signature as on the wire (base64).
    #[must_use]
    pub const fn signature_text(&self) -> Option<&'a str> {
        self.signature
    }

    /// The octets of the body; empty if there is none.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        // The parser took only decodable slots.
        self.body.map(|text| base64::decode(text).unwrap_or_default()).unwrap_or_default()
    }

    /// The octets of the signature; empty if there is none.
    #[must_use]
    pub fn signature(&self) -> Vec<u8> {
        self.signature.map(|text| base64::decode(text).unwrap_or_default()).unwrap_or_default()
    }

    /// The value of a parameter read as a `T`, if present.
    ///
    /// # Errors
    /// [`Error::BadParameter`].
    pub fn read<T: WireValue<'a>>(&self, name: &'static str) -> Result<Option<T>, Error> {
        self.parameters.read(name)
    }

    /// The value of a parameter read as a `T`, which must be present.
    ///
    /// # Errors
    /// [`Error::MissingParameter`] or [`Error::BadParameter`].
    pub fn need<T: WireValue<'a>>(&self, name: &'static str) -> Result<T, Error> {
        self.parameters.need(name)
    }

    /// What the AEAD of a sealed line binds (SPEC.md §4).
    #[must_use]
    pub fn aad(&self) -> Vec<u8> {
        canonical::canonical("CIM1-AAD", self, &[])
    }

    /// What the signature of a line signs (SPEC.md §4).
    #[must_use]
    pub fn tbs(&self) -> Vec<u8> {
        let mut octets = canonical::canonical("CIM1-SIG", self, &[]);
        canonical::push_lp(&mut octets, &self.body());
        octets
    }

    /// Checks the signature of the line with `key` (SPEC.md §4).
    ///
    /// # Errors
    /// [`SignatureError::Signature`], also if there is none.
    pub fn verify(&self, key: &PublicKey) -> Result<(), SignatureError> {
        if self.signature.is_none() {
            return Err(SignatureError::Signature);
        }
        key.verify(&self.tbs(), &self.signature())
    }

    /// `SHA-256(TBS ‖ lp(signature))`: the name of a record, and what tells a repeat from a
    /// reuse of its message id (SPEC.md §6, §8).
    #[must_use]
    pub fn statement_hash(&self) -> [u8; 32] {
        let mut octets = self.tbs();
        canonical::push_lp(&mut octets, &self.signature());
        canonical::sha256(&[&octets])
    }

    /// Appends the line as a relay passes it on, CRLF included: every hop parameter it came
    /// with is dropped, and `hops` (names beginning `H-`) take their place.
    pub fn forward(&self, hops: &[Parameter<'_>], line: &mut Vec<u8>) {
        let mut push = |word: &str| {
            line.extend_from_slice(word.as_bytes());
            line.push(b' ');
        };
        push(self.text.get(..3).unwrap_or_default());
        for (keyword, address) in [("TO", self.to), ("FROM", self.from)] {
            if let Some(address) = address {
                push(keyword);
                push(address.as_str());
            }
        }
        let kept = self.parameters.as_slice().iter().filter(|parameter| !parameter.is_hop());
        for parameter in kept.chain(hops) {
            line.extend_from_slice(parameter.name.as_bytes());
            line.push(b'=');
            line.extend_from_slice(parameter.value.as_bytes());
            line.push(b' ');
        }
        match (self.body, self.signature) {
            (None, None) => {}
            (body, signature) => {
                for slot in [Some(body.unwrap_or("-")), signature].into_iter().flatten() {
                    line.extend_from_slice(slot.as_bytes());
                    line.push(b' ');
                }
            }
        }
        line.pop();
        line.extend_from_slice(b"\r\n");
    }
}

fn check_slot(text: &str) -> Result<&str, Error> {
    if text.is_empty() {
        return Err(Malformed::Space.into());
    }
    if base64::is_slot(text.as_bytes()) { Ok(text) } else { Err(Malformed::Slot.into()) }
}

/// Writes a command word by word: addresses, then parameters, then body and signature.
///
/// The line that comes out is not checked until [`Command::parse`] reads it.
#[derive(Clone, Debug)]
#[must_use]
pub struct CommandBuilder {
    text: String,
}

impl CommandBuilder {
    /// Adds TO.
    pub fn to(mut self, address: Address<'_>) -> Self {
        self.push("TO");
        self.push(address.as_str());
        self
    }

    /// Adds FROM.
    pub fn from(mut self, address: Address<'_>) -> Self {
        self.push("FROM");
        self.push(address.as_str());
        self
    }

    /// Adds a parameter whose value is already in its wire form.
    pub fn parameter(mut self, name: &str, value: impl core::fmt::Display) -> Self {
        self.text.push(' ');
        self.text.push_str(name);
        self.text.push('=');
        // Writing to a String cannot fail.
        let _ = core::fmt::Write::write_fmt(&mut self.text, format_args!("{value}"));
        self
    }

    /// Adds a parameter unless `value` is `None`.
    pub fn parameter_if(self, name: &str, value: Option<impl core::fmt::Display>) -> Self {
        match value {
            Some(value) => self.parameter(name, value),
            None => self,
        }
    }

    /// Adds a parameter, percent-encoding what may not stand for itself.
    pub fn text_parameter(self, name: &str, text: &str) -> Self {
        self.parameter(name, crate::parameter::escape(text))
    }

    /// Adds octets as a base64 parameter.
    pub fn octets_parameter(self, name: &str, octets: &[u8]) -> Self {
        self.parameter(name, base64::encode(octets))
    }

    /// What the AEAD binds, for the line as it stands (SPEC.md §4).
    ///
    /// # Errors
    /// As [`Command::parse`].
    pub fn aad(&self) -> Result<Vec<u8>, Error> {
        Ok(Command::parse(self.text.as_bytes())?.aad())
    }

    /// Ends the line without body and signature.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    /// Ends the line with a body and no signature.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> String {
        self.text.push(' ');
        base64::encode_into(body, &mut self.text);
        self.text
    }

    /// Ends the line with `body` (absent if empty) and the signature that `sign` makes of TBS.
    ///
    /// # Errors
    /// Those of `sign`, or [`Error`] if the line does not follow the grammar.
    pub fn sign<E: From<Error>>(
        mut self,
        body: &[u8],
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, E> {
        let mut tbs = canonical::canonical(
            "CIM1-SIG",
            &Command::parse(self.text.as_bytes()).map_err(E::from)?,
            &[],
        );
        canonical::push_lp(&mut tbs, body);
        let signature = sign(&tbs)?;
        self.text.push(' ');
        if body.is_empty() {
            self.text.push('-');
        } else {
            base64::encode_into(body, &mut self.text);
        }
        self.text.push(' ');
        base64::encode_into(&signature, &mut self.text);
        Ok(self.text)
    }

    fn push(&mut self, word: &str) {
        self.text.push(' ');
        self.text.push_str(word);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_part() {
        let command = Command::parse(
            b"100 TO bob@b.example FROM alice@a.example/d1 SEQ=1 H-ID=9 aGVsbG8 c2ln",
        )
        .unwrap();
        assert_eq!(command.code(), Code::MESSAGE);
        assert_eq!(command.to().unwrap().as_str(), "bob@b.example");
        assert_eq!(command.parameter("SEQ"), Some("1"));
        assert_eq!(command.body(), b"hello");
        assert_eq!(command.signature(), b"sig");
    }

    #[test]
    fn absent_body() {
        let command = Command::parse(b"012 FROM a@b/d H-ID=3 - c2ln").unwrap();
        assert_eq!((command.body_text(), command.signature_text()), (None, Some("c2ln")));
    }

    #[test]
    fn refused() {
        for (line, reply) in [
            ("", 500),
            ("1", 500),
            ("1000", 500),
            ("250", 500),
            ("015 ", 500),
            (" 015", 500),
            ("015  H-ID=1", 500),
            ("015 H-ID=1 ", 500),
            ("015 aGVsbG8", 500),
            ("015 TO", 510),
            ("015 TO ", 510),
            ("015 FROM a@b TO c@d", 500),
            ("100 to a@b FROM c@d", 500),
            ("100 FROM a@b aGVsbG8=", 501),
            ("100 FROM a@b aGVsbG9", 500),
            ("100 FROM a@b -", 500),
            ("100 FROM a@b - -", 500),
            ("100 FROM a@b aGVsbG8 c2ln c2ln", 500),
            ("100 FROM a@b aGVsbG8 A=1", 500),
            ("100 FROM a@b A=1 A=2", 501),
            ("100 FROM a@b H-ID=1 H-ID=1", 501),
            ("100\tFROM a@b", 500),
            ("100 FROM a@b\n", 500),
            ("100 FROM a@b\0", 500),
            ("100 FROM \u{e4}@b", 500),
        ] {
            let parsed = Command::parse(line.as_bytes());
            assert_eq!(parsed.map(|_| ()).map_err(Error::reply_code), Err(reply), "{line:?}");
        }
    }

    #[test]
    fn forty_parameters_and_one_more() {
        let line =
            |count: usize| (0..count).fold(String::from("015"), |line, n| format!("{line} P{n}=1"));
        assert!(Command::parse(line(40).as_bytes()).is_ok());
        let over = Command::parse(line(41).as_bytes()).map(|_| ());
        assert_eq!(over, Err(Error::Malformed(Malformed::TooManyParameters)));
    }

    #[test]
    fn forwarding_drops_the_hop_parameters_it_came_with() {
        let line = b"100 TO b@c FROM a@b/d H-ID=9 SEQ=1 H-DEV=x aGVsbG8 c2ln";
        let mut out = Vec::new();
        Command::parse(line).unwrap().forward(&[Parameter { name: "H-Q", value: "7" }], &mut out);
        assert_eq!(out, b"100 TO b@c FROM a@b/d SEQ=1 H-Q=7 aGVsbG8 c2ln\r\n");
    }
}
