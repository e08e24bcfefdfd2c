//! Attributes as h5py writes them: 64-bit numbers, its enum of truth values, texts of their own length in UTF-8.

use std::ffi::{CString, c_char, c_void};

use h5flight_array::write::attributes::Attribute;
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5::hsize_t;
use hdf5_sys::h5a::{H5Acreate2, H5Awrite};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::{H5P_CLS_ATTRIBUTE_CREATE, H5P_DEFAULT, H5Pcreate, H5Pset_char_encoding};
use hdf5_sys::h5s::{H5S_class_t, H5Screate, H5Screate_simple};
use hdf5_sys::h5t::{
    H5T_C_S1, H5T_IEEE_F64LE, H5T_STD_I64LE, H5T_STD_U64LE, H5T_VARIABLE, H5T_cset_t, H5Tset_cset, H5Tset_size,
};

use super::element;
use crate::handle::{Handle, checked};

/// Writes an attribute of an object: a scalar, or a list.
pub(super) fn write(object: hid_t, name: &str, attribute: &Attribute, is_list: bool) -> Result<()> {
    let put = |element: &Handle, count: usize, values: *const c_void| {
        put(object, name, Values { element, count, is_list, values })
    };
    match attribute {
        Attribute::Integers(values) => put(&element::copy(*H5T_STD_I64LE)?, values.len(), values.as_ptr().cast()),
        Attribute::Unsigned(values) => put(&element::copy(*H5T_STD_U64LE)?, values.len(), values.as_ptr().cast()),
        Attribute::Floats(values) => put(&element::copy(*H5T_IEEE_F64LE)?, values.len(), values.as_ptr().cast()),
        Attribute::Bools(values) => {
            let bytes: Vec<u8> = values.iter().map(|value| u8::from(*value)).collect();
            put(&element::boolean()?, bytes.len(), bytes.as_ptr().cast())
        }
        Attribute::Texts(values) => {
            let texts: Vec<CString> = values.iter().map(|value| text(name, value)).collect::<Result<_>>()?;
            let pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
            put(&string()?, pointers.len(), pointers.as_ptr().cast())
        }
    }
}

/// Values in memory: `count` of them, in the form of the type.
struct Values<'a> {
    element: &'a Handle,
    count: usize,
    is_list: bool,
    values: *const c_void,
}

fn put(object: hid_t, name: &str, Values { element, count, is_list, values }: Values<'_>) -> Result<()> {
    let label = text(name, name)?;
    let dims = [count as hsize_t];
    let space = match is_list {
        // SAFETY: one axis, one size.
        true => unsafe { H5Screate_simple(1, dims.as_ptr(), std::ptr::null()) },
        // SAFETY: no pointers.
        false => unsafe { H5Screate(H5S_class_t::H5S_SCALAR) },
    };
    let space = Handle::new(space, "dataspace")?;
    // SAFETY: the class is one of libhdf5's own, which is initialised.
    let settings = Handle::new(unsafe { H5Pcreate(*H5P_CLS_ATTRIBUTE_CREATE) }, "property list")?;
    // SAFETY: the list is alive.
    checked(unsafe { H5Pset_char_encoding(settings.id(), H5T_cset_t::H5T_CSET_UTF8) }, "UTF-8 cannot be set")?;
    // SAFETY: the name is NUL-terminated, all handles are alive.
    let id = unsafe { H5Acreate2(object, label.as_ptr(), element.id(), space.id(), settings.id(), H5P_DEFAULT) };
    let attribute = Handle::new(id, &format!("attribute {name:?} cannot be made"))?;
    if count == 0 {
        return Ok(());
    }
    // SAFETY: the caller's buffer has `count` values of this type, which is as many as the space has.
    let status = unsafe { H5Awrite(attribute.id(), element.id(), values) };
    checked(status, &format!("attribute {name:?} cannot be written"))
}

fn string() -> Result<Handle> {
    let string = element::copy(*H5T_C_S1)?;
    // SAFETY: the copy is ours.
    checked(unsafe { H5Tset_size(string.id(), H5T_VARIABLE) }, "string type")?;
    // SAFETY: as above.
    checked(unsafe { H5Tset_cset(string.id(), H5T_cset_t::H5T_CSET_UTF8) }, "string type")?;
    Ok(string)
}

fn text(name: &str, value: &str) -> Result<CString> {
    CString::new(value).map_err(|_| Error::new(Reason::BadRequest, format!("attribute {name:?} contains a NUL")))
}
