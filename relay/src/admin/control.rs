//! The control socket: one JSON object asks, one JSON object answers, a line each.
//!
//! Only the owner of the socket's file may connect. A line has at most [`REQUEST_OCTETS_MAX`]
//! octets; a connection may ask any number of times, one after the other.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ring::{Connection, Handle, Listener};

/// Octets of one request.
pub const REQUEST_OCTETS_MAX: usize = 4_096;
/// Connections served at once; more are closed.
const CONNECTIONS_MAX: usize = 16;
/// How long an operator may keep a connection without asking.
const IDLE_DEADLINE: Duration = Duration::from_secs(600);

/// What an operator asks.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// A link that lets somebody register.
    Invite {
        /// The only account that it lets in.
        account: Option<String>,
        /// How long it counts, in milliseconds.
        ttl_ms: u64,
    },
    /// The policy in force.
    Policy,
    /// Sign and publish the policy of the configuration.
    PolicyPublish,
    /// Revoke an account's identity, or one device of it, as the domain's administrator.
    Revoke {
        /// The account.
        account: String,
        /// The device, or all.
        device: Option<String>,
    },
    /// Stop in order.
    Shutdown,
    /// What waits for whom.
    Spool,
    /// Make a new data key now.
    SpoolRekey,
    /// How the relay is.
    Status,
    /// Who is registered.
    Users,
}

/// What an operator is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// It was not done.
    Failed {
        /// Why, and what to do.
        error: String,
    },
    /// It was done; what it gave.
    Done(serde_json::Value),
}

impl Reply {
    /// A reply that says why not.
    pub fn failed(error: impl ToString) -> Self {
        Self::Failed { error: error.to_string() }
    }
}

/// Serves operators until the ring ends.
pub async fn serve<F, Fut>(handle: Handle, listener: Listener, answer: F)
where
    F: Fn(Request) -> Fut + Clone + 'static,
    Fut: Future<Output = Reply> + 'static,
{
    let active = std::rc::Rc::new(std::cell::Cell::new(0_usize));
    loop {
        let Ok(connection) = listener.accept().await else { continue };
        if active.get() >= CONNECTIONS_MAX {
            continue;
        }
        active.set(active.get() + 1);
        let (answer, active) = (answer.clone(), std::rc::Rc::clone(&active));
        let timer = handle.clone();
        handle.spawn(async move {
            let _ = timer.timeout(IDLE_DEADLINE, converse(&connection, answer)).await;
            active.set(active.get() - 1);
        });
    }
}

async fn converse<F, Fut>(connection: &Connection, answer: F)
where
    F: Fn(Request) -> Fut,
    Fut: Future<Output = Reply>,
{
    let mut octets = Vec::new();
    loop {
        while let Some(end) = octets.iter().position(|&octet| octet == b'\n') {
            let line: Vec<u8> = octets.drain(..=end).collect();
            let reply = match serde_json::from_slice(&line) {
                Ok(request) => answer(request).await,
                Err(error) => Reply::failed(format!("not a request: {error}")),
            };
            let mut text = serde_json::to_vec(&reply).unwrap_or_default();
            text.push(b'\n');
            if connection.send_all(text).await.0.is_err() {
                return;
            }
        }
        match connection.receive().await {
            Ok(Some(more)) if octets.len() + more.len() <= REQUEST_OCTETS_MAX => {
                octets.extend_from_slice(&more);
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_as_ctl_writes_them() {
        for request in [
            Request::Status,
            Request::Invite { account: None, ttl_ms: 1 },
            Request::Revoke { account: "a@b".to_owned(), device: Some("d1".to_owned()) },
        ] {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        assert!(serde_json::from_str::<Request>("{\"do\":\"fly\"}").is_err());
    }
}
