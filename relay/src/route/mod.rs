//! Whom an address means: the devices that get a line, and what their owner thinks of the sender.
//!
//! Owns table `Session`, in which it stands which sessions promised signatures. Decides, and holds
//! neither connections nor queues. SPEC.md §5 (fan-out), §7 (signed or not), §8 (presence).

mod session;

use protocol::{Address, AddressBuf};

pub use session::{EPOCH_MS, SignedSessions};

/// What the owner of an address is to a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Has approved the sender: is told the truth about delivery and presence.
    Approved,
    /// Has blocked the sender: gets nothing, and the sender is told nothing.
    Blocked,
    /// Is the sender's own account.
    Own,
    /// Has not approved the sender: gets the line, and the sender is told nothing.
    Stranger,
    /// Does not exist.
    Unknown,
}

impl Relation {
    /// Whether the sender may know what became of its line.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Approved | Self::Own)
    }
}

/// Where a line goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FanOut {
    /// Devices that it is for.
    pub recipients: Vec<AddressBuf>,
    /// The sender's other devices, which show what it sent.
    pub copies: Vec<AddressBuf>,
}

/// The devices that a line from `from` to `to` goes to. `listed` are the devices of `to`'s
/// account, `own` those of `from`'s account if copies are due.
#[must_use]
pub fn fan_out(
    to: Address<'_>,
    from: Address<'_>,
    listed: Vec<AddressBuf>,
    own: Vec<AddressBuf>,
) -> FanOut {
    let mut recipients = listed;
    recipients.retain(|device| {
        let device = device.as_address();
        device != from && (!to.is_device() || device == to)
    });
    let mut copies = own;
    copies.retain(|device| device.as_address() != from && !recipients.contains(device));
    FanOut { recipients, copies }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<AddressBuf> {
        texts.iter().map(|text| AddressBuf::parse(text).unwrap()).collect()
    }

    #[test]
    fn fan_out_of_accounts_and_devices() {
        let (bob, alice) = (["b@x/d7", "b@x/d8"], ["a@x/d1", "a@x/d2"]);
        for (to, listed, own, recipients, copies) in [
            ("b@x", &bob[..], &alice[..], &["b@x/d7", "b@x/d8"][..], &["a@x/d2"][..]),
            ("b@x/d8", &bob, &[], &["b@x/d8"], &[]),
            ("b@x/d9", &bob, &[], &[], &[]),
            ("a@x", &alice, &alice, &["a@x/d2"], &[]),
            ("a@x/d2", &alice, &[], &["a@x/d2"], &[]),
            ("a@x/d1", &alice, &[], &[], &[]),
        ] {
            let from = Address::parse("a@x/d1").unwrap();
            let to = Address::parse(to).unwrap();
            let found = fan_out(to, from, addresses(listed), addresses(own));
            let recipients = addresses(recipients);
            assert_eq!(found, FanOut { recipients, copies: addresses(copies) }, "{to}");
        }
    }
}
