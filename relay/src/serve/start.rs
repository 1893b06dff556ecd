//! The boot order: log, token, ring, store, domain, TLS, listeners; and the orderly stop.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::hindrance::Watch;
use super::operate::{Announcement, Operator};
use super::report::Reporter;
pub use super::report::start_log;
use super::signer::SigningDesk;
use super::stop::Stop;
use super::{Relay, certificate};
use crate::admin::{control, monitor};
use crate::clock::Clock;
use crate::config::Configuration;
use crate::keys::{KeyError, KeyService, token::TokenKeys};
use crate::limits::FILES_BESIDE_CLIENTS;
use crate::net::{NetConfiguration, Outbox, Server, tls};
use crate::ring::{Handle, Receiver, Ring, RingConfiguration, RingError, channel};
use crate::session::{Domain, Settings};
use crate::store::embedded::{Config, EmbeddedStore, OpenError};

/// How often the domain is told that time has passed, and how often is looked for what hinders.
const TICK: Duration = Duration::from_millis(250);
/// How long an orderly stop waits for commits and for what clients still read.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How often the stop looks whether it is done.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// Why the relay does not start. Shown to a person; says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The certificate is missing or unusable.
    #[error(transparent)]
    Certificate(#[from] certificate::CertificateError),
    /// The token does not give what is needed at a start.
    #[error(
        "the token is not ready: {0}\nis cipherim-hsmd running? `cipherim-hsmd doctor` says what \
         is wrong"
    )]
    Key(#[from] KeyError),
    /// An address or socket cannot be listened on.
    #[error("cannot listen on {place} ({key}): {source}")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// io_uring is forbidden here.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The system gave no thread, signal or other thing that is needed.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tls::TlsError),
}

/// The token's keys, and the client through which its health is seen.
///
/// # Errors
/// [`StartError::System`] if the client gets no thread.
pub fn open_keys(
    configuration: &Configuration,
) -> Result<(hsm::Client, Arc<dyn KeyService>), StartError> {
    let mut settings = hsm::client::Settings::new(&configuration.token.socket);
    settings.deadline = configuration.token.deadline.0;
    settings.patience = configuration.token.deadline.0.min(Duration::from_millis(500));
    let client = hsm::Client::start(settings)
        .map_err(|source| StartError::System { what: "a thread for the token", source })?;
    let keys = Arc::new(TokenKeys::new(client.clone()));
    Ok((client, keys))
}

/// Opens the store and logs what was found; `wake` is called when commits have outcomes.
///
/// # Errors
/// [`StartError::Store`].
pub fn open_store(
    configuration: &Configuration,
    keys: Arc<dyn KeyService>,
    wake: Box<dyn Fn() + Send + Sync>,
) -> Result<EmbeddedStore, StartError> {
    let section = &configuration.store;
    let mut config = Config::new(&section.directory);
    config.reserve_octets = section.reserve.0;
    config.key_age = section.data_key_age.0;
    config.accept_loss = section.accept_damage;
    let (store, report) = EmbeddedStore::open(config, keys, wake)?;
    if report.findings.is_empty() {
        tracing::info!(event = "store_opened", rows_from = %section.directory.display());
    } else {
        tracing::warn!(event = "store_opened", found = %report);
    }
    Ok(store)
}

/// Serves until SIGTERM, SIGINT or `ctl shutdown`.
///
/// # Errors
/// [`StartError`] if anything that is needed is not there; nothing was served then.
pub fn run(configuration: &Configuration) -> Result<(), StartError> {
    start_log(&configuration.log);
    let ring = Ring::new(&RingConfiguration {
        files: configuration.limits.connections.saturating_add(FILES_BESIDE_CLIENTS),
        ..RingConfiguration::default()
    })?;
    let boot = Boot::prepare(configuration, &ring.handle())?;
    ring.block_on(boot.serve())??;
    tracing::info!(event = "stopped");
    Ok(())
}

