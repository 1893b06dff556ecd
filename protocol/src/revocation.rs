//! Revocations (602): a key that must no longer be trusted (SPEC.md §6).
//!
//! Signed by the identity key, by the recovery key (which the line then shows in TLV 3), or by
//! the domain key with `BY=domain`, which clients show as an administrator's act. Without DEV it
//! names the identity key.

use crate::address::{Address, AddressBuf};
use crate::code::Code;
use crate::command::Command;
use crate::error::{Error, StatementError};
use crate::identifier::{MessageId, RecordName};
use crate::record::{Record, TLV_RECOVERY, push_recovery_key, read_key, recovery_hash};
use crate::signature::{PublicKey, Signer};
use crate::timestamp::Timestamp;
use crate::tlv::{Reader, Writer, put_once};

/// Whose signature a revocation carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedBy {
    /// The domain key.
    Domain,
    /// The identity key of the account.
    Identity,
    /// The recovery key, shown here.
    Recovery(PublicKey),
}

/// A revocation that follows its form; its signature is checked by [`Revocation::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The account.
    pub account: AddressBuf,
    /// The record that lists the revoked key.
    pub record: RecordName,
    /// The device whose key is revoked; `None` for the identity key.
    pub device: Option<Box<str>>,
    /// Who signs.
    pub by: RevokedBy,
    /// When.
    pub at: Timestamp,
    /// The line's own id.
    pub id: MessageId,
}

