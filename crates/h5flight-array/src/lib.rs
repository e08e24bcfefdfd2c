//! A slice of an HDF5 dataset becomes an Arrow batch.
//!
//! What lives here: what an array is ([`meta`]), which part is asked for ([`selection`]), where its bytes are
//! ([`index`]), which of them a selection touches ([`plan`]), reading ([`file`]) and decoding ([`codec`]) them, and
//! placing the values into Arrow buffers ([`batch`]). [`write`](mod@write) is the way back: rows of batches become chunks.
//! [`series`] is the arithmetic of rows that have a time.
//! [`expression`] is the language of filters and searches, [`inspect`] the one spoken with the worker process.
//!
//! What never lives here: tokio, SQL, gRPC, libhdf5. Everything is synchronous, and everything but [`file`] is pure.
//!
//! ```text
//! Selection::parse -> resolve(shape) -> Plan::new(version, selection, options)
//!     -> for each batch: blocks -> file::read -> codec::decode -> Plan::assemble -> RecordBatch
//! ```

pub mod batch;
pub mod checksum;
pub mod codec;
pub mod error;
pub mod expression;
pub mod file;
pub mod index;
pub mod inspect;
pub mod meta;
pub mod overlap;
pub mod plan;
pub mod ragged;
pub mod selection;
pub mod series;
pub mod write;

pub use error::{Error, Reason, Result};
