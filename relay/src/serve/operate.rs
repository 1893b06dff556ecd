//! What `ctl` and the monitor ask, answered: by the domain where it decides, by the glue where
//! it knows.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use protocol::policy::Policy;
use protocol::{Address, AddressBuf};
use serde_json::{Value, json};

use super::Relay;
use super::hindrance::Hindrance;
use super::stop::Stop;
use crate::admin::control::{Reply, Request};
use crate::admin::metric::Metrics;
use crate::admin::monitor::Page;
use crate::config::Configuration;
use crate::net::Server;
use crate::ring::Handle;
use crate::session::Ticket;
use crate::session::operator::{OperatorAnswer, OperatorReply, OperatorRequest, Status, User};
use crate::store::embedded::Controls;

/// How often a waiting request looks for its answer.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long an operator waits at most; the request may still be done later.
const PATIENCE: Duration = Duration::from_secs(30);
/// Accounts that one answer lists at most.
pub(super) const USERS_MAX: usize = 10_000;

/// What an invitation's link tells besides its code.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Host and port of the relay.
    pub relay: String,
    /// The domain.
    pub domain: String,
    /// SHA-256 of the domain's identity key.
    pub domain_key: [u8; 32],
    /// SHA-256 of the TLS key.
    pub tls_key: [u8; 32],
}

impl Announcement {
    /// The link that carries an invitation's code.
    #[must_use]
    pub fn link(&self, code: &str) -> String {
        let hash =
            |octets: &[u8]| protocol::base64::encode(octets).replace('+', "-").replace('/', "_");
        format!(
            "cim:{}?relay={}&invite={}&key={}&tls={}",
            self.domain,
            self.relay,
            protocol::parameter::escape(code),
            hash(&self.domain_key),
            hash(&self.tls_key)
        )
    }
}

/// Answers operators and scrapers. Cheap to clone; stays on the loop's thread.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) handle: Handle,
    pub(super) relay: Rc<RefCell<Relay>>,
    pub(super) server: Rc<Server>,
    pub(super) client: hsm::Client,
    pub(super) controls: Controls,
    pub(super) announcement: Rc<Announcement>,
    pub(super) configuration: Rc<Configuration>,
    pub(super) stop: Stop,
}

impl Operator {
    /// The answer to what `ctl` asks.
    pub(super) async fn answer(self, request: Request) -> Reply {
        let result = match request {
            Request::Invite { account, ttl_ms } => self.invite(account, ttl_ms).await,
            Request::Policy => self.policy(OperatorRequest::Policy).await,
            Request::PolicyPublish => self.publish().await,
            Request::Revoke { account, device } => self.revoke(&account, device).await,
            Request::Shutdown => {
                self.stop.ask();
                Ok(json!({ "stopping": true }))
            }
            Request::Spool => Ok(self.spool()),
            Request::SpoolRekey => self.rekey().await,
            Request::Status => self.status().await,
            Request::Users => self.users().await,
        };
        result.map_or_else(Reply::failed, Reply::Done)
    }

