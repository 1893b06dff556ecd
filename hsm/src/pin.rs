//! The PIN: where it comes from, who may read it, and when it may be tried.
//!
//! A PIN is a file of mode 0400 or 0600 owned by the user who runs the service (or root), or a
//! systemd credential; never an argument, never the environment, never a log. After one refusal
//! (`CKR_PIN_INCORRECT` and its kin) it is not tried again until the file changes: the refused
//! file's [`Stamp`] is remembered in memory and in a marker file, so that a restarted process does
//! not use up the token's attempts either.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{Error, Fault};
use crate::limits;

/// Identifies one content of the PIN's source, without the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed_ns: i128,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        let seconds = i128::from(metadata.ctime());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed_ns: seconds * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        }
    }

    fn text(&self) -> String {
        format!("{} {} {} {}", self.device, self.inode, self.size, self.changed_ns)
    }
}

/// Where the PIN comes from, and what became of it.
#[derive(Debug, Clone)]
pub struct PinSource {
    path: PathBuf,
    is_credential: bool,
    marker: Option<PathBuf>,
    refused: Option<(Stamp, Fault)>,
}

impl PinSource {
    /// A file of mode 0400 or 0600.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_credential: false, marker: None, refused: None }
    }

    /// A file in systemd's credentials directory. Its owner and mode are systemd's affair, but
    /// others must not read it.
    pub fn credential(path: impl Into<PathBuf>) -> Self {
        Self { is_credential: true, ..Self::file(path) }
    }

    /// Remembers a refusal in this file over restarts, and takes up one which is there.
    #[must_use]
    pub fn with_marker(mut self, marker: impl Into<PathBuf>) -> Self {
        let marker = marker.into();
        self.refused = self.stamp().and_then(|stamp| {
            let text = fs::read_to_string(&marker).ok()?;
            let (code, refused) = text.trim().split_once(' ')?;
            let fault = Fault { slot: None, function: "C_Login".into(), code: code.parse().ok()? };
            (refused == stamp.text()).then_some((stamp, fault))
        });
        self.marker = Some(marker);
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn stamp(&self) -> Option<Stamp> {
        fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata))
    }

    /// True if nothing was refused, or the source changed since.
    pub fn is_changed(&self) -> bool {
        match &self.refused {
            Some((stamp, _)) => self.stamp().is_some_and(|now| now != *stamp),
            None => true,
        }
    }

    /// The PIN, unless this very content was refused before.
    ///
    /// # Errors
    /// [`Error::PinRefused`] if it was; [`Error::Pin`] if the file cannot be used.
    pub fn read(&self) -> Result<(Zeroizing<String>, Stamp), Error> {
        let wrong = |reason: String| Error::Pin { reason: reason.into() };
        let shown = self.path.display();
        let mut file = fs::File::open(&self.path).map_err(|error| {
            wrong(format!("{shown} cannot be read ({error}); set pin.file to a file with the PIN"))
        })?;
        let metadata = file.metadata().map_err(|error| wrong(format!("{shown}: {error}")))?;
        let stamp = Stamp::of(&metadata);
        if let Some((refused, fault)) = &self.refused
            && *refused == stamp
        {
            return Err(Error::PinRefused { fault: fault.clone() });
        }
        self.check(&metadata)?;
        let mut text = Zeroizing::new(String::with_capacity(limits::PIN_BYTES_MAX + 1));
        file.by_ref()
            .take(limits::PIN_BYTES_MAX as u64 + 1)
            .read_to_string(&mut text)
            .map_err(|_| wrong(format!("{shown} is not text")))?;
        if text.len() > limits::PIN_BYTES_MAX {
            return Err(wrong(format!("{shown} has more than {} octets", limits::PIN_BYTES_MAX)));
        }
        let pin = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if pin.is_empty() {
            return Err(wrong(format!("{shown} is empty; write the PIN into it")));
        }
        Ok((pin, stamp))
    }

    /// Whether only the right people can read the file.
    ///
    /// # Errors
    /// [`Error::Pin`] with the command that repairs it.
    pub fn check(&self, metadata: &fs::Metadata) -> Result<(), Error> {
        let shown = self.path.display();
        let wrong = |reason: String| Err(Error::Pin { reason: reason.into() });
        if !metadata.is_file() {
            return wrong(format!("{shown} is not a regular file"));
        }
        let mode = metadata.permissions().mode() & 0o777;
        let open_to_others = if self.is_credential { 0o037 } else { 0o077 };
        if mode & open_to_others != 0 {
            return wrong(format!(
                "{shown} can be read or changed by others (mode {mode:04o}); \
                 type: chmod 0400 {shown}"
            ));
        }
        let user = rustix::process::geteuid().as_raw();
        if metadata.uid() != user && metadata.uid() != 0 {
            return wrong(format!(
                "{shown} belongs to user {}, not to user {user} who runs this program; \
                 type: chown {user} {shown}",
                metadata.uid()
            ));
        }
        Ok(())
    }

    /// Remembers that the token refused this content.
    pub fn refuse(&mut self, stamp: Stamp, fault: Fault) {
        if let Some(marker) = &self.marker {
            // Without the marker the refusal still holds for the life of this process.
            let _ = fs::write(marker, format!("{} {}\n", fault.code, stamp.text()));
        }
        self.refused = Some((stamp, fault));
    }

    /// Forgets a refusal: another content was accepted.
    pub fn accept(&mut self) {
        if self.refused.take().is_some()
            && let Some(marker) = &self.marker
        {
            let _ = fs::remove_file(marker);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn source(mode: u32, content: &str) -> (tempfile::TempDir, PinSource) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, PinSource::file(path))
    }

    fn fault() -> Fault {
        Fault { slot: None, function: "C_Login".into(), code: 0xA0 }
    }

    #[test]
    fn modes() {
        for (mode, good) in [
            (0o400, true),
            (0o600, true),
            (0o440, false),
            (0o404, false),
            (0o644, false),
            (0o620, false),
            (0o610, false),
        ] {
            let (_dir, source) = source(mode, "1234\n");
            let read = source.read();
            assert_eq!(read.is_ok(), good, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 0400"), "{error}");
            }
        }
    }

    #[test]
    fn contents() {
        let most = "7".repeat(limits::PIN_BYTES_MAX);
        let over = "7".repeat(limits::PIN_BYTES_MAX + 1);
        for (content, pin) in [
            ("1234", Some("1234")),
            ("1234\n", Some("1234")),
            ("1234\r\n", Some("1234")),
            (" 12 34 \n", Some(" 12 34 ")),
            (&most, Some(most.as_str())),
            (&over, None),
            ("", None),
            ("\n\n", None),
        ] {
            let (_dir, source) = source(0o400, content);
            assert_eq!(source.read().ok().map(|(pin, _)| pin.to_string()).as_deref(), pin);
        }
    }

    #[test]
    fn a_refused_pin_is_not_given_again_until_the_file_changes() {
        let (dir, source) = source(0o600, "1234\n");
        let mut source = source.with_marker(dir.path().join("refused"));
        let (_, stamp) = source.read().unwrap();
        source.refuse(stamp, fault());
        assert!(!source.is_changed());
        assert!(matches!(source.read(), Err(Error::PinRefused { .. })));

        let restarted = PinSource::file(source.path()).with_marker(dir.path().join("refused"));
        assert!(matches!(restarted.read(), Err(Error::PinRefused { .. })));

        fs::remove_file(source.path()).unwrap();
        fs::write(source.path(), "4321\n").unwrap();
        fs::set_permissions(source.path(), fs::Permissions::from_mode(0o400)).unwrap();
        assert!(source.is_changed());
        assert_eq!(source.read().unwrap().0.as_str(), "4321");
        source.accept();
        assert!(!dir.path().join("refused").exists());
    }

    #[test]
    fn a_missing_file_is_told_by_name() {
        let error = PinSource::file("/nowhere/pin").read().unwrap_err().to_string();
        assert!(error.contains("/nowhere/pin") && error.contains("pin.file"), "{error}");
    }
}
