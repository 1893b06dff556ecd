//! Why a ring cannot be had, in words a person can act on.
//!
//! There is no fallback to another interface: where io_uring is refused the relay says which
//! setting refuses it and stops.

use std::io;

/// A ring could not be made, or stopped working.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// `kernel.io_uring_disabled` is 2.
    #[error(
        "io_uring is switched off for everyone (kernel.io_uring_disabled = 2); \
         allow it: sysctl -w kernel.io_uring_disabled=0"
    )]
    Disabled,
    /// `kernel.io_uring_disabled` is 1 and we are not in its group.
    #[error(
        "io_uring is reserved for a group (kernel.io_uring_disabled = 1); allow it: \
         sysctl -w kernel.io_uring_disabled=0, or put the relay's user into the group of \
         sysctl kernel.io_uring_group"
    )]
    Reserved,
    /// A filter refuses the system call.
    #[error(
        "io_uring_setup is refused although the kernel allows it: a seccomp filter or container \
         profile forbids it; for Docker run with a profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register, for systemd remove ~@io_uring from SystemCallFilter"
    )]
    Filtered,
    /// The kernel knows no io_uring, or not the parts we need.
    #[error(
        "kernel {release} is too old or built without io_uring ({part}); Linux 6.1 or newer is \
         needed: on Debian apt-get install linux-image-amd64 and reboot"
    )]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
        /// What was refused.
        part: &'static str,
    },
    /// Locked memory ran out.
    #[error(
        "no locked memory for the ring ({part}); raise RLIMIT_MEMLOCK: ulimit -l 8192, or \
         LimitMEMLOCK=8M in the unit"
    )]
    LockedMemory {
        /// What was refused.
        part: &'static str,
    },
    /// Descriptors ran out.
    #[error(
        "no file descriptors for the ring ({part}); raise RLIMIT_NOFILE: ulimit -n 20000, or \
         LimitNOFILE=20000 in the unit"
    )]
    Descriptors {
        /// What was refused.
        part: &'static str,
    },
    /// The configuration asks for something impossible.
    #[error("ring configuration: {what}")]
    Misuse {
        /// The rule that is broken.
        what: &'static str,
    },
    /// Another refusal of the system.
    #[error("{part}: {error}")]
    System {
        /// What was refused.
        part: &'static str,
        /// The system's word.
        #[source]
        error: io::Error,
    },
}

/// What the machine says about io_uring.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    /// Content of `/proc/sys/kernel/io_uring_disabled`.
    pub(super) disabled: Option<String>,
    /// Kernel release.
    pub(super) release: String,
}

impl Machine {
    /// Reads it.
    pub(super) fn read() -> Machine {
        let text = |path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Machine {
            disabled: text("/proc/sys/kernel/io_uring_disabled"),
            release: text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// Turns the refusal of `part` into its cause.
    pub(super) fn explain(&self, part: &'static str, error: io::Error) -> RingError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => match self.disabled.as_deref() {
                Some("2") => RingError::Disabled,
                Some("1") => RingError::Reserved,
                _ => RingError::Filtered,
            },
            Some(libc::ENOSYS) if self.at_least(6, 1) => RingError::Filtered,
            Some(libc::ENOSYS | libc::EINVAL) => {
                RingError::KernelTooOld { release: self.release.clone(), part }
            }
            Some(libc::ENOMEM) => RingError::LockedMemory { part },
            Some(libc::EMFILE | libc::ENFILE) => RingError::Descriptors { part },
            _ => RingError::System { part, error },
        }
    }

    fn at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.release.split(['.', '-']).map(|number| number.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(a), Some(b)) => (a, b) >= (major, minor),
            _ => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_setting() {
        let rows: &[(&str, i32, Option<&str>, &str, &str)] = &[
            ("off", libc::EPERM, Some("2"), "6.12.1", "io_uring_disabled = 2"),
            ("group", libc::EPERM, Some("1"), "6.12.1", "io_uring_group"),
            ("seccomp", libc::EPERM, Some("0"), "6.12.1", "seccomp"),
            ("no sysctl, seccomp", libc::EPERM, None, "6.1.0-18-amd64", "seccomp"),
            ("seccomp with ENOSYS", libc::ENOSYS, Some("0"), "6.12.1-cloud", "seccomp"),
            ("no io_uring", libc::ENOSYS, None, "5.0.3", "kernel 5.0.3"),
            ("no DEFER_TASKRUN", libc::EINVAL, None, "5.15.0-1-amd64", "Linux 6.1"),
            ("memlock", libc::ENOMEM, Some("0"), "6.12.1", "ulimit -l"),
            ("descriptors", libc::EMFILE, Some("0"), "6.12.1", "ulimit -n"),
            ("other", libc::EIO, Some("0"), "6.12.1", "setup"),
        ];
        for (name, errno, disabled, release, words) in rows {
            let machine =
                Machine { disabled: disabled.map(str::to_owned), release: (*release).to_owned() };
            let text = machine.explain("setup", io::Error::from_raw_os_error(*errno)).to_string();
            assert!(text.contains(words), "{name}: {text}");
        }
    }
}