    /// The monitor's page at `path`.
    pub(super) fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/alive" => Some(Page { status: 200, body: "alive\n".to_owned() }),
            "/ready" => Some(match self.hindrance() {
                None => Page { status: 200, body: "ready\n".to_owned() },
                Some(hindrance) => Page { status: 503, body: format!("{hindrance}\n") },
            }),
            "/metrics" => Some(Page { status: 200, body: self.metrics() }),
            _ => None,
        }
    }

    /// What keeps the relay from doing all it is for; `None` if nothing.
    pub(super) fn hindrance(&self) -> Option<Hindrance> {
        if self.stop.is_asked() {
            return Some(Hindrance::Stopping);
        }
        let health = self.client.health();
        if !health.is_ready() {
            return Some(Hindrance::Token(super::report::token_state(&health)));
        }
        self.controls.refusal().map(Hindrance::Store)
    }

    async fn invite(&self, account: Option<String>, ttl_ms: u64) -> Result<Value, String> {
        let account = account.as_deref().map(AddressBuf::parse).transpose();
        let account = account.map_err(|error| error.to_string())?;
        let valid_for = Duration::from_millis(ttl_ms);
        match self.ask(OperatorRequest::Invite { account, valid_for }).await? {
            OperatorAnswer::Invited { code } => {
                let now = self.relay.borrow().clock.now();
                Ok(json!({
                    "link": self.announcement.link(&code),
                    "expires": now.timestamp.plus_ms(ttl_ms).0,
                }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn policy(&self, request: OperatorRequest) -> Result<Value, String> {
        match self.ask(request).await? {
            OperatorAnswer::Policy { policy, line } => Ok(json!({
                "version": policy.version,
                "valid_from": policy.not_before.0,
                "valid_until": policy.not_after.0,
                "signed_sessions_only": policy.is_signed,
                "file_octets_max": policy.file_octets_max,
                "line": line,
            })),
            other => Err(unexpected(&other)),
        }
    }

    async fn publish(&self) -> Result<Value, String> {
        let now = self.relay.borrow().clock.now();
        let wanted = wanted_policy(&self.configuration, &self.announcement, now.timestamp)?;
        self.policy(OperatorRequest::PolicyPublish { wanted: Box::new(wanted) }).await
    }

    async fn revoke(&self, account: &str, device: Option<String>) -> Result<Value, String> {
        let account = AddressBuf::parse(account).map_err(|error| error.to_string())?;
        let device = device.map(String::into_boxed_str);
        match self.ask(OperatorRequest::Revoke { account, device }).await? {
            OperatorAnswer::Revoked { is_new } => Ok(json!({ "revoked": true, "new": is_new })),
            other => Err(unexpected(&other)),
        }
    }

    async fn users(&self) -> Result<Value, String> {
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            match self.ask(OperatorRequest::Users { after }).await? {
                OperatorAnswer::Users { users, next } => {
                    rows.extend(users.iter().map(user_row));
                    if next.is_none() || rows.len() >= USERS_MAX {
                        return Ok(json!({ "users": rows, "complete": next.is_none() }));
                    }
                    after = next;
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    async fn status(&self) -> Result<Value, String> {
        let status = match self.ask(OperatorRequest::Status).await? {
            OperatorAnswer::Status(status) => status,
            other => return Err(unexpected(&other)),
        };
        let (health, hindrance) = (self.client.health(), self.hindrance());
        Ok(json!({
            "domain": self.configuration.domain,
            "version": env!("CARGO_PKG_VERSION"),
            "ready": hindrance.is_none(),
            "hindrance": hindrance.map(|it| it.to_string()),
            "connections": status.links,
            "devices_online": status.devices_online,
            "policy_version": status.policy_version,
            "commits_waiting": status.commits_waiting,
            "signatures_waiting": status.signatures_waiting,
            "handshakes_waiting": self.server.handshakes_waiting(),
            "token": super::report::token_state(&health),
            "store": store_figures(&status),
            "ciphers": accel::capability::capability().to_string().lines().collect::<Vec<_>>(),
        }))
    }

    fn spool(&self) -> Value {
        let counts = self.relay.borrow().domain.post_counts();
        super::report::spool_figures(&counts)
    }

    /// Makes a new data key on a thread that may wait for the token.
    async fn rekey(&self) -> Result<Value, String> {
        let controls = self.controls.clone();
        let (done, mut result) = crate::ring::channel(1);
        std::thread::Builder::new()
            .name("rekey".to_owned())
            .spawn(move || drop(done.try_send(controls.rekey_now())))
            .map_err(|error| error.to_string())?;
        match result.receive().await {
            Some(Ok(())) => Ok(json!({ "rekeyed": true })),
            Some(Err(error)) => Err(format!("{error}; {}", error.remedy())),
            None => Err("the thread for the new key ended".to_owned()),
        }
    }

    /// Hands a request of the domain over and waits for its answer.
    async fn ask(&self, request: OperatorRequest) -> Result<OperatorAnswer, String> {
        let place = Rc::new(RefCell::new(None::<OperatorReply>));
        {
            let mut relay = self.relay.borrow_mut();
            relay.last_operator += 1;
            let ticket = Ticket(relay.last_operator);
            relay.operators.insert(ticket, Rc::clone(&place));
            let now = relay.clock.now();
            relay.domain.operate(ticket, request, now);
            relay.settle();
        }
        let deadline = self.handle.now() + PATIENCE;
        while place.borrow().is_none() {
            if self.handle.now() > deadline {
                return Err("no answer in time; look whether it happened".to_owned());
            }
            self.handle.sleep(LOOK_AGAIN).await;
        }
        match place.take() {
            Some(reply) => reply.map_err(|error| error.to_string()),
            None => Err("the answer was taken by somebody else".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        let mut metrics = Metrics::default();
        let relay = self.relay.borrow();
        super::report::gather(&mut metrics, &relay, &self.server, &self.handle, &self.client);
        metrics.finish()
    }
}

/// The policy that the configuration asks for; version and times are decided by whoever signs.
///
/// # Errors
/// What is wrong with the configuration.
pub fn wanted_policy(
    configuration: &Configuration,
    announcement: &Announcement,
    now: protocol::Timestamp,
) -> Result<Policy, String> {
    let domain = Address::parse(&configuration.domain).map_err(|error| error.to_string())?;
    let section = &configuration.policy;
    let suites: Vec<protocol::Suite> =
        section.suites.iter().filter_map(|name| protocol::Suite::from_name(name)).collect();
    let seconds = |span: crate::config::Span| u32::try_from(span.0.as_secs()).unwrap_or(u32::MAX);
    let mut policy = Policy::new(domain, now, now.plus_ms(1));
    policy.suites = protocol::Suites::new(&suites);
    policy.is_signed = section.signed;
    policy.line_octets_max = u32::try_from(configuration.limits.line.0).unwrap_or(u32::MAX);
    policy.file_octets_max = section.file_max.0;
    policy.repair_hours = seconds(section.repair) / 3_600;
    policy.spool_days = seconds(section.retention).div_ceil(86_400);
    policy.refresh_seconds = seconds(section.refresh);
    policy.refresh_messages = section.refresh_messages;
    policy.refresh_octets = section.refresh_size.0;
    policy.password_score_min = u32::from(section.password_score);
    policy.pins = vec![protocol::identifier::KeyPin::from_octets(&announcement.tls_key)];
    Ok(policy)
}

fn user_row(user: &User) -> Value {
    let devices: Vec<String> = user
        .devices
        .iter()
        .map(|device| match (device.is_revoked, device.is_online) {
            (true, _) => format!("{} (revoked)", device.name),
            (false, true) => format!("{} (online)", device.name),
            (false, false) => device.name.to_string(),
        })
        .collect();
    json!({
        "account": user.account.as_str(),
        "registered_at": user.registered_at.0,
        "record_version": user.record_version,
        "record_ends": user.record_ends.0,
        "suspended": user.is_suspended,
        "devices": devices,
    })
}

fn store_figures(status: &Status) -> Value {
    json!({
        "commits": status.store.commits,
        "refused": status.store.refused,
        "unknown": status.store.unknown,
        "queued_commits": status.store.queued_commits,
        "flush_us_max": status.store.flush_us_max,
        "data_keys": status.store.data_keys,
    })
}

fn unexpected(answer: &OperatorAnswer) -> String {
    format!("the domain answered something else: {answer:?}")
}
