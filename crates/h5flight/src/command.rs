//! One module per command, named like it. A command parses nothing and decides nothing about data: it asks the server
//! or the catalogue and shows the answer.

pub mod access_log;
pub mod backup;
pub mod chunks;
pub mod diff;
pub mod gc;
pub mod get;
pub mod healthcheck;
pub mod info;
pub mod ingest;
pub mod ls;
pub mod register;
pub mod rollback;
pub mod search;
pub mod serve;
pub mod table;
pub mod tag;
pub mod token;
pub mod verify;
pub mod versions;
pub mod watch;
pub mod worker;

mod history;
mod listing;
mod progress;
