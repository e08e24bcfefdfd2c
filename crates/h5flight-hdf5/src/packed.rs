//! The packed form of elements that have no fixed size, made from libhdf5's form in memory.
//!
//! In memory libhdf5 keeps such elements as pointers: [`Layout`] says where they are, [`Layout::pack`] follows them.
//! The form is described at the head of the crate.

use std::ffi::{CStr, c_char, c_uint};

use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5t::*;

use crate::element;
use crate::handle::{Handle, truth};
use crate::reference::{ReferenceForm, References};

/// One element in memory.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Bytes in memory.
    pub(crate) size: usize,
    /// What the bytes are.
    pub(crate) form: Form,
    /// Whether they hold pointers (or handles) that libhdf5 must take back.
    pub(crate) has_pointers: bool,
    /// Whether the packed form is exactly these bytes.
    solid: bool,
}

/// What the bytes of an element in memory are.
#[derive(Debug)]
pub(crate) enum Form {
    /// A value.
    Bytes,
    /// A `char *`.
    VarString,
    /// An `hvl_t`.
    VarLen(Box<Layout>),
    /// Some kind of reference.
    Reference(ReferenceForm),
    /// Members at offsets.
    Members(Vec<(usize, Layout)>),
    /// This many items, one after the other.
    Items(usize, Box<Layout>),
}

impl Layout {
    /// The layout of a type as [`element::translate`] returns it; the recursion was bounded there.
    pub(crate) fn of(memory: &Handle) -> Result<Self> {
        let id = memory.id();
        let size = element::size(id)?;
        let form = match element::class(id)? {
            // SAFETY: the type is alive.
            H5T_STRING if truth(unsafe { H5Tis_variable_str(id) }, "string type")? => Form::VarString,
            H5T_VLEN => Form::VarLen(Box::new(Self::of(&element::base(id)?)?)),
            H5T_REFERENCE => Form::Reference(ReferenceForm::of(memory)?),
            H5T_ARRAY => {
                let item = Self::of(&element::base(id)?)?;
                Form::Items(size / item.size, Box::new(item))
            }
            H5T_COMPOUND => Form::Members(
                (0..element::member_count(id)?)
                    .map(|at| {
                        let member = Self::of(&element::member_type(id, at)?)?;
                        // SAFETY: the type is alive and has this member.
                        Ok((unsafe { H5Tget_member_offset(id, at as c_uint) }, member))
                    })
                    .collect::<Result<_>>()?,
            ),
            _ => Form::Bytes,
        };
        let layout = Self { has_pointers: form.has_pointers(), solid: form.is_solid(size), size, form };
        layout.check()?;
        Ok(layout)
    }

    /// Every part lies inside: slices below rely on it.
    fn check(&self) -> Result<()> {
        let inside = match &self.form {
            Form::Bytes => true,
            Form::VarString => self.size == size_of::<*const c_char>(),
            Form::VarLen(_) => self.size == size_of::<hvl_t>(),
            Form::Reference(form) => self.size == form.size(),
            Form::Items(count, item) => count.checked_mul(item.size) == Some(self.size),
            Form::Members(members) => members
                .iter()
                .all(|(offset, member)| offset.checked_add(member.size).is_some_and(|end| end <= self.size)),
        };
        if inside {
            return Ok(());
        }
        Err(Error::new(Reason::MalformedFile, format!("a part of an element lies outside its {} bytes", self.size)))
    }

    /// The least number of packed bytes an element can have.
    pub(crate) fn packed_bytes_min(&self) -> u64 {
        match &self.form {
            Form::Bytes => self.size as u64,
            Form::VarString | Form::VarLen(_) | Form::Reference(_) => 4,
            Form::Members(members) => members.iter().map(|(_, member)| member.packed_bytes_min()).sum(),
            Form::Items(count, item) => (*count as u64).saturating_mul(item.packed_bytes_min()),
        }
    }

    /// Appends the packed form of all elements in `memory`.
    ///
    /// `memory` must have been filled by libhdf5 with elements of the type this layout is of.
    ///
    /// # Errors
    /// `result_too_large` beyond `bytes_max`.
    pub(crate) fn pack(&self, memory: &[u8], references: &References, sink: &mut Sink) -> Result<()> {
        if self.solid {
            return sink.push(memory);
        }
        for element in memory.chunks_exact(self.size) {
            match &self.form {
                Form::Bytes => sink.push(element)?,
                Form::VarString => sink.push_counted(string(element))?,
                Form::VarLen(item) => {
                    let items = sequence(element, item.size)?;
                    sink.push(&count(items.len() / item.size)?.to_le_bytes())?;
                    item.pack(items, references, sink)?;
                }
                Form::Reference(form) => match references.path(*form, element) {
                    Some(path) => sink.push_counted(path.as_bytes())?,
                    None => sink.push(&u32::MAX.to_le_bytes())?,
                },
                Form::Members(members) => {
                    for (offset, member) in members {
                        member.pack(&element[*offset..*offset + member.size], references, sink)?;
                    }
                }
                Form::Items(_, item) => item.pack(element, references, sink)?,
            }
        }
        Ok(())
    }

