//! Inspecting a file: the walk's objects one by one, each with its attributes, array, chunk runs and small data.

use std::io::Write;

use bytes::Bytes;
use h5flight_array::codec;
use h5flight_array::index::ChunkIndex;
use h5flight_array::inspect::{FileFacts, Frame, INLINE_BYTES_MAX, InspectLimits, Message, Object, ObjectKind};
use h5flight_array::meta::{ArrayMeta, Space, Storage, product};
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5i::{H5I_DATASET, H5I_DATATYPE, H5I_GROUP, H5Iget_type};
use serde_json::Map;

use crate::attribute;
use crate::element::Translated;
use crate::handle::Handle;
use crate::layout;
use crate::open::OpenFile;
use crate::packed::Layout;
use crate::read::{self, Source};
use crate::recording;
use crate::reference::References;
use crate::sources::{self, Composition, Links};
use crate::text;
use crate::walk::{self, Found, Survey};
use crate::worker::{library_version, send};

/// Bytes in memory of one array whose strings are looked at. A larger one is taken at its word: Utf8.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// The same for all arrays of the file together: a second or so of reading.
const TEXT_BYTES_PER_FILE_MAX: u64 = 512 << 20;
/// Values of their own length that are looked at, by file: each takes about a microsecond.
const TEXT_VALUES_PER_FILE_MAX: u64 = 2_000_000;
/// Bytes in memory that are read at once to look at strings.
const TEXT_STEP_BYTES: u64 = 4 << 20;
/// The largest decoded chunk that an inspection lets libhdf5 decode: the server's own default bound.
const CHUNK_BYTES_MAX: u64 = 64 << 20;

/// What is asked of an inspection.
pub(crate) struct Inspection<'a> {
    pub(crate) limits: &'a InspectLimits,
    pub(crate) inline: bool,
    pub(crate) file_bytes: u64,
}

/// Answers [`h5flight_array::inspect::Request::Inspect`].
pub(crate) fn inspect(file: &OpenFile, asked: &Inspection<'_>, out: &mut impl Write) -> Result<()> {
    let Survey { found, paths, cut_short } = Survey::walk(file, asked.limits)?;
    let references = References::known(file, paths);
    let links = Links::new(&found);
    let facts = FileFacts {
        superblock: file.superblock,
        user_block_bytes: file.base,
        library: library_version(),
        nwb: asked.inline.then(|| recording::nwb_facts(file, &found, &references)).flatten(),
    };
    send(out, &Frame::plain(Message::File(facts)))?;
    let mut inspector = Inspector {
        file,
        asked,
        references: &references,
        links: &links,
        chunks_left: asked.limits.chunks_max,
        text_bytes_left: TEXT_BYTES_PER_FILE_MAX,
        text_values_left: TEXT_VALUES_PER_FILE_MAX,
    };
    for found in &found {
        match found {
            Found::Link(link) => send(out, &Frame::plain(Message::Link(link.clone())))?,
            Found::Object { path, address } => {
                let mut looked = inspector.look_at(path, *address).map_err(crate::handle::about(path))?;
                if cut_short.contains(address) {
                    let why = "libhdf5 cannot list all links of the group".to_owned();
                    looked.object.problem.get_or_insert((Reason::MalformedFile, why));
                }
                send_object(looked, out)?;
            }
        }
    }
    Ok(())
}

/// An object with what follows it.
struct Looked {
    object: Object,
    index: Option<ChunkIndex>,
    inline: Option<Vec<u8>>,
}

fn send_object(looked: Looked, out: &mut impl Write) -> Result<()> {
    let Looked { object, index, inline } = looked;
    let mut message = Message::Object(Box::new(object));
    let too_long = |message: &Message| {
        serde_json::to_vec(message)
            .map_or(true, |json| json.len() > h5flight_array::inspect::MESSAGE_BYTES_MAX as usize)
    };
    if too_long(&message)
        && let Message::Object(object) = &mut message
    {
        // The attributes alone are bounded: the type has members without end.
        object.array = None;
        object.problem = Some((Reason::FileTooComplex, "the element type takes more than a message".into()));
        return send(out, &Frame::plain(message));
    }
    send(out, &Frame::plain(message))?;
    for run in index.iter().flat_map(ChunkIndex::to_runs) {
        send(out, &Frame::run(&run))?;
    }
    if let Some(data) = inline {
        send(out, &Frame { message: Message::Inline, data: Bytes::from(data) })?;
    }
    Ok(())
}

/// What is left of the bounds while objects are looked at.
struct Inspector<'a> {
    file: &'a OpenFile,
    asked: &'a Inspection<'a>,
    references: &'a References<'a>,
    links: &'a Links<'a>,
    chunks_left: u64,
    text_bytes_left: u64,
    text_values_left: u64,
}

