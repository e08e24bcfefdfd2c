//! Prints what an inspection finds in a file, one line a message: `cargo run --example inspect -- FILE`.

use std::error::Error;
use std::os::fd::AsFd;
use std::path::PathBuf;

use h5flight_array::inspect::{Frame, Message, Request};
use h5flight_hdf5::answer;

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: inspect FILE")?);
    let file = std::fs::File::open(path)?;
    let request = Request::Inspect {
        limits: Default::default(),
        inline: true,
        file_bytes: file.metadata()?.len(),
        memory_bytes_max: u64::MAX,
    };
    let mut frames = Vec::new();
    answer(&request, file.as_fd(), &mut std::io::empty(), &mut frames)?;
    let mut rest = frames.as_slice();
    let mut failed = false;
    while let Some(Frame { message, data }) = Frame::read_from(&mut rest)? {
        failed |= matches!(message, Message::Failed { .. });
        println!("{} {}", serde_json::to_string(&message)?, data.len());
    }
    if failed { Err("the inspection failed".into()) } else { Ok(()) }
}
