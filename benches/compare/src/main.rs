//! `cipherim-compare`: accel against other libraries in one run, as Markdown and JSON.
//!
//! Usage: `cipherim-compare [--quick] [--json FILE] [WORD ...]`; words restrict the run to
//! operations whose name holds one of them. Figures are medians; a ratio above 1 says that accel's
//! chosen backend is faster than the best rival.

mod measure;
mod report;
mod rival;

use measure::Plan;
use rival::Operation;
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let mut plan = Plan { rounds: 101, slice: Duration::from_micros(300) };
    let mut sizes = vec![64, 256, 1024, 4096, 16_384, 1 << 20];
    let (mut json, mut words) = (None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => {
                plan = Plan { rounds: 41, slice: Duration::from_micros(200) };
                sizes = vec![64, 256, 1024, 16_384];
            }
            "--json" => json = arguments.next(),
            word => words.push(word.to_owned()),
        }
    }
    let mut rows = Vec::new();
    println!("{}", report::HEADING);
    for operation in Operation::ALL {
        let name = operation.name();
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        for len in sizes.iter().copied() {
            if operation.messages() > 1 && len > 4096 {
                continue;
            }
            let mut contenders = rival::contenders(operation, len);
            let figures = measure::measure(plan, &mut contenders);
            let row = report::Row::new(operation, len, &contenders, &figures);
            println!("{row}");
            rows.push(row);
        }
    }
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}
