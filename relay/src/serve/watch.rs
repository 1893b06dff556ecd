//! Says in the log when something hinders the relay, and when that is over.
//!
//! `/ready` answers whoever asks; this is for whoever reads the log afterwards: when did the token
//! go, and when did it come back?

use std::time::Duration;

use super::operate::Operator;
use crate::event::Event;

/// How often it looks. What comes and goes in between is not told.
const LOOK: Duration = Duration::from_millis(250);

/// Looks until the loop ends.
pub(super) async fn watch(operator: Operator) {
    let mut before = None;
    loop {
        let now = operator.hindrance();
        if let Some(event) = change(before.as_deref(), now.as_deref()) {
            operator.relay.borrow_mut().reporter.report(&event);
            if let Some(hindrance) = &now {
                tracing::warn!(event = "hindrance", text = %hindrance);
            }
        }
        before = now;
        operator.handle.sleep(LOOK).await;
    }
}

/// What has changed between two looks; another reason for the same state is news as well.
fn change(before: Option<&str>, now: Option<&str>) -> Option<Event> {
    match (before, now) {
        (_, Some(_)) if before != now => Some(Event::Hindered),
        (Some(_), None) => Some(Event::Unhindered),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        assert_eq!(change(None, None), None);
        assert_eq!(change(None, Some("token")), Some(Event::Hindered));
        assert_eq!(change(Some("token"), Some("token")), None);
        assert_eq!(change(Some("token"), Some("disk")), Some(Event::Hindered));
        assert_eq!(change(Some("disk"), None), Some(Event::Unhindered));
    }
}
