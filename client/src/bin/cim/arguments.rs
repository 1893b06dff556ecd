//! What can be typed: every command and option with its help.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::failure::Failure;
use crate::output;

/// Talk to people, end to end encrypted, through the relay of your domain.
#[derive(Parser)]
#[command(name = "cim", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  cim init 'cim:example.org?relay=…'      enrol with an invitation
  cim chat bob@example.org                talk
  echo hello | cim send bob@example.org   send from a pipe
  cim recv --json --follow                messages as JSON, one a line
  cim file send bob@example.org plan.pdf
  cim keys safety bob@example.org         60 digits to compare by telephone

Exit status: 0 done, 2 wrong usage, 4 try later, 5 refused, 6 the person is busy,
7 a key or signature does not hold, 70 a fault in this program, 130 stopped.";

/// Options of every command.
#[derive(clap::Args)]
pub(crate) struct Global {
    /// The folder of keys and state.
    #[arg(long, global = true, env = "CIM_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Read the password from this file (mode 0600 or 0400) instead of asking for it.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Append every line of the protocol, as sent inside TLS, to this file.
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) trace_lines: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make your keys and enrol with an invitation link.
    Init(Init),
    /// Talk to a person, line by line. `/help` lists what can be typed.
    Chat {
        /// Whom, such as bob@example.org.
        person: String,
    },
    /// Send one message; from standard input if no text is given.
    Send {
        /// To whom.
        person: String,
        /// The text.
        text: Option<String>,
    },
    /// Print what has arrived.
    Recv {
        /// Stay and print what arrives.
        #[arg(long)]
        follow: bool,
    },
    /// Commands and events as JSON lines, for programs.
    Pipe,
    /// Your contacts.
    #[command(subcommand)]
    Roster(Roster),
    /// Say that you are there.
    Available,
    /// Say that you are away.
    Away {
        /// For how long, such as 30min.
        #[arg(long = "for", value_parser = crate::text::parse_duration)]
        until: Option<std::time::Duration>,
    },
    /// Say that you are busy: who writes to you is asked whether it can wait.
    Busy {
        /// For how long, such as 2h.
        #[arg(long = "for", value_parser = crate::text::parse_duration)]
        until: Option<std::time::Duration>,
    },
    /// Say that you do not want to be disturbed.
    Dnd {
        /// For how long, such as 2h.
        #[arg(long = "for", value_parser = crate::text::parse_duration)]
        until: Option<std::time::Duration>,
    },
    /// Send and receive files.
    #[command(subcommand)]
    File(File),
    /// Look at and change keys.
    #[command(subcommand)]
    Keys(Keys),
    /// Find out what is wrong: home, key file, relay, token.
    Doctor,
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Manual,
}

/// `cim init`.
#[derive(clap::Args)]
pub(crate) struct Init {
    /// The invitation link that the domain's administrator gave you.
    pub(crate) link: String,
    /// Your address, such as alice@example.org; asked for if left out.
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// Write the recovery phrase to this file (mode 0600) instead of showing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_file: Option<PathBuf>,
}

/// `cim roster`.
#[derive(Subcommand)]
pub(crate) enum Roster {
    /// List your contacts.
    List,
    /// Add a person: asks for their approval.
    Add {
        /// Whom.
        person: String,
        /// A name that only you see.
        #[arg(long)]
        name: Option<String>,
    },
    /// Approve a person, who then sees your presence.
    Approve {
        /// Whom.
        person: String,
    },
    /// Deny a person, or take an approval back.
    Deny {
        /// Whom.
        person: String,
    },
    /// Drop everything that a person sends; they are not told.
    Block {
        /// Whom.
        person: String,
    },
    /// End a block.
    Unblock {
        /// Whom.
        person: String,
    },
    /// Let a person's urgent messages through while you are busy, or no longer.
    Urgent {
        /// Whom.
        person: String,
        /// `yes` or `no`.
        #[arg(value_parser = ["yes", "no"])]
        allow: String,
    },
    /// Remove a person.
    Remove {
        /// Whom.
        person: String,
    },
}

/// `cim file`.
#[derive(Subcommand)]
pub(crate) enum File {
    /// Send a file and wait until it has arrived, or the relay keeps all of it for somebody away.
    Send {
        /// To whom.
        person: String,
        /// The file.
        path: PathBuf,
    },
    /// Accept an offered file and wait until it is here.
    Accept {
        /// Its id, as `cim file list` shows it; the only one offered if left out.
        file: Option<String>,
        /// The folder to put it in.
        #[arg(long, default_value = ".")]
        into: PathBuf,
    },
    /// List files on their way.
    List,
    /// Refuse or cancel a file.
    Cancel {
        /// Its id.
        file: String,
    },
}

/// `cim keys`.
#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Show your own record, or a person's.
    Show {
        /// Whose; yours if left out.
        person: Option<String>,
    },
    /// Replace your identity key by a new one, signed by the old.
    Rotate,
    /// Show the 60 digits to compare with a person.
    Safety {
        /// With whom.
        person: String,
    },
    /// Say that you have seen and accept a person's new identity key.
    Trust {
        /// Whose.
        person: String,
    },
    /// Revoke your identity key, or one device. Cannot be undone.
    Revoke {
        /// Only this device.
        #[arg(long)]
        device: Option<String>,
        /// Sign with the recovery phrase in this file.
        #[arg(long, value_name = "FILE")]
        recovery_file: Option<PathBuf>,
    },
    /// Change the password of the key file.
    Password,
}

/// Prints a completion script.
pub(crate) fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "cim", &mut script);
    print_whole(&script)
}

/// Prints the manual page.
pub(crate) fn manual() -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Arguments::command())
        .render(&mut page)
        .map_err(|error| Failure::internal(format!("cannot make the manual page: {error}")))?;
    print_whole(&page)
}

fn print_whole(text: &[u8]) -> Result<(), Failure> {
    output::raw(&String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
