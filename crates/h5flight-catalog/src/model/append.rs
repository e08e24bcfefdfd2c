//! Rows that come after others: puts, what they made, and how their many small files become few.

use super::{DatasetPath, FilePlace, Fingerprint, NewObject};

/// By which a put is known again: who writes, and which of its puts to this dataset it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WriterSequence {
    /// As the writer calls itself; 1 to 255 bytes.
    pub writer: String,
    /// Counts upwards from any number, at most 2^63 - 1.
    pub sequence: u64,
}

/// A managed file with one dataset, whose rows are to come after those of a dataset.
#[derive(Clone, Debug)]
pub struct Append {
    /// The dataset and its array. Attributes and dimensions count where it is the first version.
    pub object: NewObject,
    /// Where the file is; a managed one.
    pub place: FilePlace,
    /// Its state.
    pub fingerprint: Fingerprint,
    /// Name for people.
    pub source_name: String,
    /// By which a retry is known.
    pub writer: Option<WriterSequence>,
    /// Number of the version that it is based on, 0 for none; `None` is whichever is.
    pub expected_version: Option<u64>,
    /// The row that its first one must become; `None` is whichever comes next.
    pub expected_first_row: Option<u64>,
    /// Who; empty for anonymous.
    pub principal: String,
}

/// What a put made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Number of the version.
    pub version: u64,
    /// Its key. Of a put that was made earlier the version may be gone by now.
    pub version_id: i64,
    /// First row of what was put, within the version.
    pub first_row: u64,
    /// Rows that were put.
    pub rows: u64,
    /// Rows of the version.
    pub total_rows: u64,
    /// True when an earlier put of the same writer and sequence made it.
    pub already: bool,
    /// Content address of the file that came with it.
    pub content: String,
    /// Identities of arrays that are no longer any current version's; none for an append to what is there.
    pub superseded: Vec<[u8; 16]>,
}

/// Files of a dataset that came one by one, and that one file may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongList {
    /// The dataset.
    pub path: DatasetPath,
    /// Its newest version, which has all of these extents.
    pub version_id: i64,
    /// The key of the list.
    pub list: i64,
    /// What is appended in it, in order.
    pub extents: Vec<ListedExtent>,
}

/// One place of a list of extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedExtent {
    /// Its place.
    pub ordinal: i64,
    /// The array whose rows it has, from its first one on.
    pub array_id: i64,
    /// First row in the dataset.
    pub first_row: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of the array as it is stored.
    pub stored_bytes: u64,
}

/// A managed file with one dataset, which takes the place of neighbours in a list.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// The list.
    pub list: i64,
    /// What is replaced: neighbours, in order.
    pub replaced: Vec<ListedExtent>,
    /// The dataset and its array, of as many rows as the neighbours have together.
    pub object: NewObject,
    /// Where the file is; a managed one.
    pub place: FilePlace,
    /// Its state.
    pub fingerprint: Fingerprint,
    /// Name for people.
    pub source_name: String,
}
