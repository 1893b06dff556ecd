//! The program `cim`: people talk with it, and programs by its pipe.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what is not in it")]

mod arguments;
mod chat;
mod console;
mod contact;
mod doctor;
mod driver;
mod editor;
mod failure;
mod file;
mod home;
mod init;
mod input;
mod key;
mod output;
mod person;
mod pipe;
mod present;
mod receive;
mod send;
mod stop;
mod terminal;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command, Global};
use failure::Failure;
use stop::unless_stopped;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_json = arguments.global.json;
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(run(arguments));
            // A thread may still wait for input that never comes; it ends with the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::internal(format!("the system gives no runtime: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(mut failure) => {
            failure.print(is_json);
            failure.exit_code()
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let global = &arguments.global;
    match arguments.command {
        // These end by themselves when they are asked to.
        Command::Chat { person } => return chat::run(global, &person).await,
        Command::File(file) => return file::run(global, file).await,
        Command::Init(init) => return init::run(global, init).await,
        Command::Pipe => return pipe::run(global).await,
        Command::Recv { follow } => return receive::run(global, follow).await,
        other => unless_stopped(run_briefly(global, other)).await,
    }
}

/// What takes moments and may be broken off anywhere.
async fn run_briefly(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Send { person, text } => send::run(global, &person, text).await,
        Command::Roster(roster) => contact::roster(global, roster).await,
        Command::Available => contact::presence(global, "available", None).await,
        Command::Away { until } => contact::presence(global, "away", until).await,
        Command::Busy { until } => contact::presence(global, "busy", until).await,
        Command::Dnd { until } => contact::presence(global, "dnd", until).await,
        Command::Keys(keys) => key::run(global, keys).await,
        Command::Doctor => doctor::run(global).await,
        Command::Completion { shell } => arguments::completion(shell),
        Command::Manual => arguments::manual(),
        Command::Chat { .. }
        | Command::File(_)
        | Command::Init(_)
        | Command::Pipe
        | Command::Recv { .. } => Err(Failure::internal("a command that ends by itself")),
    }
}
