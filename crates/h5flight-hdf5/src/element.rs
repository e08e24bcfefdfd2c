//! Element types: libhdf5's description of a type becomes ours, and the type in which libhdf5 delivers it.
//!
//! What is standard (whole bytes, IEEE 754, either byte order) is delivered as it lies in the file. One odd leaf (24-bit
//! integers, long doubles, bfloat16, ...) makes the whole type `converted`: libhdf5 delivers every odd number as the
//! nearest standard one, little-endian, and compounds without padding.

use std::ffi::{CStr, c_char, c_uint, c_void};

use h5flight_array::meta::{
    ByteOrder, ElementType, MEMBERS_MAX, Member, RANK_MAX, StringPadding, TYPE_DEPTH_MAX, Text,
};
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5::H5free_memory;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5t::*;

use crate::handle::{Handle, checked, library_error, truth};
use crate::names;

/// Parts of one type, all members of all levels. A real one has a few hundred.
const PARTS_MAX: usize = 65_536;
/// Names of one enum; one with more is delivered as its numbers.
const ENUM_MEMBERS_MAX: usize = 65_536;

/// A type of the file, understood.
pub(crate) struct Translated {
    /// Our description of what is delivered.
    pub(crate) element: ElementType,
    /// In which form libhdf5 delivers it into memory.
    pub(crate) memory: Handle,
    /// Whether that is another form than the file's.
    pub(crate) converted: bool,
    /// What `element` does not tell.
    pub(crate) note: String,
}

/// Understands the type of a dataset or attribute.
///
/// # Errors
/// `unsupported_type` beyond the bounds, `malformed_file` where libhdf5 does not know an answer. A type without an
/// Arrow form is no error: it is [`ElementType::Unsupported`].
pub(crate) fn translate(file_type: &Handle) -> Result<Translated> {
    let mut survey = Survey::default();
    survey.look_at(file_type.id(), 0)?;
    let memory = if survey.converted {
        native(file_type.id())?
    } else {
        // SAFETY: the type is alive.
        Handle::new(unsafe { H5Tcopy(file_type.id()) }, "type")?
    };
    Ok(Translated { element: describe(memory.id())?, memory, converted: survey.converted, note: survey.note })
}

/// The walk over a type that bounds every later one.
#[derive(Default)]
struct Survey {
    parts: usize,
    converted: bool,
    note: String,
}

impl Survey {
    fn look_at(&mut self, id: hid_t, depth: usize) -> Result<()> {
        let unsupported = |what: String| Err(Error::new(Reason::UnsupportedType, what));
        self.parts += 1;
        if depth > TYPE_DEPTH_MAX {
            return unsupported(format!("element type nests deeper than {TYPE_DEPTH_MAX} levels"));
        }
        if self.parts > PARTS_MAX {
            return unsupported(format!("element type has more than {PARTS_MAX} parts"));
        }
        match class(id)? {
            H5T_INTEGER if !is_standard_integer(id)? => self.convert(format!("int{}", precision(id)?)),
            H5T_FLOAT if !is_standard_float(id)? => {
                let name = float_name(id)?;
                if !becomes_float64(id)? {
                    return unsupported(format!("{name} has values that float64 cannot hold"));
                }
                self.convert(name);
            }
            H5T_TIME => self.annotate("time_t"),
            H5T_ENUM => {
                let base = base(id)?;
                if !is_standard_integer(base.id())? {
                    self.convert(format!("enum over int{}", precision(base.id())?));
                }
            }
            H5T_COMPOUND => {
                let count = member_count(id)?;
                if count > MEMBERS_MAX {
                    return unsupported(format!("compound of {count} members, allowed are 1 to {MEMBERS_MAX}"));
                }
                for at in 0..count {
                    self.look_at(member_type(id, at)?.id(), depth + 1)?;
                }
            }
            H5T_COMPLEX => {
                let part = base(id)?;
                if is_half(part.id())? {
                    self.convert("complex of float16".into());
                }
                self.look_at(part.id(), depth + 1)?;
            }
            H5T_VLEN | H5T_ARRAY => self.look_at(base(id)?.id(), depth + 1)?,
            _ => {}
        }
        Ok(())
    }

    fn convert(&mut self, note: String) {
        self.converted = true;
        self.annotate(&note);
    }

