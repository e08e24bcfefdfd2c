//! The only crate that links libhdf5: it runs in a child process that a bad file may kill.
//!
//! What lives here: the worker's side of [`h5flight_array::inspect`]. [`run_worker`] reads one request, closes itself
//! in ([`sandbox`]), looks at the file and answers in frames. What never lives here: a decision about who may read
//! what, SQL, tokio, Arrow. Only the file of a put is written, which holds nothing before, and nothing but the one file is ever opened: soft, external
//! and user-defined links are listed and not followed, external storage is named and not read, and of virtual datasets
//! only those that are made of nothing but this file.
//!
//! ```text
//! worker  request -> sandbox -> open -> inspect: walk -> element, layout, attribute -> frames
//!                                    -> read:    path -> element -> hyperslabs -> packed -> frames
//!                          -> make -> write:   steps -> chunks
//! ```
//!
//! libhdf5 is not thread-safe in this build. Every entry into it is below [`answer`], which holds the binding's lock
//! from the first to the last call.
//!
//! # Decoded blocks
//! Where [`h5flight_array::meta::ElementType::fixed_bytes`] is known, a block is the elements in C order in the file's
//! own form: byte order and the padding of compounds stay. An array marked `converted` has the little-endian form its
//! element type describes instead. All other elements are *packed*, one after the other:
//!
//! | element | packed form |
//! |---|---|
//! | fixed leaf, enum, bool, complex | its fixed bytes, in the byte order the element type tells |
//! | string of its own length | u32 count of bytes, the bytes; a null pointer has count 0 |
//! | sequence of its own length | u32 count of items, the packed items |
//! | reference | u32 count of bytes, the path; `u32::MAX` without bytes: null, or its target is gone |
//! | compound | its members in order, without padding |
//! | array | its items |
//!
//! All counts are little-endian.

mod attribute;
mod element;
mod filter;
mod handle;
mod inspection;
mod layout;
mod names;
mod open;
mod packed;
mod read;
mod recording;
mod reference;
pub mod sandbox;
mod sources;
mod text;
mod walk;
mod worker;
mod write;

pub use names::{escape, unescape};
pub use worker::{answer, run_worker};
