//! What an array is: shape, element type, storage, filters, fill value. Facts of the file, as the worker found them.
//!
//! Nothing here is trusted: [`ArrayMeta::check`] is called on whatever comes from the worker or a SQL row before a
//! number of it is used.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, Result};

/// The largest rank HDF5 knows (H5S_MAX_RANK).
pub const RANK_MAX: usize = 32;
/// How deep element types may nest. Deeper ones are `unsupported_type`.
pub const TYPE_DEPTH_MAX: usize = 32;
/// How many members a compound may have.
pub const MEMBERS_MAX: usize = 4096;
/// How many elements an array may have, and indices an axis: libhdf5 counts them in 63 bits (hssize_t). Sums of two of
/// these numbers never overflow.
pub const ELEMENTS_MAX: u64 = i64::MAX as u64;
/// The fewest bytes an element may take. A type that cannot be smaller than this has no value that fits a block.
const ELEMENT_BYTES_MAX: u64 = u32::MAX as u64;
/// How many mappings a virtual dataset may have: each is looked at by every read.
pub const MAPPINGS_MAX: usize = 65_536;

/// Order of the bytes of a number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByteOrder {
    /// Least significant byte first; also used where order means nothing (one byte).
    Little,
    /// Most significant byte first.
    Big,
}

/// How a string ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StringPadding {
    /// Ends at the first NUL.
    NullTerminated,
    /// Trailing NULs are not part of it; inner ones are.
    NullPadded,
    /// Trailing blanks are not part of it.
    SpacePadded,
}

impl StringPadding {
    /// The value in a field of fixed size, as h5py has it: of padding with blanks also the NULs before the blanks are
    /// none of it, so that a field that was never written is empty.
    pub fn cut(self, field: &[u8]) -> &[u8] {
        let trimmed = |field: &[u8], pad: u8| field.iter().rposition(|byte| *byte != pad).map_or(0, |last| last + 1);
        let end = match self {
            Self::NullTerminated => field.iter().position(|byte| *byte == 0).unwrap_or(field.len()),
            Self::NullPadded => trimmed(field, 0),
            Self::SpacePadded => trimmed(&field[..trimmed(field, b' ')], 0),
        };
        &field[..end]
    }
}

/// Whether every value of a string was seen to be UTF-8 when the file was indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// Delivered as Utf8. A later surprise is `not_utf8`, never an unchecked conversion.
    Utf8,
    /// Some value is not UTF-8: delivered as Binary.
    Binary,
}

/// One member of a compound.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it starts within the stored element, in bytes.
    pub offset: u32,
    /// What it is.
    pub element: ElementType,
}

/// The type of one element.
///
/// A type is *fixed* when every element takes [`ElementType::fixed_bytes`] bytes in a decoded block, in the file's own
/// form (byte order, padding). Otherwise its elements are in the *packed* form that [`crate::batch`] describes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the sentence of each variant names its fields")]
pub enum ElementType {
    /// 1, 2, 4 or 8 bytes, two's complement, all bits used.
    Integer { bytes: u32, signed: bool, order: ByteOrder },
    /// IEEE 754 of 2, 4 or 8 bytes.
    Float { bytes: u32, order: ByteOrder },
    /// The enum {FALSE = 0, TRUE = 1} over one byte, as h5py and PyTables write it.
    Bool,
    /// Named integers. Several names may share a value: the first one wins.
    Enum { base: Box<ElementType>, members: Vec<(String, i64)> },
    /// A string in a field of `bytes` bytes.
    FixedString { bytes: u32, padding: StringPadding, text: Text },
    /// A string of its own length, in the file's global heap.
    VarString { text: Text },
    /// A sequence of its own length.
    VarLen { item: Box<ElementType> },
    /// Named members at fixed offsets; `bytes` includes padding.
    Compound { bytes: u32, members: Vec<Member> },
    /// A small array as one element, C order.
    Array { dims: Vec<u32>, item: Box<ElementType> },
    /// Real and imaginary part, one after the other (compound {r, i} or native).
    Complex { part: Box<ElementType> },
    /// Bytes without meaning to HDF5.
    Opaque { bytes: u32, tag: String },
    /// Bits without meaning to HDF5, in the file's byte order.
    Bitfield { bytes: u32, order: ByteOrder },
    /// A reference to an object (its path is delivered) or to a region of a dataset (the dataset's path is delivered).
    Reference { region: bool },
    /// Something for which there is no Arrow form: listed, not read.
    Unsupported { why: String },
}

