//! Presence: how each account wants to be met right now, as far as its devices have said.
//!
//! In memory only: after a restart everybody is offline until they log in and say otherwise. An
//! account is what the strongest of its devices says: dnd, busy, available, away, then offline. A
//! device that comes back within [`limits::REMEMBERED`] is what it was, so that a link that broke
//! does not make a busy person free. UNTIL ends a state: the device is available then. Knows
//! nothing of links and rosters. SPEC.md §8.

pub mod limits;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use protocol::message::{Availability, Presence};
use protocol::timestamp::Timestamp;
use protocol::{Address, AddressBuf};

use crate::clock::Now;

/// The presence of all accounts that have shown any.
#[derive(Debug, Default)]
pub struct Presences {
    accounts: HashMap<AddressBuf, Devices>,
}

#[derive(Debug)]
struct Devices {
    devices: BTreeMap<Box<str>, Device>,
    /// What the contacts were told last.
    told: Presence,
}

#[derive(Debug)]
struct Device {
    presence: Presence,
    /// Since when it is away from its link; `None` while it has one.
    left_at: Option<Duration>,
}

impl Presences {
    /// Nobody is here.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A device has logged in.
    pub fn came(&mut self, device: Address<'_>) {
        let entry = self.device(device);
        entry.left_at = None;
    }

    /// A device has no link any more.
    pub fn left(&mut self, device: Address<'_>, now: Now) {
        self.device(device).left_at = Some(now.since_start);
    }

    /// A device says how its owner wants to be met.
    pub fn set(&mut self, device: Address<'_>, presence: Presence) {
        self.device(device).presence = presence;
    }

    /// How an account, or the account of a device, wants to be met now.
    #[must_use]
    pub fn presence(&self, account: Address<'_>, now: Timestamp) -> Presence {
        let devices = self.accounts.get(account.account().as_str());
        devices.map_or_else(offline, |devices| devices.strongest(now))
    }

    /// The devices of an account that have a link.
    #[must_use]
    pub fn online(&self, account: Address<'_>) -> Vec<AddressBuf> {
        let Some(devices) = self.accounts.get(account.account().as_str()) else {
            return Vec::new();
        };
        devices
            .devices
            .iter()
            .filter(|(_, device)| device.left_at.is_none())
            .filter_map(|(name, _)| AddressBuf::with_device(account, name).ok())
            .collect()
    }

    /// What changed for the contacts of an account since they were told last: before and after.
    /// Counts as telling them.
    pub fn change(&mut self, account: Address<'_>, now: Timestamp) -> Option<(Presence, Presence)> {
        let devices = self.accounts.get_mut(account.account().as_str())?;
        let after = devices.strongest(now);
        if after == devices.told {
            return None;
        }
        let before = std::mem::replace(&mut devices.told, after.clone());
        Some((before, after))
    }

    /// Lets states end whose UNTIL has passed, and forgets devices that stayed away. Gives the
    /// accounts that may have changed.
    pub fn expire(&mut self, now: Now) -> Vec<AddressBuf> {
        let mut changed = Vec::new();
        self.accounts.retain(|account, devices| {
            let count = devices.devices.len();
            devices.devices.retain(|_, device| {
                let away_for = device.left_at.map(|left| now.since_start.saturating_sub(left));
                away_for.is_none_or(|away_for| away_for < limits::REMEMBERED)
            });
            let mut has_ended = devices.devices.len() != count;
            for device in devices.devices.values_mut() {
                if device.presence.until.is_some_and(|until| until <= now.timestamp) {
                    device.presence = available();
                    has_ended = true;
                }
            }
            if has_ended {
                changed.push(account.clone());
            }
            !devices.devices.is_empty() || devices.told.state != Availability::Offline
        });
        changed
    }

    fn device(&mut self, device: Address<'_>) -> &mut Device {
        let account = device.account();
        let devices = self
            .accounts
            .entry(account.to_buf())
            .or_insert_with(|| Devices { devices: BTreeMap::new(), told: offline() });
        let name = device.device().unwrap_or_default();
        devices
            .devices
            .entry(name.into())
            .or_insert_with(|| Device { presence: available(), left_at: None })
    }
}

