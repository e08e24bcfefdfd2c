//! What the fuzz targets do with an input. The tests of h5flight-array include this file and run the same on seeds and
//! mutations of them (`tests/fuzz_bodies.rs`; `ticket` runs in h5flight-proto), so that each also holds without a fuzzer.
//!
//! ```text
//! cargo +nightly fuzz run chunk_decoders -- -max_len=4096      # in crates/h5flight-array
//! ```
//!
//! Each body panics when something does not hold, and returns the bytes of memory that its input declares (the size of
//! a chunk, for example): beyond these, memory must stay in proportion to the input.

mod blocks;
mod chunks;
mod frames;
mod input;
mod plan;
mod selection;
// Without this, the tests of h5flight-array would need h5flight-proto.
#[cfg(not(test))]
pub mod ticket;

pub use blocks::cached_values;
pub use chunks::{chunk_decoders, chunk_runs};
pub use frames::worker_frames;
pub use plan::plans;
pub use selection::selection_text;
