//! A small file system of its own, in a mount namespace of its own, for a relay's store.
//!
//! A holder process keeps the namespace; whatever uses the disk is started with
//! [`SmallDisk::prefix`]. Nothing is mounted where other processes see it, and nothing is left when
//! the holder ends.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::statvfs;

use crate::process::output;

/// A tmpfs with a size.
pub struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts one at `folder`, which must exist; `None` where this process may not.
    ///
    /// # Errors
    /// If root may not, or the system lacks `unshare` and `nsenter`.
    pub fn mount(folder: &Path, octets: u64) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let script =
            "mount -t tmpfs -o size=\"$1\" cipherim-test \"$0\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(folder)
            .arg(octets.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare, of the Debian package util-linux")?;
        let mut line = String::new();
        let answer = holder.stdout.take().context("standard output")?;
        BufReader::new(answer).read_line(&mut line)?;
        let disk = Self { holder, folder: folder.to_path_buf() };
        ensure!(line == "mounted\n", "root may not mount a tmpfs here: give it CAP_SYS_ADMIN");
        Ok(Some(disk))
    }

    /// The words that start a program so that it sees the disk.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        let holder = self.holder.id();
        // Root and folder as well: this process may run below another root, in a chroot.
        let words = [
            "nsenter".to_owned(),
            format!("--mount=/proc/{holder}/ns/mnt"),
            format!("--root=/proc/{holder}/root"),
            format!("--wd=/proc/{holder}/cwd"),
            "--".to_owned(),
        ];
        words.into()
    }

    /// Makes the disk just so large that `octets` of it are free.
    ///
    /// # Errors
    /// If it cannot be made so small or large.
    pub fn leave_free(&self, octets: u64) -> Result<()> {
        let seen = format!("/proc/{}/root{}", self.holder.id(), self.folder.display());
        let state = statvfs(seen)?;
        let used = (state.f_blocks - state.f_bfree) * state.f_frsize;
        let mut words = self.prefix().into_iter();
        let mut command = Command::new(words.next().context("a command")?);
        command.args(words).args(["mount", "-o"]).arg(format!("remount,size={}", used + octets));
        command.arg(&self.folder);
        output(&mut command).map(|_| ())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nothing is left running, whatever the test did.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
