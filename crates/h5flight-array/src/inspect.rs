//! The language between the server and the worker process, and what an inspection finds.
//!
//! The server starts `h5flight worker` with the file as descriptor [`FILE_FD`] and one [`Request`] (JSON, behind its length
//! as u32, little-endian) on its standard input, then reads [`Frame`]s from its standard output until [`Message::Done`]
//! or [`Message::Failed`]. Behind a [`Request::Write`] come [`WriteStep`]s, in the form of frames.
//! The worker is not trusted: a file may have taken it over. Every frame is bounded, every number checked.
//!
//! A frame is: bytes of the JSON message (u32, little-endian), bytes of the data (u32), the message, the data.

use std::io::{Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Reason, Result};
use crate::index::ChunkRun;
use crate::meta::{ArrayMeta, ElementType, Filter};

/// The descriptor on which the worker finds the file, opened read-only by the server, but for [`Request::Write`].
pub const FILE_FD: i32 = 3;
/// Bytes before a frame's message: the two lengths.
pub const HEAD_BYTES: usize = 8;
/// The largest JSON message of a frame. One object with its attributes must fit; the worker cuts attributes to this.
pub const MESSAGE_BYTES_MAX: u32 = 16 << 20;
/// The longest request: a read of many small blocks.
const REQUEST_BYTES_MAX: u32 = 64 << 20;
/// The largest data of a frame: one decoded block.
pub const DATA_BYTES_MAX: u32 = 256 << 20;
/// The longest text for people that a worker is taken at: it goes into logs, answers and the catalogue.
pub const TEXT_BYTES_MAX: usize = 1 << 10;
/// Arrays of up to this many decoded bytes that would need a worker to read are delivered inline by the inspection.
pub const INLINE_BYTES_MAX: u64 = 64 << 10;

/// Bounds of one inspection. Exceeding one is `file_too_complex`, naming it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InspectLimits {
    /// Groups, datasets and named types together.
    pub objects_max: u64,
    /// Links of all groups together.
    pub links_max: u64,
    /// Groups inside groups.
    pub depth_max: u32,
    /// Bytes of one link name.
    pub name_bytes_max: u32,
    /// Attributes of one object.
    pub attributes_max: u32,
    /// Bytes of one attribute's value; larger ones are listed without their value.
    pub attribute_bytes_max: u64,
    /// Chunks of all arrays together.
    pub chunks_max: u64,
}

impl Default for InspectLimits {
    fn default() -> Self {
        Self {
            objects_max: 1_000_000,
            links_max: 2_000_000,
            depth_max: 1_000,
            name_bytes_max: 4_096,
            attributes_max: 10_000,
            attribute_bytes_max: 1 << 20,
            chunks_max: 50_000_000,
        }
    }
}

/// What the worker is asked to do with the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Report everything: objects, links, arrays, chunk runs, small data.
    Inspect {
        /// Bounds.
        limits: InspectLimits,
        /// Whether values are read now: small data that needs a worker, strings, the names of NWB. The server asks
        /// again without, should the first attempt kill the worker.
        inline: bool,
        /// Size of the file, in bytes, as the server saw it.
        file_bytes: u64,
        /// Address-space limit of the process, in bytes.
        memory_bytes_max: u64,
    },
    /// Read hyperslabs of one dataset, each as one decoded block.
    Read {
        /// HDF5 path as reported by the inspection.
        path: String,
        /// Element type, as reported by the inspection: the worker checks that it still is.
        meta: Box<ArrayMeta>,
        /// Origin and shape of each block; inside the array.
        blocks: Vec<Hyperslab>,
        /// Address-space limit of the process, in bytes.
        memory_bytes_max: u64,
    },
    /// Make the file anew with one dataset, whose chunks follow.
    Write {
        /// What it is.
        dataset: Box<NewDataset>,
        /// Size that the file may reach, in bytes.
        file_bytes_max: u64,
        /// Address-space limit of the process, in bytes.
        memory_bytes_max: u64,
    },
}

