//! Who this device is, and what it signs with.
//!
//! Owns the signers: the device key, and the identity key where this device holds it. The
//! invariant: every line of this device is signed here, over the octets of SPEC.md §4.

use protocol::command::CommandBuilder;
use protocol::signature::Signer;
use protocol::{Address, AddressBuf};

/// This device and its keys.
pub struct Identity {
    account: AddressBuf,
    device: AddressBuf,
    signer: Box<dyn Signer + Send>,
    owner: Option<Box<dyn Signer + Send>>,
}

impl Identity {
    /// The device `name` of `account` with its signature key; `owner` is the account's identity
    /// key, if this device holds it.
    ///
    /// # Errors
    /// [`protocol::Error`] if `account/name` is no address of a device.
    pub fn new(
        account: Address<'_>,
        name: &str,
        signer: Box<dyn Signer + Send>,
        owner: Option<Box<dyn Signer + Send>>,
    ) -> Result<Self, protocol::Error> {
        let device = AddressBuf::with_device(account, name)?;
        if !account.is_account() {
            return Err(protocol::Error::BadAddress);
        }
        Ok(Self { account: account.to_buf(), device, signer, owner })
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> Address<'_> {
        self.account.as_address()
    }

    /// The full address of this device.
    #[must_use]
    pub fn device(&self) -> Address<'_> {
        self.device.as_address()
    }

    /// The domain of the account.
    #[must_use]
    pub fn domain(&self) -> AddressBuf {
        // A domain of a valid address is an address.
        AddressBuf::parse(self.account().domain()).unwrap_or_else(|_| self.account.clone())
    }

    /// The device's signature key.
    #[must_use]
    pub fn signer(&self) -> &dyn Signer {
        &*self.signer
    }

    /// The account's identity key, if this device holds it.
    #[must_use]
    pub fn owner(&self) -> Option<&dyn Signer> {
        self.owner.as_deref().map(|owner| owner as &dyn Signer)
    }

    /// Takes another identity key, after a rotation.
    pub fn set_owner(&mut self, owner: Box<dyn Signer + Send>) {
        self.owner = Some(owner);
    }

    /// Ends a line with `body` (absent if empty) and the device's signature.
    ///
    /// # Errors
    /// [`protocol::Error`] if the signer refuses or the line does not follow the grammar.
    pub fn sign(&self, line: CommandBuilder, body: &[u8]) -> Result<String, protocol::Error> {
        line.sign(body, |tbs| self.signer.sign(tbs).map_err(protocol::Error::from))
    }
}
