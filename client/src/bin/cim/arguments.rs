//! What can be typed: every command and option with its help.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_mangen::roff::{Roff, roman};

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

A name without a domain, such as bob, is of your own domain.

Exit status: 0 done, 2 wrong usage, 4 try later, 5 refused, 6 the person is busy,
7 a key or signature does not hold, 70 a fault in this program, 130 stopped by Ctrl-C or a signal.
Whoever reads the output may leave: that is no failure, and what nobody read comes once more.";

/// What `cim chat --help` and the manual say of talking.
const TALKING: &str = "\
What comes in appears above the line that you type. Ctrl-C throws that line away; on an empty line
it ends the chat, as Ctrl-D and /quit do. The arrow keys bring back lines of this chat; they are
kept in memory only.

Behind the line stands, in this order: that the other is typing; how far a file has come; what
became of your last message. `with the relay` is the relay's word that it has the message and the
other has not, or that it tells no more. `sent` means that a device was given it, `delivered` that
the device says so, `read` that it was shown. Nothing is said of the messages before it: they have
come as far, or have failed, and a failure is a line of its own (!!), always. That messages wait at
the relay is a line once, and again after the other has been there.

Examples:
  cim chat bob
  cim chat bob@example.org < lines.txt    plain lines: no terminal, no editor";

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
    #[command(after_help = "Examples:
  cim init 'cim:example.org?relay=…&invite=…'
  cim init LINK --address alice@example.org --recovery-file alice.words")]
    Init(Init),
    /// Talk to a person, line by line. `/help` lists what can be typed.
    #[command(after_help = TALKING)]
    Chat {
        /// Whom, such as bob@example.org; bob alone is somebody of your own domain.
        person: String,
    },
    /// Send one message; from standard input if no text is given.
    #[command(after_help = "Examples:
  cim send bob 'lunch at one?'
  uptime | cim send bob@example.org")]
    Send {
        /// To whom.
        person: String,
        /// The text.
        text: Option<String>,
    },
    /// Print what has arrived.
    #[command(after_help = "Examples:
  cim recv                            what has arrived, then end
  cim recv --follow --json            everything, as it comes, for a program")]
    Recv {
        /// Stay and print what arrives.
        #[arg(long)]
        follow: bool,
    },
    /// Commands and events as JSON lines, for programs.
    #[command(after_help = "Example:
  echo '{\"id\":1,\"do\":\"send\",\"to\":\"bob\",\"text\":\"hello\"}' | cim pipe")]
    Pipe,
    /// Your contacts.
    #[command(
        subcommand,
        after_help = "Examples:
  cim roster list
  cim roster add bob"
    )]
    Roster(Roster),
    /// Say that you are there.
    #[command(after_help = "Example:
  cim available")]
    Available,
    /// Say that you are away.
    #[command(after_help = "Examples:
  cim away
  cim away --for 30min")]
    Away {
        /// For how long, such as 30min.
        #[arg(long = "for", value_parser = crate::text::parse_duration)]
        until: Option<std::time::Duration>,
    },
    /// Say that you are busy: who writes to you is asked whether it can wait.
    #[command(after_help = "Example:
  cim busy --for 2h")]
    Busy {
        /// For how long, such as 2h.
        #[arg(long = "for", value_parser = crate::text::parse_duration)]
        until: Option<std::time::Duration>,
    },
    /// Say that you do not want to be disturbed.
    #[command(after_help = "Example:
  cim dnd --for 8h")]
    Dnd {
        /// For how long, such as 2h.
        #[arg(long = "for", value_parser = crate::text::parse_duration)]
        until: Option<std::time::Duration>,
    },
    /// Send and receive files.
    #[command(
        subcommand,
        after_help = "Examples:
  cim file send bob plan.pdf
  cim file accept --into ~/Downloads"
    )]
    File(File),
    /// Look at and change keys.
    #[command(
        subcommand,
        after_help = "Examples:
  cim keys show
  cim keys safety bob"
    )]
    Keys(Keys),
    /// Find out what is wrong: home, key file, relay, token.
    #[command(after_help = "Example:
  cim doctor")]
    Doctor,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:
  cim completion bash > ~/.local/share/bash-completion/completions/cim")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    #[command(after_help = "Example:
  cim manual | man -l -")]
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
    #[command(after_help = "Example:
  cim roster list")]
    List,
    /// Add a person: asks for their approval.
    #[command(after_help = "Examples:
  cim roster add bob
  cim roster add carol@other.example --name 'Carol from accounts'")]
    Add {
        /// Whom.
        person: String,
        /// A name that only you see.
        #[arg(long)]
        name: Option<String>,
    },
    /// Approve a person, who then sees your presence.
    #[command(after_help = "Example:
  cim roster approve bob")]
    Approve {
        /// Whom.
        person: String,
    },
    /// Deny a person, or take an approval back.
    #[command(after_help = "Example:
  cim roster deny bob")]
    Deny {
        /// Whom.
        person: String,
    },
    /// Drop everything that a person sends; they are not told.
    #[command(after_help = "Example:
  cim roster block mallory@other.example")]
    Block {
        /// Whom.
        person: String,
    },
    /// End a block.
    #[command(after_help = "Example:
  cim roster unblock bob")]
    Unblock {
        /// Whom.
        person: String,
    },
    /// Let a person's urgent messages through while you are busy, or no longer.
    #[command(after_help = "Example:
  cim roster urgent bob yes")]
    Urgent {
        /// Whom.
        person: String,
        /// `yes` or `no`.
        #[arg(value_parser = ["yes", "no"])]
        allow: String,
    },
    /// Remove a person.
    #[command(after_help = "Example:
  cim roster remove bob")]
    Remove {
        /// Whom.
        person: String,
    },
}

