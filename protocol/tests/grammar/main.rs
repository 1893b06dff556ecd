//! The parser against `cim1.abnf`: an interpreter of the grammar derives lines, spoils them, and
//! gives its verdict; the parser must agree but for a closed list of stricter rules.
//!
//! A failing case prints its seed; `CIM_GRAMMAR_SEED=n` runs that case alone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod abnf;
mod stricter;

use std::collections::BTreeMap;

use abnf::{Grammar, Random};
use protocol::Line;

const GRAMMAR: &str = include_str!("../vectors/cim1.abnf");
/// Derived lines, each of which is also spoilt [`SPOILT`] times.
const DERIVED: u64 = 4_500;
const SPOILT: u64 = 4;

/// Compares the verdicts on one line without its CRLF; says whether it was taken.
fn agree(grammar: &Grammar, line: &[u8], seed: u64) -> bool {
    let is_derivable = grammar.matches("line", &[line, b"\r\n"].concat());
    let parsed = Line::parse(line);
    let stricter = if is_derivable { stricter::reason(line) } else { None };
    let text = String::from_utf8_lossy(line);
    match (is_derivable, stricter, &parsed) {
        (false, _, Ok(_)) => panic!("seed {seed}: not in the grammar, but taken: {text}"),
        (true, None, Err(error)) => panic!("seed {seed}: in the grammar: {error:?}: {text}"),
        (true, Some(rule), Ok(_)) => panic!("seed {seed}: against {rule:?}, but taken: {text}"),
        _ => {}
    }
    parsed.is_ok()
}

#[test]
fn derived_and_spoilt_lines() {
    let grammar = Grammar::parse(GRAMMAR);
    let chosen: Option<u64> = std::env::var("CIM_GRAMMAR_SEED").ok().map(|n| n.parse().unwrap());
    let seeds = chosen.map_or(0..DERIVED, |seed| seed..seed + 1);
    let (mut taken, mut lines) = (0u64, 0u64);
    let mut broken: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds {
        let mut random = Random::new(seed);
        let line = grammar.derive("line", &mut random);
        let line = line.strip_suffix(b"\r\n").unwrap();
        assert!(grammar.matches("line", &[line, b"\r\n"].concat()), "seed {seed}: derived");
        taken += u64::from(agree(&grammar, line, seed));
        lines += 1;
        *broken.entry(format!("{:?}", stricter::reason(line))).or_default() += 1;
        for _ in 0..SPOILT {
            let spoilt = random.spoil(line);
            taken += u64::from(agree(&grammar, &spoilt, seed));
            lines += 1;
        }
    }
    // Both verdicts must really occur, or the test compares nothing.
    if chosen.is_none() {
        println!("{taken} of {lines} lines taken; derived lines by the rule broken: {broken:?}");
        assert!(taken > lines / 20 && taken < lines - lines / 20);
        for rule in stricter::Rule::ALL {
            assert!(broken.contains_key(&format!("{:?}", Some(rule))), "{rule:?} never broken");
        }
    }
}

#[test]
fn spoilt_vectors() {
    let grammar = Grammar::parse(GRAMMAR);
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../vectors/vectors.json")).unwrap();
    let mut lines = Vec::new();
    for part in vectors.as_object().unwrap().values() {
        for name in ["line", "one"] {
            if let Some(line) = part.get(name).and_then(|line| line.as_str()) {
                lines.push(line.trim_end().as_bytes().to_vec());
            }
        }
    }
    assert_eq!(lines.len(), 11);
    for (position, line) in lines.iter().enumerate() {
        assert!(agree(&grammar, line, 0), "vector {position}");
        let mut random = Random::new(position as u64);
        for _ in 0..100 {
            agree(&grammar, &random.spoil(line), position as u64);
        }
    }
}

#[test]
fn lines_that_once_divided_parsers() {
    let grammar = Grammar::parse(GRAMMAR);
    for line in [
        "100 FROM a FROM",
        "100 FROM a TOTO",
        "100 FROM a FROM FROM",
        "100 FROM a - -",
        "100 FROM a -",
        "100 FROM a - AAAA",
        "100 FROM a AAAA -",
        "100 FROM a A=",
        "100 FROM a A=B AAAA A=B",
        "100 TO a AAAA",
        "100 TO a A=B",
        "100 TO TO FROM a",
        "100 FROM to TO from",
        "100 A=B FROM a",
        "100 FROM a A==",
        "100 FROM a AA==",
        "100 FROM a A=%3D",
        "100 FROM a A=%3d",
        "100 FROM a A=%41",
        "100 FROM a%2Bb@c",
        "100 FROM a%21b@c",
        "100 FROM %FF@c",
        "100 FROM a-",
        "100 FROM -a",
        "100 FROM a.b-.c",
        "100 FROM a/b/c",
        "100 FROM @a",
        "250 :",
        "250-:",
        "250 A=B:",
        "250 A=B :",
        "250 A=B A=C :",
        "250 A=: :",
        "250 :\u{7f}",
        "250 :\t",
        "250 :é",
        "250",
        "600",
        "1000",
        "15",
    ] {
        agree(&grammar, line.as_bytes(), 0);
    }
    agree(&grammar, b"250 :\xff", 0);
}
