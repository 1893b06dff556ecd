//! The sending end: a file on disk, read twice: once to hash it sealed, once to send it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use protocol::file::Shape;
use protocol::identifier::FileId;
use protocol::merkle::{Tree, leaf};

use super::{ChunkCipher, FileError, safe_name};
use crate::limits;
use crate::random::{self, Random};
use crate::secret::Secret32;

/// Leaf hashes in one row of the state.
pub(crate) const LEAVES_PER_PAGE: usize = 256;

/// A file that was read, sealed and hashed once, ready to be offered.
pub struct Prepared {
    pub(crate) path: PathBuf,
    pub(crate) fid: FileId,
    pub(crate) key: Secret32,
    pub(crate) shape: Shape,
    pub(crate) root: String,
    pub(crate) name: String,
    pub(crate) media_type: String,
    /// 32 octets for each chunk.
    pub(crate) leaves: Vec<u8>,
}

impl Prepared {
    /// The octets of the file.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.shape.size_octets()
    }

    /// The name under which it is offered.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Reads the file at `path` once, chunk by chunk, under a new key. Takes as long as reading and
/// sealing takes: run it beside the loop. `chunk_octets` is
/// [`Engine::chunk_octets`](crate::engine::Engine::chunk_octets); `progress` is told after each
/// chunk how many are done, and of how many.
///
/// # Errors
/// [`FileError::Io`], [`FileError::TooLarge`], [`FileError::Changed`] if it shrinks meanwhile.
pub fn prepare(
    path: &Path,
    chunk_octets: u32,
    media_type: &str,
    random: &mut dyn Random,
    mut progress: impl FnMut(u64, u64),
) -> Result<Prepared, FileError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::Io(std::io::ErrorKind::InvalidInput.into()));
    }
    let shape = Shape::new(metadata.len(), chunk_octets).ok_or(FileError::TooLarge)?;
    let fid = FileId::from_octets(&random::octets(random)?);
    let key = random::secret(random)?;
    let cipher = ChunkCipher::new(&key, fid, shape)?;
    let mut source = Source { file, shape };
    let mut tree = Tree::new();
    let mut leaves = Vec::new();
    let count = shape.chunk_count();
    for number in 0..count {
        let mut chunk = source.read(number)?;
        cipher.seal(number, &mut chunk)?;
        let hash = leaf(&chunk);
        tree.push(hash);
        leaves.extend_from_slice(&hash);
        progress(number + 1, count);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let media_type: String = media_type.chars().take(limits::MEDIA_TYPE_CHARACTERS_MAX).collect();
    Ok(Prepared {
        path: std::path::absolute(path)?,
        fid,
        key,
        shape,
        root: tree.root_name().as_str().into(),
        name: safe_name(&name),
        media_type,
        leaves,
    })
}

/// A file that chunks are read from.
pub(crate) struct Source {
    file: File,
    shape: Shape,
}

impl Source {
    pub(crate) fn open(path: &Path, shape: Shape) -> Result<Self, FileError> {
        let file = File::open(path)?;
        if file.metadata()?.len() != shape.size_octets() {
            return Err(FileError::Changed);
        }
        Ok(Self { file, shape })
    }

    /// Reads chunk `number`.
    pub(crate) fn read(&mut self, number: u64) -> Result<Vec<u8>, FileError> {
        let octets = self.shape.octets_of(number).ok_or(FileError::Chunk)? as usize;
        // Room for the tag, so that sealing in place moves nothing.
        let mut chunk = Vec::with_capacity(octets + protocol::limits::CHUNK_TAG_OCTETS);
        chunk.resize(octets, 0);
        self.file.seek(SeekFrom::Start(number * u64::from(self.shape.chunk_octets())))?;
        self.file.read_exact(&mut chunk).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => FileError::Changed,
            _ => FileError::Io(error),
        })?;
        Ok(chunk)
    }
}
