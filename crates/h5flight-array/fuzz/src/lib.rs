//! What the fuzz targets do with an input. The tests of h5flight-array include this file and run the same on seeds and
//! mutations of them (`tests/fuzz_bodies.rs`), so that each also holds without a fuzzer. `ticket.rs` stands alone: it
//! runs in the tests of h5flight-proto.
//!
//! ```text
//! cargo +nightly fuzz run chunk_decoders -- -max_len=4096      # in crates/h5flight-array
//! ```
//!
//! Each body panics when something does not hold, and returns the bytes of memory that its input declares (the size of
//! a chunk, for example): beyond these, memory must stay in proportion to the input.

mod blocks;
mod chunks;
mod expression;
mod frames;
mod input;
mod plan;
mod selection;

pub use blocks::cached_values;
pub use chunks::{chunk_decoders, chunk_runs};
pub use expression::expression_text;
pub use frames::worker_frames;
pub use plan::plans;
pub use selection::selection_text;
