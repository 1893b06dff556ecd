//! What a start found, for people and for the log.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::keys::KeyError;

/// Something that a start found and did not expect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The last batch was torn, as a loss of power leaves it, and was cut off.
    TornTailCut {
        /// The journal's file name.
        journal: String,
        /// Where the torn batch began.
        at: u64,
        /// How many octets were cut.
        octets: u64,
    },
    /// A stretch of a journal is no batch; it was copied aside.
    JournalDamaged {
        /// The journal's file name.
        journal: String,
        /// The octets that do not parse.
        octets: Range<u64>,
        /// Where the copy is, if it could be made.
        copy: Option<PathBuf>,
    },
    /// Acknowledged batches are missing.
    BatchesLost {
        /// Their numbers.
        numbers: Range<u64>,
    },
    /// Tables lack batches that are in no journal either.
    TablesBehind {
        /// The part of the store.
        space: String,
        /// The number of the last batch that the tables should hold.
        expected: u64,
    },
    /// A file that describes the tables is damaged.
    ManifestDamaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// The database does not open.
    DatabaseDamaged {
        /// What it said.
        text: String,
    },
    /// The watermark is missing or damaged: a lost tail could not be noticed.
    WatermarkUnusable {
        /// Whether it is missing.
        missing: bool,
    },
    /// One of the watermark's two copies is damaged.
    WatermarkHalfDamaged,
    /// A write had failed before this start: the last journal was written anew, because the system
    /// may hold octets in memory that the device refused.
    JournalRewritten {
        /// The journal's file name.
        journal: String,
    },
    /// The file of wrapped keys was missing or damaged and was written anew.
    KeyFileRestored,
    /// A data key is missing or does not open: rows under it are lost.
    KeyLost {
        /// Its number; 0 is the index key.
        key: u32,
    },
}

impl Finding {
    /// Whether acknowledged data is, or may be, lost: then the store does not open unless the loss
    /// is accepted by configuration.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        match self {
            Self::BatchesLost { .. }
            | Self::DatabaseDamaged { .. }
            | Self::JournalDamaged { .. }
            | Self::KeyLost { .. }
            | Self::ManifestDamaged { .. }
            | Self::TablesBehind { .. } => true,
            Self::JournalRewritten { .. }
            | Self::KeyFileRestored
            | Self::TornTailCut { .. }
            | Self::WatermarkHalfDamaged
            | Self::WatermarkUnusable { .. } => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTailCut { journal, at, octets } => write!(
                formatter,
                "the last batch in {journal} was torn; {octets} octets from {at} were cut off; \
                 nothing acknowledged was in it as far as the watermark tells"
            ),
            Self::JournalDamaged { journal, octets, copy } => {
                write!(formatter, "{journal} is damaged from {} to {}", octets.start, octets.end)?;
                match copy {
                    Some(copy) => write!(formatter, "; a copy is in {}", copy.display()),
                    None => formatter.write_str("; no copy could be made"),
                }
            }
            Self::BatchesLost { numbers } => write!(
                formatter,
                "batches {} to {} were acknowledged and are missing",
                numbers.start,
                numbers.end.saturating_sub(1)
            ),
            Self::TablesBehind { space, expected } => write!(
                formatter,
                "the tables of {space} end before batch {expected}, and no journal has it"
            ),
            Self::ManifestDamaged { file, text } => {
                write!(formatter, "{} is damaged: {text}", file.display())
            }
            Self::DatabaseDamaged { text } => {
                write!(formatter, "the database does not open: {text}")
            }
            Self::WatermarkUnusable { missing: true } => formatter
                .write_str("the watermark is missing; a lost tail could not be noticed this time"),
            Self::WatermarkUnusable { missing: false } => formatter
                .write_str("the watermark is damaged; a lost tail could not be noticed this time"),
            Self::WatermarkHalfDamaged => {
                formatter.write_str("one of the two copies of the watermark is damaged")
            }
            Self::JournalRewritten { journal } => {
                write!(formatter, "{journal} was written anew after a write had failed")
            }
            Self::KeyFileRestored => {
                formatter.write_str("the file of wrapped keys was written anew from the database")
            }
            Self::KeyLost { key: 0 } => formatter.write_str("the index key is lost"),
            Self::KeyLost { key } => write!(formatter, "data key {key} is lost"),
        }
    }
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartReport {
    /// Whether the store was created by this start.
    pub created: bool,
    /// The number of the last batch.
    pub commit_number: u64,
    /// The number that the watermark held.
    pub watermark: Option<u64>,
    /// Batches in the journals.
    pub journal_batches: u64,
    /// Octets of the journals.
    pub journal_octets: u64,
    /// Data keys alive.
    pub data_keys: usize,
    /// What was not as expected, in the order it was met.
    pub findings: Vec<Finding>,
}

impl StartReport {
    /// Whether acknowledged data is, or may be, lost.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        self.findings.iter().any(Finding::is_loss)
    }
}

impl fmt::Display for StartReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.created {
            return formatter.write_str("store created");
        }
        write!(
            formatter,
            "store opened at batch {}, {} batches in {} octets of journals, {} data keys",
            self.commit_number, self.journal_batches, self.journal_octets, self.data_keys
        )?;
        for finding in &self.findings {
            let weight = if finding.is_loss() { "loss" } else { "notice" };
            write!(formatter, "\n{weight}: {finding}")?;
        }
        Ok(())
    }
}

/// Why the store does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Acknowledged data is, or may be, lost. Nothing was changed but the copies aside.
    #[error("the store is damaged and the loss is not accepted: {0}")]
    Damaged(StartReport),
    /// The file system refuses.
    #[error("{what}: {text}")]
    Io {
        /// What was tried, on which file.
        what: String,
        /// What the system said.
        text: String,
    },
    /// The keys cannot be opened.
    #[error("the store's keys do not open: {0}")]
    Key(#[from] KeyError),
    /// Another process has the store open.
    #[error("another process has the store open: {0}")]
    Locked(PathBuf),
}

impl OpenError {
    /// What a person can do about it, one sentence.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Damaged(_) => {
                "check the disk; restore the folder from a backup, or accept the loss once, by \
                 configuration, and go on with what is whole"
            }
            Self::Io { .. } => "check that the folder exists and belongs to the relay's user",
            Self::Key(error) => error.remedy(),
            Self::Locked(_) => "stop the other relay, or give this one a folder of its own",
        }
    }

    pub(super) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self::Io { what: what.into(), text: error.to_string() }
    }
}