    fn annotate(&mut self, note: &str) {
        if self.note.is_empty() {
            self.note = note.to_owned();
        }
    }
}

/// The same type with every odd number replaced by the nearest standard one.
fn native(id: hid_t) -> Result<Handle> {
    // SAFETY: the type is alive, or one of libhdf5's own.
    let copy = |id| Handle::new(unsafe { H5Tcopy(id) }, "type");
    match class(id)? {
        H5T_INTEGER if !is_standard_integer(id)? => in_order_of(id, native_integer(id)?),
        H5T_FLOAT if !is_standard_float(id)? => in_order_of(id, native_float(id)?),
        H5T_ENUM => {
            let base = base(id)?;
            if is_standard_integer(base.id())? { copy(id) } else { in_order_of(base.id(), native_integer(base.id())?) }
        }
        H5T_COMPOUND => native_compound(id),
        H5T_ARRAY => {
            let (item, dims) = (native(base(id)?.id())?, array_dims(id)?);
            // SAFETY: there are as many sizes as said, at most 32.
            Handle::new(unsafe { H5Tarray_create2(item.id(), dims.len() as c_uint, dims.as_ptr()) }, "array type")
        }
        H5T_VLEN => {
            let item = native(base(id)?.id())?;
            // SAFETY: the item type is alive.
            Handle::new(unsafe { H5Tvlen_create(item.id()) }, "sequence type")
        }
        H5T_COMPLEX => {
            let part = base(id)?;
            // Nobody has complex numbers of float16: float32 holds them.
            let part = if is_half(part.id())? { copy(*H5T_IEEE_F32LE)? } else { native(part.id())? };
            // SAFETY: the part's type is alive.
            Handle::new(unsafe { H5Tcomplex_create(part.id()) }, "complex type")
        }
        _ => copy(id),
    }
}

/// The standard number in the byte order of the odd one that is converted to it.
///
/// Between numbers of one size and two orders, libhdf5 swaps the bytes and does not look at the precision.
fn in_order_of(odd: hid_t, standard: hid_t) -> Result<Handle> {
    // SAFETY: the type is one of libhdf5's own.
    let number = Handle::new(unsafe { H5Tcopy(standard) }, "type")?;
    // SAFETY: the type is alive.
    if unsafe { H5Tget_order(odd) } == H5T_ORDER_BE {
        // SAFETY: the copy is ours.
        checked(unsafe { H5Tset_order(number.id(), H5T_ORDER_BE) }, "byte order")?;
    }
    Ok(number)
}

fn native_compound(id: hid_t) -> Result<Handle> {
    let members: Vec<Handle> =
        (0..member_count(id)?).map(|at| native(member_type(id, at)?.id())).collect::<Result<_>>()?;
    let sizes: Vec<usize> = members.iter().map(|member| size(member.id())).collect::<Result<_>>()?;
    let total = sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size)).unwrap_or(0);
    // SAFETY: no pointers; a size of 0 is refused by libhdf5.
    let compound = Handle::new(unsafe { H5Tcreate(H5T_COMPOUND, total) }, "compound type")?;
    let mut offset = 0;
    for (at, (member, size)) in members.iter().zip(&sizes).enumerate() {
        let name = member_name(id, at)?;
        // SAFETY: the name is NUL-terminated and copied, both types are alive.
        let status = unsafe { H5Tinsert(compound.id(), name.0.cast_const(), offset, member.id()) };
        checked(status, "compound type")?;
        offset += size;
    }
    Ok(compound)
}

/// The integer of the type's own size where that is a standard one, as numpy has it, else the next larger one.
fn native_integer(id: hid_t) -> Result<hid_t> {
    let (bits, signed) = (precision(id)?, is_signed(id)?);
    Ok(match (bits.max(size(id)?.saturating_mul(8)), signed) {
        (0..=8, true) => *H5T_STD_I8LE,
        (0..=8, false) => *H5T_STD_U8LE,
        (9..=16, true) => *H5T_STD_I16LE,
        (9..=16, false) => *H5T_STD_U16LE,
        (17..=32, true) => *H5T_STD_I32LE,
        (17..=32, false) => *H5T_STD_U32LE,
        (33..=64, true) => *H5T_STD_I64LE,
        (33..=64, false) => *H5T_STD_U64LE,
        _ if bits <= 64 && signed => *H5T_STD_I64LE,
        _ if bits <= 64 => *H5T_STD_U64LE,
        _ => return Err(Error::new(Reason::UnsupportedType, format!("integer of {bits} bits"))),
    })
}

