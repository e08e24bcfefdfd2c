//! The `h5flight` binary: the server, and a command line for people and scripts.
//!
//! Exit codes: 0 done, 1 refused by the server or failed, 2 wrong usage, 130 interrupted.

mod cli;
mod command;
mod connection;
mod export;
mod failure;
mod output;
mod quantity;
mod settings;
mod table;

/// Batches and chunks are buffers of megabytes that come and go: the system's allocator maps and unmaps each of them, page
/// fault by page fault, which cost more than copying them. Debug builds keep the system's: with `MALLOC_PERTURB_` glibc
/// fills what it hands out, and the conformance test sees whether any of that is ever delivered.
#[cfg(not(debug_assertions))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
