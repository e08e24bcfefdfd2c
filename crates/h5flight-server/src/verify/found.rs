//! What is wrong with a file, in bounds.

use h5flight_array::Reason;
use h5flight_catalog::model::ArrayRecord;
use tonic::Code;

use crate::error::{Error, code};

/// Findings of one file that are kept; the others are counted. A file whose every chunk is damaged has millions.
const FINDINGS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// HDF5 path of the array; empty is the file.
    pub array: String,
    /// Position in the grid of chunks; empty is none in particular.
    pub chunk: Vec<u64>,
}

/// What was found of a file.
#[derive(Debug, Default)]
pub struct Found {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub left_out: u64,
    /// What could not be checked.
    pub unchecked: Vec<Finding>,
    /// Chunks that were looked at.
    pub chunks: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
}

impl Finding {
    /// About the file as a whole.
    pub(super) fn of_file(error: &Error) -> Self {
        Self {
            reason: error.reason(),
            message: error.status().message().to_owned(),
            array: String::new(),
            chunk: Vec::new(),
        }
    }

    /// About an array, and one chunk of it where one is meant.
    pub(super) fn of_array(error: &Error, array: &ArrayRecord, chunk: Option<u64>) -> Self {
        let chunk = chunk.map(|number| array.meta.chunk_position(number)).unwrap_or_default();
        Self { array: array.hdf5_path.clone(), chunk, ..Self::of_file(error) }
    }

    /// Whether something is wrong with the file, and not only in the way of looking at it: a filter or a type that is not
    /// served, a limit of the server.
    fn is_wrong(&self) -> bool {
        let place = matches!(self.reason, Reason::OutsideRoots | Reason::NotARegularFile | Reason::FileNotFound);
        place || matches!(code(self.reason), Code::DataLoss | Code::FailedPrecondition)
    }

    /// Whether it is certain that the file cannot be read as it was indexed. A file system that refuses may be back
    /// tomorrow, and so may a root that is not configured.
    pub(super) fn is_damage(&self) -> bool {
        self.is_wrong() && !matches!(self.reason, Reason::Io | Reason::OutsideRoots)
    }
}

impl Found {
    /// Only this.
    pub(super) fn only(finding: Finding) -> Self {
        let mut found = Self::default();
        found.add(finding);
        found
    }

    /// How many things are wrong.
    pub(super) fn count(&self) -> u64 {
        self.findings.len() as u64 + self.left_out
    }

    /// Adds a finding to those that it belongs to.
    pub(super) fn add(&mut self, finding: Finding) {
        if !finding.is_wrong() {
            if self.unchecked.len() < FINDINGS_MAX {
                self.unchecked.push(finding);
            }
        } else if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.left_out += 1;
        }
    }
}
