//! `cipherim-relay ctl`: asks the running relay, or tells it something.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use relay::admin::control::{Reply, Request};
use relay::config::{Configuration, Span};
use serde_json::Value;

/// How long the relay may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Where the relay is and what to ask.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The relay's configuration file, which names its control socket.
    #[arg(long, default_value = super::CONFIG)]
    config: PathBuf,
    /// The control socket itself; the configuration is then not read.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// A link that lets somebody register; it counts once.
    Invite {
        /// The only account that it lets in, such as alice@example.org; any if left out.
        account: Option<String>,
        /// How long it counts.
        #[arg(long, default_value = "24h", value_parser = Span::parse)]
        ttl: Span,
    },
    /// The domain's signed policy.
    Policy {
        #[command(subcommand)]
        action: Option<PolicyAction>,
    },
    /// Revoke an account's identity, or one of its devices, as administrator. Contacts are shown
    /// that the administrator did it. Cannot be undone.
    Revoke {
        /// The account.
        account: String,
        /// Only this device.
        #[arg(long)]
        device: Option<String>,
    },
    /// Stop in order: finish commits, tell the clients, end.
    Shutdown,
    /// What waits for whom, and the keys it is sealed under.
    Spool {
        #[command(subcommand)]
        action: Option<SpoolAction>,
    },
    /// How the relay is.
    Status,
    /// Who is registered.
    Users,
}

#[derive(Subcommand)]
enum PolicyAction {
    /// Sign the policy of the configuration with the domain's key and publish it.
    Publish,
}

#[derive(Subcommand)]
enum SpoolAction {
    /// Seal what comes from now on under a new data key.
    Rekey,
}

/// Asks, and prints the answer.
pub(super) fn run(arguments: Arguments) -> Result<()> {
    let socket = match arguments.socket {
        Some(socket) => socket,
        None => Configuration::read(&arguments.config)?.listen.control,
    };
    let mut link = Link::open(&socket)?;
    let answer = match arguments.question {
        Question::Invite { account, ttl } => {
            link.ask(&Request::Invite { account, ttl_ms: ttl.milliseconds() })?
        }
        Question::Policy { action: None } => link.ask(&Request::Policy)?,
        Question::Policy { action: Some(PolicyAction::Publish) } => {
            link.ask(&Request::PolicyPublish)?
        }
        Question::Revoke { account, device } => link.ask(&Request::Revoke { account, device })?,
        Question::Shutdown => link.ask(&Request::Shutdown)?,
        Question::Spool { action: None } => link.ask(&Request::Spool)?,
        Question::Spool { action: Some(SpoolAction::Rekey) } => link.ask(&Request::SpoolRekey)?,
        Question::Status => link.ask(&Request::Status)?,
        Question::Users => link.ask(&Request::Users)?,
    };
    if arguments.json {
        println!("{answer}");
    } else {
        print(&answer, 0);
    }
    Ok(())
}

struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| {
            format!(
                "no relay answers at {}: is it running, and is this its user or root?",
                socket.display()
            )
        })?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn ask(&mut self, request: &Request) -> Result<Value> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).context("the relay did not answer in time")?;
        match serde_json::from_str(&answer).context("the relay closed the connection")? {
            Reply::Failed { error } => bail!("the relay refused: {error}"),
            Reply::Done(value) => Ok(value),
        }
    }
}

/// Prints a value for eyes: a key a line, nested values indented.
fn print(value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('_', " ");
                if value.is_object() || value.is_array() {
                    println!("{indent}{key}:");
                    print(value, depth + 1);
                } else {
                    println!("{indent}{key}: {}", plain(value));
                }
            }
        }
        Value::Array(values) if values.is_empty() => println!("{indent}none"),
        Value::Array(values) => {
            for value in values {
                match value {
                    Value::Object(fields) => {
                        let row: Vec<String> = fields
                            .iter()
                            .map(|(key, value)| format!("{}={}", key, plain(value)))
                            .collect();
                        println!("{indent}{}", row.join("  "));
                    }
                    other => println!("{indent}{}", plain(other)),
                }
            }
        }
        other => println!("{indent}{}", plain(other)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}