impl Request {
    /// As it is sent.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = vec![0; 4];
        serde_json::to_writer(&mut wire, self).expect("a request is always JSON");
        let bytes = u32::try_from(wire.len() - 4).unwrap_or(u32::MAX);
        wire[..4].copy_from_slice(&bytes.to_le_bytes());
        wire
    }

    /// Reads it.
    ///
    /// # Errors
    /// `internal` for what no server sends, `bad_request` for one that is too long.
    pub fn read_from(input: &mut impl Read) -> Result<Self> {
        let mut head = [0; 4];
        let io = |error: std::io::Error| Error::new(Reason::Internal, "the request cannot be read").with_source(error);
        input.read_exact(&mut head).map_err(io)?;
        let bytes = u32::from_le_bytes(head);
        if bytes > REQUEST_BYTES_MAX {
            let message = format!("a request of {bytes} bytes, the most is {REQUEST_BYTES_MAX}");
            return Err(Error::new(Reason::BadRequest, message));
        }
        let json = read_up_to(input, bytes as usize)?;
        serde_json::from_slice(&json)
            .map_err(|error| Error::new(Reason::Internal, format!("the request is not understood: {error}")))
    }

    /// Address-space limit of the process, in bytes.
    pub fn memory_bytes_max(&self) -> u64 {
        match self {
            Self::Inspect { memory_bytes_max, .. }
            | Self::Read { memory_bytes_max, .. }
            | Self::Write { memory_bytes_max, .. } => *memory_bytes_max,
        }
    }
}

/// A chunked dataset that is to be written; its rows are counted as their chunks come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDataset {
    /// Absolute path, escaped like [`Object::path`]; groups are made on the way.
    pub path: String,
    /// Type of its elements: little-endian, packed.
    pub element: ElementType,
    /// The axes after the first.
    pub row_shape: Vec<u64>,
    /// Shape of its chunks.
    pub chunk_shape: Vec<u64>,
    /// Filters that were applied to the chunks, in this order.
    pub filters: Vec<Filter>,
    /// Attributes, as [`crate::write::attributes::parse`] takes them.
    pub attributes: serde_json::Map<String, Value>,
}

/// What follows a [`Request::Write`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum WriteStep {
    /// The data is a chunk as it is stored.
    Chunk {
        /// Its first element, by axis.
        origin: Vec<u64>,
        /// Bit i: filter i was skipped.
        mask: u32,
        /// Rows that the dataset has with it.
        rows: u64,
    },
    /// There are no more chunks: the file is to be made whole.
    Finish,
}

impl WriteStep {
    /// What is sent before `data_bytes` bytes of data.
    pub fn head(&self, data_bytes: u32) -> Vec<u8> {
        let mut wire = vec![0; HEAD_BYTES];
        serde_json::to_writer(&mut wire, self).expect("a step is always JSON");
        let bytes = u32::try_from(wire.len() - HEAD_BYTES).unwrap_or(u32::MAX);
        wire[..4].copy_from_slice(&bytes.to_le_bytes());
        wire[4..HEAD_BYTES].copy_from_slice(&data_bytes.to_le_bytes());
        wire
    }

    /// Reads a step, and its data into `data`.
    ///
    /// # Errors
    /// `io` where nothing comes any more; `internal` for what no server sends.
    pub fn read_from(input: &mut impl Read, data: &mut Vec<u8>) -> Result<Self> {
        let ended = |error: std::io::Error| Error::new(Reason::Io, "the server went away").with_source(error);
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head).map_err(ended)?;
        let (message_bytes, data_bytes) = Frame::lengths(head)?;
        let message = read_up_to(input, message_bytes)?;
        let step = serde_json::from_slice(&message)
            .map_err(|error| Error::new(Reason::Internal, format!("the step is not understood: {error}")))?;
        data.resize(data_bytes, 0);
        input.read_exact(data).map_err(ended)?;
        Ok(step)
    }
}

/// A box of elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hyperslab {
    /// First index by axis; empty for a scalar.
    pub origin: Vec<u64>,
    /// Elements by axis.
    pub shape: Vec<u64>,
}

