//! The plaintext of a sealed line: length, MIME entity, zeros up to a bucket (SPEC.md §8).
//!
//! Owns framing, padding and the cutting of long texts into PARTs. The invariant: a plaintext has
//! one of the sizes of [`BUCKETS`], so its length tells little; padding that is not zeros is
//! refused. Entities are `Content-Type`, a blank line, content (RFC 2045); what a text looks like
//! on a terminal is the business of whoever shows it.

use protocol::parameter::unescape;
use zeroize::Zeroizing;

use crate::limits;

/// Octets of a padded plaintext: the smallest that fits is taken.
pub const BUCKETS: [usize; 3] = [256, 1_024, 4_096];
/// Octets of the length before the entity.
const LENGTH_OCTETS: usize = 4;
/// The type of a text.
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// The longest entity that fits the largest bucket.
pub const ENTITY_OCTETS_MAX: usize = BUCKETS[2] - LENGTH_OCTETS;
/// The longest text that fits one line.
pub const TEXT_OCTETS_MAX: usize =
    ENTITY_OCTETS_MAX - "Content-Type: \r\n\r\n".len() - TEXT_TYPE.len();

/// Why octets are not a plaintext, or not an entity this client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MimeError {
    /// Malformed: not framed as a plaintext.
    #[error("the plaintext is not framed as it should be")]
    Frame,
    /// Malformed: not `Content-Type`, blank line, content.
    #[error("the content is not a MIME entity")]
    Entity,
    /// Incompatible: a content type that cannot be shown.
    #[error("the content has an unknown type")]
    Type,
    /// Resource: longer than the largest bucket or than all parts together.
    #[error("the text is too long")]
    TooLong,
}

/// One MIME entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// The value of `Content-Type`.
    pub content_type: String,
    /// What follows the blank line.
    pub content: Zeroizing<Vec<u8>>,
}

impl Entity {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { content_type: TEXT_TYPE.into(), content: Zeroizing::new(text.as_bytes().to_vec()) }
    }

    /// The text of a `text/plain` entity in UTF-8.
    ///
    /// # Errors
    /// [`MimeError::Type`] for another type, [`MimeError::Entity`] for octets that are not UTF-8.
    pub fn to_text(&self) -> Result<Zeroizing<String>, MimeError> {
        if !self.media_type().eq_ignore_ascii_case("text/plain") {
            return Err(MimeError::Type);
        }
        let text = core::str::from_utf8(&self.content).map_err(|_| MimeError::Entity)?;
        Ok(Zeroizing::new(text.into()))
    }

    /// The type without its parameters.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }

    /// A parameter of the content type; the value is percent-decoded (RFC 2231 without charset).
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.content_type.split(';').skip(1).find_map(|parameter| {
            let (found, value) = parameter.trim().split_once('=')?;
            if found.eq_ignore_ascii_case(name) { unescape(value).ok() } else { None }
        })
    }

    /// The plaintext: framed and padded to the smallest bucket.
    ///
    /// # Errors
    /// [`MimeError::TooLong`] beyond [`ENTITY_OCTETS_MAX`].
    pub fn to_plaintext(&self) -> Result<Zeroizing<Vec<u8>>, MimeError> {
        let head = format!("Content-Type: {}\r\n\r\n", self.content_type);
        let length = head.len() + self.content.len();
        let bucket = BUCKETS
            .into_iter()
            .find(|bucket| length + LENGTH_OCTETS <= *bucket)
            .ok_or(MimeError::TooLong)?;
        let mut plaintext = Zeroizing::new(Vec::with_capacity(bucket));
        // At most `ENTITY_OCTETS_MAX`.
        plaintext.extend_from_slice(&(length as u32).to_be_bytes());
        plaintext.extend_from_slice(head.as_bytes());
        plaintext.extend_from_slice(&self.content);
        plaintext.resize(bucket, 0);
        Ok(plaintext)
    }

    /// Reads a plaintext.
    ///
    /// # Errors
    /// [`MimeError::Frame`] or [`MimeError::Entity`].
    pub fn from_plaintext(plaintext: &[u8]) -> Result<Self, MimeError> {
        let (length, rest) = plaintext.split_first_chunk().ok_or(MimeError::Frame)?;
        let length = u32::from_be_bytes(*length) as usize;
        if !BUCKETS.contains(&plaintext.len()) || length > rest.len() {
            return Err(MimeError::Frame);
        }
        let (entity, padding) = rest.split_at_checked(length).ok_or(MimeError::Frame)?;
        if padding.iter().any(|&octet| octet != 0) {
            return Err(MimeError::Frame);
        }
        let blank = entity.windows(4).position(|w| w == b"\r\n\r\n").ok_or(MimeError::Entity)?;
        let (head, content) = entity.split_at_checked(blank).ok_or(MimeError::Entity)?;
        let head = core::str::from_utf8(head).map_err(|_| MimeError::Entity)?;
        let content_type = head
            .split("\r\n")
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
            })
            .ok_or(MimeError::Entity)?;
        let content = content.get(4..).unwrap_or_default();
        Ok(Self { content_type, content: Zeroizing::new(content.to_vec()) })
    }
}

