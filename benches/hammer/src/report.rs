//! What a run found, for eyes and for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Names and values in the order in which they were found.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, Value)>,
}

impl Report {
    /// Adds a count.
    pub(crate) fn count(&mut self, name: &str, value: u64) {
        self.rows.push((name.to_owned(), json!(value)));
    }

    /// Adds a number with two digits behind the point.
    pub(crate) fn number(&mut self, name: &str, value: f64) {
        self.rows.push((name.to_owned(), json!((value * 100.0).round() / 100.0)));
    }

    /// Adds `count` a second and the processor time for each.
    pub(crate) fn rate(&mut self, what: &str, count: u64, time: Duration) {
        self.number(&format!("{what} per second"), count as f64 / time.as_secs_f64());
    }

    /// Adds processor time divided by `count`, in microseconds.
    pub(crate) fn cost(&mut self, name: &str, processor: Duration, count: u64) {
        self.number(name, processor.as_secs_f64() * 1e6 / count.max(1) as f64);
    }

    /// Adds median, 99th percentile and maximum of a histogram of microseconds.
    pub(crate) fn latency(&mut self, name: &str, histogram: &Histogram<u64>) {
        self.count(&format!("{name}, µs, median"), histogram.value_at_quantile(0.5));
        self.count(&format!("{name}, µs, 99 %"), histogram.value_at_quantile(0.99));
        self.count(&format!("{name}, µs, maximum"), histogram.max());
    }

    /// Prints all of it on standard output.
    pub(crate) fn print(&self, as_json: bool) {
        if as_json {
            let object: Map<String, Value> = self.rows.iter().cloned().collect();
            println!("{}", Value::Object(object));
            return;
        }
        let width = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in &self.rows {
            println!("{name:width$}  {value}");
        }
    }
}