/// Everything that is ready before the first connection is accepted.
struct Boot {
    operator: Operator,
    commits: Receiver<()>,
    signatures: Receiver<super::signer::Signed>,
}

impl Boot {
    fn prepare(configuration: &Configuration, handle: &Handle) -> Result<Self, StartError> {
        let (client, keys) = open_keys(configuration)?;
        let chain = certificate::read_chain(&configuration.tls.certificate)?;
        let announcement = announcement(configuration, &*keys, &chain)?;
        let tls = tls::Configuration::new(chain, certificate::tls_signer(Arc::clone(&keys))?)?;

        let (bell, commits) = channel(1);
        // A full channel has a wake under way already, and a closed one has no loop to wake.
        let wake = Box::new(move || drop(bell.try_send(())));
        let store = open_store(configuration, Arc::clone(&keys), wake)?;
        let controls = store.controls();
        let (desk, signatures) = SigningDesk::open(Arc::clone(&keys))
            .map_err(|source| StartError::System { what: "a thread for signatures", source })?;

        let random = Box::new(move |octets: &mut [u8]| keys.random(octets));
        let domain = Domain::new(settings(configuration), Box::new(store), random);
        let outbox = Outbox::new(handle.clone(), net_configuration(configuration));
        let relay = Relay::new(domain, Clock::start(), outbox.clone(), desk, Reporter::default());
        let relay = Rc::new(RefCell::new(relay));
        let service = Rc::clone(&relay) as Rc<RefCell<dyn crate::net::Service>>;
        let server = Server::new(&outbox, tls, service)
            .map_err(|source| StartError::System { what: "threads for handshakes", source })?;
        let operator = Operator {
            handle: handle.clone(),
            relay,
            server: Rc::new(server),
            client,
            controls,
            announcement: Rc::new(announcement),
            configuration: Rc::new(configuration.clone()),
            stop: Stop::default(),
        };
        Ok(Self { operator, commits, signatures })
    }

    async fn serve(self) -> Result<(), StartError> {
        let Self { operator, commits, signatures } = self;
        let handle = operator.handle.clone();
        let listen = operator.configuration.listen.clone();
        let mut signals = handle
            .signals(&[libc::SIGTERM, libc::SIGINT])
            .map_err(|source| StartError::System { what: "signals", source })?;
        let refused = |key, place: String| move |source| StartError::Listen { key, place, source };
        let clients = handle
            .listen_tcp(listen.clients)
            .map_err(refused("listen.clients", listen.clients.to_string()))?;
        let watchers = handle
            .listen_tcp(listen.monitor)
            .map_err(refused("listen.monitor", listen.monitor.to_string()))?;
        let operators = handle
            .listen_unix(&listen.control)
            .map_err(refused("listen.control", listen.control.display().to_string()))?;

        spawn_feeders(&operator, commits, signatures);
        let pages = operator.clone();
        handle.spawn(monitor::serve(handle.clone(), watchers, move |path| pages.page(path)));
        let answers = operator.clone();
        handle.spawn(control::serve(handle.clone(), operators, move |request| {
            answers.clone().answer(request)
        }));
        operator.server.serve(clients);
        tracing::info!(event = "serving", clients = %listen.clients, monitor = %listen.monitor);

        wait_for_stop(&mut signals, &operator.stop).await;
        tracing::info!(event = "stopping");
        operator.stop.ask();
        operator.server.stop_accepting();
        finish(&handle, &operator.relay, &operator.server).await;
        Ok(())
    }
}

