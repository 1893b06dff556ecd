//! `status`: what a running service does, asked over its socket.

use std::path::Path;

use hsm::service::config::Config;
use hsm::{Client, Error, Phase};

use super::{Failure, shown};

/// Asks and prints.
pub(super) fn run(path: &Path, json: bool) -> Result<(), Failure> {
    let config = Config::read(path)?;
    let client = Client::connect(&config.service.socket)
        .map_err(|error| Failure::Files(error.to_string()))?;
    let description = client.describe()?;
    if json {
        let text = serde_json::to_string_pretty(&description)
            .map_err(|error| Failure::Found(error.to_string()))?;
        println!("{text}");
    } else {
        let state = &description.state;
        println!("state       {}, generation {}", state.phase, state.generation);
        if !state.reason.is_empty() {
            println!("reason      {}", shown(&state.reason));
        }
        let token = &description.token;
        println!("token       {:?}, serial {}", shown(&token.label), shown(&token.serial));
        println!("sessions    {}, stuck {}", description.sessions, description.wedged);
        println!("queue       {} of {}", description.queued, description.queue_max);
        println!("PIN         {} attempts", description.pin_attempts);
        println!("proven      {}", shown(&description.proven.join(", ")));
        println!("operation         well   failed     busy  overdue  retried   p50 µs   p99 µs");
        for count in &description.operations {
            let total = &count.total_micros;
            println!(
                "{:<12} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
                count.operation.name(),
                count.succeeded,
                count.failed,
                count.busy,
                count.overdue,
                count.retried,
                quantile(total, 50),
                quantile(total, 99),
            );
        }
    }
    match description.state.phase {
        Phase::Ready | Phase::Recovering | Phase::Starting => Ok(()),
        _ => Err(Failure::Token(Error::Away {
            reason: description.state.reason.into(),
            retry_after: std::time::Duration::from_secs(1),
        })),
    }
}

/// The upper end of the bucket below which `percent` of the times lie, in microseconds.
fn quantile(buckets: &[u64], percent: u64) -> u64 {
    let total: u64 = buckets.iter().sum();
    let wanted = (total * percent).div_ceil(100);
    let mut seen = 0;
    for (position, count) in buckets.iter().enumerate() {
        seen += count;
        if seen >= wanted && total > 0 {
            return 1 << position;
        }
    }
    0
}