unsafe extern "C" {
    /// IEEE 754 binary16, little-endian. The binding crate leaves it out.
    static H5T_IEEE_F16LE_g: hid_t;
}

/// The smallest float that is not smaller than the type and holds every value of it, as numpy has it; else float64.
fn native_float(id: hid_t) -> Result<hid_t> {
    let (bytes, fields) = (size(id)?, float_fields(id)?);
    // SAFETY: the type is alive.
    let bias = unsafe { H5Tget_ebias(id) };
    let holds = |float_bytes: usize, (exponent_bits, mantissa_bits): (usize, usize)| {
        let own_bias = (1usize << (exponent_bits - 1)) - 1;
        bytes <= float_bytes
            && fields.mantissa_bits <= mantissa_bits
            && fields.exponent_bits <= exponent_bits
            && bias <= own_bias
            // The exponents of infinity.
            && (1usize << fields.exponent_bits).saturating_sub(bias) <= own_bias + 2
    };
    Ok(if holds(2, (5, 10)) {
        // SAFETY: libhdf5 is initialised, since a type is alive, and does not change it after that.
        unsafe { H5T_IEEE_F16LE_g }
    } else if holds(4, (8, 23)) {
        *H5T_IEEE_F32LE
    } else {
        *H5T_IEEE_F64LE
    })
}

/// Our description of a type that needs no conversion. [`Survey`] has bounded the recursion.
fn describe(id: hid_t) -> Result<ElementType> {
    let bytes = u32::try_from(size(id)?)
        .map_err(|_| Error::new(Reason::UnsupportedType, "element of 4 GiB or more".to_owned()))?;
    let item = |id| -> Result<Box<ElementType>> { Ok(Box::new(describe(base(id)?.id())?)) };
    Ok(match class(id)? {
        H5T_INTEGER => ElementType::Integer { bytes, signed: is_signed(id)?, order: order(id)? },
        H5T_TIME if matches!(bytes, 4 | 8) => ElementType::Integer { bytes, signed: true, order: order(id)? },
        H5T_FLOAT => ElementType::Float { bytes, order: order(id)? },
        H5T_STRING => describe_string(id, bytes)?,
        H5T_BITFIELD => ElementType::Bitfield { bytes, order: order(id)? },
        H5T_OPAQUE => ElementType::Opaque { bytes, tag: tag(id) },
        H5T_COMPOUND => describe_compound(id, bytes)?,
        H5T_REFERENCE => ElementType::Reference { region: is_region_reference(id)? },
        H5T_ENUM => describe_enum(id)?,
        H5T_VLEN => ElementType::VarLen { item: item(id)? },
        H5T_ARRAY => {
            let narrow = |size: u64| u32::try_from(size).ok();
            match array_dims(id)?.into_iter().map(narrow).collect() {
                Some(dims) => ElementType::Array { dims, item: item(id)? },
                None => ElementType::Unsupported { why: "array type of 2^32 items or more".into() },
            }
        }
        H5T_COMPLEX => ElementType::Complex { part: item(id)? },
        H5T_TIME => ElementType::Unsupported { why: format!("time of {bytes} bytes") },
        H5T_NO_CLASS | H5T_NCLASSES => ElementType::Unsupported { why: "type of an unknown class".into() },
    })
}

fn describe_string(id: hid_t, bytes: u32) -> Result<ElementType> {
    // SAFETY: the type is alive.
    if truth(unsafe { H5Tis_variable_str(id) }, "string type")? {
        return Ok(ElementType::VarString { text: Text::Utf8 });
    }
    // SAFETY: as above.
    let padding = match unsafe { H5Tget_strpad(id) } {
        H5T_STR_NULLTERM => StringPadding::NullTerminated,
        H5T_STR_NULLPAD => StringPadding::NullPadded,
        H5T_STR_SPACEPAD => StringPadding::SpacePadded,
        other => return Ok(ElementType::Unsupported { why: format!("string with padding {}", other as i32) }),
    };
    Ok(ElementType::FixedString { bytes, padding, text: Text::Utf8 })
}