impl ElementType {
    /// Bytes of one element in a decoded block, or `None` where elements have no fixed size.
    pub fn fixed_bytes(&self) -> Option<u64> {
        match self {
            Self::Integer { bytes, .. }
            | Self::Float { bytes, .. }
            | Self::FixedString { bytes, .. }
            | Self::Opaque { bytes, .. }
            | Self::Bitfield { bytes, .. } => Some(u64::from(*bytes)),
            Self::Bool => Some(1),
            Self::Enum { base, .. } => base.fixed_bytes(),
            Self::Complex { part } => part.fixed_bytes()?.checked_mul(2),
            Self::Compound { bytes, members } => {
                members.iter().all(|m| m.element.fixed_bytes().is_some()).then_some(u64::from(*bytes))
            }
            Self::Array { dims, item } => {
                dims.iter().try_fold(item.fixed_bytes()?, |product, dim| product.checked_mul(u64::from(*dim)))
            }
            Self::VarString { .. } | Self::VarLen { .. } | Self::Reference { .. } | Self::Unsupported { .. } => None,
        }
    }

    /// Whether numpy keeps a value with the very bytes that it has in a decoded block: little-endian, strings filled up
    /// with NUL, members without gaps.
    pub fn is_packed(&self) -> bool {
        match self {
            Self::Integer { bytes, order, .. } | Self::Float { bytes, order } | Self::Bitfield { bytes, order } => {
                *bytes == 1 || *order == ByteOrder::Little
            }
            Self::Enum { base, .. } => base.is_packed(),
            Self::FixedString { padding, .. } => *padding == StringPadding::NullPadded,
            Self::Complex { part } => part.is_packed(),
            Self::Array { item, .. } => item.is_packed(),
            Self::Opaque { .. } => true,
            Self::Compound { bytes, members } => {
                let mut end = Some(0);
                for Member { offset, element, .. } in members {
                    let begins = element.is_packed() && end == Some(u64::from(*offset));
                    end = element.fixed_bytes().filter(|_| begins).map(|bytes| u64::from(*offset) + bytes);
                }
                end == Some(u64::from(*bytes))
            }
            // A byte that is neither 0 nor 1 is no bool to numpy.
            Self::Bool => false,
            Self::VarString { .. } | Self::VarLen { .. } | Self::Reference { .. } | Self::Unsupported { .. } => false,
        }
    }

    /// Why this type cannot be delivered, where it cannot.
    pub fn unsupported(&self) -> Option<&str> {
        match self {
            Self::Unsupported { why } => Some(why),
            Self::Enum { base, .. } => base.unsupported(),
            Self::Complex { part } => part.unsupported(),
            Self::VarLen { item } | Self::Array { item, .. } => item.unsupported(),
            Self::Compound { members, .. } => members.iter().find_map(|m| m.element.unsupported()),
            _ => None,
        }
    }

    /// The type without what its values, and not the file, told of it: two such types that are equal have blocks of the
    /// same form.
    #[must_use]
    pub fn form(&self) -> Self {
        let boxed = |element: &Self| Box::new(element.form());
        match self {
            Self::FixedString { bytes, padding, .. } => {
                Self::FixedString { bytes: *bytes, padding: *padding, text: Text::Utf8 }
            }
            Self::VarString { .. } => Self::VarString { text: Text::Utf8 },
            Self::VarLen { item } => Self::VarLen { item: boxed(item) },
            Self::Array { dims, item } => Self::Array { dims: dims.clone(), item: boxed(item) },
            Self::Compound { bytes, members } => {
                let form = |member: &Member| Member { element: member.element.form(), ..member.clone() };
                Self::Compound { bytes: *bytes, members: members.iter().map(form).collect() }
            }
            _ => self.clone(),
        }
    }

    /// Bounds that hold for every type that is used: sizes, depth, members inside their compound.
    ///
    /// # Errors
    /// `malformed_file` or `unsupported_type`, naming the part.
    pub fn check(&self) -> Result<()> {
        self.check_at(0)?;
        match self.least_bytes() {
            Some(bytes) if bytes <= ELEMENT_BYTES_MAX => Ok(()),
            _ => Err(Error::new(Reason::MalformedFile, "element type of more than 4 GiB")),
        }
    }

