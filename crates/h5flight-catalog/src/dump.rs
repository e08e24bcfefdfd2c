//! A whole catalogue as one stream of lines, the same for every database, so that a backup of one fills the other.
//!
//! ```text
//! {"format":1,"backend":"sqlite","schema":2}            what it is
//! {"table":"animals","columns":[{"name":"id",...},...]}  for each table: its columns,
//! 1<TAB>m01<TAB>\N<TAB>2026-01-31 12:00:00+00            its rows, as PostgreSQL's COPY writes and reads them,
//! \.                                                     their end,
//! {"rows":1,"last_id":1}                                 and how many there are
//! {"tables":14}                                          the end: a stream without it was cut off
//! ```
//!
//! Tables and columns are asked of the database, never listed here: what a migration adds is dumped without a word. The
//! backends read and write in one transaction; this module knows the lines only, and what they say about files.

pub(crate) mod fields;

use std::io::{BufRead, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{DumpedFile, FilePlace, Fingerprint};
use fields::Fields;

/// Of the lines above. A reader refuses what it does not know.
const FORMAT: u32 = 1;
/// A row holds a value of 64 KiB or the attributes of an object; PostgreSQL allows no value above 1 GiB.
const LINE_BYTES_MAX: u64 = 2 << 30;
/// What ends the rows of a table. No row is this: a backslash in a row is doubled.
const ROWS_END: &[u8] = b"\\.\n";
/// The secret that tickets are sealed with. It does not come back with a backup: ids that were given away after it
/// was made would name other versions, and old tickets hold such ids.
pub const TICKET_SECRET: &str = "ticket";
/// The secret by which a data folder is known to belong to a catalogue. It does not come back either: a restored
/// catalogue that is pointed at the folder of the one it came from must not take the files that came since for garbage.
pub const OWNER_SECRET: &str = "owner of data folders";

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    format: u32,
    /// Which database it comes from.
    pub(crate) backend: String,
    /// The newest migration of that database.
    pub(crate) schema: i64,
}

/// What a value of a column is, whatever the database calls its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Integer,
    Real,
    Text,
    Bytes,
    Json,
    Time,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// The line before the rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) table: String,
    pub(crate) columns: Vec<Column>,
}

impl Table {
    /// The columns for a statement.
    pub(crate) fn column_list(&self) -> String {
        self.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// Whether this table of a database has all columns of the one that is read.
    fn takes(&self, read: &Self) -> bool {
        read.columns.iter().all(|wanted| self.columns.iter().any(|column| column.name == wanted.name))
    }
}

/// The line after the rows of a table.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct TableEnd {
    pub(crate) rows: u64,
    /// The largest id that was ever given away: one that is gone never comes back.
    pub(crate) last_id: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    tables: usize,
}

/// A name for a statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes the lines.
pub(crate) struct Writer<'a> {
    out: &'a mut (dyn Write + Send),
    tables: usize,
    rows: u64,
}

impl<'a> Writer<'a> {
    /// Begins a stream.
    pub(crate) fn begin(out: &'a mut (dyn Write + Send), backend: &str, schema: i64) -> Result<Self> {
        let mut writer = Self { out, tables: 0, rows: 0 };
        writer.line(&Header { format: FORMAT, backend: backend.to_owned(), schema })?;
        Ok(writer)
    }

    /// Begins a table.
    pub(crate) fn table(&mut self, table: &Table) -> Result<()> {
        (self.tables, self.rows) = (self.tables + 1, 0);
        self.line(table)
    }

    /// Takes rows, or parts of them, each with its line break.
    pub(crate) fn rows(&mut self, lines: &[u8]) -> Result<()> {
        self.rows += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.out.write_all(lines).map_err(not_written)
    }

    /// Ends a table.
    pub(crate) fn end_table(&mut self, last_id: Option<i64>) -> Result<()> {
        self.out.write_all(ROWS_END).map_err(not_written)?;
        self.line(&TableEnd { rows: self.rows, last_id })
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.line(&End { tables: self.tables })?;
        self.out.flush().map_err(not_written)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec(value).expect("lines of a dump are always JSON");
        text.push(b'\n');
        self.out.write_all(&text).map_err(not_written)
    }
}

/// Reads the lines, and trusts none of them.
pub(crate) struct Reader<'a> {
    from: &'a mut (dyn BufRead + Send),
    line: Vec<u8>,
    tables: usize,
    rows: u64,
}

