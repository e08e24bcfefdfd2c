//! bzip2: one stream. Its blocks need up to 4 MB while they are decoded, whatever the chunk's size.

use std::sync::Arc;

use ::bzip2::{Decompress, Status};

use super::{BZIP2, Decode, Known, Scratch, Stage, damaged, too_long};
use crate::error::Result;

pub(super) static FILTER: Known =
    Known { id: BZIP2, name: "bzip2", stage: |_, _| Ok(Stage::Compresses(Arc::new(Bzip2))) };

#[derive(Debug)]
struct Bzip2;

impl Decode for Bzip2 {
    /// Bytes after the end of the stream are ignored, as HDF5's filter does.
    fn decode(&self, stored: &[u8], out: &mut [u8], _: &mut Scratch) -> Result<usize> {
        let mut stream = Decompress::new(false);
        let (mut read_bytes, mut written_bytes) = (0, 0);
        loop {
            let status = stream
                .decompress(&stored[read_bytes..], &mut out[written_bytes..])
                .map_err(|error| damaged("bzip2", stored, error))?;
            // The stream counts what it was given and what it gave: never more than both slices have.
            let (read, written) = (stream.total_in() as usize, stream.total_out() as usize);
            let progressed = (read, written) != (read_bytes, written_bytes);
            (read_bytes, written_bytes) = (read, written);
            match status {
                Status::StreamEnd => return Ok(written_bytes),
                // One call moves at most 4 GiB.
                Status::Ok if progressed => {}
                Status::Ok if written_bytes == out.len() && read_bytes < stored.len() => {
                    return Err(too_long("bzip2", stored, out.len()));
                }
                _ => return Err(damaged("bzip2", stored, "it ends too early")),
            }
        }
    }
}