    /// Bytes of the smallest value in a decoded block; `None` where they pass 64 bits.
    fn least_bytes(&self) -> Option<u64> {
        /// The count before a string, a sequence or a path.
        const COUNT_BYTES: u64 = 4;
        match self {
            _ if self.fixed_bytes().is_some() => self.fixed_bytes(),
            Self::Compound { members, .. } => {
                members.iter().try_fold(0u64, |bytes, member| bytes.checked_add(member.element.least_bytes()?))
            }
            Self::Array { dims, item } => {
                dims.iter().try_fold(item.least_bytes()?, |bytes, dim| bytes.checked_mul(u64::from(*dim)))
            }
            _ => Some(COUNT_BYTES),
        }
    }

    fn check_at(&self, depth: usize) -> Result<()> {
        let malformed = |what: String| Err(Error::new(Reason::MalformedFile, what));
        if depth > TYPE_DEPTH_MAX {
            return Err(Error::new(
                Reason::UnsupportedType,
                format!("element type nests deeper than {TYPE_DEPTH_MAX} levels"),
            ));
        }
        match self {
            Self::Integer { bytes: 1 | 2 | 4 | 8, .. } | Self::Float { bytes: 2 | 4 | 8, .. } => Ok(()),
            Self::Integer { bytes, .. } => malformed(format!("integer of {bytes} bytes")),
            Self::Float { bytes, .. } => malformed(format!("float of {bytes} bytes")),
            Self::FixedString { bytes: 0, .. } | Self::Opaque { bytes: 0, .. } | Self::Bitfield { bytes: 0, .. } => {
                malformed("element type of 0 bytes".into())
            }
            Self::Enum { base, .. } => match **base {
                Self::Integer { .. } => base.check_at(depth + 1),
                _ => malformed("enum over something else than an integer".into()),
            },
            Self::Complex { part } => match **part {
                Self::Float { .. } => part.check_at(depth + 1),
                _ => malformed("complex over something else than a float".into()),
            },
            Self::VarLen { item } => item.check_at(depth + 1),
            Self::Array { dims, item } => {
                if dims.is_empty() || dims.len() > RANK_MAX || dims.contains(&0) {
                    return malformed(format!("array type of shape {dims:?}"));
                }
                if item.fixed_bytes().is_some() && self.fixed_bytes().is_none_or(|bytes| bytes > u64::from(u32::MAX)) {
                    return malformed(format!("array type of shape {dims:?} is larger than 4 GiB"));
                }
                item.check_at(depth + 1)
            }
            Self::Compound { bytes, members } => {
                if members.is_empty() || members.len() > MEMBERS_MAX {
                    return Err(Error::new(
                        Reason::UnsupportedType,
                        format!("compound of {} members, allowed are 1 to {MEMBERS_MAX}", members.len()),
                    ));
                }
                for member in members {
                    member.element.check_at(depth + 1)?;
                    if let Some(size) = member.element.fixed_bytes()
                        && u64::from(member.offset) + size > u64::from(*bytes)
                    {
                        let (name, end) = (&member.name, u64::from(member.offset) + size);
                        return malformed(format!("compound member {name:?} ends at {end} of {bytes} bytes"));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A stage of the filter pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filter {
    /// The registered number: 1 deflate, 2 shuffle, 3 fletcher32, 32000 LZF, ...
    pub id: u32,
    /// The name the file gives it, may be empty.
    pub name: String,
    /// Client data values.
    pub params: Vec<u32>,
}

/// Where an array's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the sentence of each variant names its fields")]
pub enum Storage {
    /// In the object header; delivered inline by the inspection, else read by the worker.
    Compact,
    /// One run of bytes at a file address (user block included); `None` when nothing was ever written.
    Contiguous { offset: Option<u64> },
    /// In chunks of this shape, found by the chunk index.
    Chunked { chunk_shape: Vec<u64> },
    /// Composed of other datasets. Without a mapping it was indexed before mappings were, and is refused.
    Virtual {
        #[serde(default)]
        mappings: Vec<VirtualMapping>,
    },
    /// In other files: refused (`external_storage_refused`).
    External,
}

/// Which part of a virtual dataset is which part of its source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VirtualMapping {
    /// The source's file as the virtual dataset names it; `None` is its own. A name to compare, never to open.
    pub file: Option<String>,
    /// The source's absolute path, escaped like [`crate::inspect::Object::path`]; in the own file the canonical one.
    pub path: String,
    /// What is mapped, by axis of the virtual dataset.
    pub slab: Vec<SlabAxis>,
    /// Where it comes from, by axis of the source, in the same order; `None` is all of the source.
    pub source_slab: Option<Vec<SlabAxis>>,
}

impl VirtualMapping {
    /// The source as clients may read it: the last part of its file's name, and its path.
    pub fn source_name(&self) -> String {
        match &self.file {
            Some(file) => format!("{}:{}", file.rsplit(['/', '\\']).next().unwrap_or_default(), self.path),
            None => self.path.clone(),
        }
    }

    fn check(&self, shape: &[u64]) -> Result<()> {
        let source = self.source_slab.as_deref().unwrap_or_default();
        let growing = |slab: &[SlabAxis]| slab.iter().filter(|axis| axis.count.is_none()).count();
        let fits = self.slab.len() == shape.len()
            && source.len() <= RANK_MAX
            && growing(&self.slab).max(growing(source)) <= 1
            && self.slab.iter().chain(source).all(SlabAxis::is_sound);
        if fits {
            return Ok(());
        }
        let (name, slab) = (self.source_name(), &self.slab);
        Err(Error::new(Reason::MalformedFile, format!("mapping of {name} to {slab:?} of an array of shape {shape:?}")))
    }
}

/// A regular hyperslab along one axis: `count` blocks of `block` indices, `stride` apart. In JSON a list of the four
/// numbers, for there may be many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "(u64, u64, Option<u64>, u64)", into = "(u64, u64, Option<u64>, u64)")]
pub struct SlabAxis {
    /// First index.
    pub start: u64,
    /// Indices from one block to the next, not less than `block`.
    pub stride: u64,
    /// Blocks; `None` is as many as there are.
    pub count: Option<u64>,
    /// Indices of a block, not 0.
    pub block: u64,
}

impl SlabAxis {
    /// `len` indices from `start` on.
    pub fn run(start: u64, len: u64) -> Self {
        Self { start, stride: len.max(1), count: Some(u64::from(len > 0)), block: len.max(1) }
    }

    /// Whether blocks do not overlap and all indices fit 63 bits.
    fn is_sound(&self) -> bool {
        let Self { start, stride, count, block } = *self;
        let last = count.unwrap_or(1).saturating_sub(1).checked_mul(stride).and_then(|far| far.checked_add(start));
        let end = last.and_then(|last| last.checked_add(block));
        block > 0 && stride >= block && end.is_some_and(|end| i64::try_from(end).is_ok())
    }
}

impl From<(u64, u64, Option<u64>, u64)> for SlabAxis {
    fn from((start, stride, count, block): (u64, u64, Option<u64>, u64)) -> Self {
        Self { start, stride, count, block }
    }
}

impl From<SlabAxis> for (u64, u64, Option<u64>, u64) {
    fn from(SlabAxis { start, stride, count, block }: SlabAxis) -> Self {
        (start, stride, count, block)
    }
}

/// The dataspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the sentence of each variant names its fields")]
pub enum Space {
    /// No value at all.
    Null,
    /// Elements on a grid; the empty shape is a scalar.
    Simple { shape: Vec<u64> },
}

/// All that planning needs to know of one HDF5 dataset object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayMeta {
    /// Its extent.
    pub space: Space,
    /// Largest extent by axis, `None` = unlimited; empty for scalars.
    pub max_shape: Vec<Option<u64>>,
    /// Its element type, as delivered in decoded blocks.
    pub element: ElementType,
    /// True where `element` is not the file's own form: libhdf5 must convert (odd precisions, long doubles, ...),
    /// so blocks always come from the worker.
    pub converted: bool,
    /// The element type in words, where `element` does not tell (for example "float128"); else empty.
    pub type_note: String,
    /// Where the bytes lie.
    pub storage: Storage,
    /// Filters in the order in which they were applied when writing.
    pub filters: Vec<Filter>,
    /// One element in the form of a decoded block; `None` is zero bytes (fixed) or an empty value (packed).
    pub fill: Option<Vec<u8>>,
}

impl ArrayMeta {
    /// The shape; empty for scalars and for the null dataspace.
    pub fn shape(&self) -> &[u64] {
        match &self.space {
            Space::Null => &[],
            Space::Simple { shape } => shape,
        }
    }

    /// Number of elements; 0 for the null dataspace.
    ///
    /// # Errors
    /// `malformed_file` where the product passes 64 bits.
    pub fn elements(&self) -> Result<u64> {
        match &self.space {
            Space::Null => Ok(0),
            Space::Simple { shape } => product(shape).ok_or_else(|| {
                Error::new(Reason::MalformedFile, format!("array of shape {shape:?} has more than 2^64 elements"))
            }),
        }
    }

    /// A chunk's number as its position in the grid of chunks, by axis; empty where the array has no chunks.
    pub fn chunk_position(&self, number: u64) -> Vec<u64> {
        let Storage::Chunked { chunk_shape } = &self.storage else { return Vec::new() };
        let mut rest = number;
        let mut position = vec![0; chunk_shape.len()];
        for (at, (size, chunk)) in position.iter_mut().zip(self.shape().iter().zip(chunk_shape)).rev() {
            let count = size.div_ceil((*chunk).max(1)).max(1);
            *at = rest % count;
            rest /= count;
        }
        position
    }

    /// Checks everything that later code relies on without looking: rank, type, chunk shape, fill size.
    ///
    /// # Errors
    /// `malformed_file`, `unsupported_type` or `unsupported_layout`.
    pub fn check(&self) -> Result<()> {
        let malformed = |what: String| Err(Error::new(Reason::MalformedFile, what));
        let shape = self.shape();
        if shape.len() > RANK_MAX {
            return malformed(format!("array of rank {}, the most is {RANK_MAX}", shape.len()));
        }
        let countable = product(shape).is_some_and(|elements| elements <= ELEMENTS_MAX);
        if !countable || shape.iter().any(|size| *size > ELEMENTS_MAX) {
            return malformed(format!("array of shape {shape:?} has more than 2^63 elements"));
        }
        self.element.check()?;
        if let Storage::Chunked { chunk_shape } = &self.storage {
            if chunk_shape.len() != shape.len() || chunk_shape.is_empty() {
                return malformed(format!("chunk shape {chunk_shape:?} for an array of shape {shape:?}"));
            }
            if chunk_shape.contains(&0) || product(chunk_shape).is_none() {
                return malformed(format!("chunk shape {chunk_shape:?}"));
            }
        }
        if let Storage::Virtual { mappings } = &self.storage {
            if mappings.len() > MAPPINGS_MAX {
                return malformed(format!("{} mappings, the most is {MAPPINGS_MAX}", mappings.len()));
            }
            mappings.iter().try_for_each(|mapping| mapping.check(shape))?;
        }
        if let (Some(fill), Some(bytes)) = (&self.fill, self.element.fixed_bytes())
            && fill.len() as u64 != bytes
        {
            return malformed(format!("fill value of {} bytes for elements of {bytes} bytes", fill.len()));
        }
        Ok(())
    }
}

/// The product of a shape's sizes, `None` where it passes 64 bits. The product of the empty shape is 1.
pub fn product(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_number_becomes_its_position_in_the_grid() {
        for (number, shape, position) in [
            (7, vec![3, 4], vec![1, 3]),
            (0, vec![3, 4], vec![0, 0]),
            (23, vec![2, 3, 4], vec![1, 2, 3]),
            // Chunks at the edge count whole.
            (7, vec![5, 7], vec![1, 3]),
        ] {
            let chunk_shape = if shape == [5, 7] { vec![2, 2] } else { vec![1; shape.len()] };
            let meta = ArrayMeta {
                space: Space::Simple { shape },
                max_shape: Vec::new(),
                element: ElementType::Bool,
                converted: false,
                type_note: String::new(),
                storage: Storage::Chunked { chunk_shape },
                filters: Vec::new(),
                fill: None,
            };
            assert_eq!(meta.chunk_position(number), position);
        }
    }
}
