//! A child process with its output in a file; ended by pid, never by name.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often waiting looks again.
pub const POLL: Duration = Duration::from_millis(20);

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to the end of `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_path_buf() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the process has ended already, with the end of its log.
    ///
    /// # Errors
    /// If it is not running.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, tail(&self.log));
        }
        Ok(())
    }

    /// Ends it at once, as power loss would end it.
    ///
    /// # Errors
    /// If it cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits for it.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill_process(pid_of(&self.child)?, Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} does not end:\n{}", self.name, tail(&self.log));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left running, whatever the test did.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pid in the form of system calls.
///
/// # Errors
/// If the child has no valid pid.
pub fn pid_of(child: &Child) -> Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("a child has a pid")
}

/// The memory that a process has resident, in KiB.
///
/// # Errors
/// If there is no such process.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(number.parse()?)
}

/// The last lines of a log file, for messages.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(25)).map(|l| format!("  {l}\n")).collect()
}

/// Runs a command to its end and gives what it printed on standard output.
///
/// # Errors
/// If it cannot be started or ends with another status than 0; with what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let text = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| text.clone())?;
    if !output.status.success() {
        bail!(
            "{text} ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Waits until `condition` gives a value.
///
/// # Errors
/// What `condition` fails with, or `what` if the time is over.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", timeout.as_secs());
        }
        std::thread::sleep(POLL);
    }
}
