//! How a command fails: one sentence for people, a stable reason for programs, an exit code for scripts.

use std::process::ExitCode;

use h5flight_proto::client::ClientError;
use serde_json::json;
use tonic::{Code, Status};

use crate::output::{Form, clean};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The command line, the environment or the configuration file says something that means nothing. Exit code 2.
    Usage(String),
    /// Refused by the server, or it went wrong here. Exit code 1.
    Failed {
        /// Stable reason: the server's, or one of this program's own.
        reason: String,
        /// Name of the gRPC status code that fits.
        code: &'static str,
        /// One sentence.
        message: String,
    },
    /// Everything was said already, file by file. Exit code 1.
    Reported,
    /// The reader of our output went away, as `head` does. Exit code 0: it has what it wanted.
    OutputClosed,
    /// SIGINT or SIGTERM. Exit code 130.
    Interrupted,
}

impl Failure {
    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Something on this machine went wrong.
    pub fn local(reason: &str, message: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), code: code_name(Code::Internal), message: message.into() }
    }

    /// The stable reason, where there is one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Failed { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// A file of this machine cannot be read or written.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::local("io", format!("{}: {error}", path.display()))
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(&self, form: Form) -> ExitCode {
        if let Some(text) = self.text(form) {
            eprintln!("{text}");
        }
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Failed { .. } | Self::Reported => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Interrupted => ExitCode::from(130),
        }
    }

    /// What [`Failure::report`] says, if anything.
    pub fn text(&self, form: Form) -> Option<String> {
        let (reason, code, message) = match self {
            Self::Usage(message) => ("usage", code_name(Code::InvalidArgument), message.as_str()),
            Self::Failed { reason, code, message } => (reason.as_str(), *code, message.as_str()),
            Self::Interrupted => ("interrupted", code_name(Code::Cancelled), "interrupted"),
            Self::Reported | Self::OutputClosed => return None,
        };
        Some(match form {
            Form::People => format!("error: {}", clean(message)),
            Form::Json => json!({"error": {"reason": reason, "message": message, "code": code}}).to_string(),
        })
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let reason = error.reason();
        match error {
            ClientError::Url(_) => Self::Usage(error.to_string()),
            ClientError::Token => Self::Usage(error.to_string()),
            ClientError::Connect { .. } => {
                Self::Failed { reason: "unreachable".into(), code: "UNAVAILABLE", message: error.to_string() }
            }
            ClientError::Refused(status) => Self::from(*status),
            ClientError::Stream(_) => Self::Failed {
                reason: reason.unwrap_or_else(|| "broken_stream".into()),
                code: "DATA_LOSS",
                message: error.to_string(),
            },
            ClientError::File { .. } => Self::local("io", error.to_string()),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let known = h5flight_proto::reason::reason_of(&status);
        // Without our reason it was not the service that answered: the transport made the status up.
        let message = match (&known, status.code()) {
            (None, Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                format!("the connection to the server broke ({})", status.message())
            }
            _ if status.message().is_empty() => format!("the server answered {} without a word", status.code()),
            _ => status.message().to_owned(),
        };
        let reason = known.unwrap_or_else(|| code_name(status.code()).to_lowercase());
        Self::Failed { reason, code: code_name(status.code()), message }
    }
}

impl From<h5flight_catalog::Error> for Failure {
    fn from(error: h5flight_catalog::Error) -> Self {
        use h5flight_catalog::ErrorKind;
        let (reason, code) = match &error.kind {
            ErrorKind::NotFound { .. } => ("not_found", Code::NotFound),
            ErrorKind::Refused(reason) => (reason.as_str(), Code::FailedPrecondition),
            ErrorKind::DatasetExists => ("dataset_exists", Code::FailedPrecondition),
            ErrorKind::Conflict | ErrorKind::VersionConflict(_) => ("conflict", Code::Aborted),
            ErrorKind::TagExists => ("tag_exists", Code::AlreadyExists),
            ErrorKind::Unavailable => ("catalog_unavailable", Code::Unavailable),
            ErrorKind::Full => ("disk_full", Code::ResourceExhausted),
            ErrorKind::Invalid => ("bad_request", Code::InvalidArgument),
            ErrorKind::Damaged | ErrorKind::Database => ("internal", Code::Internal),
        };
        Self::Failed { reason: reason.to_owned(), code: code_name(code), message: with_causes(&error) }
    }
}

/// An error with what led to it: the operator sits at this terminal, nothing needs to be hidden.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

/// The name of a status code as the gRPC specification writes it.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_servers_reason_code_and_message() {
        let status = h5flight_proto::reason::status(Code::NotFound, "animal_not_found", "no animal \"m9\"", None);
        let failure = Failure::from(ClientError::from(status));
        assert_eq!(failure.text(Form::People).unwrap(), "error: no animal \"m9\"");
        let expected = r#"{"error":{"code":"NOT_FOUND","message":"no animal \"m9\"","reason":"animal_not_found"}}"#;
        assert_eq!(failure.text(Form::Json).unwrap(), expected);
    }

    #[test]
    fn a_status_that_the_transport_made_up_is_told_as_a_broken_connection() {
        let failure = Failure::from(Status::unavailable("transport error"));
        let text = failure.text(Form::People).unwrap();
        assert_eq!(text, "error: the connection to the server broke (transport error)");
    }

    #[test]
    fn control_characters_of_a_message_do_not_reach_the_terminal() {
        let failure = Failure::local("io", "a\u{1b}[2Jb");
        assert_eq!(failure.text(Form::People).unwrap(), "error: a\\u{1b}[2Jb");
    }
}
