//! Writes the generated section of `SPEC.md` from the table of commands.
#![allow(clippy::expect_used, reason = "a tool for developers: stopping is right")]

use std::path::Path;

const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

fn main() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("SPEC.md");
    let text = std::fs::read_to_string(&path).expect("SPEC.md is readable");
    let (head, rest) = text.split_once(BEGIN).expect("SPEC.md has the begin mark");
    let (_, tail) = rest.split_once(END).expect("SPEC.md has the end mark");
    let table = protocol::table::markdown();
    std::fs::write(&path, format!("{head}{BEGIN}\n{table}\n{END}{tail}"))
        .expect("SPEC.md is writable");
}