/// Cuts a text into pieces that each fit one line, at character boundaries.
///
/// # Errors
/// [`MimeError::TooLong`] beyond [`limits::PARTS_MAX`] pieces.
pub fn split(text: &str) -> Result<Vec<&str>, MimeError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        if pieces.len() == limits::PARTS_MAX {
            return Err(MimeError::TooLong);
        }
        let (piece, behind) = rest.split_at(rest.floor_char_boundary(TEXT_OCTETS_MAX));
        pieces.push(piece);
        rest = behind;
        if rest.is_empty() {
            return Ok(pieces);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn buckets_at_n_and_one_more() {
        let overhead = ENTITY_OCTETS_MAX - TEXT_OCTETS_MAX + LENGTH_OCTETS;
        for (length, bucket) in [
            (0, Some(256)),
            (256 - overhead, Some(256)),
            (257 - overhead, Some(1_024)),
            (1_024 - overhead, Some(1_024)),
            (1_025 - overhead, Some(4_096)),
            (TEXT_OCTETS_MAX, Some(4_096)),
            (TEXT_OCTETS_MAX + 1, None),
        ] {
            let plaintext = Entity::text(&"x".repeat(length)).to_plaintext();
            assert_eq!(plaintext.as_ref().ok().map(|text| text.len()), bucket, "{length}");
            if let Ok(plaintext) = plaintext {
                let text = Entity::from_plaintext(&plaintext).unwrap().to_text().unwrap();
                assert_eq!(text.len(), length);
            }
        }
    }

    #[test]
    fn hostile_plaintexts_are_refused() {
        let good = Entity::text("hello").to_plaintext().unwrap();
        let with = |change: fn(&mut Vec<u8>)| {
            let mut octets = good.to_vec();
            change(&mut octets);
            Entity::from_plaintext(&octets)
        };
        assert!(with(|_| ()).is_ok());
        assert_eq!(with(|o| o[255] = 1), Err(MimeError::Frame), "padding");
        assert_eq!(with(|o| o[0] = 1), Err(MimeError::Frame), "length");
        assert_eq!(with(|o| o.truncate(255)), Err(MimeError::Frame), "bucket");
        assert_eq!(with(|o| o.clear()), Err(MimeError::Frame), "empty");
        assert_eq!(with(|o| o[4] = b'X'), Err(MimeError::Entity), "header");
        let image = Entity { content_type: "image/png".into(), ..Entity::text("") };
        assert_eq!(image.to_text(), Err(MimeError::Type));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let text = "жλ漢🙂".repeat(3_000);
        let pieces = split(&text).unwrap();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.len() <= TEXT_OCTETS_MAX));
        assert_eq!(split("").unwrap(), [""]);
        let most = "x".repeat(TEXT_OCTETS_MAX * limits::PARTS_MAX);
        assert_eq!(split(&most).unwrap().len(), limits::PARTS_MAX);
        assert_eq!(split(&format!("{most}x")), Err(MimeError::TooLong));
    }

    #[test]
    fn parameters_of_the_type() {
        let entity = Entity { content_type: "x/y; Name=a%20b ;size=7".into(), ..Entity::text("") };
        assert_eq!(entity.parameter("name").as_deref(), Some("a b"));
        assert_eq!(entity.parameter("size").as_deref(), Some("7"));
        assert_eq!(entity.parameter("none"), None);
        assert_eq!(entity.media_type(), "x/y");
    }
}
