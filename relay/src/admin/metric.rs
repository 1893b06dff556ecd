//! The page `/metrics`: counters and gauges in the text format of Prometheus.
//!
//! Names are `relay_<noun>_<unit>[_total]`; labels come from closed sets only.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Values gathered for one page.
#[derive(Debug, Default)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// Adds a value that only rises.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{name} {value}");
    }

    /// Adds a value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        let _ = writeln!(self.text, "{name} {value}");
    }

    /// Adds a counter with one label from a closed set.
    pub fn labelled<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, help, "counter");
        for (value, count) in values {
            let _ = writeln!(self.text, "{name}{{{label}=\"{value}\"}} {count}");
        }
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// How often each event of the catalogue happened.
#[derive(Debug, Default)]
pub struct EventCounts {
    counts: BTreeMap<&'static str, u64>,
}

impl EventCounts {
    /// Counts one.
    pub fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// All that happened at least once, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(name, count)| (*name, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_scraper_reads_it() {
        let mut metrics = Metrics::default();
        metrics.gauge("relay_connections", "Open now.", 3);
        metrics.labelled("relay_events_total", "By name.", "event", [("logged_in", 2)]);
        assert_eq!(
            metrics.finish(),
            "# HELP relay_connections Open now.\n# TYPE relay_connections gauge\n\
             relay_connections 3\n# HELP relay_events_total By name.\n\
             # TYPE relay_events_total counter\nrelay_events_total{event=\"logged_in\"} 2\n"
        );
    }
}
