//! Element types of our own as types of libhdf5: the way back of [`crate::element`], for what [`RowForm`] makes.
//!
//! [`RowForm`]: h5flight_array::write::RowForm

use std::ffi::{CString, c_uint};

use h5flight_array::meta::{ElementType, Member, Text};
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5::hsize_t;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5t::{
    H5T_C_S1, H5T_IEEE_F32LE, H5T_IEEE_F64LE, H5T_STD_B8LE, H5T_STD_B16LE, H5T_STD_B32LE, H5T_STD_B64LE, H5T_STD_I8LE,
    H5T_STD_I16LE, H5T_STD_I32LE, H5T_STD_I64LE, H5T_STD_U8LE, H5T_STD_U16LE, H5T_STD_U32LE, H5T_STD_U64LE,
    H5T_class_t, H5T_cset_t, H5T_str_t, H5Tarray_create2, H5Tcopy, H5Tcreate, H5Tenum_create, H5Tenum_insert,
    H5Tinsert, H5Tset_cset, H5Tset_ebias, H5Tset_fields, H5Tset_size, H5Tset_strpad, H5Tset_tag,
};

use crate::handle::{Handle, checked};

/// The type in the file, little-endian, packed.
///
/// # Errors
/// `unsupported_type` for what no put makes.
pub(super) fn create(element: &ElementType) -> Result<Handle> {
    match element {
        ElementType::Integer { bytes, signed, .. } => copy(integer(*bytes, *signed)?),
        ElementType::Bitfield { bytes: 1, .. } => copy(*H5T_STD_B8LE),
        ElementType::Bitfield { bytes: 2, .. } => copy(*H5T_STD_B16LE),
        ElementType::Bitfield { bytes: 4, .. } => copy(*H5T_STD_B32LE),
        ElementType::Bitfield { bytes: 8, .. } => copy(*H5T_STD_B64LE),
        ElementType::Float { bytes: 2, .. } => half(),
        ElementType::Float { bytes: 4, .. } => copy(*H5T_IEEE_F32LE),
        ElementType::Float { bytes: 8, .. } => copy(*H5T_IEEE_F64LE),
        ElementType::Bool => named_numbers(&copy(*H5T_STD_I8LE)?, &[("FALSE".into(), 0), ("TRUE".into(), 1)]),
        ElementType::Enum { base, members } => named_numbers(&create(base)?, members),
        ElementType::FixedString { bytes, text, .. } => fixed_string(*bytes, *text),
        ElementType::Opaque { bytes, tag } => opaque(*bytes, tag),
        ElementType::Complex { part } => {
            // As h5py and everybody before HDF5 2.0 writes it.
            let bytes = part.fixed_bytes().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(0);
            let member = |name: &str, offset| Member { name: name.into(), offset, element: (**part).clone() };
            compound(2 * bytes, &[member("r", 0), member("i", bytes)])
        }
        ElementType::Compound { bytes, members } => compound(*bytes, members),
        ElementType::Array { dims, item } => {
            let item = create(item)?;
            let dims: Vec<hsize_t> = dims.iter().map(|dim| u64::from(*dim)).collect();
            // SAFETY: there are as many sizes as is said.
            Handle::new(unsafe { H5Tarray_create2(item.id(), dims.len() as c_uint, dims.as_ptr()) }, "array type")
        }
        other => Err(Error::new(Reason::UnsupportedType, format!("elements of the type {other:?} are not written"))),
    }
}

/// The enum that h5py has for truth values.
pub(super) fn boolean() -> Result<Handle> {
    create(&ElementType::Bool)
}

pub(super) fn copy(id: hid_t) -> Result<Handle> {
    // SAFETY: the type is one of libhdf5's own.
    Handle::new(unsafe { H5Tcopy(id) }, "type")
}

