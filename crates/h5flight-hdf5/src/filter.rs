//! Filters that libhdf5 does not bring and the server's own decoders do: registered here, so that what only libhdf5
//! can read (strings of their own length, for example) may be filtered with them as well.

use std::ffi::{c_int, c_uint, c_void};

use h5flight_array::Result;
use h5flight_array::codec;
use h5flight_array::inspect::DATA_BYTES_MAX;
use h5flight_array::meta::Filter;
use hdf5_sys::h5::{H5allocate_memory, H5free_memory};
use hdf5_sys::h5z::{H5Z_FLAG_REVERSE, H5Z_class2_t, H5Z_func_t, H5Zfilter_avail, H5Zregister};

use crate::handle::checked;

/// Version of the class structure.
const CLASS_VERSION: i32 = 1;
/// Parameters of one filter at most, as in `layout.rs`.
const PARAMS_MAX: usize = 256;

/// Callbacks are not told which filter they are: each has a function of its own.
///
/// Szip cannot be here: libhdf5 keeps the numbers below 256 to itself, also where it was built without the filter. Only
/// what libhdf5 has to read with it is lost: numbers of odd precision.
const DECODERS: [(u32, H5Z_func_t); 7] = [
    (codec::BZIP2, Some(decode::<{ codec::BZIP2 }>)),
    (codec::LZF, Some(decode::<{ codec::LZF }>)),
    (codec::BLOSC, Some(decode::<{ codec::BLOSC }>)),
    (codec::LZ4, Some(decode::<{ codec::LZ4 }>)),
    (codec::BITSHUFFLE, Some(decode::<{ codec::BITSHUFFLE }>)),
    (codec::ZSTD, Some(decode::<{ codec::ZSTD }>)),
    (codec::BLOSC2, Some(decode::<{ codec::BLOSC2 }>)),
];

/// Makes the filters known to libhdf5, but for those that it brings itself; doing it again changes nothing.
pub(crate) fn register() -> Result<()> {
    for (id, filter) in DECODERS {
        // SAFETY: only a number is passed.
        if unsafe { H5Zfilter_avail(id as c_int) } > 0 {
            continue;
        }
        let class = H5Z_class2_t {
            version: CLASS_VERSION,
            id: id as c_int,
            // Asked for when a dataset is made; chunks come encoded, so that libhdf5 never encodes one itself.
            encoder_present: 1,
            decoder_present: 1,
            name: c"h5flight".as_ptr(),
            can_apply: None,
            set_local: None,
            filter,
        };
        // SAFETY: libhdf5 copies the structure; its name and function live as long as the program.
        checked(unsafe { H5Zregister((&raw const class).cast::<c_void>()) }, "a filter cannot be registered")?;
    }
    Ok(())
}

/// The contract of `H5Z_func_t`: the decoded bytes replace the buffer, their number is returned, and 0 is a failure.
unsafe extern "C" fn decode<const ID: u32>(
    flags: c_uint,
    param_count: usize,
    params: *const c_uint,
    stored_bytes: usize,
    buffer_bytes: *mut usize,
    buffer: *mut *mut c_void,
) -> usize {
    if flags & H5Z_FLAG_REVERSE == 0 || param_count > PARAMS_MAX || stored_bytes == 0 {
        return 0;
    }
    let params = match param_count {
        0 => Vec::new(),
        // SAFETY: libhdf5 passes as many parameters as it says.
        _ => unsafe { std::slice::from_raw_parts(params, param_count) }.to_vec(),
    };
    // SAFETY: libhdf5 passes a buffer with this many stored bytes.
    let stored = unsafe { std::slice::from_raw_parts((*buffer).cast::<u8>().cast_const(), stored_bytes) };
    let filter = Filter { id: ID, name: String::new(), params };
    let Ok(decoded) = codec::decode_unsized(&filter, 1, stored, DATA_BYTES_MAX as usize) else { return 0 };
    if decoded.is_empty() {
        return 0;
    }
    // SAFETY: no pointers are passed; null is looked for.
    let target = unsafe { H5allocate_memory(decoded.len(), 0) };
    if target.is_null() {
        return 0;
    }
    // SAFETY: the memory was allocated with this size. The filter owns the old buffer, which libhdf5 allocated, and hands
    // the new one over in its place.
    unsafe {
        std::ptr::copy_nonoverlapping(decoded.as_ptr(), target.cast::<u8>(), decoded.len());
        H5free_memory(*buffer);
        *buffer = target;
        *buffer_bytes = decoded.len();
    }
    decoded.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_of_the_server_is_one_of_libhdf5s_or_registered() {
        hdf5::sync::sync(|| register().unwrap());
        for (id, name) in codec::known().filter(|(id, _)| *id != codec::SZIP) {
            // SAFETY: only a number is passed.
            let available = hdf5::sync::sync(|| unsafe { H5Zfilter_avail(id as c_int) });
            assert!(available > 0, "filter {id} ({name}) is missing in DECODERS");
        }
    }
}
