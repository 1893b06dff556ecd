//! The process itself: what it may not leak, whom it runs as, how it starts anew.
//!
//! Order matters: [`harden`] first (no core dumps, not traceable, no new privileges), then
//! [`drop_privileges`], before any thread exists, because Linux keeps credentials per thread.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};
use rustix::thread::{
    Gid, Uid, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::service::config::{GROUPS, LockMemory, ProcessConfig, USERS, number_of};

/// Counts restarts by [`restart`], so that they slow down and a start after one is patient.
const RESTARTS: &str = "CIPHERIM_HSMD_RESTARTS";

/// Closes the process to others: no core dump, no tracing, files for the user only, memory locked
/// as configured. Says in plain words what was not allowed but does not matter.
///
/// # Errors
/// If memory must be locked and may not be.
pub fn harden(config: &ProcessConfig) -> io::Result<Vec<String>> {
    let mut notes = Vec::new();
    umask(Mode::from_raw_mode(0o077));
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        notes.push(format!("core dumps cannot be switched off: {error}"));
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        notes.push(format!("tracing by others cannot be switched off: {error}"));
    }
    if let Err(error) = set_no_new_privs(true) {
        notes.push(format!("gaining privileges cannot be switched off: {error}"));
    }
    if config.lock_memory != LockMemory::No
        && let Err(reason) = lock_memory()
    {
        let text = format!("memory cannot be locked ({reason}); set LimitMEMLOCK=infinity");
        if config.lock_memory == LockMemory::Require {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        notes.push(text);
    }
    Ok(notes)
}

/// Locks what is touched, now and later. Under a limit every later allocation could fail, so it is
/// done only without one; root lifts it, and keeps that when it becomes another user.
fn lock_memory() -> Result<(), String> {
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err()
        && getrlimit(Resource::Memlock).current.is_some()
    {
        return Err("the limit is too low for all of it".to_owned());
    }
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).map_err(|error| error.to_string())
}

/// Becomes the configured user and group, if started as root. Call before starting threads.
///
/// # Errors
/// If a name is unknown or the system refuses.
pub fn drop_privileges(config: &ProcessConfig) -> io::Result<()> {
    let Some(user) = &config.user else {
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let invalid = |(key, reason): (&str, String)| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{key} {reason}"))
    };
    let user_number = number_of("process.user", user, USERS).map_err(invalid)?;
    let group = match &config.group {
        Some(group) => number_of("process.group", group, GROUPS).map_err(invalid)?,
        None => primary_group(user_number).ok_or_else(|| {
            invalid(("process.group", "is needed, since the user has none".to_owned()))
        })?,
    };
    let (group, user) = (Gid::from_raw(group), Uid::from_raw(user_number));
    set_thread_groups(&[group])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    // Changing the user made the process traceable again.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn primary_group(user: u32) -> Option<u32> {
    let text = std::fs::read_to_string(USERS).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse::<u32>().ok()? == user).then(|| fields.next()?.parse().ok())?
    })
}

/// How often this process restarted itself in a row.
pub fn restarts() -> u32 {
    std::env::var(RESTARTS).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Replaces this process by a new one with the same arguments. Every descriptor of ours closes on
/// its own; threads stuck in the vendor's library end. Returns only if that failed; then the
/// process should end, so that its supervisor starts it.
pub fn restart(in_a_row: u32) -> io::Error {
    let pause = Duration::from_millis(50) * 2_u32.saturating_pow(in_a_row.min(7));
    std::thread::sleep(pause);
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("cipherim-hsmd"));
    Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env(RESTARTS, in_a_row.saturating_add(1).to_string())
        .exec()
}
