//! The `h5flight` binary: the server, and a command line for people and scripts.
//!
//! Exit codes: 0 done, 1 refused by the server or failed, 2 wrong usage, 130 interrupted.

mod allocator;
mod cli;
mod command;
mod connection;
mod export;
mod failure;
mod output;
mod quantity;
mod settings;
mod table;

fn main() -> std::process::ExitCode {
    #[cfg(feature = "failpoints")]
    let _faults = fail::FailScenario::setup();
    cli::run(std::env::args_os())
}
