//! The values of a row as PostgreSQL's COPY writes them (manual, COPY, "Text Format"): separated by tabs, `\N` for NULL,
//! backslash escapes for what would be taken for something else, bytes as `\x` and hexadecimal digits.

use std::fmt::Write as _;

use super::{Column, Table, damaged};
use crate::error::Result;

/// Appends a value to a row; the caller separates.
pub(crate) fn push(row: &mut String, value: Option<&str>) {
    let Some(value) = value else { return row.push_str("\\N") };
    for character in value.chars() {
        match character {
            '\\' => row.push_str("\\\\"),
            '\n' => row.push_str("\\n"),
            '\r' => row.push_str("\\r"),
            '\t' => row.push_str("\\t"),
            other => row.push(other),
        }
    }
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The bytes of such a text.
pub(crate) fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits = text.strip_prefix("\\x").filter(|digits| digits.len() % 2 == 0 && digits.is_ascii());
    let digits = digits.ok_or_else(|| damaged("bytes that are no hexadecimal digits"))?;
    let pairs = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
    pairs.collect::<Result<_, _>>().map_err(|error| damaged("bytes that are no hexadecimal digits").with_source(error))
}

/// The values of one row, by column.
pub(crate) struct Fields<'a> {
    columns: &'a [Column],
    values: Vec<Option<String>>,
}

impl<'a> Fields<'a> {
    /// Takes a row apart, which ends with its line break.
    pub(crate) fn parse(row: &[u8], table: &'a Table) -> Result<Self> {
        let wrong = || damaged(format!("a row of {} that does not have its columns", table.table));
        let row = row.strip_suffix(b"\n").and_then(|row| std::str::from_utf8(row).ok()).ok_or_else(wrong)?;
        let values = row.split('\t').map(value).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        match values.len() == table.columns.len() {
            true => Ok(Self { columns: &table.columns, values }),
            false => Err(wrong()),
        }
    }

    /// Columns with their values.
    pub(crate) fn into_values(self) -> impl Iterator<Item = (&'a Column, Option<String>)> {
        self.columns.iter().zip(self.values)
    }

    /// A text that is there.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        let found = self.columns.iter().zip(&self.values).find(|(column, _)| column.name == name);
        found.and_then(|(_, value)| value.clone()).ok_or_else(|| damaged(format!("a row without {name}")))
    }

    /// A number that is there.
    pub(crate) fn integer(&self, name: &str) -> Result<i64> {
        self.text(name)?.parse().map_err(|error| damaged(format!("{name} is no number")).with_source(error))
    }
}

/// The value of a field; `None` for an escape that nothing writes.
fn value(field: &str) -> Option<Option<String>> {
    if field == "\\N" {
        return Some(None);
    }
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(Some(text))
}
