//! Filters that libhdf5 does not bring and the server's own decoders do: registered here, so that what only libhdf5
//! can read (strings of their own length, for example) may be filtered with them as well.

use std::ffi::{c_uint, c_void};

use h5flight_array::Result;
use h5flight_array::codec::{self, lzf};
use h5flight_array::inspect::DATA_BYTES_MAX;
use hdf5_sys::h5::{H5allocate_memory, H5free_memory};
use hdf5_sys::h5z::{H5Z_FLAG_REVERSE, H5Z_class2_t, H5Zregister};

use crate::handle::checked;

/// Version of the class structure.
const CLASS_VERSION: i32 = 1;
/// Which of LZF's client data is the size of a decoded chunk.
const LZF_CHUNK_BYTES_AT: usize = 2;

/// Makes the filters known to libhdf5; doing it again changes nothing.
pub(crate) fn register() -> Result<()> {
    let class = H5Z_class2_t {
        version: CLASS_VERSION,
        id: codec::LZF as i32,
        encoder_present: 0,
        decoder_present: 1,
        name: c"lzf".as_ptr(),
        can_apply: None,
        set_local: None,
        filter: Some(decode_lzf),
    };
    // SAFETY: libhdf5 copies the structure; its name and function live as long as the program.
    checked(unsafe { H5Zregister((&raw const class).cast::<c_void>()) }, "the LZF filter cannot be registered")
}

/// The contract of `H5Z_func_t`: the decoded bytes replace the buffer, their number is returned, and 0 is a failure.
unsafe extern "C" fn decode_lzf(
    flags: c_uint,
    param_count: usize,
    params: *const c_uint,
    stored_bytes: usize,
    buffer_bytes: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    if flags & H5Z_FLAG_REVERSE == 0 || param_count <= LZF_CHUNK_BYTES_AT || stored_bytes == 0 {
        return 0;
    }
    // SAFETY: libhdf5 passes as many parameters as it says.
    let chunk_bytes = unsafe { params.add(LZF_CHUNK_BYTES_AT).read() };
    if chunk_bytes == 0 || chunk_bytes > DATA_BYTES_MAX {
        return 0;
    }
    let chunk_bytes = chunk_bytes as usize;
    // SAFETY: libhdf5 passes a buffer with this many stored bytes.
    let stored = unsafe { std::slice::from_raw_parts((*buffer).cast::<u8>().cast_const(), stored_bytes) };
    // SAFETY: no pointers are passed; null is looked for.
    let decoded = unsafe { H5allocate_memory(chunk_bytes, 1) };
    if decoded.is_null() {
        return 0;
    }
    // SAFETY: the memory was allocated with this size, filled with zeros, and nothing else refers to it.
    let target = unsafe { std::slice::from_raw_parts_mut(decoded.cast::<u8>(), chunk_bytes) };
    if lzf::decompress(stored, target).is_err() {
        // SAFETY: it was allocated above and is not used again.
        unsafe { H5free_memory(decoded) };
        return 0;
    }
    // SAFETY: the filter owns the old buffer, which libhdf5 allocated, and hands the new one over in its place.
    unsafe {
        H5free_memory(*buffer);
        *buffer = decoded;
        *buffer_bytes = chunk_bytes;
    }
    chunk_bytes
}
