//! Where a dataset's bytes lie: storage, filters, the chunk index, the fill value.

use std::ffi::{c_char, c_int, c_uint, c_void};

use h5flight_array::index::{ChunkIndex, ChunkPointer};
use h5flight_array::meta::{ElementType, Filter, RANK_MAX, Space, Storage};
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5::{HADDR_UNDEF, haddr_t, herr_t, hsize_t};
use hdf5_sys::h5d::*;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::*;
use hdf5_sys::h5s::*;
use hdf5_sys::h5z::H5Zfilter_avail;

use crate::handle::{Handle, checked, library_error};
use crate::names;
use crate::packed::{Layout, Sink};
use crate::read::Memory;
use crate::reference::References;

/// Client data values of one filter: libhdf5 refuses to be asked for more.
const FILTER_PARAMS_MAX: usize = 256;
/// Stages of a pipeline: H5Z_MAX_NFILTERS.
const FILTERS_MAX: usize = 32;

/// The dataspace and its largest extents.
pub(crate) fn space(dataset: &Handle) -> Result<(Space, Vec<Option<u64>>)> {
    // SAFETY: the dataset is alive.
    space_of(&Handle::new(unsafe { H5Dget_space(dataset.id()) }, "dataspace")?)
}

/// What a dataspace tells.
pub(crate) fn space_of(space: &Handle) -> Result<(Space, Vec<Option<u64>>)> {
    // SAFETY: the dataspace is alive.
    match unsafe { H5Sget_simple_extent_type(space.id()) } {
        H5S_NULL => return Ok((Space::Null, Vec::new())),
        H5S_SCALAR => return Ok((Space::Simple { shape: Vec::new() }, Vec::new())),
        H5S_SIMPLE => {}
        H5S_NO_CLASS => return Err(library_error("dataspace of an unknown class")),
    }
    // SAFETY: the dataspace is alive.
    let rank = unsafe { H5Sget_simple_extent_ndims(space.id()) };
    let rank = usize::try_from(rank).map_err(|_| library_error("rank"))?;
    if rank > RANK_MAX {
        return Err(Error::new(Reason::MalformedFile, format!("array of rank {rank}, the most is {RANK_MAX}")));
    }
    let (mut shape, mut max_shape) = (vec![0; rank], vec![0; rank]);
    // SAFETY: there is room for as many sizes as libhdf5 said.
    let status = unsafe { H5Sget_simple_extent_dims(space.id(), shape.as_mut_ptr(), max_shape.as_mut_ptr()) };
    checked(status, "shape")?;
    let max_shape = max_shape.into_iter().map(|size| (size != H5S_UNLIMITED).then_some(size)).collect();
    Ok((Space::Simple { shape }, max_shape))
}

/// Creation properties.
pub(crate) fn properties(dataset: &Handle) -> Result<Handle> {
    // SAFETY: the dataset is alive.
    Handle::new(unsafe { H5Dget_create_plist(dataset.id()) }, "creation properties")
}

/// Which kind of storage, and the address of contiguous data; of a virtual dataset not the mappings. `rank` is the array's, `base` the file's.
pub(crate) fn storage(dataset: &Handle, properties: &Handle, rank: usize, base: u64) -> Result<Storage> {
    // SAFETY: the property list is alive.
    match unsafe { H5Pget_layout(properties.id()) } {
        H5D_COMPACT => Ok(Storage::Compact),
        H5D_CONTIGUOUS => {
            // SAFETY: as above.
            let external = unsafe { H5Pget_external_count(properties.id()) };
            if external < 0 {
                return Err(library_error("external storage"));
            }
            if external > 0 {
                return Ok(Storage::External);
            }
            // SAFETY: the dataset is alive. The user block is already added.
            let offset = unsafe { H5Dget_offset(dataset.id()) };
            Ok(Storage::Contiguous { offset: is_stored(offset, base).then_some(offset) })
        }
        H5D_CHUNKED => {
            let mut chunk_shape = vec![0; RANK_MAX + 1];
            // SAFETY: there is room for as many sizes as said.
            let found = unsafe { H5Pget_chunk(properties.id(), chunk_shape.len() as c_int, chunk_shape.as_mut_ptr()) };
            if usize::try_from(found) != Ok(rank) || chunk_shape[..rank].contains(&0) {
                let message = format!("a chunk shape of rank {found} for an array of rank {rank}");
                return Err(Error::new(Reason::MalformedFile, message));
            }
            chunk_shape.truncate(rank);
            Ok(Storage::Chunked { chunk_shape })
        }
        H5D_VIRTUAL => Ok(Storage::Virtual { mappings: Vec::new() }),
        H5D_LAYOUT_ERROR | H5D_NLAYOUTS => Err(library_error("storage layout")),
    }
}

