//! Reading elements: hyperslabs of a dataset into memory, and from there into decoded blocks.

use std::ffi::c_void;
use std::io::Write;

use bytes::Bytes;
use h5flight_array::codec;
use h5flight_array::inspect::{DATA_BYTES_MAX, Frame, Hyperslab, Message};
use h5flight_array::meta::{ArrayMeta, ElementType, Filter, Space, Storage, Text, product};
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5d::{H5Dget_space, H5Dget_type, H5Dread};
use hdf5_sys::h5i::{H5I_DATASET, H5Iget_type, hid_t};
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5s::{H5S_SCALAR, H5S_SELECT_SET, H5Screate, H5Screate_simple, H5Sselect_hyperslab};
use hdf5_sys::h5t::H5Treclaim;

use crate::element::{self, Translated};
use crate::handle::{Handle, about, checked};
use crate::layout;
use crate::open::OpenFile;
use crate::packed::{Layout, Sink};
use crate::reference::References;
use crate::sources;
use crate::walk;
use crate::worker::send;

/// Elements in memory, as libhdf5 keeps them. What they point to is given back with them.
pub(crate) struct Memory<'a> {
    bytes: Vec<u8>,
    memory_type: &'a Handle,
    space: Handle,
    /// As many elements on one axis, where they hold pointers: giving back what is behind those takes libhdf5 one axis
    /// more than there are, for which it has no room at rank 32.
    line: Option<Handle>,
}

impl<'a> Memory<'a> {
    /// Room for a box of elements; the empty shape is one element.
    ///
    /// # Errors
    /// `result_too_large` beyond the largest block.
    pub(crate) fn zeroed(memory_type: &'a Handle, layout: &Layout, shape: &[u64]) -> Result<Self> {
        let bytes = product(shape).and_then(|elements| elements.checked_mul(layout.size as u64));
        let Some(bytes) = bytes.filter(|bytes| *bytes <= u64::from(DATA_BYTES_MAX)) else {
            let message = format!("a block of shape {shape:?} with elements of {} bytes is too large", layout.size);
            return Err(Error::new(Reason::ResultTooLarge, message));
        };
        let mut zeros = Vec::new();
        zeros.try_reserve_exact(bytes as usize).map_err(|error| {
            Error::new(Reason::ResultTooLarge, format!("no memory for a block of {bytes} bytes")).with_source(error)
        })?;
        zeros.resize(bytes as usize, 0);
        let line = layout.has_pointers.then(|| simple_space(&[bytes / layout.size as u64])).transpose()?;
        Ok(Self { bytes: zeros, memory_type, space: simple_space(shape)?, line })
    }

    /// Lets libhdf5 write the elements. Where that fails they may be half converted, with addresses of the file in
    /// place of pointers: nothing of them is kept, and nothing given back.
    pub(crate) fn fill_with(&mut self, read: impl FnOnce(*mut c_void, hid_t) -> Result<()>) -> Result<()> {
        let result = read(self.bytes.as_mut_ptr().cast::<c_void>(), self.memory_type.id());
        if result.is_err() {
            self.bytes.fill(0);
        }
        result
    }

    /// The elements; pointers in them are valid as long as this lives.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements, where they hold no pointers.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        assert!(self.line.is_none(), "elements with pointers leave only packed");
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            // SAFETY: the elements are zeros or what libhdf5 wrote of this type, as many as the space says, and not used
            // again.
            unsafe {
                H5Treclaim(self.memory_type.id(), line.id(), H5P_DEFAULT, self.bytes.as_mut_ptr().cast::<c_void>())
            };
        }
    }
}

/// A dataspace of this shape; a scalar for the empty one.
fn simple_space(shape: &[u64]) -> Result<Handle> {
    let id = match shape.len() {
        // SAFETY: no pointers.
        0 => unsafe { H5Screate(H5S_SCALAR) },
        // SAFETY: there are as many sizes as said.
        rank => unsafe { H5Screate_simple(rank as i32, shape.as_ptr(), std::ptr::null()) },
    };
    Handle::new(id, "memory space")
}

/// A dataset that can be read.
pub(crate) struct Source<'a> {
    dataset: &'a Handle,
    shape: &'a [u64],
    pub(crate) memory_type: &'a Handle,
    pub(crate) layout: &'a Layout,
}

impl<'a> Source<'a> {
    /// Puts together what reading needs.
    pub(crate) fn new(dataset: &'a Handle, shape: &'a [u64], memory_type: &'a Handle, layout: &'a Layout) -> Self {
        Self { dataset, shape, memory_type, layout }
    }