impl Inspector<'_> {
    fn look_at(&mut self, path: &str, address: u64) -> Result<Looked> {
        let mut object = Object {
            path: path.to_owned(),
            kind: ObjectKind::Dataset,
            attributes: Map::new(),
            attribute_types: Map::new(),
            array: None,
            problem: None,
            address: address.saturating_add(self.file.base),
        };
        let bare = |object| Ok(Looked { object, index: None, inline: None });
        let handle = match walk::open_at(self.file.handle.id(), address) {
            Ok(handle) => handle,
            Err(error) => {
                object.problem = Some((error.reason, error.message));
                return bare(object);
            }
        };
        let found = attribute::all(&handle, self.asked.limits, self.references)?;
        (object.attributes, object.attribute_types) = (found.values, found.types);
        // SAFETY: the object is alive.
        object.kind = match unsafe { H5Iget_type(handle.id()) } {
            H5I_GROUP => ObjectKind::Group,
            H5I_DATATYPE => ObjectKind::NamedType,
            H5I_DATASET => return self.look_at_dataset(&handle, object),
            _ => {
                object.problem = Some((Reason::MalformedFile, "an object of an unknown kind".into()));
                return bare(object);
            }
        };
        bare(object)
    }

    fn look_at_dataset(&mut self, dataset: &Handle, mut object: Object) -> Result<Looked> {
        let mut looked = match self.array(dataset) {
            Ok(array) => array,
            Err(error) if error.reason == Reason::FileTooComplex => return Err(error),
            Err(error) => {
                object.problem = Some((error.reason, error.message));
                return Ok(Looked { object, index: None, inline: None });
            }
        };
        object.problem = looked.problem.take();
        object.array = Some(looked.meta);
        Ok(Looked { object, index: looked.index, inline: looked.inline })
    }

    fn array(&mut self, dataset: &Handle) -> Result<Array> {
        let translated = read::translated(dataset)?;
        let properties = layout::properties(dataset)?;
        let mut problem = None;
        let (space, max_shape, storage) = if sources::is_virtual(&properties) {
            let Composition { space, max_shape, mappings, problem: found } =
                sources::composition(dataset, &properties, self.links)?;
            problem = found.map(|error| (error.reason, error.message));
            (space, max_shape, Storage::Virtual { mappings })
        } else {
            let (space, max_shape) = layout::space(dataset)?;
            let rank = if let Space::Simple { shape } = &space { shape.len() } else { 0 };
            (space, max_shape, layout::storage(dataset, &properties, rank, self.file.base)?)
        };
        let meta = ArrayMeta {
            storage,
            filters: layout::filters(&properties)?,
            space,
            max_shape,
            element: translated.element.clone(),
            converted: translated.converted,
            type_note: translated.note.clone(),
            fill: None,
        };
        let mut array = Array { meta, problem, index: None, inline: None };
        if array.problem.is_none()
            && let Err(error) = self.complete(&mut array, (dataset, &properties), &translated)
        {
            if error.reason == Reason::FileTooComplex {
                return Err(error);
            }
            array.problem = Some((error.reason, error.message));
        }
        Ok(array)
    }

    /// Adds fill value, chunk index and small data. What fails here is the array's problem; it stays listed.
    fn complete(
        &mut self,
        array: &mut Array,
        (dataset, properties): (&Handle, &Handle),
        translated: &Translated,
    ) -> Result<()> {
        if let Some(why) = array.meta.element.unsupported() {
            return Err(Error::new(Reason::UnsupportedType, why));
        }
        array.meta.check()?;
        let elements = array.meta.elements()?;
        let layout = Layout::of(&translated.memory)?;
        let meta = &mut array.meta;
        meta.fill = layout::fill(properties, &translated.memory, &layout, &meta.element, self.references)?;
        match &meta.storage {
            Storage::Contiguous { offset: Some(offset) } => {
                let bytes =
                    elements.saturating_mul(meta.element.fixed_bytes().filter(|_| !meta.converted).unwrap_or(0));
                self.check_contiguous(*offset, bytes.max(layout::stored_bytes(dataset)))?;
            }
            Storage::Chunked { chunk_shape } => {
                let grid = (meta.shape(), chunk_shape.as_slice());
                let index = layout::chunk_index(dataset, properties, grid, self.file.base, self.chunks_left)?;
                self.chunks_left -= index.pointers().len() as u64;
                index.check_addresses(self.asked.file_bytes)?;
                array.index = Some(index);
            }
            Storage::Virtual { .. } | Storage::External => return Ok(()),
            Storage::Compact | Storage::Contiguous { offset: None } => {}
        }
        // Without inline data no value is read at all: reading one may be what killed the attempt before.
        let readable = self.asked.inline && matches!(meta.space, Space::Simple { .. });
        if readable && chunk_is_small(&array.meta, &layout) {
            let shape = array.meta.shape().to_vec();
            self.read_small(array, Source::new(dataset, &shape, &translated.memory, &layout));
        }
        Ok(())
    }

    fn check_contiguous(&self, offset: u64, bytes: u64) -> Result<()> {
        let file_bytes = self.asked.file_bytes;
        if offset.checked_add(bytes).is_some_and(|end| end <= file_bytes) {
            return Ok(());
        }
        let message = format!("{bytes} bytes of data at {offset} of a file of {file_bytes} bytes");
        Err(Error::new(Reason::Truncated, message))
    }

    /// Reads data that is to be inline, and looks at strings. A failure is not told: reading it later will.
    fn read_small(&mut self, array: &mut Array, source: Source<'_>) {
        if is_inline(&array.meta, source.layout) {
            let _ = self.read_inline(array, &source);
        } else if text::has_strings(&array.meta.element) {
            let _ = self.look_at_text(&mut array.meta, &source);
        }
    }

    fn read_inline(&mut self, array: &mut Array, source: &Source<'_>) -> Result<()> {
        let memory = source.whole()?;
        text::mark(&mut array.meta.element, source.layout, memory.bytes())?;
        if memory.bytes().len() as u64 > INLINE_BYTES_MAX && array.meta.element.fixed_bytes().is_none()
            || source.layout.bytes_behind(memory.bytes())? > INLINE_BYTES_MAX
        {
            return Ok(());
        }
        let data = read::block(memory, &array.meta.element, source.layout, self.references)?;
        if data.len() as u64 <= INLINE_BYTES_MAX {
            array.inline = Some(data);
        }
        Ok(())
    }

    fn look_at_text(&mut self, meta: &mut ArrayMeta, source: &Source<'_>) -> Result<()> {
        let shape = meta.shape().to_vec();
        let elements = product(&shape).unwrap_or(u64::MAX);
        let bytes = elements.saturating_mul(source.layout.size as u64);
        let values = if source.layout.has_pointers { elements } else { 0 };
        if elements == 0
            || bytes > TEXT_BYTES_MAX.min(self.text_bytes_left)
            || values > self.text_values_left
            || layout::missing_filter(&meta.filters).is_some()
        {
            return Ok(());
        }
        self.text_bytes_left -= bytes;
        self.text_values_left -= values;
        let Some((rows, rest)) = shape.split_first() else {
            return text::mark(&mut meta.element, source.layout, source.whole()?.bytes());
        };
        let step = rows_at_once(meta, *rows, bytes / rows);
        let (mut origin, mut part) = (vec![0; shape.len()], [&[0], rest].concat());
        for start in (0..*rows).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            (origin[0], part[0]) = (start, step.min(rows - start));
            text::mark(&mut meta.element, source.layout, source.memory(&origin, &part)?.bytes())?;
        }
        Ok(())
    }
}

