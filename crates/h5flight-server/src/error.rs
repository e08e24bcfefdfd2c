//! One mapping from what was wrong to what a client is told.
//!
//! Clients see the message, the code and the stable reason; never SQL, never a path of the server. The chain of causes
//! is logged once, where the call ends.

use std::collections::HashMap;
use std::time::Duration;

use h5flight_array::{Error as ArrayError, Reason};
use h5flight_catalog::error::{Error as CatalogError, ErrorKind, Level};
use tonic::{Code, Status};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// When a client that was told `busy` should come back.
const BUSY_RETRY: Duration = Duration::from_millis(500);
/// When a client that was told `catalog_unavailable` or `draining` should come back.
const AWAY_RETRY: Duration = Duration::from_secs(2);

/// Whatever a call can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a selection, a request, a token: anything with a reason of its own.
    #[error(transparent)]
    Refused(#[from] ArrayError),
    /// The catalogue.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Error {
    /// An error with this reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        ArrayError::new(reason, message).into()
    }

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused(error) => error.reason,
            Self::Catalog(error) => match &error.kind {
                ErrorKind::NotFound { level: Level::Animal, .. } => Reason::AnimalNotFound,
                ErrorKind::NotFound { level: Level::Experiment, .. } => Reason::ExperimentNotFound,
                ErrorKind::NotFound { level: Level::Dataset, .. } => Reason::DatasetNotFound,
                ErrorKind::NotFound { level: Level::Version, .. } => Reason::VersionNotFound,
                ErrorKind::Refused(text) => Reason::from_text(text).unwrap_or(Reason::Internal),
                ErrorKind::DatasetExists => Reason::DatasetExists,
                ErrorKind::Conflict | ErrorKind::VersionConflict(_) => Reason::Conflict,
                ErrorKind::TagExists => Reason::TagExists,
                ErrorKind::Unavailable => Reason::CatalogUnavailable,
                ErrorKind::Full => Reason::DiskFull,
                ErrorKind::Invalid => Reason::BadRequest,
                ErrorKind::Damaged | ErrorKind::Database => Reason::Internal,
            },
        }
    }

    /// The same with a note behind its message.
    #[must_use]
    pub fn noting(self, note: &str) -> Self {
        match self {
            Self::Refused(error) => {
                Self::Refused(ArrayError { message: format!("{} ({note})", error.message), ..error })
            }
            Self::Catalog(error) => Self::Catalog(error),
        }
    }

    /// What the client is told. Our own mistakes are told without their inside.
    pub fn status(&self) -> Status {
        let reason = self.reason();
        let retry = match reason {
            Reason::Busy => Some(BUSY_RETRY),
            Reason::CatalogUnavailable | Reason::Draining | Reason::UploadInProgress | Reason::UploadBroken => {
                Some(AWAY_RETRY)
            }
            _ => None,
        };
        let message = match reason {
            Reason::Internal => "the server made a mistake; its log has the details".to_owned(),
            _ => self.to_string(),
        };
        h5flight_proto::reason::status_with(code(reason), reason.as_str(), message, retry, self.facts())
    }

    /// What programs are told beside the reason.
    fn facts(&self) -> HashMap<String, String> {
        let Self::Catalog(CatalogError { kind: ErrorKind::VersionConflict(lost), .. }) = self else {
            return HashMap::new();
        };
        let facts = [
            ("dataset", lost.dataset.clone()),
            ("expected_version", lost.expected.to_string()),
            ("current_version", lost.current.to_string()),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Error and causes in one line, for the log.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// The code of each reason; no `_` arm, so that a new reason is decided here.
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::BadSelection
        | Reason::OutOfBounds
        | Reason::BadRequest
        | Reason::BadLayout
        | Reason::NotUtf8
        | Reason::NotHdf5
        | Reason::OutsideRoots
        | Reason::NotARegularFile
        | Reason::UploadMismatch
        | Reason::PutMismatch => Code::InvalidArgument,
        Reason::AnimalNotFound
        | Reason::ExperimentNotFound
        | Reason::DatasetNotFound
        | Reason::VersionNotFound
        | Reason::FileNotFound => Code::NotFound,
        Reason::Unauthenticated | Reason::BadTicket => Code::Unauthenticated,
        Reason::PermissionDenied => Code::PermissionDenied,
        Reason::FileChanged
        | Reason::ExternalStorageRefused
        | Reason::ExternalLinkRefused
        | Reason::VirtualSourceRefused
        | Reason::VirtualCycle
        | Reason::OpenForWriting
        | Reason::UploadOffset
        | Reason::PutSequence
        | Reason::GarbageRefused
        | Reason::NullDataspace => Code::FailedPrecondition,
        Reason::DatasetExists | Reason::TagExists => Code::AlreadyExists,
        Reason::ChunkTooLarge
        | Reason::ResultTooLarge
        | Reason::FileTooComplex
        | Reason::UploadTooLarge
        | Reason::DiskFull
        | Reason::Busy => Code::ResourceExhausted,
        Reason::Truncated
        | Reason::Checksum
        | Reason::ChunkSizeMismatch
        | Reason::ChunkAddress
        | Reason::HeapAddress
        | Reason::MalformedFile
        | Reason::Io => Code::DataLoss,
        Reason::UnsupportedFilter | Reason::UnsupportedType | Reason::UnsupportedLayout | Reason::NotImplemented => {
            Code::Unimplemented
        }
        Reason::CatalogUnavailable | Reason::Draining | Reason::UploadBroken => Code::Unavailable,
        Reason::Conflict | Reason::UploadInProgress => Code::Aborted,
        Reason::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_the_reason_and_hides_our_own_mistakes() {
        let busy = Error::new(Reason::Busy, "no memory for another read").status();
        assert_eq!(busy.code(), Code::ResourceExhausted);
        assert_eq!(h5flight_proto::reason::reason_of(&busy).as_deref(), Some("busy"));
        let ours = Error::new(Reason::Internal, "row 17 of table arrays").status();
        assert!(!ours.message().contains("arrays"), "{}", ours.message());
    }

    /// The documentation is made from the code, so that neither can lie about the other.
    #[test]
    fn the_documented_reasons_are_those_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        let text = std::fs::read_to_string(path).expect("docs/errors.md is there");
        let (begin, end) = ("<!-- reasons: begin -->\n", "<!-- reasons: end -->");
        let start = text.find(begin).expect("the begin marker is there") + begin.len();
        let stop = text.find(end).expect("the end marker is there");
        let mut table = String::from("| reason | code | meaning |\n|---|---|---|\n");
        for reason in Reason::ALL {
            let code = format!("{:?}", code(*reason));
            let name = code.chars().enumerate().fold(String::new(), |mut name, (at, letter)| {
                if letter.is_uppercase() && at > 0 {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
                name
            });
            table += &format!("| `{reason}` | {name} | {} |\n", reason.meaning().trim());
        }
        if std::env::var_os("H5FLIGHT_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{}{table}{}", &text[..start], &text[stop..]))
                .expect("docs/errors.md is writable");
        } else {
            assert_eq!(&text[start..stop], table, "run this test with H5FLIGHT_WRITE_DOCS=1 and commit docs/errors.md");
        }
    }
}