fn describe_compound(id: hid_t, bytes: u32) -> Result<ElementType> {
    let members: Vec<Member> = (0..member_count(id)?)
        .map(|at| {
            // SAFETY: the type is alive; a member out of range answers 0.
            let offset = unsafe { H5Tget_member_offset(id, at as c_uint) };
            let offset = u32::try_from(offset)
                .map_err(|_| Error::new(Reason::MalformedFile, format!("compound member at byte {offset}")))?;
            let name = names::shown(member_name(id, at)?.bytes());
            Ok(Member { name, offset, element: describe(member_type(id, at)?.id())? })
        })
        .collect::<Result<_>>()?;
    Ok(complex_of(bytes, &members).unwrap_or(ElementType::Compound { bytes, members }))
}

/// h5py writes complex numbers as compound {r, i} of two equal floats, without padding. Of float16 there are none in
/// numpy: there the compound stays one.
fn complex_of(bytes: u32, members: &[Member]) -> Option<ElementType> {
    let [real, imaginary] = members else { return None };
    let ElementType::Float { bytes: part_bytes @ (4 | 8), .. } = real.element else { return None };
    let is_complex = real.name == "r"
        && imaginary.name == "i"
        && real.element == imaginary.element
        && (real.offset, imaginary.offset) == (0, part_bytes)
        && Some(bytes) == part_bytes.checked_mul(2);
    is_complex.then(|| ElementType::Complex { part: Box::new(real.element.clone()) })
}

fn describe_enum(id: hid_t) -> Result<ElementType> {
    let integer = describe(base(id)?.id())?;
    let count = member_count(id)?;
    let ElementType::Integer { bytes, signed, order } = integer else {
        return Ok(ElementType::Unsupported { why: "enum over something else than an integer".into() });
    };
    if count > ENUM_MEMBERS_MAX {
        return Ok(integer);
    }
    let mut members = Vec::with_capacity(count);
    for at in 0..count {
        let mut value = [0u8; 8];
        // SAFETY: a value has as many bytes as the base type, 8 at most.
        checked(unsafe { H5Tget_member_value(id, at as c_uint, value.as_mut_ptr().cast()) }, "enum value")?;
        let Some(value) = integer_value(&value[..bytes as usize], signed, order) else { return Ok(integer) };
        members.push((names::shown(member_name(id, at)?.bytes()), value));
    }
    let names_it_bool = |name: &str, value| members.iter().any(|(n, v)| n == name && *v == value);
    if bytes == 1 && members.len() == 2 && names_it_bool("FALSE", 0) && names_it_bool("TRUE", 1) {
        return Ok(ElementType::Bool);
    }
    Ok(ElementType::Enum { base: Box::new(integer), members })
}

/// The number in these bytes, `None` where it does not fit.
fn integer_value(bytes: &[u8], signed: bool, order: ByteOrder) -> Option<i64> {
    let mut value = 0u64;
    let most_significant_first: Vec<u8> = match order {
        ByteOrder::Big => bytes.to_vec(),
        ByteOrder::Little => bytes.iter().rev().copied().collect(),
    };
    for byte in most_significant_first {
        value = value << 8 | u64::from(byte);
    }
    if signed {
        let unused_bits = 64 - 8 * bytes.len() as u32;
        return Some((value << unused_bits) as i64 >> unused_bits);
    }
    i64::try_from(value).ok()
}

/// A type's class.
pub(crate) fn class(id: hid_t) -> Result<H5T_class_t> {
    // SAFETY: the type is alive.
    let class = unsafe { H5Tget_class(id) };
    if class == H5T_NO_CLASS { Err(library_error("type without a class")) } else { Ok(class) }
}

/// Bytes of one element in memory; never 0.
pub(crate) fn size(id: hid_t) -> Result<usize> {
    // SAFETY: the type is alive.
    match unsafe { H5Tget_size(id) } {
        0 => Err(library_error("type of 0 bytes")),
        bytes => Ok(bytes),
    }
}

/// The type of which another one (array, sequence, enum, complex) is made.
pub(crate) fn base(id: hid_t) -> Result<Handle> {
    // SAFETY: the type is alive.
    Handle::new(unsafe { H5Tget_super(id) }, "base type")
}