/// What the worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Message {
    /// About the file as a whole; the first message of an inspection.
    File(FileFacts),
    /// One object. Its chunk runs and inline data follow at once.
    Object(Box<Object>),
    /// Chunk run of the last object's array; the data is [`ChunkRun::packed`].
    Run {
        /// See [`ChunkRun`].
        first_number: u64,
        /// See [`ChunkRun`].
        last_number: u64,
        /// See [`ChunkRun`].
        pointers: u32,
    },
    /// The last object's whole array as one decoded block (the frame's data).
    Inline,
    /// A link that is not the canonical name of an object.
    Link(Link),
    /// The data is the block asked for at this position of [`Request::Read`], decoded.
    Block {
        /// Position in the request.
        at: u32,
    },
    /// Nothing more comes.
    Done,
    /// The request failed as a whole.
    Failed {
        /// Stable reason.
        reason: Reason,
        /// For people.
        message: String,
    },
}

/// About the file as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Superblock version.
    pub superblock: u32,
    /// Bytes before the HDF5 data; already added to every offset that is reported.
    pub user_block_bytes: u64,
    /// Version of the libhdf5 that looked, "2.2.0".
    pub library: String,
    /// What names the recording, where the file is NWB.
    pub nwb: Option<NwbFacts>,
}

/// Names that an NWB file gives itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NwbFacts {
    /// Root attribute `nwb_version`, or the dataset of that name in old files.
    pub version: String,
    /// `/identifier`.
    pub identifier: Option<String>,
    /// `/general/session_id`.
    pub session_id: Option<String>,
    /// `/general/subject/subject_id`.
    pub subject_id: Option<String>,
    /// `/session_start_time`, as written.
    pub session_start_time: Option<String>,
    /// `/general/subject/species`.
    pub species: Option<String>,
    /// What else it says of session, subject and devices: texts, lists of texts, numbers of rows. The names are those of
    /// a search.
    pub details: Map<String, Value>,
}

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A group.
    Group,
    /// A dataset.
    Dataset,
    /// A named datatype.
    NamedType,
}

/// One object at its canonical path: the first one at which a depth-first walk in byte order of names meets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Absolute path, `/` for the root. Bytes of a name that are not UTF-8, NUL, other control characters, `%` itself
    /// are percent-escaped, so that every name can be shown and asked for.
    pub path: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Attribute values as JSON, by name: numbers; non-finite ones as "NaN", "Infinity", "-Infinity"; strings; arrays as
    /// nested lists; compounds as objects; references as {"ref": path or null}; bytes as {"b64": ...}; what was too
    /// large as {"omitted": bytes}; what could not be read as {"error": message}.
    pub attributes: serde_json::Map<String, Value>,
    /// What JSON does not tell of the attributes' types and shapes, by name. Nothing is said of a text of its own length:
    /// JSON has that. Otherwise the type of a single value, or [type, shape] where shape null is a null dataspace, or
    /// [type, shape, words] where the file's own type has another name ("float128"). A type is numpy's name as in
    /// [`crate::batch::numpy_type`], "str" for texts of their own length, or an [`crate::meta::ElementType`] where
    /// numpy's name does not say everything (enums, compounds, sequences, references).
    #[serde(default)]
    pub attribute_types: serde_json::Map<String, Value>,
    /// The array, for datasets.
    pub array: Option<ArrayMeta>,
    /// Why the dataset cannot be read although it is listed (type or space could not be understood), or why members of
    /// the group are missing.
    pub problem: Option<(Reason, String)>,
    /// Address of the object header: the same object under two names has the same.
    pub address: u64,
}

/// What kind of link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// Another name of an object.
    Hard,
    /// A path within the file.
    Soft,
    /// Into another file: never followed.
    External,
    /// User-defined: never followed.
    User,
}

/// A name that is not the canonical one of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Absolute path of the link, escaped like [`Object::path`].
    pub path: String,
    /// What kind.
    pub kind: LinkKind,
    /// Canonical path of the object (hard), absolute path (soft, dangling or not), or `file:path` (external).
    pub target: String,
}

