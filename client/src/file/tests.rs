//! Files: the published vector, every wrong chunk, and where it may end up.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use protocol::merkle::{Tree, leaf};
use serde_json::Value;

use super::*;
use crate::random::Seeded;

fn vector() -> Value {
    let all = include_str!("../../../protocol/tests/vectors/vectors.json");
    serde_json::from_str::<Value>(all).unwrap()["file"].clone()
}

fn cipher(key: &[u8; 32], shape: Shape) -> ChunkCipher {
    let fid = FileId::parse("TbyaSxVOV0haX7vAvBf2fA").unwrap();
    ChunkCipher::new(&Secret32::from_slice(key).unwrap(), fid, shape).unwrap()
}

#[test]
fn the_vector() {
    let vector = vector();
    let hex = vector["key"].as_str().unwrap();
    let key: Vec<u8> =
        (0..64).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    let shape = Shape::new(8_292, 4_096).unwrap();
    let cipher = cipher(&key.try_into().unwrap(), shape);
    let last = protocol::base64::decode(vector["chunk2"].as_str().unwrap()).unwrap();
    let opened = cipher.open(2, &last).unwrap();
    assert_eq!(opened[..], [2; 100], "the octets of the published file are their chunk's number");
    let mut tree = Tree::new();
    for number in 0..3u64 {
        let octets = shape.octets_of(number).unwrap() as usize;
        let mut chunk = vec![number as u8; octets];
        cipher.seal(number, &mut chunk).unwrap();
        if number == 2 {
            assert_eq!(chunk, last);
        }
        tree.push(leaf(&chunk));
    }
    assert_eq!(tree.root_name().as_str(), vector["root"].as_str().unwrap());
}

fn sent(folder: &std::path::Path, size: usize) -> (Prepared, Source, ChunkCipher) {
    let path = folder.join("a file.bin");
    let content: Vec<u8> = (0..size).map(|n| (n * 7 % 253) as u8).collect();
    std::fs::write(&path, content).unwrap();
    let prepared = prepare(&path, 1_024, "x/y", &mut Seeded::new(size as u64), |_, _| ()).unwrap();
    let source = Source::open(&path, prepared.shape).unwrap();
    let cipher = ChunkCipher::new(&prepared.key, prepared.fid, prepared.shape).unwrap();
    (prepared, source, cipher)
}

#[test]
fn files_of_every_size_arrive() {
    for size in [0, 1, 1_023, 1_024, 1_025, 2_048, 10_000] {
        let folder = tempfile::tempdir().unwrap();
        let (prepared, mut source, out) = sent(folder.path(), size);
        let target = folder.path().join("arrived");
        let open = |progress: &Progress| {
            let cipher = ChunkCipher::new(&prepared.key, prepared.fid, prepared.shape).unwrap();
            Sink::open(&target, prepared.shape, cipher, progress).unwrap()
        };
        let mut sink = open(&Progress::default());
        for number in 0..prepared.shape.chunk_count() {
            let mut chunk = source.read(number).unwrap();
            out.seal(number, &mut chunk).unwrap();
            sink.write(&chunk).unwrap();
            // Interrupted and resumed after each chunk.
            let progress = sink.flush().unwrap();
            assert_eq!(progress.chunks, number + 1);
            sink = open(&progress);
        }
        assert!(!target.exists());
        sink.finish(&prepared.root).unwrap();
        let original = std::fs::read(&prepared.path).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), original, "{size}");
    }
}

#[test]
fn wrong_chunks_and_roots_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (prepared, mut source, out) = sent(folder.path(), 3_000);
    let sealed = |source: &mut Source, number| {
        let mut chunk = source.read(number).unwrap();
        out.seal(number, &mut chunk).unwrap();
        chunk
    };
    let chunks = [0, 1, 2].map(|number| sealed(&mut source, number));
    let target = folder.path().join("arrived");
    let cipher = || ChunkCipher::new(&prepared.key, prepared.fid, prepared.shape).unwrap();
    let mut sink = Sink::open(&target, prepared.shape, cipher(), &Progress::default()).unwrap();
    assert!(matches!(sink.write(&chunks[1]), Err(FileError::Chunk)), "out of order");
    let mut changed = chunks[0].clone();
    changed[5] ^= 1;
    assert!(matches!(sink.write(&changed), Err(FileError::Chunk)), "changed");
    assert!(matches!(sink.write(&chunks[0][1..]), Err(FileError::Chunk)), "cut");
    for chunk in &chunks {
        sink.write(chunk).unwrap();
    }
    assert!(sink.is_whole());
    assert!(matches!(sink.finish("another root"), Err(FileError::Root)));
    assert!(!target.exists());
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (prepared, mut source, out) = sent(folder.path(), 10);
    let target = folder.path().join("arrived");
    let cipher = ChunkCipher::new(&prepared.key, prepared.fid, prepared.shape).unwrap();
    let mut sink = Sink::open(&target, prepared.shape, cipher, &Progress::default()).unwrap();
    let mut chunk = source.read(0).unwrap();
    out.seal(0, &mut chunk).unwrap();
    sink.write(&chunk).unwrap();
    std::fs::write(&target, "mine").unwrap();
    assert!(matches!(sink.finish(&prepared.root), Err(FileError::Exists)));
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
}

#[test]
fn a_file_that_shrinks_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (prepared, mut source, _) = sent(folder.path(), 3_000);
    std::fs::write(&prepared.path, "short").unwrap();
    assert!(matches!(source.read(0), Err(FileError::Changed)));
    assert!(matches!(Source::open(&prepared.path, prepared.shape), Err(FileError::Changed)));
}

#[test]
fn names_stay_in_their_folder() {
    for (name, safe) in [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.exe", "y.exe"),
        (".bashrc", "bashrc"),
        ("..", "file"),
        ("", "file"),
        ("a\nb\u{202E}c", "abc"),
        ("  spaced  ", "spaced"),
    ] {
        assert_eq!(safe_name(name), safe, "{name:?}");
    }
    let limit = limits::FILE_NAME_OCTETS_MAX;
    assert_eq!(safe_name(&"x".repeat(limit)).len(), limit);
    assert_eq!(safe_name(&"x".repeat(limit + 1)).len(), limit);
    assert!(safe_name(&"ж".repeat(limit)).len() <= limit);
}

#[test]
fn manifests_carry_name_type_and_key() {
    let key = Secret32::from_slice(&[7; 32]).unwrap();
    let manifest = Manifest {
        name: "ü; name=x %.txt".into(),
        media_type: "text/plain; charset=utf-8".into(),
        key: key.clone(),
    };
    let entity = manifest.to_entity();
    let plaintext = entity.to_plaintext().unwrap();
    let read = Manifest::from_entity(&Entity::from_plaintext(&plaintext).unwrap()).unwrap();
    assert_eq!((read.name, read.media_type), (manifest.name, manifest.media_type));
    assert_eq!(read.key, key);
    assert!(Manifest::from_entity(&Entity::text("hello")).is_err());
}
