//! Error details: every error of the service carries a `google.rpc.ErrorInfo` with a stable reason.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `domain` of every ErrorInfo.
pub const DOMAIN: &str = "h5flight";

/// A status with its reason, and for `busy` and other passing states the advice to retry.
pub fn status(code: Code, reason: &str, message: impl Into<String>, retry_after: Option<Duration>) -> Status {
    status_with(code, reason, message, retry_after, HashMap::new())
}

/// The same with facts for programs, `metadata` of the ErrorInfo.
pub fn status_with(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    retry_after: Option<Duration>,
    metadata: HashMap<String, String>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if let Some(delay) = retry_after {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, message, details)
}

/// The stable reason of a status made by [`status`]; `None` for others.
pub fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason)
}
