//! What the kernel says a process used.

use std::time::Duration;

use anyhow::{Context as _, Result};
use system::process::resident_kib;

/// Processor time and memory of a process at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// In user space and in the kernel, all threads.
    pub(crate) processor: Duration,
    /// Resident memory in KiB.
    pub(crate) resident_kib: u64,
}

impl Usage {
    /// Reads `/proc/PID`; the processor time has a resolution of one tick, 10 ms on most systems.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name of the program, in parentheses, may hold spaces.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        // utime and stime are fields 14 and 15; the first behind the name is field 3.
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.map(|field| field.parse().unwrap_or(0)).sum();
        Ok(Self {
            processor: Duration::from_micros(
                ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1),
            ),
            resident_kib: resident_kib(pid)?,
        })
    }
}