/// Whether this is an address. libhdf5 adds the base also to the number that says there is none.
fn is_stored(address: u64, base: u64) -> bool {
    address != HADDR_UNDEF && address != HADDR_UNDEF.wrapping_add(base)
}

/// Bytes that the dataset takes in the file.
pub(crate) fn stored_bytes(dataset: &Handle) -> u64 {
    // SAFETY: the dataset is alive; 0 also stands for an error, and then the type's size decides alone.
    unsafe { H5Dget_storage_size(dataset.id()) }
}

/// The pipeline, in the order of writing.
pub(crate) fn filters(properties: &Handle) -> Result<Vec<Filter>> {
    // SAFETY: the property list is alive.
    let count = unsafe { H5Pget_nfilters(properties.id()) };
    let count = usize::try_from(count).map_err(|_| library_error("filters"))?;
    if count > FILTERS_MAX {
        return Err(Error::new(Reason::MalformedFile, format!("{count} filters")));
    }
    (0..count).map(|at| filter(properties, at as c_uint)).collect()
}

fn filter(properties: &Handle, at: c_uint) -> Result<Filter> {
    let mut params = vec![0; FILTER_PARAMS_MAX];
    let mut name = vec![0u8; 256];
    let (mut flags, mut config, mut count) = (0, 0, params.len());
    // SAFETY: at most as many values and bytes are written as said; libhdf5 does not open the filter for this.
    let id = unsafe {
        H5Pget_filter2(
            properties.id(),
            at,
            &raw mut flags,
            &raw mut count,
            params.as_mut_ptr(),
            name.len(),
            name.as_mut_ptr().cast::<c_char>(),
            &raw mut config,
        )
    };
    let id = u32::try_from(id).map_err(|_| library_error("filter"))?;
    if count > params.len() {
        let message = format!("filter {id} has {count} parameters, allowed are {FILTER_PARAMS_MAX}");
        return Err(Error::new(Reason::UnsupportedFilter, message));
    }
    params.truncate(count);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Filter { id, name: names::shown(name), params })
}

/// The first filter that this libhdf5 cannot undo.
pub(crate) fn missing_filter(filters: &[Filter]) -> Option<&Filter> {
    filters.iter().find(|filter| {
        // SAFETY: only a number is passed; plugins are off, so nothing is searched.
        c_int::try_from(filter.id).map_or(true, |id| unsafe { H5Zfilter_avail(id) } <= 0)
    })
}

/// Chunks of one array that are looked up as a check of its index; of more, evenly spaced ones. One takes about 2 us.
const LOOK_UPS_MAX: usize = 65_536;

unsafe extern "C" {
    /// Stored bytes of the chunk at an origin, 0 where there is none. The binding crate leaves it out.
    fn H5Dget_chunk_storage_size(dataset: hid_t, origin: *const hsize_t, bytes: *mut hsize_t) -> herr_t;
}

/// What the callback needs to turn a chunk's origin into its number.
struct Grid<'a> {
    chunk_shape: &'a [u64],
    /// Chunks by axis.
    chunks: Vec<u64>,
    shape: &'a [u64],
    /// Filters are skipped on chunks that reach over the edge.
    skips_partial: bool,
    pointers: Vec<ChunkPointer>,
    pointers_max: u64,
    base: u64,
    problem: Option<Error>,
}