fn integer(bytes: u32, signed: bool) -> Result<hid_t> {
    Ok(match (bytes, signed) {
        (1, true) => *H5T_STD_I8LE,
        (2, true) => *H5T_STD_I16LE,
        (4, true) => *H5T_STD_I32LE,
        (8, true) => *H5T_STD_I64LE,
        (1, false) => *H5T_STD_U8LE,
        (2, false) => *H5T_STD_U16LE,
        (4, false) => *H5T_STD_U32LE,
        (8, false) => *H5T_STD_U64LE,
        _ => return Err(Error::new(Reason::UnsupportedType, format!("integers of {bytes} bytes"))),
    })
}

/// IEEE 754 binary16, which libhdf5 has no ready type of before 1.14.4: made as h5py makes it.
fn half() -> Result<Handle> {
    let half = copy(*H5T_IEEE_F32LE)?;
    // SAFETY: the copy is ours.
    checked(unsafe { H5Tset_fields(half.id(), 15, 10, 5, 0, 10) }, "float16")?;
    // SAFETY: as above.
    checked(unsafe { H5Tset_size(half.id(), 2) }, "float16")?;
    // SAFETY: as above.
    checked(unsafe { H5Tset_ebias(half.id(), 15) }, "float16")?;
    Ok(half)
}

fn named_numbers(base: &Handle, members: &[(String, i64)]) -> Result<Handle> {
    // SAFETY: the base type is alive.
    let named = Handle::new(unsafe { H5Tenum_create(base.id()) }, "enum")?;
    for (name, value) in members {
        let name = text(name)?;
        // The first bytes of a little-endian number are the number in fewer bytes.
        let value = value.to_le_bytes();
        // SAFETY: the name is NUL-terminated and copied; the base has at most 8 bytes.
        checked(unsafe { H5Tenum_insert(named.id(), name.as_ptr(), value.as_ptr().cast()) }, "enum")?;
    }
    Ok(named)
}

fn fixed_string(bytes: u32, of: Text) -> Result<Handle> {
    let string = copy(*H5T_C_S1)?;
    // SAFETY: the copy is ours.
    checked(unsafe { H5Tset_size(string.id(), bytes as usize) }, "string type")?;
    // SAFETY: as above.
    checked(unsafe { H5Tset_strpad(string.id(), H5T_str_t::H5T_STR_NULLPAD) }, "string type")?;
    let set = match of {
        Text::Utf8 => H5T_cset_t::H5T_CSET_UTF8,
        Text::Binary => H5T_cset_t::H5T_CSET_ASCII,
    };
    // SAFETY: as above.
    checked(unsafe { H5Tset_cset(string.id(), set) }, "string type")?;
    Ok(string)
}

fn opaque(bytes: u32, tag: &str) -> Result<Handle> {
    // SAFETY: no pointers.
    let opaque = Handle::new(unsafe { H5Tcreate(H5T_class_t::H5T_OPAQUE, bytes as usize) }, "opaque type")?;
    let tag = text(tag)?;
    // SAFETY: the tag is NUL-terminated and copied.
    checked(unsafe { H5Tset_tag(opaque.id(), tag.as_ptr()) }, "opaque type")?;
    Ok(opaque)
}

fn compound(bytes: u32, members: &[Member]) -> Result<Handle> {
    // SAFETY: no pointers; a size of 0 is refused by libhdf5.
    let compound = Handle::new(unsafe { H5Tcreate(H5T_class_t::H5T_COMPOUND, bytes as usize) }, "compound type")?;
    for Member { name, offset, element } in members {
        let (name, element) = (text(name)?, create(element)?);
        // SAFETY: the name is NUL-terminated and copied, both types are alive.
        let status = unsafe { H5Tinsert(compound.id(), name.as_ptr(), *offset as usize, element.id()) };
        checked(status, "compound type")?;
    }
    Ok(compound)
}

fn text(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error::new(Reason::BadRequest, format!("a name with a NUL: {name:?}")))
}
