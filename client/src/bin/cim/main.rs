//! The program `cim`: people talk with it, and programs by its pipe.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what is not in it")]

mod arguments;
mod chat;
mod contact;
mod doctor;
mod driver;
mod failure;
mod file;
mod home;
mod init;
mod key;
mod pipe;
mod present;
mod receive;
mod send;
mod terminal;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use failure::Failure;

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
        Err(failure) => {
            failure.print(is_json);
            failure.exit_code()
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let global = &arguments.global;
    match arguments.command {
        Command::Init(init) => init::run(global, init).await,
        Command::Chat { person } => chat::run(global, &person).await,
        Command::Send { person, text } => send::run(global, &person, text).await,
        Command::Recv { follow } => receive::run(global, follow).await,
        Command::Pipe => pipe::run(global).await,
        Command::Roster(roster) => contact::roster(global, roster).await,
        Command::Available => contact::presence(global, "available", None).await,
        Command::Away { until } => contact::presence(global, "away", until).await,
        Command::Busy { until } => contact::presence(global, "busy", until).await,
        Command::Dnd { until } => contact::presence(global, "dnd", until).await,
        Command::File(file) => file::run(global, file).await,
        Command::Keys(keys) => key::run(global, keys).await,
        Command::Doctor => doctor::run(global).await,
        Command::Completion { shell } => arguments::completion(shell),
        Command::Manual => arguments::manual(),
    }
}