    /// Reads a box of elements that lies inside the array.
    pub(crate) fn memory(&self, origin: &[u64], shape: &[u64]) -> Result<Memory<'a>> {
        self.check_inside(origin, shape)?;
        let mut memory = Memory::zeroed(self.memory_type, self.layout, shape)?;
        if memory.bytes.is_empty() {
            return Ok(memory);
        }
        // SAFETY: the dataset is alive.
        let selection = Handle::new(unsafe { H5Dget_space(self.dataset.id()) }, "dataspace")?;
        if !shape.is_empty() {
            let (start, count) = (origin.as_ptr(), shape.as_ptr());
            // SAFETY: there is one origin and one size by axis; the rank was compared.
            let status = unsafe {
                H5Sselect_hyperslab(selection.id(), H5S_SELECT_SET, start, std::ptr::null(), count, std::ptr::null())
            };
            checked(status, "selection")?;
        }
        let space = memory.space.id();
        memory.fill_with(|target, memory_type| {
            // SAFETY: the target has room for exactly the selected elements in this type.
            let status = unsafe { H5Dread(self.dataset.id(), memory_type, space, selection.id(), H5P_DEFAULT, target) };
            checked(status, "the data cannot be read")
        })?;
        Ok(memory)
    }

    /// All elements.
    pub(crate) fn whole(&self) -> Result<Memory<'a>> {
        self.memory(&vec![0; self.shape.len()], self.shape)
    }

    fn check_inside(&self, origin: &[u64], shape: &[u64]) -> Result<()> {
        let inside = origin.len() == self.shape.len()
            && shape.len() == self.shape.len()
            && origin
                .iter()
                .zip(shape)
                .zip(self.shape)
                .all(|((origin, count), size)| origin.checked_add(*count).is_some_and(|end| end <= *size));
        if inside {
            return Ok(());
        }
        let message = format!("block {origin:?} of shape {shape:?} is outside the array of shape {:?}", self.shape);
        Err(Error::new(Reason::OutOfBounds, message))
    }
}

/// The decoded block of elements in memory.
pub(crate) fn block(
    memory: Memory<'_>,
    element: &ElementType,
    layout: &Layout,
    references: &References,
) -> Result<Vec<u8>> {
    if element.fixed_bytes().is_some() {
        return Ok(memory.into_bytes());
    }
    let mut sink = Sink::new(DATA_BYTES_MAX as usize);
    layout.pack(memory.bytes(), references, &mut sink)?;
    Ok(sink.bytes)
}

/// The type of a dataset, as delivered into memory.
pub(crate) fn translated(dataset: &Handle) -> Result<Translated> {
    // SAFETY: the dataset is alive.
    let file_type = Handle::new(unsafe { H5Dget_type(dataset.id()) }, "type")?;
    element::translate(&file_type)
}

/// Answers [`h5flight_array::inspect::Request::Read`]: one frame a block.
pub(crate) fn read(
    file: &OpenFile,
    path: &str,
    meta: &ArrayMeta,
    blocks: &[Hyperslab],
    out: &mut impl Write,
) -> Result<()> {
    let dataset = walk::resolve(file, path)?;
    // SAFETY: the object is alive.
    if unsafe { H5Iget_type(dataset.id()) } != H5I_DATASET {
        return Err(changed(path, "it is no dataset any more".into()));
    }
    let translated = translated(&dataset).map_err(about(path))?;
    let properties = layout::properties(&dataset)?;
    if sources::is_virtual(&properties) {
        sources::refuse_other_sources(file, path, &properties)?;
    }
    let (space, _) = layout::space(&dataset).map_err(about(path))?;
    check_same(path, meta, &translated, &space)?;
    let Space::Simple { shape } = &space else {
        return Err(Error::new(Reason::NullDataspace, format!("{path}: the dataset holds no value")));
    };
    refuse_external(path, &layout::storage(&dataset, &properties, shape.len(), file.base).map_err(about(path))?)?;
    let filters = layout::filters(&properties).map_err(about(path))?;
    let layout = Layout::of(&translated.memory)?;
    let source = Source::new(&dataset, shape, &translated.memory, &layout);
    let references = References::of(file);
    for (at, slab) in blocks.iter().enumerate() {
        let memory = source.memory(&slab.origin, &slab.shape).map_err(|error| explained(path, &filters, error))?;
        let data = block(memory, &translated.element, &layout, &references).map_err(about(path))?;
        let at = u32::try_from(at).map_err(|_| Error::new(Reason::BadRequest, "more than 2^32 blocks"))?;
        send(out, &Frame { message: Message::Block { at }, data: Bytes::from(data) })?;
    }
    Ok(())
}

/// A failed read of a dataset with a filter that is not there failed for that reason.
fn explained(path: &str, filters: &[Filter], error: Error) -> Error {
    let may_be_the_filter = matches!(error.reason, Reason::MalformedFile | Reason::UnsupportedFilter);
    match layout::missing_filter(filters).filter(|_| may_be_the_filter) {
        Some(filter) => unsupported_filter(path, filter).with_source(error),
        None => about(path)(error),
    }
}

fn unsupported_filter(path: &str, filter: &Filter) -> Error {
    let filter = codec::described(filter);
    Error::new(Reason::UnsupportedFilter, format!("{filter} of dataset {path} is not supported"))
}

fn refuse_external(path: &str, storage: &Storage) -> Result<()> {
    match storage {
        Storage::Compact | Storage::Contiguous { .. } | Storage::Chunked { .. } | Storage::Virtual { .. } => Ok(()),
        Storage::External => Err(Error::new(
            Reason::ExternalStorageRefused,
            format!("{path}: the data lies in another file, which is not opened"),
        )),
    }
}

fn check_same(path: &str, meta: &ArrayMeta, translated: &Translated, space: &Space) -> Result<()> {
    if meta.space != *space {
        return Err(changed(path, format!("its shape is {space:?}, it was {:?}", meta.space)));
    }
    if without_text(&meta.element) != without_text(&translated.element) || meta.converted != translated.converted {
        return Err(changed(path, "its element type is another one".into()));
    }
    Ok(())
}

fn changed(path: &str, how: String) -> Error {
    Error::new(Reason::FileChanged, format!("{path}: {how}; index the file again"))
}

/// The type without what its values, not the file, told.
fn without_text(element: &ElementType) -> ElementType {
    let mut element = element.clone();
    crate::text::reset(&mut element, Text::Utf8);
    element
}