impl Devices {
    fn strongest(&self, now: Timestamp) -> Presence {
        let online = self.devices.values().filter(|device| device.left_at.is_none());
        let strongest = online
            .map(|device| match device.presence.until {
                Some(until) if until <= now => available(),
                _ => device.presence.clone(),
            })
            .max_by_key(|presence| strength(presence.state));
        strongest.unwrap_or_else(offline)
    }
}

/// Which state counts where devices differ. An idle desk does not hide a phone in the hand, so
/// available goes before away.
const fn strength(state: Availability) -> u8 {
    match state {
        Availability::DoNotDisturb => 4,
        Availability::Busy => 3,
        Availability::Available => 2,
        Availability::Away => 1,
        Availability::Offline => 0,
    }
}

fn available() -> Presence {
    Presence { state: Availability::Available, until: None, alternatives: Vec::new() }
}

/// The presence of somebody who is not here, or does not want to be seen.
#[must_use]
pub fn offline() -> Presence {
    Presence { state: Availability::Offline, until: None, alternatives: Vec::new() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { timestamp: Timestamp(seconds * 1_000), since_start: Duration::from_secs(seconds) }
    }

    fn state(state: Availability) -> Presence {
        Presence { state, until: None, alternatives: Vec::new() }
    }

    #[test]
    fn the_strongest_device_counts_while_it_has_a_link() {
        let mut presences = Presences::new();
        let [one, two] = ["bob@a/d1", "bob@a/d2"].map(|text| Address::parse(text).unwrap());
        let of = |presences: &Presences| presences.presence(one, Timestamp(0)).state;
        assert_eq!(of(&presences), Availability::Offline);
        presences.came(one);
        presences.came(two);
        presences.set(one, state(Availability::Away));
        assert_eq!(of(&presences), Availability::Available);
        presences.set(two, state(Availability::Busy));
        assert_eq!(of(&presences), Availability::Busy);
        presences.set(one, state(Availability::DoNotDisturb));
        assert_eq!(of(&presences), Availability::DoNotDisturb);
        presences.left(one, at(0));
        assert_eq!(of(&presences), Availability::Busy);
        assert_eq!(presences.online(two), [two.to_buf()]);
        presences.left(two, at(0));
        assert_eq!(of(&presences), Availability::Offline);
    }

    #[test]
    fn a_device_that_comes_back_soon_is_what_it_was() {
        let seconds = limits::REMEMBERED.as_secs();
        for (after, expected) in
            [(seconds - 1, Availability::Busy), (seconds, Availability::Available)]
        {
            let mut presences = Presences::new();
            let device = Address::parse("bob@a/d1").unwrap();
            presences.came(device);
            presences.set(device, state(Availability::Busy));
            presences.left(device, at(0));
            presences.change(device, Timestamp(0));
            presences.expire(at(after));
            presences.came(device);
            assert_eq!(presences.presence(device, Timestamp(0)).state, expected, "{after}");
        }
    }

    #[test]
    fn changes_are_told_once_and_until_ends_them() {
        let mut presences = Presences::new();
        let device = Address::parse("bob@a/d1").unwrap();
        presences.came(device);
        let change = presences.change(device, Timestamp(0)).unwrap();
        assert_eq!(change.1.state, Availability::Available);
        assert_eq!(presences.change(device, Timestamp(0)), None);
        let busy = Presence { until: Some(Timestamp(9_000)), ..state(Availability::Busy) };
        presences.set(device, busy.clone());
        assert_eq!(presences.change(device, Timestamp(0)).unwrap().1, busy);
        assert!(presences.expire(at(8)).is_empty());
        assert_eq!(presences.presence(device, Timestamp(8_999)).state, Availability::Busy);
        assert_eq!(presences.presence(device, Timestamp(9_000)).state, Availability::Available);
        assert_eq!(presences.expire(at(9)), [device.account().to_buf()]);
        assert_eq!(presences.change(device, Timestamp(9_000)).unwrap().0, busy);
    }

    #[test]
    fn nothing_is_kept_of_accounts_that_left() {
        let mut presences = Presences::new();
        let device = Address::parse("bob@a/d1").unwrap();
        presences.came(device);
        presences.change(device, Timestamp(0));
        presences.left(device, at(0));
        presences.change(device, Timestamp(0));
        presences.expire(at(limits::REMEMBERED.as_secs()));
        assert!(presences.accounts.is_empty());
    }
}
