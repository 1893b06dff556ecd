//! A large file beside the chat, over a link that breaks.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Exchange, FILE_OCTETS};

impl Exchange {
    /// Sends a file while both chat, cuts the link twice, and compares what arrived.
    pub(super) fn send_file(&mut self) -> Result<()> {
        let path = self.site.folder().join("holiday.bin");
        write_sample(&path)?;
        let (alice, bob) = (self.alice.address().to_owned(), self.bob.address().to_owned());
        self.alice.act(json!({"do": "file-send", "to": bob, "path": path}))?;
        let offer = self.bob.expect("file-offered", |event| event["person"] == json!(alice))?;
        ensure!(offer["size"] == json!(FILE_OCTETS), "offered with another size: {offer}");
        self.narrator
            .says("bob", &format!("alice offers {} ({FILE_OCTETS} octets)", offer["name"]));
        let into = self.site.folder().join("received");
        std::fs::create_dir_all(&into)?;
        let accepted =
            self.bob.act(json!({"do": "file-accept", "file": offer["file"], "into": into}))?;

        for (number, percent) in [(1, 20), (2, 60)] {
            self.bob.expect("file-progress", |event| {
                let count = |name: &str| event[name].as_u64().unwrap_or_default();
                count("done_chunks") * 100 >= count("chunks") * percent
            })?;
            let text = format!("chat overtakes the file, {number}");
            self.say(true, &text)?;
            self.hear(false, &text)?;
            self.site.wire().cut();
            self.narrator.says("wire", &format!("cut at about {percent} %"));
            self.alice.expect("online", |_| true)?;
            self.bob.expect("online", |_| true)?;
            let text = format!("are you still there? {number}");
            self.say(false, &text)?;
            self.hear(true, &text)?;
        }

        let done = self.bob.expect("file-done", |event| event["file"] == offer["file"])?;
        ensure!(done["verified"] == json!(true), "the signature does not hold: {done}");
        let received = accepted["path"].as_str().context("a path")?.to_owned();
        ensure!(are_equal(&path, Path::new(&received))?, "the file arrived changed");
        self.alice.expect("file-done", |event| event["verified"] == json!(true))?;
        self.narrator.says("bob", "the file is whole and its signature holds");
        Ok(())
    }
}

/// A file without repetition that no compression or short read can get right by luck.
fn write_sample(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut block = Vec::with_capacity(1 << 16);
    for _ in 0..FILE_OCTETS / (1 << 16) {
        block.clear();
        while block.len() < 1 << 16 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

fn are_equal(left: &Path, right: &Path) -> Result<bool> {
    let (mut left, mut right) = (File::open(left)?, File::open(right)?);
    if left.metadata()?.len() != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = left.read(&mut a)?;
        if count == 0 {
            return Ok(true);
        }
        let (a, b) = (a.get(..count).unwrap_or_default(), b.get_mut(..count).unwrap_or_default());
        right.read_exact(b)?;
        if a != b {
            return Ok(false);
        }
    }
}
