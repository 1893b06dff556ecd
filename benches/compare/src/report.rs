//! The table of the comparison: one row per operation and size.
//!
//! Owns the arithmetic of ratios. The invariant: the ratio compares accel's best backend, which is
//! the one it chooses, with the best other library of the same run; the fallback `accel/soft`
//! counts as neither.

use crate::measure::{Contender, Figure};
use crate::rival::Operation;
use core::fmt;

/// The head of the Markdown table.
pub(crate) const HEADING: &str = "| operation | octets | accel GB/s | best rival | GB/s | ratio | \
    all, GB/s |\n|---|---|---|---|---|---|---|";

/// One operation on one size.
#[derive(serde::Serialize)]
pub(crate) struct Row {
    operation: String,
    octets: usize,
    accel: f64,
    rival: String,
    rival_speed: f64,
    ratio: f64,
    all: Vec<Entry>,
}

#[derive(serde::Serialize)]
struct Entry {
    name: String,
    gigabytes_per_second: f64,
    figure: Figure,
}

impl Row {
    pub(crate) fn new(
        operation: Operation,
        octets: usize,
        contenders: &[Contender],
        figures: &[Figure],
    ) -> Self {
        let total = (octets * operation.messages()) as f64;
        let all: Vec<Entry> = contenders
            .iter()
            .zip(figures)
            .map(|(contender, figure)| Entry {
                name: contender.name.clone(),
                gigabytes_per_second: total / figure.nanoseconds,
                figure: *figure,
            })
            .collect();
        let best = |ours: bool| {
            all.iter()
                .filter(|entry| entry.name.starts_with("accel") == ours)
                .filter(|entry| entry.name != "accel/soft")
                .max_by(|a, b| a.gigabytes_per_second.total_cmp(&b.gigabytes_per_second))
                .map_or((String::new(), 0.0), |e| (e.name.clone(), e.gigabytes_per_second))
        };
        let chosen = all.iter().find(|entry| entry.name.starts_with("accel"));
        let accel = chosen.map_or(0.0, |entry| entry.gigabytes_per_second);
        let (rival, rival_speed) = best(false);
        let ratio = accel / rival_speed;
        Self { operation: operation.name(), octets, accel, rival, rival_speed, ratio, all }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.ratio < 1.0 { " (loses)" } else { "" };
        write!(
            f,
            "| {} | {} | {:.3} | {} | {:.3} | {:.2}{sign} |",
            self.operation, self.octets, self.accel, self.rival, self.rival_speed, self.ratio
        )?;
        for entry in &self.all {
            write!(f, " {} {:.3}", entry.name, entry.gigabytes_per_second)?;
        }
        write!(f, " |")
    }
}
