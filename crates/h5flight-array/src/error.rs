//! What can be wrong with a file, a selection or a request, in one taxonomy.
//!
//! A [`Reason`] is stable and documented (docs/errors.md): clients act on it, so it is never renamed. The message is
//! for people: lowercase, no full stop, naming the object and the numbers, never a path of the server.

use serde::{Deserialize, Serialize};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Declares [`Reason`] with its wire names in one place.
macro_rules! reasons {
    ($(#[doc = $doc:literal] $name:ident = $text:literal,)*) => {
        /// Why something was refused; the `reason` of a `google.rpc.ErrorInfo`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason { $(#[doc = $doc] $name,)* }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable text on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means, in one sentence: the text of docs/errors.md.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }

            /// The reason of this wire text, where there is one.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The selection is not well formed, or does not fit the array's rank.
    BadSelection = "bad_selection",
    /// An index lies outside its axis.
    OutOfBounds = "out_of_bounds",
    /// A request field has a value that means nothing.
    BadRequest = "bad_request",
    /// The layout cannot show this array (COLUMNS of a rank-3 array, for example).
    BadLayout = "bad_layout",
    /// A string is not UTF-8 where UTF-8 was promised; ask for binary strings.
    NotUtf8 = "not_utf8",
    /// The bytes are not an HDF5 file.
    NotHdf5 = "not_hdf5",
    /// No animal of this name.
    AnimalNotFound = "animal_not_found",
    /// No experiment of this name.
    ExperimentNotFound = "experiment_not_found",
    /// No dataset of this name.
    DatasetNotFound = "dataset_not_found",
    /// No version of this number or tag, or none at that time.
    VersionNotFound = "version_not_found",
    /// No file of this name below the root.
    FileNotFound = "file_not_found",
    /// The path lies below no configured root.
    OutsideRoots = "outside_roots",
    /// Not a regular file.
    NotARegularFile = "not_a_regular_file",
    /// No, a wrong, an expired or a revoked token.
    Unauthenticated = "unauthenticated",
    /// The token's role does not allow this.
    PermissionDenied = "permission_denied",
    /// The ticket is forged, damaged, expired or somebody else's.
    BadTicket = "bad_ticket",
    /// The file is not the one that was indexed.
    FileChanged = "file_changed",
    /// External raw storage is never followed.
    ExternalStorageRefused = "external_storage_refused",
    /// External links are never followed.
    ExternalLinkRefused = "external_link_refused",
    /// A virtual dataset's source is not served.
    VirtualSourceRefused = "virtual_source_refused",
    /// A virtual dataset refers to itself.
    VirtualCycle = "virtual_cycle",
    /// The file is marked as open for writing.
    OpenForWriting = "open_for_writing",
    /// The dataset is already served from another file.
    DatasetExists = "dataset_exists",
    /// The tag is at another version already; it moves when that is asked for.
    TagExists = "tag_exists",
    /// An upload's bytes are not the ones announced.
    UploadMismatch = "upload_mismatch",
    /// The same upload is running already; ask for its status, and go on when the other stream has ended.
    UploadInProgress = "upload_in_progress",
    /// An upload goes on behind what the server has of it; ask for its status and go on from there.
    UploadOffset = "upload_offset",
    /// The stream of an upload broke off; what came is kept, go on from there.
    UploadBroken = "upload_broken",
    /// The rows of a put do not fit the dataset, or have a type that cannot be written.
    PutMismatch = "put_mismatch",
    /// A put of this writer with a later sequence number is there already, and this one is not known.
    PutSequence = "put_sequence",
    /// The data folder belongs to another catalogue, so that no file of it can be told to be garbage.
    GarbageRefused = "garbage_refused",
    /// The upload is larger than the server takes.
    UploadTooLarge = "upload_too_large",
    /// The dataset has a null dataspace: it holds no value at all.
    NullDataspace = "null_dataspace",
    /// A chunk is declared larger than the server decodes.
    ChunkTooLarge = "chunk_too_large",
    /// The result is larger than the server sends.
    ResultTooLarge = "result_too_large",
    /// The file has more objects, links, attributes or depth than the server indexes.
    FileTooComplex = "file_too_complex",
    /// No space left for an upload, or for the catalogue.
    DiskFull = "disk_full",
    /// The server is at its limit; retry later.
    Busy = "busy",
    /// The file ends before its data.
    Truncated = "truncated",
    /// A checksum in the file does not match.
    Checksum = "checksum",
    /// A chunk decodes to another size than declared.
    ChunkSizeMismatch = "chunk_size_mismatch",
    /// A chunk's address lies outside the file or inside another chunk.
    ChunkAddress = "chunk_address",
    /// A variable-length value's address is invalid.
    HeapAddress = "heap_address",
    /// libhdf5 cannot make sense of the file, or dies of it.
    MalformedFile = "malformed_file",
    /// No decoder for a filter of this array.
    UnsupportedFilter = "unsupported_filter",
    /// No Arrow form for this element type.
    UnsupportedType = "unsupported_type",
    /// A storage layout that is not served.
    UnsupportedLayout = "unsupported_layout",
    /// A call that this server does not offer.
    NotImplemented = "not_implemented",
    /// The catalogue does not answer; retry.
    CatalogUnavailable = "catalog_unavailable",
    /// The server is shutting down; retry elsewhere.
    Draining = "draining",
    /// A file cannot be read by the operating system.
    Io = "io",
    /// A publication lost against another one.
    Conflict = "conflict",
    /// Our own mistake.
    Internal = "internal",
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error with a stable reason; what led to it is kept as its source, for the log only.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What clients act on.
    pub reason: Reason,
    /// What people read.
    pub message: String,
    /// What the operator's log shows behind the message.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without an inner cause.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), source: None }
    }

    /// Keeps `source` as the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn every_reason_is_found_by_its_own_text() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_text(reason.as_str()), Some(*reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert_eq!(Reason::from_text("no_such_reason"), None);
    }
}
