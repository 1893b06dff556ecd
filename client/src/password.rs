//! How strong a password for the key file is, in words a person can act on.
//!
//! Owns nothing: asks zxcvbn, which knows dictionaries, keyboards and dates, and adds the floor
//! that the domain's policy sets. The password stays in this process.

use zxcvbn::zxcvbn;

use crate::limits;

/// What is to be said about a password.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// 0 (worthless) to 4 (strong).
    pub score: u8,
    /// Guesses that a clever attacker needs, as a power of ten.
    pub guesses_log10: f64,
    /// How long the guesses take, at ten thousand a second: what Argon2id leaves an attacker
    /// with a few machines.
    pub time: String,
    /// What is wrong with it.
    pub warning: Option<String>,
    /// What would help.
    pub advice: Vec<String>,
}

impl Assessment {
    /// Whether the password is as strong as the domain's policy asks (`PASSWORD=`, 0 to 4).
    #[must_use]
    pub const fn meets(&self, floor: u8) -> bool {
        self.score >= floor
    }
}

/// Judges `password`; `known` are words an attacker would try first, such as the account.
///
/// Only the first [`limits::PASSWORD_CHARACTERS_JUDGED`] characters are judged, so that the bar
/// stays live while a long text is pasted.
#[must_use]
pub fn assess(password: &str, known: &[&str]) -> Assessment {
    let end = password
        .char_indices()
        .nth(limits::PASSWORD_CHARACTERS_JUDGED)
        .map_or(password.len(), |(position, _)| position);
    let judged = password.get(..end).unwrap_or(password);
    let estimate = zxcvbn(judged, known);
    let feedback = estimate.feedback();
    Assessment {
        score: estimate.score().into(),
        guesses_log10: estimate.guesses_log10(),
        time: estimate.crack_times().offline_slow_hashing_1e4_per_second().to_string(),
        warning: feedback
            .and_then(zxcvbn::feedback::Feedback::warning)
            .map(|warning| warning.to_string()),
        advice: feedback
            .map(|feedback| feedback.suggestions().iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn weak_and_strong() {
        let weak = assess("password", &[]);
        assert_eq!(weak.score, 0);
        assert!(weak.warning.is_some() && !weak.advice.is_empty());
        assert!(!weak.meets(3) && weak.meets(0));
        let strong = assess("tugboat-marble-7-oyster-fjord", &[]);
        assert!(strong.meets(4), "{strong:?}");
        assert!(strong.guesses_log10 > weak.guesses_log10);
        assert!(!strong.time.is_empty());
    }

    #[test]
    fn known_words_are_worth_nothing() {
        let alone = assess("xyloquinterbb", &[]);
        let known = assess("xyloquinterbb", &["xyloquinterbb"]);
        assert!(known.guesses_log10 < alone.guesses_log10);
    }

    #[test]
    fn long_texts_are_judged_by_their_beginning() {
        let limit = limits::PASSWORD_CHARACTERS_JUDGED;
        let same = "ж".repeat(limit);
        let one_more = format!("{same}k2-Q!");
        assert_eq!(assess(&same, &[]).guesses_log10, assess(&one_more, &[]).guesses_log10);
        assert_eq!(assess("", &[]).score, 0);
    }
}
