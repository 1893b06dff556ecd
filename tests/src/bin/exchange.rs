//! `cargo xtask dev` runs this: the exchange for eyes, then a site to try by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use clap::Parser;
use system::exchange::{Exchange, Narrator};
use system::process::POLL;

/// A relay with a throw-away token on loopback, and two people who talk through it.
#[derive(Parser)]
struct Arguments {
    /// End after the exchange; status 0 only if all of it worked.
    #[arg(long)]
    once: bool,
    /// Keep the state in this folder instead of a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let temporary = tempfile::Builder::new().prefix("cipherim-").tempdir()?;
    let folder = arguments.dir.unwrap_or_else(|| temporary.path().to_path_buf());
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second Ctrl-C ends at once: this comes first, so that the first one does not end it.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut exchange = Exchange::prepare(&folder, Narrator::aloud())?;
    exchange.run()?;
    println!("\nAll of it worked.");
    if arguments.once {
        return Ok(());
    }
    invite(&exchange);
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(POLL);
    }
    println!("\nStopping.");
    Ok(())
}

fn invite(exchange: &Exchange) {
    println!("\nThe relay keeps serving. Join the conversation from two other terminals:\n");
    for person in [&exchange.alice, &exchange.bob] {
        let other = if person.name() == "alice" { &exchange.bob } else { &exchange.alice };
        println!(
            "    {} --home {} --password-file {} chat {}",
            system::site::program_path("cim").display(),
            person.home().display(),
            person.home().with_extension("password").display(),
            other.address()
        );
    }
    println!(
        "\nThe relay's state: {} ctl --config {} status",
        system::site::program_path("cipherim-relay").display(),
        exchange.site.relay_config().display()
    );
    println!("Ctrl-C stops everything.");
}
