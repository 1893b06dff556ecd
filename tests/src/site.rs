//! One domain on loopback: a throw-away SoftHSM2 token, `cipherim-hsmd`, `cipherim-relay`.
//!
//! Everything lives in one folder. Ports are chosen free at the start and kept over restarts.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::process::{Process, output, wait_for};
use crate::wire::Wire;

/// How long a daemon may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The PIN of the throw-away token. Guards nothing but tests.
const PIN: &str = "271828";
/// The security officer's PIN of the throw-away token.
const SO_PIN: &str = "31415926";

/// A domain with its processes.
pub struct Site {
    folder: PathBuf,
    domain: String,
    relay_address: SocketAddr,
    monitor: SocketAddr,
    hsmd: Option<Process>,
    relay: Option<Process>,
    /// Words before the command of everything that uses the relay's store.
    prefix: Vec<String>,
    wire: Wire,
}

impl Site {
    /// Makes the token and the domain in `folder` and starts both daemons. `overrides` is TOML
    /// that is put behind the relay's configuration.
    ///
    /// # Errors
    /// If anything does not start; with the end of its log.
    pub fn build(folder: &Path, domain: &str, overrides: &str) -> Result<Self> {
        Self::build_within(folder, domain, overrides, &[])
    }

    /// The same, with the relay's programs started by the command `prefix`, which gives them
    /// another view of the machine.
    ///
    /// # Errors
    /// As [`Site::build`].
    pub fn build_within(
        folder: &Path,
        domain: &str,
        overrides: &str,
        prefix: &[String],
    ) -> Result<Self> {
        std::fs::create_dir_all(folder.join("tokens"))?;
        let relay_address = free_address()?;
        let wire = Wire::lay(relay_address, &folder.join("wire.capture"))?;
        let site = Self {
            folder: folder.to_path_buf(),
            domain: domain.to_owned(),
            relay_address,
            monitor: free_address()?,
            hsmd: None,
            relay: None,
            prefix: prefix.to_vec(),
            wire,
        };
        site.write_files(overrides)?;
        let mut site = site;
        let so_pin = site.folder.join("so-pin").display().to_string();
        site.command("cipherim-hsmd", &["init-token", "--so-pin-file", &so_pin])?;
        let domain = site.domain.clone();
        site.command("cipherim-hsmd", &["provision", "--domain", &domain])?;
        site.start_hsmd()?;
        site.command("cipherim-relay", &["provision"])?;
        site.start_relay()?;
        Ok(site)
    }

    /// The folder of the site.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The link between people and relay.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Where the relay itself listens, behind the wire.
    #[must_use]
    pub fn relay_address(&self) -> SocketAddr {
        self.relay_address
    }

    /// Where the relay answers `/metrics`.
    #[must_use]
    pub fn monitor(&self) -> SocketAddr {
        self.monitor
    }

    /// The relay's configuration file.
    #[must_use]
    pub fn relay_config(&self) -> PathBuf {
        self.folder.join("relay.toml")
    }

    /// The relay's process, if it runs.
    #[must_use]
    pub fn relay_pid(&self) -> Option<u32> {
        self.relay.as_ref().map(Process::pid)
    }

    /// The process that owns the token, if it runs.
    #[must_use]
    pub fn hsmd_pid(&self) -> Option<u32> {
        self.hsmd.as_ref().map(Process::pid)
    }

