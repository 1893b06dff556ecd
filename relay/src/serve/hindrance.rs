//! What keeps the relay from doing all it is for, and when the log tells of it.
//!
//! `/ready` answers whoever asks; [`Watch`] is for whoever reads the log afterwards: when did the
//! token go, and when did it come back? It tells when the kind changes and not when a figure in the
//! text does: a nearly full disk has fewer octets free with every look.

use std::fmt;
use std::mem::discriminant;

use crate::event::Event;
use crate::store::StoreError;

/// Why `/ready` says no. Its text is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// A stop was asked for.
    Stopping,
    /// The token does not serve, with what it says about that.
    Token(String),
    /// The store does not take everything.
    Store(StoreError),
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("stopping"),
            Self::Token(state) => write!(
                f,
                "the token is away: {state}; chat goes on, new logins and, after a while, storing \
                 wait for it"
            ),
            Self::Store(error) => write!(f, "{error}; {}", error.remedy()),
        }
    }
}

impl Hindrance {
    /// Whether a person who was told of one need not be told of the other.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Store(one), Self::Store(other)) => discriminant(one) == discriminant(other),
            _ => self == other,
        }
    }
}

/// Remembers what was told last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    told: Option<Hindrance>,
}

impl Watch {
    /// What is to be told after a look. What comes and goes between two looks is not, nor is a
    /// stop: it has events of its own.
    pub(super) fn look(&mut self, now: Option<Hindrance>) -> Option<(Event, Option<&Hindrance>)> {
        match (&self.told, &now) {
            (None, None) | (_, Some(Hindrance::Stopping)) => None,
            (Some(told), Some(now)) if told.is_same(now) => None,
            _ => {
                self.told = now;
                let told = self.told.as_ref();
                Some((if told.is_some() { Event::Hindered } else { Event::Unhindered }, told))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    /// The events of a series of looks, none where nothing is told.
    fn told(looks: &[Option<Hindrance>]) -> Vec<Option<Event>> {
        let mut watch = Watch::default();
        looks.iter().map(|look| watch.look(look.clone()).map(|(event, _)| event)).collect()
    }

    fn token(text: &str) -> Option<Hindrance> {
        Some(Hindrance::Token(text.to_owned()))
    }

    const fn full(free: u64) -> Option<Hindrance> {
        Some(Hindrance::Store(StoreError::Full { free, reserve: 9 }))
    }

    #[test]
    fn each_change_is_told_once() {
        let looks = [None, token("out"), token("out"), token("locked"), full(1), None, None];
        let (hindered, over) = (Some(Event::Hindered), Some(Event::Unhindered));
        let events = [None, hindered.clone(), None, hindered.clone(), hindered, over, None];
        assert_eq!(told(&looks), events);
    }

    #[test]
    fn another_figure_is_no_news() {
        assert_eq!(told(&[full(1), full(2), full(3)])[1..], [None, None]);
        let busy = Some(Hindrance::Store(StoreError::Busy));
        assert_eq!(told(&[full(1), busy])[1], Some(Event::Hindered), "another reason is");
    }

    #[test]
    fn a_stop_neither_hinders_nor_ends_what_did() {
        let stopping = Some(Hindrance::Stopping);
        assert_eq!(told(&[stopping.clone(), None]), [None, None]);
        assert_eq!(told(&[full(1), stopping, full(2)])[1..], [None, None]);
    }

    #[test]
    fn what_is_told_has_its_text() {
        let mut watch = Watch::default();
        let (_, hindrance) = watch.look(full(1)).unwrap();
        let text = hindrance.unwrap().to_string();
        assert!(text.contains("has 1 octets free") && text.contains("free space"), "{text}");
        assert_eq!(watch.look(None).unwrap(), (Event::Unhindered, None));
        let text = token("not plugged in").unwrap().to_string();
        assert!(text.starts_with("the token is away: not plugged in; chat goes on"), "{text}");
    }
}
