//! One user who drives the real `cim` by its JSON pipe.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::{output, tail};
use crate::site::{Site, program_path};

/// How long anything that is expected may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The password of every person here. Guards nothing but tests.
const PASSWORD: &str = "seven quiet otters map the harbour";

/// A user with a home of their own.
pub struct Person {
    name: String,
    address: String,
    home: PathBuf,
    pipe: Option<Pipe>,
    next_id: u64,
    /// Events that nobody asked for yet, oldest first.
    events: VecDeque<Value>,
    /// Every event since the person was made.
    history: Vec<Value>,
}

struct Pipe {
    child: Child,
    input: ChildStdin,
    output: Receiver<Value>,
}

impl Person {
    /// Enrols `name` at the site with a fresh home.
    ///
    /// # Errors
    /// If `cim init` fails.
    pub fn enrol(site: &Site, name: &str) -> Result<Self> {
        let home = site.folder().join(name);
        std::fs::create_dir_all(&home)?;
        let password = site.folder().join(format!("{name}.password"));
        std::fs::write(&password, PASSWORD)?;
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600))?;
        let address = format!("{name}@{}", site.domain());
        let person = Self {
            name: name.to_owned(),
            address: address.clone(),
            home,
            pipe: None,
            next_id: 1,
            events: VecDeque::new(),
            history: Vec::new(),
        };
        let link = site.invite(&address)?;
        let mut command = person.cim();
        command.args(["init", &link, "--address", &address]);
        command.arg("--recovery-file").arg(person.home.with_extension("recovery"));
        output(&mut command)?;
        Ok(person)
    }

    /// The name for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The account's address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The password of the keys.
    #[must_use]
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Whether their program runs.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.pipe.is_some()
    }

    /// The folder of keys and state.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The file with every line sent and received inside TLS.
    #[must_use]
    pub fn trace(&self) -> PathBuf {
        self.home.with_extension("lines")
    }

    /// `cim` with this person's home and password.
    #[must_use]
    pub fn cim(&self) -> Command {
        let mut command = Command::new(program_path("cim"));
        command.arg("--home").arg(&self.home);
        command.arg("--password-file").arg(self.home.with_extension("password"));
        command.arg("--trace-lines").arg(self.trace());
        command
    }

    /// Comes online and waits until the relay has welcomed them.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn come(&mut self) -> Result<()> {
        self.start()?;
        self.expect("online", |_| true)?;
        Ok(())
    }

    /// Starts the pipe without waiting for the link.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        if self.pipe.is_some() {
            bail!("{} is here already", self.name);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.with_extension("log"))?;
        let mut child = self
            .cim()
            .arg("pipe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start cim")?;
        let input = child.stdin.take().context("standard input")?;
        let lines = BufReader::new(child.stdout.take().context("standard output")?).lines();
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str(&line)
                    .unwrap_or_else(|_| json!({"event": "not-json", "line": line}));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        self.pipe = Some(Pipe { child, input, output: receiver });
        Ok(())
    }

    /// Goes offline in order.
    ///
    /// # Errors
    /// If `cim` does not end with status 0.
    pub fn leave(&mut self) -> Result<()> {
        let Pipe { mut child, input, output } = self.pipe.take().context("not here")?;
        drop(input);
        while let Ok(value) = output.recv_timeout(PATIENCE) {
            self.keep(value);
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("cim of {} ended with {status}:\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Ends `cim` as a crash would.
    ///
    /// # Errors
    /// If it does not run.
    pub fn crash(&mut self) -> Result<()> {
        let mut pipe = self.pipe.take().context("not here")?;
        pipe.child.kill()?;
        pipe.child.wait()?;
        while let Ok(value) = pipe.output.try_recv() {
            self.keep(value);
        }
        Ok(())
    }

    /// Gives a command to the pipe without waiting for its result; returns its id.
    ///
    /// # Errors
    /// If the pipe is closed.
    pub fn ask(&mut self, mut command: Value) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        command["id"] = json!(id);
        let pipe = self.pipe.as_mut().context("not here")?;
        writeln!(pipe.input, "{command}")
            .with_context(|| format!("cim of {} is gone", self.name))?;
        Ok(id)
    }

    /// Waits for the result of the command `id`, good or bad.
    ///
    /// # Errors
    /// If it does not come.
    pub fn result(&mut self, id: u64) -> Result<Value> {
        self.wait(&format!("the result of command {id}"), |value| value["id"] == json!(id))
    }

    /// Gives a command and waits until it worked.
    ///
    /// # Errors
    /// If it was refused; with the refusal.
    pub fn act(&mut self, command: Value) -> Result<Value> {
        let id = self.ask(command.clone())?;
        let result = self.result(id)?;
        if result["ok"] != json!(true) {
            bail!("{}: {command} was refused: {result}", self.name);
        }
        Ok(result)
    }

    /// Sends a text; returns the result with `mid` and `code`.
    ///
    /// # Errors
    /// As [`Person::act`].
    pub fn say(&mut self, to: &str, text: &str) -> Result<Value> {
        self.act(json!({"do": "send", "to": to, "text": text}))
    }

    /// Waits for an event of this kind for which `wanted` holds; others stay for later.
    ///
    /// # Errors
    /// If it does not come.
    pub fn expect(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.wait(kind, |value| value["event"] == json!(kind) && wanted(value))
    }

    /// Waits for the next message, whatever else comes before it.
    ///
    /// # Errors
    /// If none comes.
    pub fn hear(&mut self) -> Result<Value> {
        self.expect("message", |_| true)
    }

    /// Every event so far, those not yet asked for included.
    pub fn history(&mut self) -> &[Value] {
        while let Some(value) = self.pipe.as_ref().and_then(|pipe| pipe.output.try_recv().ok()) {
            self.keep(value);
        }
        &self.history
    }

    /// The texts of all messages shown so far, in order.
    pub fn heard(&mut self) -> Vec<String> {
        self.history()
            .iter()
            .filter(|value| value["event"] == json!("message"))
            .map(|value| value["text"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn keep(&mut self, value: Value) {
        self.history.push(value.clone());
        self.events.push_back(value);
    }

    fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut looked = 0;
        loop {
            while let Some(value) = self.events.get(looked) {
                if wanted(value) {
                    return self.events.remove(looked).context("the event just seen");
                }
                looked += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let pipe = self.pipe.as_ref().context("not here")?;
            match pipe.output.recv_timeout(left) {
                Ok(value) => self.keep(value),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} waited in vain for {what}; seen: {:?}", self.name, self.events)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "cim of {} ended while waiting for {what}:\n{}",
                        self.name,
                        self.log_tail()
                    )
                }
            }
        }
    }

    fn log_tail(&self) -> String {
        tail(&self.home.with_extension("log"))
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.as_mut() {
            // Nothing is left running, whatever the test did.
            let _ = pipe.child.kill();
            let _ = pipe.child.wait();
        }
    }
}
