//! What the worker says.

use h5flight_array::index::ChunkRun;
use h5flight_array::inspect::{Frame, Message};

/// Frames until the stream ends or breaks; each is written as it was read.
pub fn worker_frames(data: &[u8]) -> u64 {
    let mut stream = data;
    while let Ok(Some(frame)) = Frame::read_from(&mut stream) {
        let mut wire = Vec::new();
        frame.write_to(&mut wire).unwrap();
        let again = Frame::read_from(&mut wire.as_slice()).unwrap().unwrap();
        // Not the message: JSON's decimal fractions may differ in their last bit.
        assert_eq!(
            (again.data, std::mem::discriminant(&again.message)),
            (frame.data.clone(), std::mem::discriminant(&frame.message))
        );
        match frame.message {
            Message::Object(object) => drop(object.array.map(|array| array.check())),
            Message::Run { first_number, last_number, pointers } => {
                let run = ChunkRun { first_number, last_number, pointers, packed: frame.data.to_vec() };
                let _ = run.unpack_into(&mut Vec::new());
            }
            _ => {}
        }
    }
    0
}