    /// Fails unless the relay runs.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check_relay(&mut self) -> Result<()> {
        self.relay.as_mut().context("the relay does not run")?.check_running()
    }

    /// Fails if a daemon of ours has panicked, in whatever thread.
    ///
    /// # Errors
    /// With the lines about it.
    pub fn check_logs(&self) -> Result<()> {
        for name in ["relay.log", "hsmd.log"] {
            let text = std::fs::read_to_string(self.folder.join(name))?;
            let about: Vec<&str> = text.lines().filter(|line| line.contains("panic")).collect();
            ensure!(about.is_empty(), "{name} tells of a panic:\n{}", about.join("\n"));
        }
        Ok(())
    }

    /// Starts the process that owns the token and waits until it answers.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_hsmd(&mut self) -> Result<()> {
        let mut command = self.program("cipherim-hsmd");
        command.arg("serve").arg("--config").arg(self.folder.join("hsmd.toml"));
        let mut process = Process::start("cipherim-hsmd", command, &self.folder.join("hsmd.log"))?;
        let socket = self.folder.join("hsmd.sock");
        wait_for("the socket of cipherim-hsmd", START_TIMEOUT, || {
            process.check_running()?;
            Ok(std::os::unix::net::UnixStream::connect(&socket).ok())
        })?;
        self.hsmd = Some(process);
        Ok(())
    }

    /// Starts the relay and waits until it says that it is ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_relay(&mut self) -> Result<()> {
        self.launch_relay()?;
        self.wait_ready()
    }

    /// Starts the relay without waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch_relay(&mut self) -> Result<()> {
        let mut command = self.program("cipherim-relay");
        command.arg("serve").arg("--config").arg(self.relay_config());
        let log = self.folder.join("relay.log");
        self.relay = Some(Process::start("cipherim-relay", command, &log)?);
        Ok(())
    }

    /// Waits until the relay says that it is ready.
    ///
    /// # Errors
    /// If it ends or takes too long.
    pub fn wait_ready(&mut self) -> Result<()> {
        let monitor = self.monitor;
        let Some(relay) = self.relay.as_mut() else { bail!("the relay was not started") };
        wait_for("the relay to be ready", START_TIMEOUT, || {
            relay.check_running()?;
            Ok(http_get(monitor, "/ready").ok().filter(|(status, _)| *status == 200))
        })?;
        Ok(())
    }

    /// Ends the relay as power loss would.
    ///
    /// # Errors
    /// If it cannot be ended.
    pub fn kill_relay(&mut self) -> Result<()> {
        self.relay.take().context("the relay does not run")?.kill()
    }

    /// Asks the relay to stop and waits for it.
    ///
    /// # Errors
    /// If it does not end, or not with status 0.
    pub fn stop_relay(&mut self) -> Result<()> {
        let status = self.relay.take().context("the relay does not run")?.stop()?;
        if !status.success() {
            bail!("the relay stopped with {status}");
        }
        Ok(())
    }

    /// Takes the token away: to SoftHSM2 its folder is the token.
    ///
    /// # Errors
    /// If it is away already.
    pub fn unplug_token(&self) -> Result<()> {
        Ok(std::fs::rename(self.folder.join("tokens"), self.folder.join("tokens.away"))?)
    }

    /// Returns the token.
    ///
    /// # Errors
    /// If it is not away.
    pub fn plug_token(&self) -> Result<()> {
        Ok(std::fs::rename(self.folder.join("tokens.away"), self.folder.join("tokens"))?)
    }

    /// Runs `cipherim-relay ctl … --json` and reads its answer.
    ///
    /// # Errors
    /// If it fails or does not print JSON.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.program("cipherim-relay");
        command.arg("ctl").arg("--config").arg(self.relay_config()).args(arguments).arg("--json");
        let text = output(&mut command)?;
        serde_json::from_str(&text).with_context(|| format!("ctl printed {text:?}"))
    }

    /// An invitation link for `account`.
    ///
    /// # Errors
    /// As [`Site::ctl`].
    pub fn invite(&self, account: &str) -> Result<String> {
        let answer = self.ctl(&["invite", account])?;
        Ok(answer["link"].as_str().context("an invitation has a link")?.to_owned())
    }

    /// A program of ours with the environment of this site.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut words = self.prefix.iter().filter(|_| name == "cipherim-relay");
        let mut command = match words.next() {
            None => Command::new(program_path(name)),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program_path(name));
                command
            }
        };
        command.env("SOFTHSM2_CONF", self.folder.join("softhsm2.conf"));
        command
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let config = if name == "cipherim-hsmd" { "hsmd.toml" } else { "relay.toml" };
        let mut command = self.program(name);
        let (first, rest) = arguments.split_first().context("a subcommand")?;
        command.arg(first).arg("--config").arg(self.folder.join(config)).args(rest);
        output(&mut command).map(|_| ())
    }

    fn write_files(&self, overrides: &str) -> Result<()> {
        let folder = self.folder.display();
        let write = |name: &str, text: String| std::fs::write(self.folder.join(name), text);
        write(
            "softhsm2.conf",
            format!(
                "directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n\
                 log.level = ERROR\n"
            ),
        )?;
        for (name, pin) in [("pin", PIN), ("so-pin", SO_PIN)] {
            write(name, pin.to_owned())?;
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(self.folder.join(name), mode)?;
        }
        write(
            "hsmd.toml",
            format!(
                "module = \"/usr/lib/softhsm/libsofthsm2.so\"\ndomain = \"{}\"\n\
                 [token]\nlabel = \"cipherim\"\n\
                 [pin]\nfile = \"{folder}/pin\"\n\
                 [service]\nsocket = \"{folder}/hsmd.sock\"\n",
                self.domain
            ),
        )?;
        write(
            "relay.toml",
            format!(
                "domain = \"{}\"\n\
                 [listen]\nclients = \"{}\"\nmonitor = \"{}\"\n\
                 control = \"{folder}/control.sock\"\nannounce = \"{}\"\n\
                 [token]\nsocket = \"{folder}/hsmd.sock\"\n\
                 [tls]\ncertificate = \"{folder}/tls.pem\"\n\
                 [store]\ndirectory = \"{folder}/store\"\n{overrides}\n",
                self.domain,
                self.relay_address,
                self.monitor,
                self.wire.address(),
            ),
        )?;
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The relay first: it then has its token until the end. What does not stop is ended by
        // the process's own drop.
        for process in [self.relay.as_mut(), self.hsmd.as_mut()].into_iter().flatten() {
            let _ = process.stop();
        }
    }
}

/// Where cargo put a program of ours: beside this one, or one folder up for tests.
#[must_use]
pub fn program_path(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    here.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// A loopback address that nobody listens on.
///
/// # Errors
/// If there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// Status and body of a plain HTTP request.
///
/// # Errors
/// If nobody answers in a second, or not in HTTP.
pub fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let timeout = Duration::from_secs(1);
    let mut stream = std::net::TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: monitor\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no status")?.parse()?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok((status, body.unwrap_or_default()))
}
