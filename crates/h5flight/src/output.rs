//! What goes to standard output: lines for people or JSON for programs.
//!
//! Names, attributes and messages come out of files that anybody may have written: control characters in them are
//! escaped before they reach a terminal. JSON escapes them by itself.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;

use crate::failure::Failure;

/// Who reads the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Aligned tables and sentences.
    People,
    /// JSON.
    Json,
}

/// Writes one line to standard output and flushes it.
///
/// # Errors
/// [`Failure::OutputClosed`] when nobody reads any more; `io` for a full disk behind a redirection.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| write_failure(&error))
}

fn write_failure(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::local("io", format!("standard output: {error}")),
    }
}

/// Writes one JSON value on one line, as [`line`] does.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(&value.to_string())
}

/// A note beside the output, on standard error.
pub fn note(text: &str) {
    eprintln!("{}", clean(text));
}

/// A JSON array that is written element by element: a list of a million entries is never held whole.
#[derive(Default)]
pub struct JsonArray {
    written: u64,
}

impl JsonArray {
    /// Writes one more element.
    pub fn push(&mut self, element: &Value) -> Result<(), Failure> {
        let lead = if self.written == 0 { "[\n" } else { ",\n" };
        self.written += 1;
        write!(std::io::stdout().lock(), "{lead}  {element}").map_err(|error| write_failure(&error))
    }

    /// Closes the array.
    pub fn finish(self) -> Result<(), Failure> {
        line(if self.written == 0 { "[]" } else { "\n]" })
    }
}

/// The text with control characters escaped. Line breaks count as such: one entry stays on one line.
pub fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_direction_mark(character) {
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Marks that make a terminal show text in another order than it has.
const fn is_direction_mark(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `characters_max` characters of a text, with an ellipsis where something was cut.
pub fn shorten(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(characters_max.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_direction_marks_are_shown_not_obeyed() {
        assert_eq!(clean("µV \u{1b}]0;x\u{7}\n\u{202e}"), "µV \\u{1b}]0;x\\u{7}\\u{a}\\u{202e}");
    }

    #[test]
    fn a_text_is_cut_at_characters_not_bytes() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }
}
