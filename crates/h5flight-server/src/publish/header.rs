//! What the client of an upload announces, and by what the upload is known again.

use h5flight_array::Reason;

use super::Wishes;
use crate::error::{Error, Result};

/// What the client announced.
#[derive(Clone, Debug, Default)]
pub struct UploadHeader {
    /// Name for people, without folders.
    pub file_name: String,
    /// Size in bytes.
    pub file_bytes: u64,
    /// blake3, lowercase hex; empty when not known.
    pub blake3: String,
    /// Idempotency key; empty when the content decides.
    pub key: String,
    /// Position of the first byte that is sent.
    pub offset: u64,
    /// Everything else.
    pub wishes: Wishes,
}

impl UploadHeader {
    /// Whether it means something here.
    ///
    /// # Errors
    /// `bad_request`, `upload_too_large`.
    pub fn check(&self, bytes_max: u64) -> Result<()> {
        let name = &self.file_name;
        if name.is_empty() || name.len() > 255 || name.contains(['/', '\0']) {
            return Err(Error::new(Reason::BadRequest, format!("{name:?} is not a file name")));
        }
        if self.file_bytes > bytes_max {
            let message = format!("{name} has {} bytes, uploads are limited to {bytes_max}", self.file_bytes);
            return Err(Error::new(Reason::UploadTooLarge, message));
        }
        let plain = self.blake3.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !plain || !matches!(self.blake3.len(), 0 | 64) {
            return Err(Error::new(Reason::BadRequest, "a blake3 has 64 digits of lowercase hex"));
        }
        if self.offset > 0 && self.id().is_none() {
            let message = "an upload goes on only where its blake3 or an idempotency key is told";
            return Err(Error::new(Reason::BadRequest, message));
        }
        Ok(())
    }

    /// By what the upload is known again: its content or its key, and who uploads, so that nobody spoils or goes on
    /// with what another one sends. `None`: by nothing.
    pub fn id(&self) -> Option<String> {
        let known_by = if self.blake3.is_empty() { &self.key } else { &self.blake3 };
        if known_by.is_empty() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        for part in [if self.blake3.is_empty() { "key" } else { "content" }, known_by, &self.wishes.principal] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&self.file_bytes.to_le_bytes());
        Some(hasher.finalize().to_hex().to_string())
    }
}