/// The pointers of all stored chunks. `base` is the file's; addresses include it already.
///
/// # Errors
/// `file_too_complex` with more than `pointers_max` chunks; `malformed_file`.
pub(crate) fn chunk_index(
    dataset: &Handle,
    properties: &Handle,
    (shape, chunk_shape): (&[u64], &[u64]),
    base: u64,
    pointers_max: u64,
) -> Result<ChunkIndex> {
    let mut options = 0;
    // SAFETY: the property list is alive and one number is written.
    checked(unsafe { H5Pget_chunk_opts(properties.id(), &raw mut options) }, "chunk options")?;
    let chunks = shape.iter().zip(chunk_shape).map(|(size, chunk)| size.div_ceil(*chunk)).collect();
    let mut grid = Grid {
        chunk_shape,
        chunks,
        shape,
        skips_partial: options & H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS != 0,
        pointers: Vec::new(),
        pointers_max,
        base,
        problem: None,
    };
    // SAFETY: the callback only runs during this call, and the pointer it gets is the grid above.
    let status =
        unsafe { H5Dchunk_iter(dataset.id(), H5P_DEFAULT, Some(keep_chunk), (&raw mut grid).cast::<c_void>()) };
    let status = checked(status, "the chunk index cannot be read");
    if let Some(problem) = grid.problem {
        return Err(problem);
    }
    status?;
    let index = ChunkIndex::from_pointers(grid.pointers)?;
    check_look_ups(dataset, &index, (chunk_shape, &grid.chunks))?;
    Ok(index)
}

/// Looks chunks up one by one, as a read would (asking for their place instead walks the whole index each time). A damaged B-tree can list a chunk that its
/// own keys never lead to: libhdf5 then reads the fill value where the list has data, and neither can be trusted.
///
/// # Errors
/// `chunk_address`, naming the chunk.
fn check_look_ups(dataset: &Handle, index: &ChunkIndex, (chunk_shape, chunks): (&[u64], &[u64])) -> Result<()> {
    let step = index.pointers().len().div_ceil(LOOK_UPS_MAX).max(1);
    for pointer in index.pointers().iter().step_by(step) {
        let mut origin = vec![0; chunks.len()];
        let mut rest = pointer.number;
        for axis in (0..chunks.len()).rev() {
            origin[axis] = rest % chunks[axis] * chunk_shape[axis];
            rest /= chunks[axis];
        }
        let mut bytes = 0;
        // SAFETY: the dataset is alive, the origin has one number by axis, and one number is written.
        let status = unsafe { H5Dget_chunk_storage_size(dataset.id(), origin.as_ptr(), &raw mut bytes) };
        checked(status, "the chunk index cannot be searched")?;
        if bytes == 0 && pointer.bytes > 0 {
            let message = format!("the index lists the chunk at {origin:?} but does not lead to it");
            return Err(Error::new(Reason::ChunkAddress, message));
        }
    }
    Ok(())
}

unsafe extern "C" fn keep_chunk(
    offset: *const hsize_t,
    mask: c_uint,
    address: haddr_t,
    bytes: hsize_t,
    grid: *mut c_void,
) -> c_int {
    // SAFETY: `chunk_index` passes its grid, and nothing else refers to it while libhdf5 iterates.
    let grid = unsafe { &mut *grid.cast::<Grid>() };
    // SAFETY: libhdf5 passes one offset by axis, and the rank was compared with the chunk shape's.
    let origin = unsafe { std::slice::from_raw_parts(offset, grid.chunk_shape.len()) };
    match grid.keep(origin, mask, address, bytes) {
        Ok(()) => 0,
        Err(problem) => {
            grid.problem = Some(problem);
            -1
        }
    }
}

