//! The harness of the Rust tests: private instances of real servers, started from installed packages.
//!
//! The end-to-end tests are in `tests/python`: their oracles (h5py, numpy, pynwb) and the clients that count (pyarrow,
//! grpcio, the Python package) are Python's.

pub mod postgres;
