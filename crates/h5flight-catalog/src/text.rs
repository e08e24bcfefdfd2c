//! Bounds of the texts that the catalogue stores. The CHECK constraints of the migrations say the same numbers.
//!
//! Names are refused when too long; words for people are cut. All bounds are in bytes of UTF-8.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// Names of animals, experiments, principals, secrets, roots; keys; stable reasons.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Names of objects within an experiment and paths below a root: the longest that a PostgreSQL index entry takes.
pub(crate) const PATH_BYTES_MAX: usize = 2048;
/// Paths within a file; paths and selections of the access log.
pub(crate) const LONG_PATH_BYTES_MAX: usize = 4096;
/// Facts of an experiment; names under which files came.
pub(crate) const FACT_BYTES_MAX: usize = 1024;
/// Tags of versions.
pub(crate) const TAG_BYTES_MAX: usize = 64;
/// Messages.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;
/// Text by which an object is found.
pub(crate) const SEARCH_BYTES_MAX: usize = 65_536;

/// `name` unchanged, if it can be stored: not empty, at most `bytes_max`, without NUL (PostgreSQL has none in text).
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], naming `what`.
pub(crate) fn name<'a>(what: &str, name: &'a str, bytes_max: usize) -> Result<&'a str> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the {what} is empty")));
    }
    if name.len() > bytes_max {
        let (bytes, start) = (name.len(), cut(name, 64));
        return Err(Error::invalid(format!("the {what} \"{start}...\" has {bytes} bytes, the most is {bytes_max}")));
    }
    if name.contains('\0') {
        return Err(Error::invalid(format!("the {what} {name:?} contains NUL")));
    }
    Ok(name)
}

/// `tag` unchanged, if it is one. It begins with a letter, so that neither a number nor a time is one.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], saying what a tag is.
pub(crate) fn tag(tag: &str) -> Result<&str> {
    let begins = tag.starts_with(|first: char| first.is_ascii_alphabetic());
    let goes_on = tag.chars().all(|one| one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '-'));
    if begins && goes_on && tag.len() <= TAG_BYTES_MAX {
        return Ok(tag);
    }
    let shown = cut(tag, TAG_BYTES_MAX);
    Err(Error::invalid(format!(
        "{shown:?} is no tag: a letter, then letters, digits, \".\", \"_\" and \"-\", at most {TAG_BYTES_MAX} bytes"
    )))
}

/// Words for people: cut to `bytes_max`, NUL shown as U+FFFD.
pub(crate) fn words(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let text = asked(text);
    if text.len() <= bytes_max { text } else { Cow::Owned(cut(&text, bytes_max).to_owned()) }
}

/// A name somebody asks for, as it can be sent to the database: a name with NUL exists nowhere, nor does this.
pub(crate) fn asked(name: &str) -> Cow<'_, str> {
    if name.contains('\0') { Cow::Owned(name.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(name) }
}

/// The longest beginning of at most `bytes_max` bytes that ends between characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_between_characters_and_hold_no_nul() {
        assert_eq!(words("äöü", 3), "ä");
        assert_eq!(words("a\0b", 99), "a\u{FFFD}b");
        assert_eq!(cut("abc", 99), "abc");
        assert_eq!(cut("ä", 1), "");
    }

    #[test]
    fn a_tag_is_neither_a_number_nor_a_time_nor_anything_that_needs_quotes() {
        for good in ["paper-2026", "a", "V1.0_final", &"x".repeat(64)] {
            assert_eq!(tag(good).unwrap(), good);
        }
        for bad in ["", "1", "2026-05-01T00:00:00Z", "-a", "a b", "a/b", "ä", "a\0", &"x".repeat(65)] {
            assert!(tag(bad).unwrap_err().message.contains("is no tag"), "{bad:?}");
        }
    }

    #[test]
    fn names_that_cannot_be_stored_are_refused_with_what_they_are() {
        assert!(name("animal", "mouse-1", NAME_BYTES_MAX).is_ok());
        for bad in [String::new(), "a\0b".into(), "ä".repeat(128)] {
            assert!(name("animal", &bad, NAME_BYTES_MAX).unwrap_err().message.contains("animal"));
        }
    }
}
