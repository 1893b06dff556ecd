//! Where events go: counted always, logged by their level.

use hsm::Phase;
use hsm::client::{Health, Link};
use serde_json::{Value, json};

use super::Relay;
use crate::admin::metric::{EventCounts, Metrics};
use crate::config::{Format, Level, LogSection};
use crate::event::{Event, Severity};
use crate::net::{Reason, Server};
use crate::ring::Handle;
use crate::session::PostCounts;

/// Counts and logs what happens.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    counts: EventCounts,
    closed: EventCounts,
}

impl Reporter {
    /// Counts the event and logs it.
    pub(super) fn report(&mut self, event: &Event) {
        self.report_why(event, None);
    }

    /// The same, with a reason in words.
    pub(super) fn report_why(&mut self, event: &Event, text: Option<String>) {
        let (name, detail) = (event.name(), event.detail());
        self.counts.count(name);
        match event.severity() {
            Severity::Debug => tracing::debug!(event = name, detail, text),
            Severity::Error => tracing::error!(event = name, detail, text),
            Severity::Info => tracing::info!(event = name, detail, text),
            Severity::Warn => tracing::warn!(event = name, detail, text),
        }
    }

    /// Counts the end of a connection.
    pub(super) fn closed(&mut self, reason: Reason) {
        self.closed.count(match reason {
            Reason::Aborted => "aborted",
            Reason::Closed => "closed",
            Reason::PeerClosed => "peer_closed",
            Reason::Reset => "reset",
            Reason::Tls => "tls",
            Reason::Truncated => "truncated",
        });
    }
}

/// Sends the log to standard error as the configuration says. Only the first call has an effect.
pub fn start_log(section: &LogSection) {
    let level = match section.level {
        Level::Debug => "debug",
        Level::Error => "error",
        Level::Info => "info",
        Level::Warn => "warn",
    };
    // Libraries speak only when something is wrong: their texts are not from our catalogue.
    let filter = format!("warn,relay={level},cipherim_relay={level},rustls=error");
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter));
    // A second start in one process keeps the first log.
    let _ = match section.format {
        Format::Json => builder.json().try_init(),
        Format::Text => builder.with_ansi(false).try_init(),
    };
}

/// The state of the token in words: `ready`, or what is wrong and what to do.
pub(super) fn token_state(health: &Health) -> String {
    match (&health.link, &health.token) {
        (Link::Down { reason }, _) => format!("cipherim-hsmd does not answer: {reason}"),
        (_, Some(state)) if state.phase == Phase::Ready => "ready".to_owned(),
        (_, Some(state)) if !state.reason.is_empty() => state.reason.clone(),
        (_, Some(state)) => format!("{:?}", state.phase).to_lowercase(),
        (_, None) => "connecting to cipherim-hsmd".to_owned(),
    }
}

/// What passed through the spool since the start.
pub(super) fn spool_figures(counts: &PostCounts) -> Value {
    Value::Object(
        spool_counters(counts)
            .into_iter()
            .map(|(name, count)| (name.into(), json!(count)))
            .collect(),
    )
}

fn spool_counters(counts: &PostCounts) -> [(&'static str, u64); 18] {
    [
        ("taken", counts.taken),
        ("queued", counts.queued),
        ("passed", counts.passed),
        ("replayed", counts.replayed),
        ("acknowledged", counts.acknowledged),
        ("repeated", counts.repeated),
        ("vanished", counts.vanished),
        ("over_quota", counts.over_quota),
        ("held", counts.held),
        ("released", counts.released),
        ("expired", counts.expired),
        ("bounced", counts.bounced),
        ("chunks_passed", counts.chunks_passed),
        ("chunks_kept", counts.chunks_kept),
        ("chunks_fetched", counts.chunks_fetched),
        ("files_kept", counts.files_kept),
        ("files_ended", counts.files_ended),
        ("files_removed", counts.files_removed),
    ]
}

/// Gathers every figure of the page `/metrics`.
pub(super) fn gather(
    metrics: &mut Metrics,
    relay: &Relay,
    server: &Server,
    handle: &Handle,
    client: &hsm::Client,
) {
    let reporter = &relay.reporter;
    metrics.labelled("relay_events_total", "What happened.", "event", reporter.counts.iter());
    metrics.labelled(
        "relay_connections_closed_total",
        "Connections that ended, by reason.",
        "reason",
        reporter.closed.iter(),
    );
    metrics.gauge("relay_connections", "Connections now.", server.connections() as u64);
    metrics.gauge(
        "relay_handshakes_waiting",
        "Handshakes waiting for a worker.",
        server.handshakes_waiting() as u64,
    );
    let health = client.health();
    metrics.gauge("relay_token_ready", "1 if the token serves.", u64::from(health.is_ready()));
    metrics.gauge("relay_token_jobs", "Jobs at the token.", health.in_flight as u64);
    metrics.labelled(
        "relay_lines_total",
        "Lines by what became of them.",
        "outcome",
        spool_counters(&relay.domain.post_counts()),
    );
    gather_net(metrics, server);
    gather_ring(metrics, handle);
    gather_store(metrics, relay);
}

fn gather_net(metrics: &mut Metrics, server: &Server) {
    let net = server.statistics();
    let accepts = [
        ("accepted", net.accepted),
        ("refused_connections", net.refused_connections),
        ("refused_source", net.refused_source),
        ("refused_busy", net.refused_busy),
        ("failed_not_tls", net.failed_not_tls),
        ("failed_handshake", net.failed_handshake),
        ("failed_deadline", net.failed_deadline),
        ("failed_signature", net.failed_signature),
        ("opened", net.opened),
        ("resumed", net.resumed),
    ];
    metrics.labelled("relay_handshakes_total", "By what became of them.", "outcome", accepts);
    metrics.counter("relay_received_bytes_total", "Plaintext.", net.plaintext_received);
    metrics.counter("relay_sent_bytes_total", "Plaintext.", net.plaintext_sent);
    metrics.counter("relay_told_away_total", "Turned away and told why.", net.told_away);
    metrics.counter("relay_outbox_over_total", "Outboxes over their limit.", net.outbox_over);
    metrics.counter("relay_choked_total", "Peers that had to read first.", net.choked);
}

fn gather_ring(metrics: &mut Metrics, handle: &Handle) {
    let ring = handle.statistics();
    metrics.counter("relay_ring_enters_total", "Times the kernel was entered.", ring.enters);
    metrics.counter("relay_ring_submissions_total", "Operations.", ring.submissions);
    metrics.counter("relay_ring_completions_total", "Completions.", ring.completions);
    metrics.counter("relay_ring_enobufs_total", "Receives without a buffer.", ring.enobufs);
    metrics.counter("relay_ring_overflows_total", "Completions that had to wait.", ring.overflows);
    metrics.counter("relay_ring_short_sends_total", "Sends in pieces.", ring.short_sends);
}

fn gather_store(metrics: &mut Metrics, relay: &Relay) {
    let store = relay.domain.store_statistics();
    metrics.counter("relay_store_commits_total", "Durable commits.", store.commits);
    metrics.counter("relay_store_refused_total", "Refused commits.", store.refused);
    metrics.counter("relay_store_unknown_total", "Commits of unknown outcome.", store.unknown);
    metrics.counter("relay_store_batches_total", "Flushes to the device.", store.batches);
    metrics.gauge("relay_store_queued_commits", "Commits waiting.", store.queued_commits);
    metrics.gauge("relay_store_flush_microseconds_max", "Longest flush.", store.flush_us_max);
    metrics.gauge("relay_store_data_keys", "Data keys alive.", store.data_keys);
}