/// `cim file`.
#[derive(Subcommand)]
pub(crate) enum File {
    /// Send a file and wait until it has arrived, or the relay keeps all of it for somebody away.
    #[command(after_help = "Example:
  cim file send bob plan.pdf")]
    Send {
        /// To whom.
        person: String,
        /// The file.
        path: PathBuf,
    },
    /// Accept an offered file and wait until it is here.
    #[command(after_help = "Examples:
  cim file accept                      the only one offered
  cim file accept FILE --into ~/Downloads")]
    Accept {
        /// Its id, as `cim file list` shows it; the only one offered if left out.
        file: Option<String>,
        /// The folder to put it in.
        #[arg(long, default_value = ".")]
        into: PathBuf,
    },
    /// List files on their way.
    #[command(after_help = "Example:
  cim file list")]
    List,
    /// Refuse or cancel a file.
    #[command(after_help = "Example:
  cim file cancel FILE                 its id, as `cim file list` shows it")]
    Cancel {
        /// Its id.
        file: String,
    },
}

/// `cim keys`.
#[derive(Subcommand)]
pub(crate) enum Keys {
    /// Show your own record, or a person's.
    #[command(after_help = "Examples:
  cim keys show
  cim keys show bob")]
    Show {
        /// Whose; yours if left out.
        person: Option<String>,
    },
    /// Replace your identity key by a new one, signed by the old.
    #[command(after_help = "Example:
  cim keys rotate")]
    Rotate,
    /// Show the 60 digits to compare with a person.
    #[command(after_help = "Example:
  cim keys safety bob")]
    Safety {
        /// With whom.
        person: String,
    },
    /// Say that you have seen and accept a person's new identity key.
    #[command(after_help = "Example:
  cim keys trust bob")]
    Trust {
        /// Whose.
        person: String,
    },
    /// Revoke your identity key, or one device. Cannot be undone.
    #[command(after_help = "Examples:
  cim keys revoke --device d1
  cim keys revoke --recovery-file alice.words")]
    Revoke {
        /// Only this device.
        #[arg(long)]
        device: Option<String>,
        /// Sign with the recovery phrase in this file.
        #[arg(long, value_name = "FILE")]
        recovery_file: Option<PathBuf>,
    },
    /// Change the password of the key file.
    #[command(after_help = "Example:
  cim keys password")]
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
    page.extend_from_slice(talking().as_bytes());
    print_whole(&page)
}

/// The manual's section about talking.
fn talking() -> String {
    let mut section = Roff::new();
    section.control("SH", ["TALKING"]);
    for paragraph in TALKING.split("\n\n") {
        section.control("PP", []);
        match paragraph.strip_prefix("Examples:\n") {
            None => section.text([roman(paragraph.replace('\n', " "))]),
            Some(examples) => {
                section.control("nf", []);
                section.text([roman(examples)]);
                section.control("fi", [])
            }
        };
    }
    section.render()
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

    #[test]
    fn every_help_has_an_example() {
        fn look(command: &mut clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.render_long_help().to_string();
            let name = path.trim();
            assert!(help.contains("Example"), "{name} --help has no example");
            let examples = help.split("Example").last().unwrap_or_default();
            let own: Vec<&str> = name.split(' ').collect();
            assert!(examples.contains(&own.join(" ")), "{name} --help shows another command");
            let commands = command.get_subcommands_mut().filter(|sub| sub.get_name() != "help");
            commands.for_each(|sub| look(sub, &path));
        }
        let mut command = Arguments::command();
        command.build();
        look(&mut command, "");
    }

    #[test]
    fn the_manual_tells_how_to_talk() {
        let section = talking();
        assert!(section.contains(".SH TALKING"), "{section}");
        assert!(section.contains("given it, `delivered` that the device says so"), "{section}");
    }
}
