//! `h5flight worker`: the process that looks into one file. The server starts it, sandboxed, with a deadline.

use std::process::ExitCode;

/// Serves one request from standard input. No runtime, no log, no settings: what a file may take over is kept small.
pub fn run() -> ExitCode {
    h5flight_hdf5::run_worker()
}
