//! What only libhdf5 can read, asked of workers in slabs: the chunks of an array, or boxes of an array without chunks.

use h5flight_array::Reason;
use h5flight_array::inspect::Hyperslab;
use h5flight_array::meta::{Storage, product};
use h5flight_catalog::model::ArrayRecord;

use super::Deep;
use crate::error::{Error, Result};
use crate::files;
use crate::memory::Growth;
use crate::verify::found::{Finding, Found};
use crate::worker::WorkerRead;

/// Elements of a box.
const BOX_ELEMENTS_MAX: u64 = 65_536;
/// Decoded bytes that one worker is asked for, about: starting it takes as long as reading some megabytes.
const GROUP_BYTES: u64 = 16 << 20;
/// Slabs that one worker is asked for.
const GROUP_SLABS_MAX: usize = 256;
/// Assumed bytes of a value of no fixed size.
const VARIABLE_BYTES_ESTIMATE: u64 = 32;
/// Workers that are started to find which slabs of one array are damaged; then the rest is reported in groups.
const SEARCHES_MAX: usize = 64;

/// A part of an array, and which chunk it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    chunk: Option<u64>,
    slab: Hyperslab,
}

impl Deep<'_> {
    /// Has everything that is stored of an array read by workers.
    pub(super) async fn check_by_worker(&self, array: &ArrayRecord, found: &mut Found) -> Result<()> {
        let element_bytes = array.meta.element.fixed_bytes().unwrap_or(VARIABLE_BYTES_ESTIMATE);
        let mut searches = SEARCHES_MAX;
        let (mut group, mut group_bytes) = (Vec::new(), 0u64);
        for part in parts(array) {
            let bytes = product(&part.slab.shape).unwrap_or(u64::MAX).saturating_mul(element_bytes);
            let full = group_bytes.saturating_add(bytes) > GROUP_BYTES || group.len() == GROUP_SLABS_MAX;
            if full && !group.is_empty() {
                if !self.search(array, std::mem::take(&mut group), &mut searches, found).await? {
                    return Ok(());
                }
                group_bytes = 0;
            }
            group_bytes = group_bytes.saturating_add(bytes);
            group.push(part);
        }
        if !group.is_empty() {
            self.search(array, group, &mut searches, found).await?;
        }
        Ok(())
    }

    /// Reads a group; where it fails its halves, and so on, until what is damaged has a name. False where there is no
    /// sense in asking for more of this array.
    async fn search(
        &self,
        array: &ArrayRecord,
        group: Vec<Part>,
        searches: &mut usize,
        found: &mut Found,
    ) -> Result<bool> {
        let mut left = vec![group];
        while let Some(mut group) = left.pop() {
            let error = match self.ask(array, &group).await {
                Ok(bytes) => {
                    self.count(found, bytes);
                    continue;
                }
                Err(error) => error,
            };
            let finding = Finding::of_array(&error, array, group[0].chunk);
            if !finding.is_damage() {
                found.add(finding);
                return Ok(false);
            }
            if group.len() > 1 && *searches > 0 {
                *searches -= 1;
                let second = group.split_off(group.len() / 2);
                left.extend([second, group]);
            } else {
                let message = match group.len() {
                    1 => finding.message,
                    parts => format!("{} (one of {parts} parts from this one on)", finding.message),
                };
                found.add(Finding { message, ..finding });
            }
        }
        Ok(true)
    }

    async fn ask(&self, array: &ArrayRecord, group: &[Part]) -> Result<u64> {
        loop {
            let _reserved = self.memory(GROUP_BYTES).await?;
            let duplicate = self.file.as_file().try_clone();
            let duplicate = duplicate.map_err(|error| files::disk_error("opening a file for a worker", error))?;
            let blocks = group.iter().map(|part| part.slab.clone()).collect();
            let mut memory = Growth::new(self.service, GROUP_BYTES);
            let read = WorkerRead { array, blocks };
            match self.service.workers.try_read(&duplicate.into(), read, &mut memory).await {
                Ok(values) => return Ok(values.iter().map(|value| value.len() as u64).sum()),
                // Reads come first.
                Err(error) if error.reason() == Reason::Busy => {}
                Err(error) => return Err::<_, Error>(error),
            }
        }
    }
}

/// The stored chunks of an array, or all of it in boxes.
fn parts(array: &ArrayRecord) -> Box<dyn Iterator<Item = Part> + Send + '_> {
    let shape = array.meta.shape();
    if let Storage::Chunked { chunk_shape } = &array.meta.storage {
        let part = |number| Part { chunk: Some(number), slab: slab(shape, chunk_shape, number) };
        return Box::new(array.index.pointers().iter().map(move |pointer| part(pointer.number)));
    }
    let tile = box_shape(shape);
    let count = shape.iter().zip(&tile).map(|(size, tile)| size.div_ceil(*tile)).product::<u64>();
    Box::new((0..count).map(move |number| Part { chunk: None, slab: slab(shape, &tile, number) }))
}

/// The longest rows that fit, then as many of them as fit.
fn box_shape(shape: &[u64]) -> Vec<u64> {
    let mut left = BOX_ELEMENTS_MAX;
    let mut tile = vec![1; shape.len()];
    for (tile, size) in tile.iter_mut().zip(shape).rev() {
        *tile = (*size).clamp(1, left);
        left /= *tile;
    }
    tile
}

/// The tile of this number in the grid of tiles, in C order, cut at the array's edge.
fn slab(shape: &[u64], tile: &[u64], number: u64) -> Hyperslab {
    let mut rest = number;
    let mut slab = Hyperslab { origin: vec![0; shape.len()], shape: vec![0; shape.len()] };
    for axis in (0..shape.len()).rev() {
        let count = shape[axis].div_ceil(tile[axis].max(1)).max(1);
        slab.origin[axis] = (rest % count) * tile[axis];
        slab.shape[axis] = tile[axis].min(shape[axis] - slab.origin[axis].min(shape[axis]));
        rest /= count;
    }
    slab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_cover_an_array_once() {
        for shape in [vec![], vec![5], vec![200_000], vec![3, 70_000], vec![300, 7, 90], vec![2, 0, 5], vec![70_000, 2]]
        {
            let tile = box_shape(&shape);
            assert!(product(&tile).unwrap() <= BOX_ELEMENTS_MAX, "{tile:?}");
            let count = shape.iter().zip(&tile).map(|(size, tile)| size.div_ceil(*tile)).product::<u64>();
            let slabs: Vec<_> = (0..count).map(|number| slab(&shape, &tile, number)).collect();
            let elements: u64 = slabs.iter().map(|slab| product(&slab.shape).unwrap()).sum();
            assert_eq!(elements, product(&shape).unwrap(), "{shape:?}");
            for (at, slab) in slabs.iter().enumerate() {
                assert!(slabs[..at].iter().all(|before| before.origin != slab.origin), "{shape:?} {slab:?}");
                let ends = slab.origin.iter().zip(&slab.shape).map(|(origin, size)| origin + size);
                assert!(ends.zip(&shape).all(|(end, size)| end <= *size), "{shape:?} {slab:?}");
            }
        }
    }
}