struct Array {
    meta: ArrayMeta,
    problem: Option<(Reason, String)>,
    index: Option<ChunkIndex>,
    inline: Option<Vec<u8>>,
}

/// Whether the values come with the inspection.
fn is_inline(meta: &ArrayMeta, layout: &Layout) -> bool {
    let compact = meta.storage == Storage::Compact && meta.element.fixed_bytes().is_some() && !meta.converted;
    let needs_worker = meta.storage == Storage::Compact
        || meta.converted
        || meta.element.fixed_bytes().is_none()
        || meta.filters.iter().any(|filter| !codec::supported(filter.id));
    let packed_bytes_min = match meta.element.fixed_bytes() {
        Some(bytes) => bytes,
        None => layout.packed_bytes_min(),
    };
    let small = product(meta.shape())
        .and_then(|elements| elements.checked_mul(packed_bytes_min))
        .is_some_and(|bytes| bytes <= INLINE_BYTES_MAX);
    compact || (needs_worker && small && layout::missing_filter(&meta.filters).is_none())
}

/// As many rows as fit one step, whole chunks where there are any.
fn rows_at_once(meta: &ArrayMeta, rows: u64, row_bytes: u64) -> u64 {
    let fitting = (TEXT_STEP_BYTES / row_bytes.max(1)).clamp(1, rows.max(1));
    match &meta.storage {
        Storage::Chunked { chunk_shape } => fitting.next_multiple_of(chunk_shape[0]),
        Storage::Compact | Storage::Contiguous { .. } | Storage::Virtual { .. } | Storage::External => fitting,
    }
}

/// Whether libhdf5 may decode the array's chunks during an inspection: a few kilobytes can claim a gigabyte.
fn chunk_is_small(meta: &ArrayMeta, layout: &Layout) -> bool {
    match &meta.storage {
        Storage::Chunked { chunk_shape } => product(chunk_shape)
            .and_then(|elements| elements.checked_mul(layout.size as u64))
            .is_some_and(|bytes| bytes <= CHUNK_BYTES_MAX),
        Storage::Compact | Storage::Contiguous { .. } => true,
        Storage::Virtual { .. } | Storage::External => false,
    }
}
