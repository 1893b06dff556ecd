//! The receiving end: chunks in their order into a file that gets its name once it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocol::file::Shape;
use protocol::merkle::{Tree, leaf};
use serde::{Deserialize, Serialize};

use super::{ChunkCipher, FileError};

/// How far a file has come, as the state keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Chunks that are on the disk for good.
    pub(crate) chunks: u64,
    /// The tree over them: sizes and roots of its perfect subtrees, in base64.
    subtrees: Vec<(u64, String)>,
}

/// A file that chunks are written to.
pub(crate) struct Sink {
    file: File,
    target: PathBuf,
    shape: Shape,
    cipher: ChunkCipher,
    tree: Tree,
    next: u64,
}

impl Sink {
    /// Opens the partial file beside `target`, cut back to what `progress` says is good.
    pub(crate) fn open(
        target: &Path,
        shape: Shape,
        cipher: ChunkCipher,
        progress: &Progress,
    ) -> Result<Self, FileError> {
        let mut subtrees = Vec::with_capacity(progress.subtrees.len());
        for (size, root) in &progress.subtrees {
            let root = protocol::base64::decode_array(root).map_err(|_| FileError::Root)?;
            subtrees.push((*size, root));
        }
        let tree = Tree::from_subtrees(subtrees).ok_or(FileError::Root)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(partial(target))?;
        let good = (progress.chunks * u64::from(shape.chunk_octets())).min(shape.size_octets());
        if tree.size() != progress.chunks || file.metadata()?.len() < good {
            // The partial file is not the one that the progress speaks of: begin anew.
            file.set_len(0)?;
            let tree = Tree::new();
            return Ok(Self { file, target: target.into(), shape, cipher, tree, next: 0 });
        }
        file.set_len(good)?;
        Ok(Self { file, target: target.into(), shape, cipher, tree, next: progress.chunks })
    }

    /// The number of the chunk that is wanted next.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Whether every chunk is there.
    pub(crate) const fn is_whole(&self) -> bool {
        self.next == self.shape.chunk_count()
    }

    /// Opens and writes the next chunk.
    pub(crate) fn write(&mut self, sealed: &[u8]) -> Result<(), FileError> {
        let chunk = self.cipher.open(self.next, sealed)?;
        let offset = self.next * u64::from(self.shape.chunk_octets());
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(&chunk)?;
        self.tree.push(leaf(sealed));
        self.next += 1;
        Ok(())
    }

    /// Flushes what was written and says how far it came.
    pub(crate) fn flush(&mut self) -> Result<Progress, FileError> {
        self.file.sync_data()?;
        let subtrees = self.tree.subtrees().iter();
        let subtrees = subtrees.map(|(size, root)| (*size, protocol::base64::encode(root)));
        Ok(Progress { chunks: self.next, subtrees: subtrees.collect() })
    }

    /// Checks the root and gives the file its name. Finishing twice is finishing once: the partial
    /// file stays until [`Self::discard`].
    pub(crate) fn finish(self, root: &str) -> Result<(), FileError> {
        if !self.is_whole() || self.tree.root_name().as_str() != root {
            return Err(FileError::Root);
        }
        self.file.sync_all()?;
        // A link fails where a file of that name is; a rename would replace it.
        let linked = fs::hard_link(partial(&self.target), &self.target).map_err(FileError::Io);
        match linked {
            Err(FileError::Io(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // Finished before, and the program ended before it was noted.
                if !is_same_file(&partial(&self.target), &self.target)? {
                    return Err(FileError::Exists);
                }
            }
            linked => linked?,
        }
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    }

    /// Removes what was written.
    pub(crate) fn discard(target: &Path) {
        // What cannot be removed is left to the user; nothing depends on it.
        let _ = fs::remove_file(partial(target));
    }
}

fn is_same_file(one: &Path, other: &Path) -> Result<bool, FileError> {
    let (one, other) = (fs::metadata(one)?, fs::metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Where a file stands until it is whole.
fn partial(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
