//! Logins: TCP, a full TLS handshake with a signature by the token, 010 to 012, goodbye.

use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use system::device::Device;
use system::link::Dialer;
use system::site::Site;

use crate::message::join;
use crate::report::Report;
use crate::usage::Usage;

/// Microseconds that a histogram can hold: one minute.
const LATENCY_MAX: u64 = 60_000_000;

/// How to log in.
#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Devices that log in over and over, each a thread with one login at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    /// How long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
}

/// Enrols the devices, logs in, counts.
pub(crate) fn run(site: &Site, plan: &Plan) -> Result<Report> {
    let relay = site.relay_pid().context("the relay runs")?;
    let token = site.hsmd_pid().context("cipherim-hsmd runs")?;
    // With tickets only the first handshake of them all would be a full one.
    let dialer = Dialer::new(site)?.without_tickets();
    let enrol = |number| Device::enrol(site, &dialer, &format!("person{number}"));
    let devices = (0..plan.parallel).map(enrol).collect::<Result<Vec<_>>>()?;
    let before = (Usage::of(relay)?, Usage::of(token)?);
    let began = Instant::now();
    let until = began + Duration::from_secs(plan.seconds);
    let mut latency = Histogram::<u64>::new_with_max(LATENCY_MAX, 3)?;
    let found = scope(|scope| {
        let dialer = &dialer;
        let spawn = |device| scope.spawn(move || repeat(device, dialer, until));
        join(devices.iter().map(spawn).collect())
    });
    for found in found? {
        latency.add(found)?;
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

fn repeat(device: &Device, dialer: &Dialer, until: Instant) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_max(LATENCY_MAX, 3)?;
    while Instant::now() < until {
        let began = Instant::now();
        let link = device.log_in(dialer)?;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(LATENCY_MAX);
        latency.saturating_record(took);
        link.close()?;
    }
    Ok(latency)
}