impl<'a> Reader<'a> {
    /// Begins to read a stream.
    pub(crate) fn begin(from: &'a mut (dyn BufRead + Send)) -> Result<(Self, Header)> {
        let mut reader = Self { from, line: Vec::new(), tables: 0, rows: 0 };
        let header: Header = reader.json()?;
        if header.format != FORMAT {
            let message =
                format!("the dump of the catalogue has format {}, this program reads {FORMAT}", header.format);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok((reader, header))
    }

    /// The next table; `None` after the last one.
    pub(crate) fn table(&mut self) -> Result<Option<Table>> {
        self.next_line()?;
        if let Ok(table) = serde_json::from_slice::<Table>(&self.line) {
            (self.tables, self.rows) = (self.tables + 1, 0);
            return Ok(Some(table));
        }
        let end: End = self.parsed()?;
        match end.tables == self.tables && self.from.fill_buf().map_err(not_read)?.is_empty() {
            true => Ok(None),
            false => Err(damaged(format!("{} tables where {} were announced", self.tables, end.tables))),
        }
    }

    /// The next row with its line break; `None` after the last one of the table.
    pub(crate) fn row(&mut self) -> Result<Option<&[u8]>> {
        self.next_line()?;
        if self.line == ROWS_END {
            return Ok(None);
        }
        self.rows += 1;
        Ok(Some(&self.line))
    }

    /// What was said about the table whose rows were read.
    pub(crate) fn end_table(&mut self) -> Result<TableEnd> {
        let end: TableEnd = self.json()?;
        match end.rows == self.rows {
            true => Ok(end),
            false => Err(damaged(format!("{} rows of a table of {}", self.rows, end.rows))),
        }
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.next_line()?;
        self.parsed()
    }

    fn parsed<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.line)
            .map_err(|error| damaged("a line that is not one of its own").with_source(error))
    }

    fn next_line(&mut self) -> Result<()> {
        self.line.clear();
        (&mut *self.from).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).map_err(not_read)?;
        match self.line.last() {
            Some(b'\n') => Ok(()),
            _ => Err(damaged("it ends before its end")),
        }
    }
}

/// Finds the table of this database that takes the rows of one that is read.
pub(crate) fn counterpart<'t>(known: &'t [Table], read: &Table) -> Result<&'t Table> {
    let table = known.iter().find(|table| table.table == read.table && table.takes(read));
    table.ok_or_else(|| damaged(format!("table {:?} with columns that this catalogue does not have", read.table)))
}

/// Whether rows of that schema fit here.
pub(crate) fn check_schema(header: &Header, newest: i64) -> Result<()> {
    if header.schema <= newest {
        return Ok(());
    }
    let Header { schema, .. } = header;
    let message =
        format!("the dump comes from schema {schema} of the catalogue, this program knows {newest}: take a newer one");
    Err(Error::new(ErrorKind::Invalid, message))
}

/// What [`Catalog::load`](crate::Catalog::load) says about a catalogue that is not empty.
pub(crate) fn occupied(table: &str) -> Error {
    let message = format!("the database is not empty: it has rows in {table}; a backup is restored into a new one");
    Error::new(ErrorKind::Refused("database_not_empty".into()), message)
}

/// Reads a dump to its end without a database.
///
/// # Errors
/// [`ErrorKind::Damaged`] for anything but a whole dump, [`ErrorKind::Invalid`] for one of another format.
pub fn files_of_dump(from: &mut (dyn BufRead + Send)) -> Result<Vec<DumpedFile>> {
    let (mut reader, _) = Reader::begin(from)?;
    let mut files = Vec::new();
    while let Some(table) = reader.table()? {
        while let Some(row) = reader.row()? {
            if table.table == "files" {
                files.push(file(&Fields::parse(row, &table)?)?);
            }
        }
        reader.end_table()?;
    }
    Ok(files)
}

fn file(fields: &Fields<'_>) -> Result<DumpedFile> {
    let path = fields.text("path")?;
    let place = match fields.text("kind")?.as_str() {
        "managed" => FilePlace::Managed { content: path },
        _ => FilePlace::Registered { root: fields.text("root")?, path },
    };
    let fingerprint = Fingerprint {
        // As stored: two's complement.
        device: fields.integer("device")?.cast_unsigned(),
        inode: fields.integer("inode")?.cast_unsigned(),
        bytes: fields.integer("bytes")?.cast_unsigned(),
        modified_ns: fields.integer("modified_ns")?,
    };
    Ok(DumpedFile { place, fingerprint, generation: fields.integer("generation")?.cast_unsigned() })
}

pub(crate) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Damaged, format!("the dump of the catalogue is damaged: {what}"))
}

fn not_written(error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the dump of the catalogue cannot be written").with_source(error)
}

fn not_read(error: std::io::Error) -> Error {
    damaged("it cannot be read").with_source(error)
}

#[cfg(test)]
mod tests;
