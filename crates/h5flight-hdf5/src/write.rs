//! Writing one dataset into a new file, chunk by chunk as they come encoded.
//!
//! What is made is a plain file that every HDF5 library since 1.8 opens, with no times in it (the same rows make the same
//! bytes), and groups where the path has them. The rows grow with the chunks and are never more than were told.
//! One chunk is in memory at a time.

mod attribute;
mod element;

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};

use h5flight_array::inspect::{NewDataset, WriteStep};
use h5flight_array::meta::RANK_MAX;
use h5flight_array::write::attributes::Attribute;
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5::hsize_t;
use hdf5_sys::h5d::{H5Dcreate2, H5Dset_extent, H5Dwrite_chunk};
use hdf5_sys::h5f::{H5F_ACC_TRUNC, H5F_scope_t, H5Fcreate, H5Fflush};
use hdf5_sys::h5g::H5Gcreate2;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::{
    H5P_CLS_DATASET_CREATE, H5P_CLS_FILE_CREATE, H5P_CLS_GROUP_CREATE, H5P_CLS_LINK_CREATE, H5P_DEFAULT, H5Pcreate,
    H5Pset_char_encoding, H5Pset_chunk, H5Pset_filter, H5Pset_obj_track_times,
};
use hdf5_sys::h5s::{H5S_UNLIMITED, H5Screate_simple};
use hdf5_sys::h5t::H5T_cset_t;
use hdf5_sys::h5z::H5Z_FLAG_OPTIONAL;

use crate::handle::{Handle, about, checked};
use crate::names::{escape, unescape};
use crate::open::access_settings;

/// A file that is being written.
pub(crate) struct NewFile {
    file: Handle,
    dataset: Handle,
    path: String,
    /// The dataset's extent now.
    shape: Vec<hsize_t>,
}

impl NewFile {
    /// Makes the file of the descriptor, whatever was in it, with the dataset, which has no row yet.
    ///
    /// # Errors
    /// `bad_request` for a name or an attribute that HDF5 does not take; `disk_full`, `internal`.
    pub(crate) fn create(file: BorrowedFd<'_>, new: &NewDataset) -> Result<Self> {
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = CString::new(name).expect("a number contains no NUL");
        let access = access_settings()?;
        // The settings of a file are those of its root group.
        let settings = without_times(*H5P_CLS_FILE_CREATE)?;
        // SAFETY: the path is NUL-terminated and the property lists are alive.
        let id = unsafe { H5Fcreate(path.as_ptr(), H5F_ACC_TRUNC, settings.id(), access.id()) };
        let file = Handle::new(id, "libhdf5 cannot make the file").map_err(ours)?;
        let dataset = create_dataset(&file, new).map_err(about(&new.path)).map_err(ours)?;
        for (name, value) in &new.attributes {
            let (value, is_list) = Attribute::of(name, value)?;
            attribute::write(dataset.id(), name, &value, is_list).map_err(about(&new.path)).map_err(ours)?;
        }
        let shape = std::iter::once(0).chain(new.row_shape.iter().copied()).collect();
        Ok(Self { file, dataset, path: new.path.clone(), shape })
    }

    /// Takes chunks until the last step, then makes the file whole.
    ///
    /// # Errors
    /// `disk_full`, `internal`; `io` where the server goes away before the last step.
    pub(crate) fn fill(mut self, input: &mut impl Read) -> Result<()> {
        let mut data = Vec::new();
        loop {
            match WriteStep::read_from(input, &mut data)? {
                WriteStep::Chunk { origin, mask, rows } => self.chunk(&origin, mask, rows, &data).map_err(ours)?,
                WriteStep::Finish => return self.finish().map_err(ours),
            }
        }
    }

    fn chunk(&mut self, origin: &[u64], mask: u32, rows: u64, data: &[u8]) -> Result<()> {
        if origin.len() != self.shape.len() || rows < self.shape[0] {
            let message = format!("a chunk at {origin:?} of an array of shape {:?} with {rows} rows", self.shape);
            return Err(Error::new(Reason::Internal, message));
        }
        if rows > self.shape[0] {
            self.shape[0] = rows;
            // SAFETY: the dataset has as many axes as the shape.
            let status = unsafe { H5Dset_extent(self.dataset.id(), self.shape.as_ptr()) };
            checked(status, "the extent cannot be set").map_err(about(&self.path))?;
        }
        // SAFETY: the origin has an entry for each axis, and the buffer as many bytes as is said.
        let status = unsafe {
            H5Dwrite_chunk(self.dataset.id(), H5P_DEFAULT, mask, origin.as_ptr(), data.len(), data.as_ptr().cast())
        };
        checked(status, "a chunk cannot be written").map_err(about(&self.path))
    }

    fn finish(self) -> Result<()> {
        self.dataset.close("the dataset cannot be closed")?;
        // SAFETY: the file is open.
        checked(unsafe { H5Fflush(self.file.id(), H5F_scope_t::H5F_SCOPE_LOCAL) }, "the file cannot be flushed")?;
        self.file.close("the file cannot be closed")
    }
}

