//! Logins: TCP, a full TLS handshake with a signature by the token, 010 to 012, goodbye.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use system::site::Site;

use crate::member::Member;
use crate::report::Report;
use crate::usage::Usage;

/// Microseconds that a histogram can hold: one minute.
const LATENCY_MAX: u64 = 60_000_000;

/// How to log in.
#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Devices that log in over and over, each one login at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    parallel: u32,
    /// How long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
}

/// Enrols the devices, logs in, counts.
pub(crate) async fn run(site: &Site, plan: &Plan) -> Result<Report> {
    let relay = site.relay_pid().context("the relay runs")?;
    let token = site.hsmd_pid().context("cipherim-hsmd runs")?;
    let mut members = Vec::new();
    for number in 0..plan.parallel {
        members.push(Arc::new(Member::enrol(site, &format!("person{number}")).await?.0));
    }
    let before = (Usage::of(relay)?, Usage::of(token)?);
    let began = Instant::now();
    let until = began + Duration::from_secs(plan.seconds);
    let mut tasks = Vec::new();
    for member in members {
        tasks.push(tokio::spawn(repeat(member, until)));
    }
    let mut latency = Histogram::<u64>::new_with_max(LATENCY_MAX, 3)?;
    for task in tasks {
        latency.add(task.await??)?;
    }
    let took = began.elapsed();
    let after = (Usage::of(relay)?, Usage::of(token)?);
    let mut report = Report::default();
    let logins = latency.len();
    report.count("logins", logins);
    report.rate("logins", logins, took);
    let cost = |before: Usage, after: Usage| after.processor.saturating_sub(before.processor);
    report.cost("relay's processor time per login, µs", cost(before.0, after.0), logins);
    report.cost("token process's time per login, µs", cost(before.1, after.1), logins);
    report.latency("login", &latency);
    Ok(report)
}

async fn repeat(member: Arc<Member>, until: Instant) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_max(LATENCY_MAX, 3)?;
    while Instant::now() < until {
        let began = Instant::now();
        let mut connection = member.log_in().await?;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(LATENCY_MAX);
        latency.saturating_record(took);
        connection.sender.close().await?;
    }
    Ok(latency)
}