/// One message with its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// What it says.
    pub message: Message,
    /// Raw bytes that belong to it.
    pub data: Bytes,
}

impl Frame {
    /// A message without data.
    pub fn plain(message: Message) -> Self {
        Self { message, data: Bytes::new() }
    }

    /// The packed run as a frame.
    pub fn run(run: &ChunkRun) -> Self {
        let ChunkRun { first_number, last_number, pointers, ref packed } = *run;
        Self { message: Message::Run { first_number, last_number, pointers }, data: Bytes::from(packed.clone()) }
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// Those of the writer, and `InvalidInput` for a frame over the limits.
    pub fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        let message = serde_json::to_vec(&self.message)?;
        if message.len() > MESSAGE_BYTES_MAX as usize || self.data.len() > DATA_BYTES_MAX as usize {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "frame over the limits"));
        }
        out.write_all(&(message.len() as u32).to_le_bytes())?;
        out.write_all(&(self.data.len() as u32).to_le_bytes())?;
        out.write_all(&message)?;
        out.write_all(&self.data)
    }

    /// Reads a frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// `malformed_file`: whatever goes wrong here, the worker did not end as it should have.
    pub fn read_from(input: &mut impl Read) -> Result<Option<Self>> {
        let head = read_up_to(input, HEAD_BYTES)?;
        if head.is_empty() {
            return Ok(None);
        }
        let whole = |bytes: Vec<u8>, declared: usize| match bytes.len() == declared {
            true => Ok(bytes),
            false => Err(broken("ends within a frame")),
        };
        let head = <[u8; HEAD_BYTES]>::try_from(head).map_err(|_| broken("ends within a frame"))?;
        let (message_bytes, data_bytes) = Self::lengths(head)?;
        let message = whole(read_up_to(input, message_bytes)?, message_bytes)?;
        let data = whole(read_up_to(input, data_bytes)?, data_bytes)?;
        Self::from_parts(&message, data.into()).map(Some)
    }

    /// Bytes of the message and of the data that follow this head, both within the limits.
    ///
    /// # Errors
    /// `malformed_file`.
    pub fn lengths(head: [u8; HEAD_BYTES]) -> Result<(usize, usize)> {
        let [m0, m1, m2, m3, d0, d1, d2, d3] = head;
        let (message_bytes, data_bytes) = (u32::from_le_bytes([m0, m1, m2, m3]), u32::from_le_bytes([d0, d1, d2, d3]));
        if message_bytes > MESSAGE_BYTES_MAX || data_bytes > DATA_BYTES_MAX {
            return Err(broken("has a frame over the limits"));
        }
        Ok((message_bytes as usize, data_bytes as usize))
    }

    /// The frame of these parts, with texts for people cut to [`TEXT_BYTES_MAX`].
    ///
    /// # Errors
    /// `malformed_file`.
    pub fn from_parts(message: &[u8], data: Bytes) -> Result<Self> {
        // The parser's own text may have all of the message in it.
        let not_understood =
            |error: serde_json::Error| broken("is not understood").with_source(cut_text(error.to_string()));
        let mut message: Message = serde_json::from_slice(message).map_err(not_understood)?;
        match &mut message {
            Message::Failed { message, .. } => *message = cut_text(std::mem::take(message)),
            Message::Object(object) => {
                object.problem = object.problem.take().map(|(reason, text)| (reason, cut_text(text)));
            }
            _ => {}
        }
        Ok(Self { message, data })
    }
}

impl Message {
    /// What kind of message, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Object(_) => "object",
            Self::Run { .. } => "run",
            Self::Inline => "inline",
            Self::Link(_) => "link",
            Self::Block { .. } => "block",
            Self::Done => "done",
            Self::Failed { .. } => "failed",
        }
    }
}

/// The text up to its last character within [`TEXT_BYTES_MAX`], in memory of its own size; dots where more was.
pub fn cut_text(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    format!("{}...", &text[..text.floor_char_boundary(TEXT_BYTES_MAX - 3)])
}

