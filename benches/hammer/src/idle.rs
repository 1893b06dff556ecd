//! Connections that log in and then say nothing: what one costs in memory.

use anyhow::{Context as _, Result};
use system::device::Device;
use system::link::Dialer;
use system::site::Site;

use crate::report::Report;
use crate::usage::Usage;

/// Connections of the second half: memory that grows with the first ones is not theirs alone.
const HALVES: u32 = 2;

/// How many.
#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Connections. Each needs a file descriptor here and one at the relay.
    #[arg(long, default_value_t = 2_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=100_000))]
    connections: u32,
}

/// Opens the connections one after the other. Each is a device of an account of its own.
pub(crate) fn run(site: &Site, plan: &Plan) -> Result<Report> {
    let pid = site.relay_pid().context("the relay runs")?;
    let dialer = Dialer::new(site)?.without_tickets();
    let mut kept = Vec::new();
    let mut resident = vec![Usage::of(pid)?.resident_kib];
    for half in 0..HALVES {
        for number in 0..plan.connections / HALVES {
            let name = format!("idle{half}x{number}");
            kept.push(Device::enrol_here(site, &dialer, &name)?.1);
        }
        resident.push(Usage::of(pid)?.resident_kib);
    }
    let mut report = Report::default();
    report.count("connections", kept.len() as u64);
    for (half, pair) in resident.windows(2).enumerate() {
        let [before, after] = pair else { continue };
        let each = (*after as f64 - *before as f64) / f64::from(plan.connections / HALVES);
        report.number(&format!("KiB per connection, half {}", half + 1), each);
    }
    report.count("relay's memory, KiB", resident.last().copied().unwrap_or(0));
    Ok(report)
}
