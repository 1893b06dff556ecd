//! Prints what the ciphers of this machine run on: `cargo run -p cipherim-accel --example
//! capability`.

#![allow(clippy::print_stdout)]

fn main() {
    print!("{}", accel::capability::capability());
}
