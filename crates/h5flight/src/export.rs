//! A slice as a file: .arrow, .parquet, .csv or .npy, written batch by batch.
//!
//! The file appears under its name when it is complete and durable. Until then it is a hidden file beside it, which is
//! removed when the export is dropped: on an error, and on Ctrl-C.

mod npy;
mod parquet_lists;
mod partial;

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use h5flight_proto::v1::Layout;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::failure::Failure;
use npy::NpyWriter;
use partial::PartialFile;

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Kind of file, told by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Arrow IPC file.
    Arrow,
    /// Parquet, zstd; tensors as lists.
    Parquet,
    /// Comma-separated text.
    Csv,
    /// numpy.
    Npy,
}

impl Format {
    /// # Errors
    /// [`Failure::Usage`] for any other ending.
    pub fn of(path: &Path) -> Result<Self, Failure> {
        match path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("arrow") => Ok(Self::Arrow),
            Some("parquet") => Ok(Self::Parquet),
            Some("csv") => Ok(Self::Csv),
            Some("npy") => Ok(Self::Npy),
            _ => {
                Err(Failure::usage(format!("{}: its name must end in .arrow, .parquet, .csv or .npy", path.display())))
            }
        }
    }

    /// The layout to ask for, given what the user asked for.
    ///
    /// # Errors
    /// [`Failure::Usage`] where the file cannot hold that layout.
    pub fn layout(self, asked: Layout) -> Result<Layout, Failure> {
        match (self, asked) {
            (Self::Npy, Layout::Auto | Layout::Tensor) => Ok(Layout::Tensor),
            (Self::Npy, Layout::Columns | Layout::Tidy) => Err(Failure::usage(
                "a .npy file holds one array: leave --layout out, or choose .arrow, .parquet or .csv",
            )),
            (Self::Csv, Layout::Tensor) => Err(Failure::usage(
                "a .csv file holds no tensors: use --layout columns or tidy, or choose .npy or .arrow",
            )),
            (Self::Arrow | Self::Parquet | Self::Csv, layout) => Ok(layout),
        }
    }
}

/// A file that will be.
pub struct Export {
    format: Format,
    file: PartialFile,
}

impl Export {
    /// Makes the hidden file.
    ///
    /// # Errors
    /// `io` where the folder is missing or not writable.
    pub fn create(format: Format, path: &Path) -> Result<Self, Failure> {
        Ok(Self { format, file: PartialFile::create(path)? })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Writes what comes before the data. `shape` is that of the whole result.
    ///
    /// # Errors
    /// `bad_layout` where the format cannot hold the columns; `io`.
    pub fn begin(self, schema: &SchemaRef, shape: &[u64]) -> Result<Sink, Failure> {
        let path = self.path().to_owned();
        let out = BufWriter::with_capacity(BUFFER_BYTES, self.file.handle()?);
        let failed = |error: &dyn std::error::Error| Failure::local("io", format!("{}: {error}", path.display()));
        let encoder = match self.format {
            Format::Arrow => {
                let writer = arrow::ipc::writer::FileWriter::try_new(out, schema).map_err(|error| failed(&error))?;
                Encoder::Arrow(Box::new(writer))
            }
            Format::Parquet => {
                let level = ZstdLevel::try_new(3).expect("3 is a level of zstd");
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
                let schema = parquet_lists::schema(schema);
                let writer =
                    ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(|error| failed(&error))?;
                Encoder::Parquet(Box::new(writer), schema)
            }
            Format::Csv => {
                refuse_nested(schema)?;
                Encoder::Csv(Box::new(arrow::csv::Writer::new(out)), Head::Due(schema.clone()))
            }
            Format::Npy => Encoder::Npy(NpyWriter::begin(out, schema, shape)?),
        };
        Ok(Sink { file: self.file, encoder })
    }
}

fn refuse_nested(schema: &SchemaRef) -> Result<(), Failure> {
    match schema.fields().iter().find(|field| field.data_type().is_nested()) {
        None => Ok(()),
        Some(field) => Err(Failure::local(
            "bad_layout",
            format!(
                "column {:?} holds lists or members, which a .csv file cannot; choose .parquet or .arrow",
                field.name()
            ),
        )),
    }
}

/// A file under way.
pub struct Sink {
    file: PartialFile,
    encoder: Encoder,
}

enum Encoder {
    Arrow(Box<arrow::ipc::writer::FileWriter<BufWriter<File>>>),
    Parquet(Box<ArrowWriter<BufWriter<File>>>, SchemaRef),
    Csv(Box<arrow::csv::Writer<BufWriter<File>>>, Head),
    Npy(NpyWriter<BufWriter<File>>),
}

/// Whether the names of the columns were written: a result without rows has them too.
enum Head {
    Due(SchemaRef),
    Written,
}

impl Sink {
    /// Appends one batch.
    ///
    /// # Errors
    /// `io`, or what the format cannot hold.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let path = self.file.path();
        match &mut self.encoder {
            Encoder::Arrow(writer) => writer.write(batch).map_err(|error| failed(path, &error)),
            Encoder::Parquet(writer, schema) => {
                let batch = parquet_lists::batch(batch, schema).map_err(|error| failed(path, &error))?;
                writer.write(&batch).map_err(|error| failed(path, &error))
            }
            Encoder::Csv(writer, head) => {
                *head = Head::Written;
                writer.write(batch).map_err(|error| failed(path, &error))
            }
            Encoder::Npy(writer) => writer.write(batch).map_err(|error| named(path, error)),
        }
    }

    /// Writes what comes after the data and gives the file its name. Returns its size in bytes.
    ///
    /// # Errors
    /// `io`; `broken_stream` where less came than the header of the file promises.
    pub fn finish(self) -> Result<u64, Failure> {
        let path = self.file.path().to_owned();
        let out = match self.encoder {
            Encoder::Arrow(writer) => writer.into_inner().map_err(|error| failed(&path, &error))?,
            Encoder::Parquet(writer, _) => writer.into_inner().map_err(|error| failed(&path, &error))?,
            Encoder::Csv(mut writer, head) => {
                if let Head::Due(schema) = head {
                    writer.write(&RecordBatch::new_empty(schema)).map_err(|error| failed(&path, &error))?;
                }
                writer.into_inner()
            }
            Encoder::Npy(writer) => writer.finish().map_err(|error| named(&path, error))?,
        };
        out.into_inner().map_err(|error| failed(&path, error.error()))?;
        self.file.commit()
    }
}

fn failed(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::local("io", format!("{}: {error}", path.display()))
}

/// Puts the file's name before a message.
fn named(path: &Path, failure: Failure) -> Failure {
    match failure {
        Failure::Failed { reason, code, message } => {
            Failure::Failed { reason, code, message: format!("{}: {message}", path.display()) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