fn create_dataset(file: &Handle, new: &NewDataset) -> Result<Handle> {
    if new.chunk_shape.len() != new.row_shape.len() + 1 || new.chunk_shape.len() > RANK_MAX {
        let message = format!("chunks of shape {:?} for rows of shape {:?}", new.chunk_shape, new.row_shape);
        return Err(Error::new(Reason::Internal, message));
    }
    let names = link_names(&new.path)?;
    let element = element::create(&new.element)?;
    let rank = new.chunk_shape.len() as i32;
    let dims: Vec<hsize_t> = std::iter::once(0).chain(new.row_shape.iter().copied()).collect();
    let maximum: Vec<hsize_t> = std::iter::once(H5S_UNLIMITED).chain(new.row_shape.iter().copied()).collect();
    // SAFETY: both lists have as many entries as is said.
    let space = Handle::new(unsafe { H5Screate_simple(rank, dims.as_ptr(), maximum.as_ptr()) }, "dataspace")?;
    let settings = dataset_settings(new)?;
    let links = link_settings()?;
    let (name, groups) = names.split_last().expect("a path has a name at least");
    let group = create_groups(file, groups, &links)?;
    let place = group.as_ref().unwrap_or(file);
    // SAFETY: the name is NUL-terminated, all handles are alive.
    let id = unsafe {
        H5Dcreate2(place.id(), name.as_ptr(), element.id(), space.id(), links.id(), settings.id(), H5P_DEFAULT)
    };
    Handle::new(id, "the dataset cannot be made")
}

/// The innermost of nested groups, all of them made; none where there is none to make.
///
/// libhdf5 would make them on the way to a dataset, but with the time of day in them.
fn create_groups(file: &Handle, names: &[CString], links: &Handle) -> Result<Option<Handle>> {
    let settings = without_times(*H5P_CLS_GROUP_CREATE)?;
    let mut innermost: Option<Handle> = None;
    for name in names {
        let place = innermost.as_ref().unwrap_or(file);
        // SAFETY: the name is NUL-terminated, all handles are alive.
        let id = unsafe { H5Gcreate2(place.id(), name.as_ptr(), links.id(), settings.id(), H5P_DEFAULT) };
        innermost = Some(Handle::new(id, "a group cannot be made")?);
    }
    Ok(innermost)
}

/// Settings for an object of the class that do not have libhdf5 note when it was made.
fn without_times(class: hid_t) -> Result<Handle> {
    // SAFETY: the class is one of libhdf5's own, which is initialised.
    let settings = Handle::new(unsafe { H5Pcreate(class) }, "property list")?;
    // SAFETY: the list is alive and of a class for objects.
    checked(unsafe { H5Pset_obj_track_times(settings.id(), 0) }, "times cannot be turned off")?;
    Ok(settings)
}

fn dataset_settings(new: &NewDataset) -> Result<Handle> {
    let settings = without_times(*H5P_CLS_DATASET_CREATE)?;
    // SAFETY: the list is alive and has an entry for each axis.
    let status = unsafe { H5Pset_chunk(settings.id(), new.chunk_shape.len() as i32, new.chunk_shape.as_ptr()) };
    checked(status, "the chunk shape cannot be set")?;
    for filter in &new.filters {
        let (id, params) = (filter.id as i32, &filter.params);
        // Optional, as h5py and hdf5plugin have them: a chunk may do without where that is smaller.
        // SAFETY: there are as many parameters as is said.
        let status = unsafe { H5Pset_filter(settings.id(), id, H5Z_FLAG_OPTIONAL, params.len(), params.as_ptr()) };
        checked(status, "a filter cannot be set")?;
    }
    Ok(settings)
}

fn link_settings() -> Result<Handle> {
    // SAFETY: the class is one of libhdf5's own, which is initialised.
    let links = Handle::new(unsafe { H5Pcreate(*H5P_CLS_LINK_CREATE) }, "property list")?;
    // SAFETY: the list is alive.
    checked(unsafe { H5Pset_char_encoding(links.id(), H5T_cset_t::H5T_CSET_UTF8) }, "UTF-8 cannot be set")?;
    Ok(links)
}

/// The names on the path as HDF5 has them, at least one. Only those that an inspection would give out can be made.
fn link_names(path: &str) -> Result<Vec<CString>> {
    let refuse = || Error::new(Reason::BadRequest, format!("{path:?} is no path of an HDF5 dataset"));
    let name = |component: &str| {
        let name = unescape(component)?;
        let can_be_made = !matches!(name.as_slice(), b"" | b".") && !name.contains(&b'/');
        if !can_be_made || escape(&name) != component {
            return Err(refuse());
        }
        CString::new(name).map_err(|_| refuse())
    };
    path.strip_prefix('/').ok_or_else(refuse)?.split('/').map(name).collect()
}

/// What libhdf5 refuses of a file of our own is no file's fault: the disk's, or a mistake of ours.
fn ours(error: Error) -> Error {
    if error.reason != Reason::MalformedFile {
        return error;
    }
    let chain = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
    let full = ["errno = 28", "errno = 122", "errno = 27"].iter().any(|number| chain.contains(number));
    let reason = if full { Reason::DiskFull } else { Reason::Internal };
    Error { reason, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_given_out_can_be_made() {
        let check = |path: &str, expected: Option<&[&[u8]]>| {
            let names = link_names(path).ok();
            let names: Option<Vec<&[u8]>> =
                names.as_ref().map(|names| names.iter().map(|name| name.as_bytes()).collect());
            assert_eq!(names.as_deref(), expected, "{path}");
        };
        check("/a/b c", Some(&[b"a", b"b c"]));
        check("/a%25", Some(&[b"a%"]));
        check("/%FF", Some(&[b"\xff"]));
        for bad in ["a", "/", "//a", "/a/", "/.", "/a/./b", "/%2E", "/%00", "/a%2Fb", "/%41", "/%zz", "/a\tb"] {
            check(bad, None);
        }
    }
}
