//! Elements of no fixed size: the packed form, checked and taken apart.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StringArray, StructArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef};

use super::convert::{Origin, View, array, fixed_size_list, internal, not_utf8, offset, text};
use crate::error::{Error, Reason, Result};
use crate::meta::{ElementType, TYPE_DEPTH_MAX};

/// Byte count of a null reference.
const NULL_REFERENCE: u32 = u32::MAX;

/// Bytes of an element that is always the same number of bytes, without members or items of its own.
fn leaf_bytes(element: &ElementType) -> Option<usize> {
    match element {
        ElementType::Integer { .. }
        | ElementType::Float { .. }
        | ElementType::Bool
        | ElementType::Enum { .. }
        | ElementType::FixedString { .. }
        | ElementType::Complex { .. }
        | ElementType::Opaque { .. }
        | ElementType::Bitfield { .. } => element.fixed_bytes().and_then(|bytes| usize::try_from(bytes).ok()),
        ElementType::VarString { .. }
        | ElementType::VarLen { .. }
        | ElementType::Compound { .. }
        | ElementType::Array { .. }
        | ElementType::Reference { .. }
        | ElementType::Unsupported { .. } => None,
    }
}

/// Reads a block from the front, never past its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    left: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let Some((taken, left)) = self.left.split_at_checked(bytes) else {
            let message = format!("packed values end {} bytes early", bytes - self.left.len());
            return Err(Error::new(Reason::ChunkSizeMismatch, message));
        };
        self.left = left;
        Ok(taken)
    }

    /// `count` values of `width` bytes.
    fn take_many(&mut self, count: u64, width: usize) -> Result<&'a [u8]> {
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(width));
        self.take(bytes.unwrap_or(usize::MAX))
    }

    fn count(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let bytes = self.count()?;
        self.take(bytes as usize)
    }

    /// The path of a reference, `None` for null.
    fn reference(&mut self) -> Result<Option<&'a [u8]>> {
        match self.count()? {
            NULL_REFERENCE => Ok(None),
            bytes => self.take(bytes as usize).map(Some),
        }
    }
}

fn array_items(dims: &[u32]) -> Result<u64> {
    dims.iter().try_fold(1u64, |items, dim| items.checked_mul(u64::from(*dim))).ok_or_else(|| {
        Error::new(Reason::MalformedFile, format!("array type of shape {dims:?} has more than 2^64 items"))
    })
}

/// Passes `count` elements, looking at every count in them. Each element takes at least one byte, so that no count can
/// make this longer than the block.
pub(crate) fn skip(element: &ElementType, count: u64, cursor: &mut Cursor<'_>) -> Result<()> {
    skip_at(element, count, cursor, 0)
}

fn skip_at(element: &ElementType, count: u64, cursor: &mut Cursor<'_>, depth: usize) -> Result<()> {
    if depth > TYPE_DEPTH_MAX {
        let message = format!("element type nests deeper than {TYPE_DEPTH_MAX} levels");
        return Err(Error::new(Reason::UnsupportedType, message));
    }
    if let Some(width) = leaf_bytes(element) {
        return cursor.take_many(count, width).map(drop);
    }
    for _ in 0..count {
        match element {
            ElementType::VarString { .. } => drop(cursor.string()?),
            ElementType::Reference { .. } => drop(cursor.reference()?),
            ElementType::VarLen { item } => {
                let items = cursor.count()?;
                skip_at(item, u64::from(items), cursor, depth + 1)?;
            }
            ElementType::Compound { members, .. } => {
                members.iter().try_for_each(|member| skip_at(&member.element, 1, cursor, depth + 1))?;
            }
            ElementType::Array { dims, item } => skip_at(item, array_items(dims)?, cursor, depth + 1)?,
            other => return Err(no_form(other)),
        }
    }
    Ok(())
}

/// One element without content: zero numbers, empty strings and sequences, null references.
pub(crate) fn empty_value(element: &ElementType, out: &mut Vec<u8>) -> Result<()> {
    if let Some(width) = leaf_bytes(element) {
        out.resize(out.len() + width, 0);
        return Ok(());
    }
    match element {
        ElementType::VarString { .. } | ElementType::VarLen { .. } => out.extend_from_slice(&0u32.to_le_bytes()),
        ElementType::Reference { .. } => out.extend_from_slice(&NULL_REFERENCE.to_le_bytes()),
        ElementType::Compound { members, .. } => {
            members.iter().try_for_each(|member| empty_value(&member.element, out))?;
        }
        ElementType::Array { dims, item } => {
            for _ in 0..array_items(dims)? {
                empty_value(item, out)?;
            }
        }
        other => return Err(no_form(other)),
    }
    Ok(())
}

fn no_form(element: &ElementType) -> Error {
    let name = super::schema::numpy_type(element);
    Error::new(Reason::UnsupportedType, format!("no packed form for {name}"))
}

