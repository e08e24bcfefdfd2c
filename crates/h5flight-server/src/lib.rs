//! The service as a library: [`serve`] runs it until it is told to stop.
//!
//! Where to look: [`read`] is the table of contents of the read path, [`publish`] the one of ingest. [`flight`] and
//! [`grpc`] are the doors, [`convert`] translates at them. libhdf5 is not here: it is behind [`worker`], in another
//! process, and this crate does not depend on the one that links it.

pub mod auth;
pub mod blocking;
pub mod browse;
pub mod cache;
pub mod config;
pub mod convert;
pub mod error;
pub(crate) mod faults;
pub mod files;
pub mod flight;
pub mod grpc;
pub mod history;
pub mod http;
pub mod memory;
pub mod metrics;
pub mod publish;
pub mod read;
pub mod series;
mod serve;
pub mod service;
pub mod tables;
pub mod telemetry;
pub mod verify;
pub mod versions;
pub mod worker;

pub use serve::{Listeners, StartError, serve};
