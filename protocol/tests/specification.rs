//! `SPEC.md` says what the code does: its generated section, its grammar and its numbers.
#![allow(clippy::unwrap_used)]

const SPECIFICATION: &str = include_str!("../SPEC.md");

#[test]
fn the_generated_section_is_up_to_date() {
    let (_, rest) = SPECIFICATION.split_once("<!-- generated: begin -->\n").unwrap();
    let (section, _) = rest.split_once("<!-- generated: end -->").unwrap();
    assert!(
        section.trim() == protocol::table::markdown().trim(),
        "run `cargo run -p cipherim-protocol --example specification`"
    );
}

#[test]
fn the_grammar_is_the_tested_one() {
    let grammar = include_str!("vectors/cim1.abnf");
    let (_, rest) = SPECIFICATION.split_once("```abnf\n").unwrap();
    let (section, _) = rest.split_once("```").unwrap();
    assert_eq!(section.trim(), grammar.trim());
}

#[test]
fn sections_that_the_code_names_exist() {
    let mut checked = 0;
    for entry in walk(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let source = std::fs::read_to_string(&entry).unwrap();
        for reference in source.split("SPEC.md §").skip(1) {
            let number: String = reference.chars().take_while(char::is_ascii_digit).collect();
            let heading = format!("\n## {number}. ");
            assert!(SPECIFICATION.contains(&heading), "{}: §{number}", entry.display());
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}
