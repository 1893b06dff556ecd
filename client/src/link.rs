//! The invitation link: where a domain is, by what it is known, and a code to join it.
//!
//! Owns the form `cim:demo.local?relay=HOST:PORT&invite=CODE&key=…&tls=…`. `key` is the SHA-256 of
//! the domain's identity key, `tls` that of the relay's TLS key (SubjectPublicKeyInfo), both in
//! base64url without padding: whoever hands out the link vouches for the domain. An unknown or
//! doubled field is refused, so a mistyped pin is never taken for none.

use core::fmt;

use protocol::base64;
use protocol::parameter::{escape, unescape};
use protocol::{Address, AddressBuf};

use crate::keyfile::DomainPin;
use crate::limits;

/// An invitation, read.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// The domain.
    pub domain: AddressBuf,
    /// `host:port` of the relay; `None` to ask the DNS.
    pub relay: Option<String>,
    /// The code that admits one account.
    pub invitation: Option<String>,
    /// SHA-256 of the domain's identity key.
    pub key: Option<[u8; 32]>,
    /// SHA-256 of the relay's TLS key.
    pub tls: Option<[u8; 32]>,
}

/// Why a text is no invitation link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Malformed: not `cim:` and a domain.
    #[error("an invitation link begins with cim: and the name of a domain")]
    Domain,
    /// Malformed: this field occurs twice, is empty or cannot be read.
    #[error("the invitation link has a bad field: {0}")]
    Field(String),
    /// Resource: longer than any link is.
    #[error("the invitation link is too long")]
    TooLong,
}

impl Link {
    /// Reads a link.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        if text.len() > limits::LINK_OCTETS_MAX {
            return Err(LinkError::TooLong);
        }
        let rest = text.trim().strip_prefix("cim:").ok_or(LinkError::Domain)?;
        let (domain, fields) = rest.split_once('?').unwrap_or((rest, ""));
        let domain = Address::parse(domain).map_err(|_| LinkError::Domain)?;
        if !domain.is_domain() {
            return Err(LinkError::Domain);
        }
        let mut link =
            Self { domain: domain.to_buf(), relay: None, invitation: None, key: None, tls: None };
        for field in fields.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            link.set(name, value).ok_or_else(|| LinkError::Field(escape(name)))?;
        }
        Ok(link)
    }

    /// What the key file keeps of it.
    #[must_use]
    pub fn to_pin(&self) -> DomainPin {
        DomainPin {
            relay: self.relay.clone(),
            key: self.key.map(|hash| base64::encode(&hash)),
            tls: self.tls.map(|hash| base64::encode(&hash)),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let is_new = match name {
            "relay" => self.relay.replace(host_and_port(value)?).is_none(),
            "invite" => {
                let code = unescape(value).ok().filter(|code| !code.is_empty())?;
                self.invitation.replace(code).is_none()
            }
            "key" => self.key.replace(hash(value)?).is_none(),
            "tls" => self.tls.replace(hash(value)?).is_none(),
            _ => false,
        };
        is_new.then_some(())
    }
}

impl fmt::Display for Link {
    /// Writes the link; the invitation in it admits whoever reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cim:{}", self.domain)?;
        let hash = |hash: &[u8; 32]| base64::encode(hash).replace('+', "-").replace('/', "_");
        let fields = [
            ("relay", self.relay.clone()),
            ("invite", self.invitation.as_deref().map(escape)),
            ("key", self.key.as_ref().map(hash)),
            ("tls", self.tls.as_ref().map(hash)),
        ];
        let mut separator = '?';
        for (name, value) in fields {
            if let Some(value) = value {
                write!(f, "{separator}{name}={value}")?;
                separator = '&';
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("domain", &self.domain).finish_non_exhaustive()
    }
}

fn hash(value: &str) -> Option<[u8; 32]> {
    if value.contains(['+', '/']) {
        return None;
    }
    base64::decode_array(&value.replace('-', "+").replace('_', "/")).ok()
}

/// `host:port`, `address:port` or `[IPv6]:port`; the port from 1.
fn host_and_port(value: &str) -> Option<String> {
    let (host, port) = value.rsplit_once(':')?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0)
        && port.bytes().all(|octet| octet.is_ascii_digit());
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<core::net::Ipv6Addr>().is_ok());
    let is_name = !host.is_empty()
        && host.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-'));
    (is_port && (is_v6 || is_name)).then(|| value.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            domain: AddressBuf::parse("demo.local").unwrap(),
            relay: Some("127.0.0.1:7700".into()),
            invitation: Some("A b&c=".into()),
            key: Some([0xFB; 32]),
            tls: Some([0xFF; 32]),
        }
    }

    #[test]
    fn round_trip() {
        let text = link().to_string();
        assert_eq!(Link::parse(&text), Ok(link()), "{text}");
        assert!(!text.contains(['+', ' ']) && text.matches('/').count() == 0);
        let bare = Link::parse("cim:demo.local").unwrap();
        assert_eq!(bare.to_string(), "cim:demo.local");
        assert_eq!(bare.to_pin(), DomainPin { relay: None, key: None, tls: None });
        assert!(!format!("{:?}", link()).contains("A b"));
    }

    #[test]
    fn relays() {
        for relay in ["relay.a.example:7700", "[::1]:7700", "10.0.0.1:1"] {
            let text = format!("cim:a.example?relay={relay}");
            assert_eq!(Link::parse(&text).unwrap().relay.as_deref(), Some(relay));
        }
        for relay in ["", "host", ":7700", "host:0", "host:65536", "host:+1", "::1:7700", "a b:1"] {
            assert!(Link::parse(&format!("cim:a.example?relay={relay}")).is_err(), "{relay}");
        }
    }

    #[test]
    fn refused() {
        let hash = "A".repeat(43);
        for text in [
            "",
            "demo.local",
            "cim:",
            "cim:alice@demo.local",
            "cim:Demo.local",
            "cim:demo.local?key=",
            "cim:demo.local?key=AAAA",
            "cim:demo.local?invite=",
            "cim:demo.local?invite=%zz",
            "cim:demo.local?kye=AAAA",
            "cim:demo.local?invite=a&invite=b",
            &format!("cim:demo.local?key={hash}="),
            &format!("cim:demo.local?tls={}+", "A".repeat(42)),
            &format!("cim:demo.local?key={hash}&key={hash}"),
        ] {
            assert!(Link::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn length_at_n_and_one_more() {
        let link = |length: usize| {
            let head = "cim:demo.local?invite=";
            Link::parse(&format!("{head}{}", "a".repeat(length - head.len())))
        };
        assert!(link(limits::LINK_OCTETS_MAX).is_ok());
        assert_eq!(link(limits::LINK_OCTETS_MAX + 1), Err(LinkError::TooLong));
    }
}
