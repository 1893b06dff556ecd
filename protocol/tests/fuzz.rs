//! The bodies of the fuzz targets, on their committed corpora, spoilt corpora and random octets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../../fuzz/body.rs"]
mod body;

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

type Body = fn(&[u8]);

/// Each target with its body.
const TARGETS: [(&str, Body); 4] = [
    ("line", body::line),
    ("command", body::command),
    ("reply", body::reply),
    ("record", body::record),
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

#[test]
fn corpora() {
    for (target, body) in TARGETS {
        let files = corpus(target);
        assert!(files.len() >= 5, "{target}");
        files.iter().for_each(|file| body(file));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn random_octets(octets in vec(any::<u8>(), 0..400)) {
        TARGETS.iter().for_each(|(_, body)| body(&octets));
    }

    #[test]
    fn spoilt_corpora(
        pick in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option_of_index(),
    ) {
        for (target, body) in TARGETS {
            let files = corpus(target);
            let mut octets = files[pick.index(files.len())].clone();
            for (at, value) in &changes {
                if !octets.is_empty() {
                    let at = at.index(octets.len());
                    octets[at] = *value;
                }
            }
            if let Some(cut) = &cut {
                octets.truncate(cut.index(octets.len() + 1));
            }
            body(&octets);
        }
    }
}

fn option_of_index() -> impl Strategy<Value = Option<prop::sample::Index>> {
    prop::option::of(any::<prop::sample::Index>())
}