impl Grid<'_> {
    fn keep(&mut self, origin: &[u64], mask: u32, address: u64, bytes: u64) -> Result<()> {
        if !is_stored(address, self.base) {
            return Ok(());
        }
        if self.pointers.len() as u64 >= self.pointers_max {
            let message =
                format!("the file has more chunks than the {} left to index (inspect_chunks_max)", self.pointers_max);
            return Err(Error::new(Reason::FileTooComplex, message));
        }
        // Chunks outside the array's grid, left behind by a smaller extent, are never asked for.
        let Some(number) = self.number(origin) else { return Ok(()) };
        let bytes = u32::try_from(bytes)
            .map_err(|_| Error::new(Reason::ChunkTooLarge, format!("chunk at {origin:?} has {bytes} stored bytes")))?;
        let mask = if self.skips_partial && self.reaches_over_the_edge(origin) { u32::MAX } else { mask };
        self.pointers.push(ChunkPointer { number, offset: address, bytes, mask });
        Ok(())
    }

    fn number(&self, origin: &[u64]) -> Option<u64> {
        let mut number = 0u64;
        for ((origin, chunk), chunks) in origin.iter().zip(self.chunk_shape).zip(&self.chunks) {
            let at = origin / chunk;
            if at >= *chunks {
                return None;
            }
            number = number.checked_mul(*chunks)?.checked_add(at)?;
        }
        Some(number)
    }

    fn reaches_over_the_edge(&self, origin: &[u64]) -> bool {
        let ends = origin.iter().zip(self.chunk_shape).map(|(origin, chunk)| origin.saturating_add(*chunk));
        ends.zip(self.shape).any(|(end, size)| end > *size)
    }
}

/// The fill value as one element of a decoded block; `None` where it is zero or empty.
pub(crate) fn fill(
    properties: &Handle,
    memory_type: &Handle,
    layout: &Layout,
    element: &ElementType,
    references: &References,
) -> Result<Option<Vec<u8>>> {
    let mut status = H5D_FILL_VALUE_ERROR;
    // SAFETY: the property list is alive and one value is written.
    checked(unsafe { H5Pfill_value_defined(properties.id(), &raw mut status) }, "fill value")?;
    if status != H5D_FILL_VALUE_USER_DEFINED {
        return Ok(None);
    }
    let mut memory = Memory::zeroed(memory_type, layout, &[])?;
    let read = |target: *mut c_void, memory_type: hid_t| {
        // SAFETY: the target has room for one element of the type.
        checked(unsafe { H5Pget_fill_value(properties.id(), memory_type, target) }, "fill value")
    };
    memory.fill_with(read)?;
    if memory.bytes().iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if element.fixed_bytes().is_some() {
        return Ok(Some(memory.into_bytes()));
    }
    let mut sink = Sink::new(64 << 10);
    layout.pack(memory.bytes(), references, &mut sink)?;
    Ok(Some(sink.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_numbered_in_c_order_and_one_outside_the_grid_is_left_out() {
        let mut grid = Grid {
            chunk_shape: &[2, 3],
            chunks: vec![2, 3],
            shape: &[4, 8],
            skips_partial: true,
            pointers: Vec::new(),
            pointers_max: 3,
            base: 512,
            problem: None,
        };
        grid.keep(&[2, 3], 5, 600, 10).unwrap();
        grid.keep(&[0, 6], 0, 700, 10).unwrap();
        grid.keep(&[4, 0], 0, 800, 10).unwrap();
        grid.keep(&[0, 0], 0, 511, 10).unwrap();
        let kept: Vec<_> = grid.pointers.iter().map(|p| (p.number, p.offset, p.mask)).collect();
        assert_eq!(kept, [(4, 600, 5), (2, 700, u32::MAX)]);
        assert_eq!(grid.keep(&[0, 0], 0, 900, 1 << 32).unwrap_err().reason, Reason::ChunkTooLarge);
        grid.keep(&[0, 0], 0, 900, 1).unwrap();
        assert_eq!(grid.keep(&[0, 3], 0, 950, 1).unwrap_err().reason, Reason::FileTooComplex);
    }
}