    /// Bytes behind the pointers of all elements in `memory`, which must be filled as for [`Layout::pack`].
    pub(crate) fn bytes_behind(&self, memory: &[u8]) -> Result<u64> {
        if !self.has_pointers {
            return Ok(0);
        }
        let mut sum = 0u64;
        for element in memory.chunks_exact(self.size) {
            let bytes = match &self.form {
                Form::Bytes | Form::Reference(_) => 0,
                Form::VarString => string(element).len() as u64,
                Form::VarLen(item) => {
                    let items = sequence(element, item.size)?;
                    (items.len() as u64).saturating_add(item.bytes_behind(items)?)
                }
                Form::Members(members) => {
                    let mut sum = 0u64;
                    for (offset, member) in members {
                        sum = sum.saturating_add(member.bytes_behind(&element[*offset..*offset + member.size])?);
                    }
                    sum
                }
                Form::Items(_, item) => item.bytes_behind(element)?,
            };
            sum = sum.saturating_add(bytes);
        }
        Ok(sum)
    }
}

impl Form {
    fn has_pointers(&self) -> bool {
        match self {
            Self::Bytes => false,
            Self::VarString | Self::VarLen(_) => true,
            Self::Reference(form) => form.is_opened(),
            Self::Members(members) => members.iter().any(|(_, member)| member.has_pointers),
            Self::Items(_, item) => item.has_pointers,
        }
    }

    fn is_solid(&self, size: usize) -> bool {
        match self {
            Self::Bytes => true,
            Self::VarString | Self::VarLen(_) | Self::Reference(_) => false,
            Self::Items(_, item) => item.solid,
            Self::Members(members) => {
                let mut end = 0;
                for (offset, member) in members {
                    if *offset != end || !member.solid {
                        return false;
                    }
                    end += member.size;
                }
                end == size
            }
        }
    }
}

/// Where packed bytes go, with a bound.
pub(crate) struct Sink {
    /// What was packed so far.
    pub(crate) bytes: Vec<u8>,
    bytes_max: usize,
}

impl Sink {
    /// An empty one that takes `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.bytes_max - self.bytes.len() {
            let message = format!("variable-length values of more than {} bytes in one block", self.bytes_max);
            return Err(Error::new(Reason::ResultTooLarge, message));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn push_counted(&mut self, bytes: &[u8]) -> Result<()> {
        self.push(&count(bytes.len())?.to_le_bytes())?;
        self.push(bytes)
    }
}

fn count(count: usize) -> Result<u32> {
    u32::try_from(count)
        .ok()
        .filter(|count| *count != u32::MAX)
        .ok_or_else(|| Error::new(Reason::ResultTooLarge, format!("a variable-length value of {count} items")))
}

/// The bytes of a string in memory; none for a null pointer.
pub(crate) fn string(element: &[u8]) -> &[u8] {
    let pointer = pointer(element).cast::<c_char>();
    if pointer.is_null() {
        return &[];
    }
    // SAFETY: libhdf5 filled the element with a NUL-terminated string, which lives until the memory is reclaimed,
    // and that is when the borrowed buffer is dropped.
    unsafe { CStr::from_ptr(pointer) }.to_bytes()
}

/// The items of a sequence in memory.
pub(crate) fn sequence(element: &[u8], item_size: usize) -> Result<&[u8]> {
    let (length, address) = element.split_at(size_of::<usize>());
    let length = usize::from_ne_bytes(length.try_into().expect("split at its size"));
    let pointer = pointer(address);
    if length == 0 || pointer.is_null() {
        return Ok(&[]);
    }
    let bytes = length.checked_mul(item_size).filter(|bytes| isize::try_from(*bytes).is_ok());
    let bytes = bytes.ok_or_else(|| Error::new(Reason::HeapAddress, format!("a sequence of {length} items")))?;
    // SAFETY: libhdf5 filled the element with this many items of the type the layout was made of; they live until the
    // memory is reclaimed, and that is when the borrowed buffer is dropped.
    Ok(unsafe { std::slice::from_raw_parts(pointer, bytes) })
}

fn pointer(element: &[u8]) -> *const u8 {
    let bytes: [u8; size_of::<usize>()] = element.try_into().expect("the layout's size was checked");
    std::ptr::with_exposed_provenance(usize::from_ne_bytes(bytes))
}