/// Number of members of a compound or enum.
pub(crate) fn member_count(id: hid_t) -> Result<usize> {
    // SAFETY: the type is alive.
    usize::try_from(unsafe { H5Tget_nmembers(id) }).map_err(|_| library_error("number of members"))
}

/// The type of a compound's member.
pub(crate) fn member_type(id: hid_t, at: usize) -> Result<Handle> {
    // SAFETY: the type is alive; a member out of range is refused.
    Handle::new(unsafe { H5Tget_member_type(id, at as c_uint) }, "member type")
}

/// Sizes of an array type.
pub(crate) fn array_dims(id: hid_t) -> Result<Vec<u64>> {
    // SAFETY: the type is alive.
    let rank = usize::try_from(unsafe { H5Tget_array_ndims(id) }).map_err(|_| library_error("array type"))?;
    if rank > RANK_MAX {
        return Err(Error::new(Reason::MalformedFile, format!("array type of rank {rank}")));
    }
    let mut dims = vec![0; rank];
    // SAFETY: there is room for as many sizes as libhdf5 said.
    checked(unsafe { H5Tget_array_dims2(id, dims.as_mut_ptr()) }, "array type")?;
    Ok(dims)
}

/// A NUL-terminated string that libhdf5 allocated.
struct LibraryString(*mut c_char);

impl LibraryString {
    fn bytes(&self) -> &[u8] {
        // SAFETY: libhdf5 returned it NUL-terminated, and it is ours until dropped.
        unsafe { CStr::from_ptr(self.0) }.to_bytes()
    }
}

impl Drop for LibraryString {
    fn drop(&mut self) {
        // SAFETY: it was allocated by libhdf5 and is not used again.
        unsafe { H5free_memory(self.0.cast::<c_void>()) };
    }
}

fn member_name(id: hid_t, at: usize) -> Result<LibraryString> {
    // SAFETY: the type is alive; a member out of range answers null.
    let name = unsafe { H5Tget_member_name(id, at as c_uint) };
    if name.is_null() { Err(library_error("member name")) } else { Ok(LibraryString(name)) }
}

fn tag(id: hid_t) -> String {
    // SAFETY: the type is alive.
    let tag = unsafe { H5Tget_tag(id) };
    if tag.is_null() { String::new() } else { names::shown(LibraryString(tag).bytes()) }
}

fn precision(id: hid_t) -> Result<usize> {
    // SAFETY: the type is alive.
    match unsafe { H5Tget_precision(id) } {
        0 => Err(library_error("type of 0 bits")),
        bits => Ok(bits),
    }
}

fn is_signed(id: hid_t) -> Result<bool> {
    // SAFETY: the type is alive.
    match unsafe { H5Tget_sign(id) } {
        H5T_SGN_2 => Ok(true),
        H5T_SGN_NONE => Ok(false),
        H5T_SGN_ERROR | H5T_NSGN => Err(library_error("sign of an integer")),
    }
}

fn order(id: hid_t) -> Result<ByteOrder> {
    // SAFETY: the type is alive.
    match unsafe { H5Tget_order(id) } {
        H5T_ORDER_LE | H5T_ORDER_NONE => Ok(ByteOrder::Little),
        H5T_ORDER_BE => Ok(ByteOrder::Big),
        H5T_ORDER_VAX | H5T_ORDER_MIXED => Err(Error::new(Reason::UnsupportedType, "number in VAX byte order")),
        H5T_ORDER_ERROR => Err(library_error("byte order")),
    }
}

fn fills_its_bytes(id: hid_t) -> Result<bool> {
    // SAFETY: the type is alive.
    let offset = unsafe { H5Tget_offset(id) };
    Ok(offset == 0 && precision(id)? == 8 * size(id)?)
}

fn is_standard_integer(id: hid_t) -> Result<bool> {
    if class(id)? != H5T_INTEGER {
        return Ok(false);
    }
    Ok(matches!(size(id)?, 1 | 2 | 4 | 8) && fills_its_bytes(id)? && has_plain_order(id))
}

fn is_half(id: hid_t) -> Result<bool> {
    Ok(class(id)? == H5T_FLOAT && size(id)? == 2 && is_standard_float(id)?)
}

