//! A throw-away SoftHSM2 token and the real `cipherim-hsmd` on it.
//!
//! Each rig has its own directory, token, PIN files and socket, so tests run side by side.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hsm::Client;

pub(crate) const DOMAIN: &str = "a.example";
pub(crate) const LABEL: &str = "rig";

/// Where Debian puts SoftHSM2; `None` skips the tests, loudly.
pub(crate) fn module() -> Option<PathBuf> {
    let found = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: SoftHSM2 is not installed (package softhsm2)");
        assert!(std::env::var_os("CI").is_none(), "CI must have softhsm2");
    }
    found
}

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) module: PathBuf,
    settings: String,
    /// The `[process]` section.
    pub(crate) process: String,
    environment: Vec<(String, String)>,
}

impl Rig {
    /// A provisioned token.
    pub(crate) fn new(module: &Path) -> Self {
        let rig = Self::blank(module);
        rig.succeed(&["init-token", "--so-pin-file", &rig.at("so-pin"), "--make-pins"]);
        rig.succeed(&["provision"]);
        rig
    }

    /// SoftHSM2 without a token.
    pub(crate) fn blank(module: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tokens")).unwrap();
        let rig = Self {
            dir,
            module: module.to_owned(),
            settings: String::new(),
            process: String::new(),
            environment: Vec::new(),
        };
        let tokens = rig.at("tokens");
        let text = format!(
            "directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        );
        fs::write(rig.at("softhsm2.conf"), text).unwrap();
        rig.write_config();
        rig
    }

    /// Adds lines to the `[service]` section, which is the last.
    pub(crate) fn with_settings(mut self, settings: &str) -> Self {
        self.settings.push_str(settings);
        self.settings.push('\n');
        self.write_config();
        self
    }

    pub(crate) fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn write_config(&self) {
        let (module, pin, socket) = (self.module.display(), self.at("pin"), self.at("s"));
        let (settings, process) = (&self.settings, &self.process);
        let text = format!(
            "module = \"{module}\"\ndomain = \"{DOMAIN}\"\n[token]\nlabel = \"{LABEL}\"\n\
             [pin]\nfile = \"{pin}\"\n[log]\nlevel = \"debug\"\n[process]\n{process}\n\
             [service]\nsocket = \"{socket}\"\n{settings}"
        );
        fs::write(self.at("hsmd.toml"), text).unwrap();
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cipherim-hsmd"));
        command.args(arguments);
        if arguments.first().is_some_and(|word| *word != "completion") {
            command.args(["--config", &self.at("hsmd.toml")]);
        }
        command.env("SOFTHSM2_CONF", self.at("softhsm2.conf"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{arguments:?}: {out}\n{err}");
        out
    }

    pub(crate) fn fail(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let (out, err) = texts(&output);
        assert!(!output.status.success(), "{arguments:?} should fail: {out}");
        (output.status.code().unwrap(), out + &err)
    }

    /// Starts the service and waits until it listens.
    pub(crate) fn serve(&self) -> Service {
        Service::start(self.command(&["serve"]))
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.at("s")).unwrap()
    }

    /// Takes the token away.
    pub(crate) fn unplug(&self) {
        fs::rename(self.at("tokens"), self.at("gone")).unwrap();
    }

    /// Brings it back.
    pub(crate) fn plug(&self) {
        fs::rename(self.at("gone"), self.at("tokens")).unwrap();
    }

    /// Replaces the PIN file's content.
    pub(crate) fn write_pin(&self, pin: &str) {
        let (new, path) = (self.at("pin.new"), self.at("pin"));
        fs::write(&new, pin).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o400)).unwrap();
        fs::rename(new, path).unwrap();
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A running service; killed when dropped.
pub(crate) struct Service {
    pub(crate) child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let service = Self { child, log };
        service.wait_for("listening", 1);
        service
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until `word` was logged `times` times.
    pub(crate) fn wait_for(&self, word: &str, times: usize) {
        until(&format!("{word:?} in the log"), || {
            let log = self.log.lock().unwrap();
            log.iter().filter(|line| line.contains(word)).count() >= times
        });
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- cipherim-hsmd\n{}", self.log());
        }
    }
}

/// Polls until `is_so`, at most 20 seconds.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