/// An Arrow array that grows element by element.
pub(crate) enum Builder<'a> {
    /// Values of fixed size, in the file's form.
    Leaf { element: &'a ElementType, width: usize, bytes: Vec<u8> },
    /// Strings.
    Text { offsets: Vec<i32>, bytes: Vec<u8> },
    /// Paths or nulls.
    Reference { offsets: Vec<i32>, bytes: Vec<u8>, valid: Vec<bool> },
    /// Sequences.
    List { offsets: Vec<i32>, items: u64, item: Box<Self> },
    /// Members.
    Struct { members: Vec<(&'a ElementType, Self)>, count: usize },
    /// Arrays of `size` items.
    Repeat { size: u64, item: Box<Self> },
}

impl<'a> Builder<'a> {
    /// Of a column of this type, where a compound may be one value: its members follow each other here as they do there.
    pub(crate) fn of_column(element: &'a ElementType, data_type: &DataType) -> Result<Self> {
        match (element, data_type) {
            // The further axes of a row.
            (_, DataType::FixedSizeList(items, _)) => Self::of_column(element, items.data_type()),
            (ElementType::Compound { bytes: 1.., .. }, DataType::FixedSizeBinary(width)) => {
                Ok(Self::Leaf { element, width: usize::try_from(*width).unwrap_or(0).max(1), bytes: Vec::new() })
            }
            _ => Self::new(element),
        }
    }

    pub(crate) fn new(element: &'a ElementType) -> Result<Self> {
        if let Some(width) = leaf_bytes(element) {
            return Ok(Self::Leaf { element, width, bytes: Vec::new() });
        }
        Ok(match element {
            ElementType::VarString { .. } => Self::Text { offsets: vec![0], bytes: Vec::new() },
            ElementType::Reference { .. } => Self::Reference { offsets: vec![0], bytes: Vec::new(), valid: Vec::new() },
            ElementType::VarLen { item } => Self::List { offsets: vec![0], items: 0, item: Box::new(Self::new(item)?) },
            ElementType::Compound { members, .. } => {
                let member_builders = members.iter().map(|member| Ok((&member.element, Self::new(&member.element)?)));
                Self::Struct { members: member_builders.collect::<Result<_>>()?, count: 0 }
            }
            ElementType::Array { dims, item } => {
                Self::Repeat { size: array_items(dims)?, item: Box::new(Self::new(item)?) }
            }
            other => return Err(no_form(other)),
        })
    }

    /// Takes `count` elements.
    pub(crate) fn append(&mut self, count: u64, cursor: &mut Cursor<'_>, origin: &Origin<'_>) -> Result<()> {
        match self {
            Self::Leaf { width, bytes, .. } => bytes.extend_from_slice(cursor.take_many(count, *width)?),
            Self::Repeat { size, item } => {
                for _ in 0..count {
                    item.append(*size, cursor, origin)?;
                }
            }
            Self::Text { offsets, bytes } => {
                for _ in 0..count {
                    bytes.extend_from_slice(cursor.string()?);
                    offsets.push(offset(bytes.len(), origin)?);
                }
            }
            Self::Reference { offsets, bytes, valid } => {
                for _ in 0..count {
                    let path = cursor.reference()?;
                    bytes.extend_from_slice(path.unwrap_or_default());
                    offsets.push(offset(bytes.len(), origin)?);
                    valid.push(path.is_some());
                }
            }
            Self::List { offsets, items, item } => {
                for _ in 0..count {
                    let added = u64::from(cursor.count()?);
                    item.append(added, cursor, origin)?;
                    *items += added;
                    offsets.push(offset(usize::try_from(*items).unwrap_or(usize::MAX), origin)?);
                }
            }
            Self::Struct { members, count: elements } => {
                for _ in 0..count {
                    for (_, member) in members.iter_mut() {
                        member.append(1, cursor, origin)?;
                    }
                    *elements += 1;
                }
            }
        }
        Ok(())
    }

    /// The array, of this type.
    pub(crate) fn finish(self, data_type: &DataType, origin: &Origin<'_>) -> Result<ArrayRef> {
        let inside = || Origin { per_row: None, ..origin.clone() };
        match (self, data_type) {
            (Self::Leaf { element, width, bytes }, _) => {
                let view =
                    View { count: bytes.len() / width, bytes: Buffer::from_vec(bytes), offset: 0, stride: width };
                array(element, &view, data_type, origin)
            }
            (Self::Text { offsets, bytes }, _) => text(offsets, bytes, data_type, origin),
            (Self::Reference { offsets, bytes, valid }, _) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                let made = StringArray::try_new(offsets, Buffer::from_vec(bytes), Some(NullBuffer::from(valid)));
                made.map(|array| Arc::new(array) as ArrayRef).map_err(|error| not_utf8(0, &inside()).with_source(error))
            }
            (Self::List { offsets, item, .. }, DataType::List(field)) => {
                let items = item.finish(field.data_type(), &inside())?;
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                let made = ListArray::try_new(FieldRef::clone(field), offsets, items, None);
                made.map(|array| Arc::new(array) as ArrayRef).map_err(internal)
            }
            (Self::Struct { members, count }, DataType::Struct(fields)) => {
                let arrays = members.into_iter().zip(fields);
                let arrays = arrays.map(|((_, member), field)| member.finish(field.data_type(), origin));
                let arrays = arrays.collect::<Result<Vec<_>>>()?;
                let made = StructArray::try_new_with_length(fields.clone(), arrays, None, count);
                made.map(|array| Arc::new(array) as ArrayRef).map_err(internal)
            }
            (Self::Repeat { item, .. }, DataType::FixedSizeList(field, size)) => {
                let items = item.finish(field.data_type(), &inside())?;
                let count = if *size == 0 { 0 } else { items.len() / *size as usize };
                fixed_size_list(field, *size, items, count)
            }
            // Within a tensor, the items of an array type are the tensor's.
            (Self::Repeat { item, .. }, _) => item.finish(data_type, &inside()),
            (Self::List { .. } | Self::Struct { .. }, other) => {
                Err(Error::new(Reason::Internal, format!("packed values as {other}")))
            }
        }
    }
}