fn has_plain_order(id: hid_t) -> bool {
    // SAFETY: the type is alive.
    matches!(unsafe { H5Tget_order(id) }, H5T_ORDER_LE | H5T_ORDER_BE | H5T_ORDER_NONE)
}

/// Where the parts of a float lie, in bits.
struct FloatFields {
    sign_at: usize,
    exponent_at: usize,
    exponent_bits: usize,
    mantissa_at: usize,
    mantissa_bits: usize,
}

fn float_fields(id: hid_t) -> Result<FloatFields> {
    let (mut sign_at, mut exponent_at, mut exponent_bits, mut mantissa_at, mut mantissa_bits) = (0, 0, 0, 0, 0);
    // SAFETY: five numbers are written during the call.
    let status = unsafe {
        H5Tget_fields(
            id,
            &raw mut sign_at,
            &raw mut exponent_at,
            &raw mut exponent_bits,
            &raw mut mantissa_at,
            &raw mut mantissa_bits,
        )
    };
    checked(status, "float type")?;
    Ok(FloatFields { sign_at, exponent_at, exponent_bits, mantissa_at, mantissa_bits })
}

fn is_standard_float(id: hid_t) -> Result<bool> {
    let (exponent_bits, mantissa_bits, bias) = match size(id)? {
        2 => (5, 10, 15),
        4 => (8, 23, 127),
        8 => (11, 52, 1023),
        _ => return Ok(false),
    };
    let fields = float_fields(id)?;
    // SAFETY: the type is alive.
    let (its_bias, norm) = unsafe { (H5Tget_ebias(id), H5Tget_norm(id)) };
    Ok(fills_its_bytes(id)?
        && has_plain_order(id)
        && fields.sign_at == exponent_bits + mantissa_bits
        && (fields.exponent_at, fields.exponent_bits) == (mantissa_bits, exponent_bits)
        && (fields.mantissa_at, fields.mantissa_bits) == (0, mantissa_bits)
        && its_bias == bias
        && norm == H5T_NORM_IMPLIED)
}

/// Whether float64 holds every value of an odd float, or it is a real long double, whose nearest float64 is delivered
/// and noted. Anything else is more likely damage than a type.
fn becomes_float64(id: hid_t) -> Result<bool> {
    let fields = float_fields(id)?;
    // SAFETY: the type is alive.
    let bias = unsafe { H5Tget_ebias(id) };
    let long_double = fields.exponent_bits == 15 && bias == 16_383 && matches!(fields.mantissa_bits, 63 | 64 | 112);
    // Biased exponents run from 0 to 2^bits - 2; float64 has -1022 to 1023, and less only with fewer mantissa bits.
    let fits = fields.exponent_bits <= 11
        && fields.mantissa_bits <= 52
        && (1usize << fields.exponent_bits) - 2 <= bias + 1023
        && bias + fields.mantissa_bits <= 1023 + 52;
    Ok(long_double || fits)
}

fn float_name(id: hid_t) -> Result<String> {
    let (bytes, fields) = (size(id)?, float_fields(id)?);
    Ok(match (bytes, fields.exponent_bits, fields.mantissa_bits) {
        // What numpy calls float128: IEEE binary128, or the 80 bits of an x87 in 16 bytes.
        (16, ..) => "float128".into(),
        (2, 8, 7) => "bfloat16".into(),
        (_, exponent_bits, mantissa_bits) => format!("float of {bytes} bytes (e{exponent_bits}m{mantissa_bits})"),
    })
}

fn is_region_reference(id: hid_t) -> Result<bool> {
    // SAFETY: both types are alive.
    truth(unsafe { H5Tequal(id, *H5T_STD_REF_DSETREG) }, "reference type")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enum_values_are_read_in_either_byte_order_and_only_when_they_fit() {
        let little = |bytes: &[u8], signed| integer_value(bytes, signed, ByteOrder::Little);
        assert_eq!(little(&[0xff], true), Some(-1));
        assert_eq!(little(&[0xff], false), Some(255));
        assert_eq!(little(&[0xfe, 0xff], true), Some(-2));
        assert_eq!(integer_value(&[0x01, 0x02], true, ByteOrder::Big), Some(258));
        assert_eq!(little(&[0xff; 8], true), Some(-1));
        assert_eq!(little(&[0xff; 8], false), None);
    }
}