/// What there is of these bytes, and fewer only at the end. Memory follows what arrives, not what was announced.
fn read_up_to(input: &mut impl Read, bytes: usize) -> Result<Vec<u8>> {
    let mut arrived = Vec::new();
    let read = input.take(bytes as u64).read_to_end(&mut arrived);
    read.map(|_| arrived).map_err(|error| broken("cannot be read").with_source(error))
}

/// Whatever the worker said, it was not an answer.
fn broken(what: &str) -> Error {
    Error::new(Reason::MalformedFile, format!("the worker's answer {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_cut_ones_are_errors() {
        let frame = Frame { message: Message::Block { at: 7 }, data: Bytes::from_static(b"abc") };
        let mut wire = Vec::new();
        frame.write_to(&mut wire).unwrap();
        assert_eq!(Frame::read_from(&mut wire.as_slice()).unwrap(), Some(frame));
        assert_eq!(Frame::read_from(&mut [].as_slice()).unwrap(), None);
        for cut in 1..wire.len() {
            assert_eq!(Frame::read_from(&mut &wire[..cut]).unwrap_err().reason, Reason::MalformedFile);
        }
        wire[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Frame::read_from(&mut wire.as_slice()).unwrap_err().reason, Reason::MalformedFile);
    }

    #[test]
    fn requests_and_steps_are_read_as_they_were_written() {
        let request = Request::Read {
            path: "/x".into(),
            meta: Box::new(ArrayMeta {
                space: crate::meta::Space::Null,
                max_shape: Vec::new(),
                element: ElementType::Bool,
                converted: false,
                type_note: String::new(),
                storage: crate::meta::Storage::Compact,
                filters: Vec::new(),
                fill: None,
            }),
            blocks: Vec::new(),
            memory_bytes_max: 7,
        };
        let step = WriteStep::Chunk { origin: vec![1, 2], mask: 3, rows: 4 };
        let wire = [request.to_wire(), step.head(2), b"ab".to_vec(), WriteStep::Finish.head(0)].concat();
        let (mut input, mut data) = (wire.as_slice(), Vec::new());
        assert_eq!(Request::read_from(&mut input).unwrap(), request);
        assert_eq!(WriteStep::read_from(&mut input, &mut data).unwrap(), step);
        assert_eq!(data, b"ab");
        assert_eq!(WriteStep::read_from(&mut input, &mut data).unwrap(), WriteStep::Finish);
        assert_eq!(WriteStep::read_from(&mut input, &mut data).unwrap_err().reason, Reason::Io);
        assert_eq!(Request::read_from(&mut &[255, 255, 255, 255][..]).unwrap_err().reason, Reason::BadRequest);
    }

    #[test]
    fn texts_for_people_are_cut_at_a_character() {
        let long = |first: &str| first.to_owned() + &"\u{20ac}".repeat(5 << 20);
        let object = Object {
            path: "/x".into(),
            kind: ObjectKind::Dataset,
            attributes: serde_json::Map::new(),
            attribute_types: serde_json::Map::new(),
            array: None,
            problem: None,
            address: 0,
        };
        for first in ["", "a", "ab"] {
            let failed = Message::Failed { reason: Reason::MalformedFile, message: long(first) };
            let mut object = object.clone();
            object.problem = Some((Reason::MalformedFile, long(first)));
            for message in [failed, Message::Object(Box::new(object))] {
                let json = serde_json::to_vec(&message).unwrap();
                let text = match Frame::from_parts(&json, Bytes::new()).unwrap().message {
                    Message::Failed { message, .. } => message,
                    Message::Object(object) => object.problem.unwrap().1,
                    other => panic!("{}", other.kind()),
                };
                assert!((TEXT_BYTES_MAX - 3..=TEXT_BYTES_MAX).contains(&text.len()), "{}", text.len());
                assert!(text.starts_with(first) && text.ends_with("\u{20ac}..."));
            }
        }
        let unknown = serde_json::json!({"is": long("")}).to_string();
        let error = Frame::from_parts(unknown.as_bytes(), Bytes::new()).unwrap_err();
        assert!(error.source.unwrap().to_string().len() <= TEXT_BYTES_MAX);
    }
}
