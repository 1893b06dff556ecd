//! `cipherim-hsmd`: the only process that loads the vendor's PKCS#11 library and knows the PIN.
//!
//! `serve` offers the token to clients on a Unix socket; the other commands set a token up and say
//! in plain words what is wrong with it. Exit codes: 0 well; 1 something is wrong with token or
//! keys; 2 wrong usage; 69 the token is not there; 75 restarting failed; 78 the configuration is
//! wrong (`sysexits.h`).

#![forbid(unsafe_code)]

mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    command::run(command::Arguments::parse())
}
