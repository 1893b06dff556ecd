//! `cipherim-relay ctl`: asks the running relay, or tells it something.
//!
//! Ends with 0 if it was done, 1 if the relay refused, 2 if the command is wrong, 3 if no relay
//! answers.

mod figure;
mod page;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use relay::admin::control::{Reply, Request};
use relay::config::{Configuration, Span};
use serde_json::Value;

/// How long the relay may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Where the relay is and what to ask.
#[derive(clap::Args)]
#[command(after_help = EXIT_STATUS)]
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

const EXIT_STATUS: &str = "\
Exit status: 0 done, 1 the relay refused or failed, 2 wrong usage, 3 no relay answers.

Examples:
  cipherim-relay ctl invite alice@example.org
  cipherim-relay ctl status --json | jq .ready";

/// No relay answers.
#[derive(Debug, thiserror::Error)]
#[error("no relay answers at {}: is it running, and is this its user or root?", socket.display())]
pub(super) struct Unanswered {
    socket: PathBuf,
    source: std::io::Error,
}

#[derive(Subcommand)]
enum Question {
    /// A link that lets somebody register; it counts once.
    #[command(after_help = "Examples:
  cipherim-relay ctl invite alice@example.org
  cipherim-relay ctl invite alice@example.org --ttl 7d
  cipherim-relay ctl invite --json | jq -r .link")]
    Invite {
        /// The only account that it lets in, such as alice@example.org; any if left out.
        account: Option<String>,
        /// How long it counts.
        #[arg(long, default_value = "24h", value_parser = Span::parse)]
        ttl: Span,
    },
    /// The domain's signed policy.
    #[command(after_help = "Examples:
  cipherim-relay ctl policy
  cipherim-relay ctl policy publish        after [policy] was changed and the relay restarted")]
    Policy {
        #[command(subcommand)]
        action: Option<PolicyAction>,
    },
    /// Revoke an account's identity, or one of its devices, as administrator. Contacts are shown
    /// that the administrator did it. Cannot be undone.
    #[command(after_help = "Examples:
  cipherim-relay ctl revoke alice@example.org --device d1
  cipherim-relay ctl revoke alice@example.org")]
    Revoke {
        /// The account.
        account: String,
        /// Only this device.
        #[arg(long)]
        device: Option<String>,
    },
    /// Stop in order: finish commits, tell the clients, end.
    #[command(after_help = "Example:
  cipherim-relay ctl shutdown")]
    Shutdown,
    /// What passed through the spool since the relay started.
    #[command(after_help = "Examples:
  cipherim-relay ctl spool
  cipherim-relay ctl spool rekey           seal under a new data key from now on")]
    Spool {
        #[command(subcommand)]
        action: Option<SpoolAction>,
    },
    /// How the relay is.
    #[command(after_help = "Examples:
  cipherim-relay ctl status
  cipherim-relay ctl status --json | jq .hindrance")]
    Status,
    /// Who is registered.
    #[command(after_help = "Examples:
  cipherim-relay ctl users
  cipherim-relay ctl users --json | jq -r '.users[].account'")]
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
    let answer = Link::open(&socket)?.ask(&arguments.question.to_request())?;
    let text = match arguments.json {
        true => format!("{answer}\n"),
        false => page::page(&arguments.question, &answer, now_ms()),
    };
    super::print_whole(text.as_bytes())
}

impl Question {
    fn to_request(&self) -> Request {
        match self {
            Self::Invite { account, ttl } => {
                Request::Invite { account: account.clone(), ttl_ms: ttl.milliseconds() }
            }
            Self::Policy { action: None } => Request::Policy,
            Self::Policy { action: Some(PolicyAction::Publish) } => Request::PolicyPublish,
            Self::Revoke { account, device } => {
                Request::Revoke { account: account.clone(), device: device.clone() }
            }
            Self::Shutdown => Request::Shutdown,
            Self::Spool { action: None } => Request::Spool,
            Self::Spool { action: Some(SpoolAction::Rekey) } => Request::SpoolRekey,
            Self::Status => Request::Status,
            Self::Users => Request::Users,
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Link {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Link {
    fn open(socket: &Path) -> Result<Self> {
        let open = || {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
            Ok(stream)
        };
        let socket = socket.to_path_buf();
        match open() {
            Ok(stream) => Ok(Self { socket, stream: BufReader::new(stream) }),
            Err(source) => Err(Unanswered { socket, source }.into()),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Value> {
        let answer = self.exchange(request).map_err(|source| {
            let socket = self.socket.clone();
            Unanswered { socket, source }
        })?;
        match serde_json::from_str(&answer).context("the relay's answer cannot be read")? {
            Reply::Failed { error } => bail!("the relay refused: {error}"),
            Reply::Done(value) => Ok(value),
        }
    }

    fn exchange(&mut self, request: &Request) -> std::io::Result<String> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        match self.stream.read_line(&mut answer)? {
            0 => Err(std::io::Error::other("it closed the connection")),
            _ => Ok(answer),
        }
    }
}