/// Starts the tasks that give the domain what threads and time bring; the one of time also tells
/// the log what hinders the relay.
fn spawn_feeders(
    operator: &Operator,
    mut commits: Receiver<()>,
    mut signatures: Receiver<super::signer::Signed>,
) {
    let (handle, relay) = (&operator.handle, &operator.relay);
    let of_commits = Rc::clone(relay);
    handle.spawn(async move {
        while commits.receive().await.is_some() {
            of_commits.borrow_mut().committed();
        }
    });
    let of_signatures = Rc::clone(relay);
    handle.spawn(async move {
        while let Some(signed) = signatures.receive().await {
            of_signatures.borrow_mut().signed(signed);
        }
    });
    let of_time = operator.clone();
    handle.spawn(async move {
        let mut watch = Watch::default();
        loop {
            of_time.handle.sleep(TICK).await;
            of_time.relay.borrow_mut().tick();
            if let Some((event, hindrance)) = watch.look(of_time.hindrance()) {
                let text = hindrance.map(ToString::to_string);
                of_time.relay.borrow_mut().reporter.report_why(&event, text);
            }
        }
    });
}

/// Done at the first signal, or when `ctl` asks for it.
async fn wait_for_stop(signals: &mut crate::ring::Signals, stop: &Stop) {
    let mut signal = std::pin::pin!(signals.next());
    let mut asked = std::pin::pin!(stop.asked());
    std::future::poll_fn(|context| {
        let by_signal = signal.as_mut().poll(context).is_ready();
        let by_operator = asked.as_mut().poll(context).is_ready();
        if by_signal || by_operator { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Finishes commits, tells every client (421), and waits until they have read it.
async fn finish(handle: &Handle, relay: &Rc<RefCell<Relay>>, server: &Server) {
    {
        let mut relay = relay.borrow_mut();
        relay.domain.stop();
        relay.settle();
    }
    let deadline = Instant::now() + STOP_DEADLINE;
    let is_done = || relay.borrow().domain.is_stopped() && server.connections() == 0;
    while !is_done() && handle.now() < deadline {
        handle.sleep(STOP_LOOK).await;
    }
}

/// The part of the configuration that the domain obeys.
fn settings(configuration: &Configuration) -> Settings {
    let mut settings = Settings::defaults(&configuration.domain);
    settings.line_octets_max = configuration.limits.line.octets();
    settings.file_octets_max = configuration.policy.file_max.0;
    settings.suites.clone_from(&configuration.policy.suites);
    settings.requires_signatures = configuration.policy.signed;
    settings.hides_users = configuration.policy.hide_users;
    settings.logins_per_minute = configuration.limits.logins_per_minute;
    settings.login_time_max = configuration.limits.login.0;
    settings.idle_time_max = configuration.limits.idle.0;
    settings.outbox_octets_max = configuration.limits.outbox.octets();
    settings.spool.lines_max = u64::from(configuration.limits.queue_lines);
    settings.spool.line_octets_max = configuration.limits.queue_size.0;
    settings.depot.octets_max = configuration.limits.files_size.0;
    settings.spool.life_ms = configuration.policy.retention.milliseconds();
    settings
}

fn net_configuration(configuration: &Configuration) -> NetConfiguration {
    let limits = &configuration.limits;
    NetConfiguration {
        connections_max: limits.connections as usize,
        connections_per_source_max: limits.connections_per_address as usize,
        handshake_deadline: limits.handshake.0,
        handshake_workers: usize::from(limits.handshake_threads),
        outbox_bytes_max: limits.outbox.octets(),
        ..NetConfiguration::default()
    }
}

/// What invitations tell, from the configuration, the token and the certificate.
///
/// # Errors
/// [`StartError::Key`] or [`StartError::Certificate`].
pub fn announcement(
    configuration: &Configuration,
    keys: &dyn KeyService,
    chain: &[Vec<u8>],
) -> Result<Announcement, StartError> {
    let domain_key = keys.public_key(crate::keys::SigningKeyName::Domain)?;
    let port = configuration.listen.clients.port();
    let relay = configuration.listen.announce.clone();
    Ok(Announcement {
        relay: relay.unwrap_or_else(|| format!("{}:{port}", configuration.domain)),
        domain: configuration.domain.clone(),
        domain_key: protocol::canonical::sha256(&[&domain_key]),
        tls_key: certificate::pin(&configuration.tls.certificate, chain)?,
    })
}