impl Revocation {
    /// Reads a 602 line without checking its signature.
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::MissingParameter`], [`Error::BadParameter`],
    /// [`Error::UnknownCode`], [`StatementError::Body`], [`StatementError::Key`].
    pub fn parse(command: &Command<'_>) -> Result<Self, Error> {
        if command.code() != Code::REVOKE {
            return Err(Error::UnknownCode(command.code()));
        }
        let account = command.from().filter(|from| from.device().is_none());
        let account = account.filter(|_| command.to().is_none()).ok_or(Error::BadAddress)?;
        let mut recovery = None;
        for tlv in Reader::new(&command.body()) {
            let tlv = tlv?;
            if tlv.kind == TLV_RECOVERY {
                put_once(&mut recovery, read_key(tlv.value)?)?;
            }
        }
        let by = match (command.parameter("BY"), recovery) {
            (None, None) => RevokedBy::Identity,
            (None, Some(key)) => RevokedBy::Recovery(key),
            (Some("domain"), None) => RevokedBy::Domain,
            (Some("domain"), Some(_)) => return Err(StatementError::Body.into()),
            (Some(_), _) => return Err(Error::BadParameter("BY")),
        };
        let device = command.parameter("DEV");
        if device.is_some_and(|device| !crate::address::is_device(device)) {
            return Err(Error::BadParameter("DEV"));
        }
        Ok(Self {
            account: account.to_buf(),
            record: command.need("KR")?,
            device: device.map(Into::into),
            by,
            at: command.need("TS")?,
            id: command.need("MID")?,
        })
    }

    /// Reads a 602 line and checks it against the record that it names. `domain_key` is the
    /// key of the account's domain, needed only for `BY=domain`.
    ///
    /// # Errors
    /// As [`Revocation::parse`]; [`StatementError::Account`] and [`StatementError::Previous`]
    /// if `record` is not the one it names, [`StatementError::UnknownDevice`],
    /// [`StatementError::Recovery`] if the key shown is not the record's recovery key,
    /// [`StatementError::Signature`].
    pub fn verify(
        command: &Command<'_>,
        record: &Record,
        domain_key: Option<&PublicKey>,
    ) -> Result<Self, Error> {
        let revocation = Self::parse(command)?;
        if revocation.account.as_address() != record.account() {
            return Err(StatementError::Account.into());
        }
        if revocation.record != record.name() {
            return Err(StatementError::Previous.into());
        }
        if let Some(device) = &revocation.device {
            record.device(device).ok_or(StatementError::UnknownDevice)?;
        }
        let key = match &revocation.by {
            RevokedBy::Domain => domain_key.ok_or(StatementError::Signature)?,
            RevokedBy::Identity => record.identity(),
            RevokedBy::Recovery(key) if record.recovery() == Some(recovery_hash(key)) => key,
            RevokedBy::Recovery(_) => return Err(StatementError::Recovery.into()),
        };
        command.verify(key)?;
        Ok(revocation)
    }

    /// Writes the line. `by` must fit the signer: the recovery key shown, else the identity
    /// or the domain key.
    ///
    /// # Errors
    /// [`StatementError::Signer`], [`StatementError::Key`] if another recovery key is shown
    /// than the one that signs.
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, Error> {
        let mut body = Writer::new();
        if let RevokedBy::Recovery(key) = &self.by {
            if key != signer.public_key() {
                return Err(StatementError::Key.into());
            }
            push_recovery_key(&mut body, key)?;
        }
        Command::builder(Code::REVOKE)
            .from(self.account())
            .parameter("KR", self.record)
            .parameter_if("DEV", self.device.as_ref())
            .parameter_if("BY", (self.by == RevokedBy::Domain).then_some("domain"))
            .parameter("TS", self.at)
            .parameter("MID", self.id)
            .sign(&body.finish(), |tbs| signer.sign(tbs).map_err(Error::from))
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> Address<'_> {
        self.account.as_address()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::StatementError as Why;
    use crate::record::RecordBuilder;
    use crate::signature::SoftwareSigner;

    fn key(seed: u8) -> SoftwareSigner {
        SoftwareSigner::ed25519(&[seed; 32]).unwrap()
    }

    fn record() -> Record {
        let account = Address::parse("alice@a.example").unwrap();
        let line = RecordBuilder::new(account, Timestamp(1), Timestamp(9))
            .device("d1", key(11).public_key())
            .recovery(Some(recovery_hash(key(21).public_key())))
            .sign(&key(1))
            .unwrap();
        Record::parse(&Command::parse(line.as_bytes()).unwrap()).unwrap()
    }

    fn revocation(device: Option<&str>, by: RevokedBy) -> Revocation {
        Revocation {
            account: AddressBuf::parse("alice@a.example").unwrap(),
            record: record().name(),
            device: device.map(Into::into),
            by,
            at: Timestamp(5),
            id: MessageId::from_octets(&[5; 16]),
        }
    }

    fn verify(line: &str, domain: Option<&PublicKey>) -> Result<Revocation, Error> {
        Revocation::verify(&Command::parse(line.as_bytes()).unwrap(), &record(), domain)
    }

    #[test]
    fn each_key_that_may_revoke() {
        let domain = key(31);
        for device in [None, Some("d1")] {
            for (by, signer) in [
                (RevokedBy::Identity, key(1)),
                (RevokedBy::Recovery(key(21).public_key().clone()), key(21)),
                (RevokedBy::Domain, key(31)),
            ] {
                let revocation = revocation(device, by);
                let line = revocation.sign(&signer).unwrap();
                assert_eq!(verify(&line, Some(domain.public_key())), Ok(revocation));
            }
        }
    }

    #[test]
    fn refused() {
        let other = RevokedBy::Recovery(key(22).public_key().clone());
        let good = revocation(Some("d1"), RevokedBy::Identity);
        for (name, revocation, seed, why) in [
            ("device key", good.clone(), 11, Why::Signature),
            ("another recovery key", Revocation { by: other, ..good.clone() }, 22, Why::Recovery),
            (
                "no domain key at hand",
                Revocation { by: RevokedBy::Domain, ..good.clone() },
                31,
                Why::Signature,
            ),
            (
                "another record",
                Revocation { record: RecordName::from_octets(&[0; 32]), ..good.clone() },
                1,
                Why::Previous,
            ),
            ("no such device", revocation(Some("d9"), RevokedBy::Identity), 1, Why::UnknownDevice),
            (
                "another account",
                Revocation { account: AddressBuf::parse("bob@a.example").unwrap(), ..good },
                1,
                Why::Account,
            ),
        ] {
            let line = revocation.sign(&key(seed)).unwrap();
            assert_eq!(verify(&line, None), Err(why.into()), "{name}");
        }
    }

    #[test]
    fn malformed() {
        let id = MessageId::from_octets(&[0; 16]);
        let kr = RecordName::from_octets(&[0; 32]);
        for (line, reply) in [
            (format!("602 FROM alice@a/d1 KR={kr} TS=1 MID={id} - c2ln"), 510),
            (format!("602 TO b@b FROM alice@a KR={kr} TS=1 MID={id} - c2ln"), 510),
            (format!("602 FROM alice@a TS=1 MID={id} - c2ln"), 501),
            (format!("602 FROM alice@a KR={kr} MID={id} - c2ln"), 501),
            (format!("602 FROM alice@a KR={kr} TS=1 - c2ln"), 501),
            (format!("602 FROM alice@a KR={kr} DEV=D1 TS=1 MID={id} - c2ln"), 501),
            (format!("602 FROM alice@a KR={kr} BY=me TS=1 MID={id} - c2ln"), 501),
            (format!("602 FROM alice@a KR={kr} TS=1 MID={id} AwAB c2ln"), 501),
            (format!("601 FROM alice@a KR={kr} TS=1 MID={id} - c2ln"), 502),
        ] {
            let parsed = Revocation::parse(&Command::parse(line.as_bytes()).unwrap());
            assert_eq!(parsed.map_err(Error::reply_code), Err(reply), "{line}");
        }
    }
}
