//! References become paths: an address that the walk has met has a canonical path, any other one has none.
//!
//! An object reference holds the address of an object header, so nothing is opened. libhdf5's own way to a path
//! searches the whole file for every reference.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::c_char;

use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5r::{H5R_DATASET_REGION1, H5R_ref_t, H5Rdereference2, H5Rget_file_name, H5Ropen_object};
use hdf5_sys::h5t::{H5T_STD_REF, H5T_STD_REF_DSETREG, H5T_STD_REF_OBJ, H5Tequal};

use crate::handle::{Handle, truth};
use crate::open::OpenFile;
use crate::walk::{self, Survey};

/// Bytes of an object reference: an address.
const OBJECT_BYTES: usize = 8;
/// Bytes of a region reference: address of a heap, index in it.
const REGION_BYTES: usize = 12;

/// The three kinds of references in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReferenceForm {
    /// `hobj_ref_t`.
    Object,
    /// `hdset_reg_ref_t`.
    Region,
    /// `H5R_ref_t`, of HDF5 1.12 and later: any of object, region, attribute.
    Opened,
}

impl ReferenceForm {
    /// The form of a reference type in memory.
    pub(crate) fn of(memory: &Handle) -> Result<Self> {
        let forms =
            [(*H5T_STD_REF_OBJ, Self::Object), (*H5T_STD_REF_DSETREG, Self::Region), (*H5T_STD_REF, Self::Opened)];
        for (id, form) in forms {
            // SAFETY: both types are alive.
            if truth(unsafe { H5Tequal(memory.id(), id) }, "reference type")? {
                return Ok(form);
            }
        }
        Err(Error::new(Reason::UnsupportedType, "reference of an unknown kind"))
    }

    /// Bytes in memory.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Object => OBJECT_BYTES,
            Self::Region => REGION_BYTES,
            Self::Opened => size_of::<H5R_ref_t>(),
        }
    }

    /// Whether libhdf5 keeps something behind it.
    pub(crate) fn is_opened(self) -> bool {
        self == Self::Opened
    }
}

/// Paths by address; found when the first reference asks.
pub(crate) struct References<'file> {
    file: &'file OpenFile,
    paths: OnceCell<HashMap<u64, String>>,
}

impl<'file> References<'file> {
    /// Walks the file when a path is first asked for.
    pub(crate) fn of(file: &'file OpenFile) -> Self {
        Self { file, paths: OnceCell::new() }
    }

    /// From a walk that was made.
    pub(crate) fn known(file: &'file OpenFile, paths: HashMap<u64, String>) -> Self {
        Self { file, paths: paths.into() }
    }

    /// The canonical path of what a reference in memory refers to; `None` for null and dangling ones.
    pub(crate) fn path(&self, form: ReferenceForm, element: &[u8]) -> Option<&str> {
        if element.iter().all(|byte| *byte == 0) {
            return None;
        }
        let address = match form {
            ReferenceForm::Object => u64::from_ne_bytes(element.try_into().ok()?),
            ReferenceForm::Region => self.region_address(element)?,
            ReferenceForm::Opened => self.opened_address(element)?,
        };
        // A file too complex to walk was refused by the inspection; its references lead nowhere.
        let paths = self.paths.get_or_init(|| {
            Survey::walk(self.file, &Default::default()).map_or_else(|_| HashMap::new(), |survey| survey.paths)
        });
        paths.get(&address).map(String::as_str)
    }

    fn region_address(&self, element: &[u8]) -> Option<u64> {
        let file = self.file.handle.id();
        // SAFETY: the element has the size of a region reference, which was checked with its layout.
        let id = unsafe { H5Rdereference2(file, H5P_DEFAULT, H5R_DATASET_REGION1, element.as_ptr().cast()) };
        address_of(id)
    }

    /// The target may lie in another file by its name: only this one is opened.
    fn opened_address(&self, element: &[u8]) -> Option<u64> {
        // The buffer the element lies in is not aligned for the struct.
        let mut reference = H5R_ref_t::default();
        // SAFETY: both have the same size, which was checked with the layout; the copy is only used below, and not
        // given back to libhdf5: the original is, when the buffer is reclaimed.
        unsafe { std::ptr::copy_nonoverlapping(element.as_ptr(), (&raw mut reference).cast::<u8>(), element.len()) };
        let mut name = [0u8; 256];
        // SAFETY: the reference was filled by libhdf5, and at most the size of the buffer is written.
        let length = unsafe { H5Rget_file_name(&raw const reference, name.as_mut_ptr().cast::<c_char>(), name.len()) };
        let name = name.get(..usize::try_from(length).ok()?)?;
        if name != self.file.name.as_bytes() {
            return None;
        }
        // SAFETY: the reference was filled by libhdf5.
        address_of(unsafe { H5Ropen_object(&raw const reference, H5P_DEFAULT, H5P_DEFAULT) })
    }
}

fn address_of(id: hid_t) -> Option<u64> {
    let object = Handle::new(id, "reference").ok()?;
    walk::address(&object).ok()
}
