//! A record batch becomes Flight messages whose bodies are Arrow's own buffers: only small pieces are copied.
//!
//! A message leaves as a frame of gRPC: five bytes of length, the fields in protobuf, then the buffers as they are. The
//! body is the last field, so that what stands before it is written without knowing where the buffers lie.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder};
use arrow::ipc::{CompressionType, MessageHeader, root_as_message};
use arrow_flight::FlightData;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h5flight_array::{Error as ArrayError, Reason};
use h5flight_proto::v1::BatchMetadata;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::internal;
use super::window::Outlet;
use crate::error::{Error, Result};

/// Pieces of a body below this size are put together: each one that leaves alone costs a frame of HTTP/2 and, where it
/// ends, a system call.
const PIECE_BYTES_MIN: usize = 16 << 10;
/// Before the metadata of an encapsulated IPC message: a marker and the metadata's size.
const IPC_PREFIX_BYTES: usize = 8;
/// Before a message of gRPC: whether it is compressed, and its size.
const GRPC_PREFIX_BYTES: usize = 5;

/// Numbers of FlightData's fields, as Flight.proto has them.
mod field {
    pub(super) const DATA_HEADER: u32 = 2;
    pub(super) const APP_METADATA: u32 = 3;
    pub(super) const DATA_BODY: u32 = 1000;
}

/// One message of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlightMessage {
    /// IPC metadata.
    header: Bytes,
    app_metadata: Vec<u8>,
    /// Pieces of the body, one after the other.
    body: Vec<Bytes>,
}

impl FlightMessage {
    /// The first message of a stream.
    pub fn of_schema(schema: &Schema) -> Self {
        let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
        let mut dictionaries = DictionaryTracker::new(false);
        let encoded = generator.schema_to_bytes_with_dictionary_tracker(schema, &mut dictionaries, &options);
        Self { header: encoded.ipc_message.into(), ..Self::default() }
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// The message as others have it, its body in one piece: a copy.
    pub fn into_flight_data(self) -> FlightData {
        let data_body = match <[Bytes; 1]>::try_from(self.body) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat().into(),
        };
        let app_metadata = self.app_metadata.into();
        FlightData { flight_descriptor: None, data_header: self.header, app_metadata, data_body }
    }

    /// The message as it stands in the body of an HTTP/2 stream.
    ///
    /// # Errors
    /// `result_too_large` for 4 GiB.
    pub fn into_frame(self) -> Result<Vec<Bytes>> {
        let body_bytes = self.body_bytes();
        let mut head = BytesMut::with_capacity(64 + self.header.len() + self.app_metadata.len());
        head.put_bytes(0, GRPC_PREFIX_BYTES);
        for (number, bytes) in [(field::DATA_HEADER, &self.header[..]), (field::APP_METADATA, &self.app_metadata)] {
            if !bytes.is_empty() {
                encode_key(number, WireType::LengthDelimited, &mut head);
                encode_varint(bytes.len() as u64, &mut head);
                head.put_slice(bytes);
            }
        }
        if body_bytes > 0 {
            encode_key(field::DATA_BODY, WireType::LengthDelimited, &mut head);
            encode_varint(body_bytes as u64, &mut head);
        }
        let bytes = u32::try_from(head.len() - GRPC_PREFIX_BYTES + body_bytes);
        let bytes = bytes.map_err(|_| Error::new(Reason::ResultTooLarge, "a batch of 4 GiB"))?;
        head[1..GRPC_PREFIX_BYTES].copy_from_slice(&bytes.to_be_bytes());
        Ok(std::iter::once(head.freeze()).chain(self.body).collect())
    }
}

/// One batch as messages: dictionaries where it has some, then the batch.
pub struct EncodedBatch {
    /// In order.
    pub messages: Vec<FlightMessage>,
    /// Rows of the result.
    pub rows: u64,
    /// Bytes of the messages' bodies.
    pub bytes: u64,
}

/// Encodes the batches of one stream, in order: it remembers which dictionaries the client has.
pub struct Encoder {
    stream: StreamEncoder,
    compresses: bool,
}

impl Encoder {
    /// For a new stream, which begins with [`FlightMessage::of_schema`].
    ///
    /// # Errors
    /// `internal`: every schema that a plan makes can be encoded.
    pub fn new(schema: &Schema, compression: Option<CompressionType>) -> Result<Self> {
        let options = IpcWriteOptions::default().try_with_compression(compression);
        let stream = options.and_then(|options| StreamEncoder::try_new_with_options(schema, options));
        let stream = stream.map_err(|error| internal("encoding a schema", error))?;
        Ok(Self { stream, compresses: compression.is_some() })
    }

    /// The messages of a batch that begins at `first_row` of the result and has `rows` of its rows.
    ///
    /// # Errors
    /// `internal`: every batch that the plan makes can be encoded.
    pub fn batch(&mut self, batch: &RecordBatch, first_row: u64, rows: u64) -> Result<EncodedBatch> {
        let buffers = self.stream.encode(batch).map_err(|error| internal("encoding a batch", error))?;
        let mut messages = split(buffers)?;
        if let Some(last) = messages.last_mut() {
            last.app_metadata = BatchMetadata { first_row, rows }.encode_to_vec();
        }
        let bytes = messages.iter().map(|message| message.body_bytes() as u64).sum();
        Ok(EncodedBatch { messages, rows, bytes })
    }
}

impl Outlet for Encoder {
    type Item = EncodedBatch;

    fn compresses(&self) -> bool {
        self.compresses
    }

    fn pass(&mut self, batch: RecordBatch, rows: std::ops::Range<u64>) -> Result<EncodedBatch> {
        self.batch(&batch, rows.start, rows.end - rows.start)
    }
}

/// Cuts a piece of an IPC stream into its messages; the schema is left out, the client has it.
fn split(buffers: Vec<Buffer>) -> Result<Vec<FlightMessage>> {
    let mut rest: Pieces = buffers.into_iter().map(|buffer| Bytes::from_owner(Owned(buffer))).collect();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let mut prefix = rest.copy(IPC_PREFIX_BYTES)?;
        prefix.advance(IPC_PREFIX_BYTES / 2);
        let header = rest.copy(prefix.get_u32_le() as usize)?;
        let damaged = |error| Error::new(Reason::Internal, format!("what was encoded cannot be read: {error}"));
        let metadata = root_as_message(&header).map_err(damaged)?;
        let body_bytes = usize::try_from(metadata.bodyLength()).unwrap_or(0);
        let is_schema = metadata.header_type() == MessageHeader::Schema;
        let body = rest.take(body_bytes)?;
        if !is_schema {
            messages.push(FlightMessage { header, app_metadata: Vec::new(), body });
        }
    }
    Ok(messages)
}

/// Memory of an Arrow buffer, to be sent as it is.
struct Owned(Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes in pieces, taken from the front.
struct Pieces(std::collections::VecDeque<Bytes>);

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        Self(pieces.into_iter().filter(|piece| !piece.is_empty()).collect())
    }
}

impl Pieces {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `bytes` from the front, as far as the first piece goes.
    fn next(&mut self, bytes: usize) -> Result<Bytes> {
        let missing = || ArrayError::new(Reason::Internal, "an encoded message ends early");
        let first = self.0.front_mut().ok_or_else(missing)?;
        if first.len() > bytes {
            return Ok(first.split_to(bytes));
        }
        Ok(self.0.pop_front().unwrap_or_default())
    }

    /// `bytes` from the front in one piece.
    fn copy(&mut self, bytes: usize) -> Result<Bytes> {
        let mut all = BytesMut::with_capacity(bytes);
        while all.len() < bytes {
            all.extend_from_slice(&self.next(bytes - all.len())?);
        }
        Ok(all.freeze())
    }

    /// `bytes` from the front, the large pieces as they are.
    fn take(&mut self, bytes: usize) -> Result<Vec<Bytes>> {
        let (mut taken, mut small, mut left) = (Vec::new(), BytesMut::new(), bytes);
        while left > 0 {
            let piece = self.next(left)?;
            left -= piece.len();
            if piece.len() < PIECE_BYTES_MIN {
                small.extend_from_slice(&piece);
                continue;
            }
            if !small.is_empty() {
                taken.push(small.split().freeze());
            }
            taken.push(piece);
        }
        if !small.is_empty() {
            taken.push(small.freeze());
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int16Array, StringArray};
    use arrow::datatypes::Int32Type;
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::{TryStreamExt, stream};

    use super::*;

    fn batch(rows: usize) -> RecordBatch {
        let numbers = Int16Array::from_iter_values((0..rows).map(|row| row as i16));
        let words: DictionaryArray<Int32Type> = (0..rows).map(|row| ["left", "right"][row % 2]).collect();
        let texts = StringArray::from_iter((0..rows).map(|row| (row % 3 > 0).then(|| format!("text {row}"))));
        let columns: [(&str, ArrayRef); 4] = [
            ("numbers", Arc::new(numbers.clone())),
            ("slice", Arc::new(numbers.slice(0, rows))),
            ("words", Arc::new(words)),
            ("texts", Arc::new(texts)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn messages(batches: &[RecordBatch]) -> Vec<FlightMessage> {
        compressed(batches, None)
    }

    fn compressed(batches: &[RecordBatch], compression: Option<CompressionType>) -> Vec<FlightMessage> {
        let schema = batches[0].schema();
        let mut encoder = Encoder::new(&schema, compression).unwrap();
        let encoded = batches.iter().flat_map(|batch| {
            let rows = batch.num_rows() as u64;
            let encoded = encoder.batch(batch, 7, rows).unwrap();
            let bytes: usize = encoded.messages.iter().map(FlightMessage::body_bytes).sum();
            assert_eq!((encoded.rows, encoded.bytes), (rows, bytes as u64));
            let last = BatchMetadata::decode(&encoded.messages.last().unwrap().app_metadata[..]).unwrap();
            assert_eq!((last.first_row, last.rows), (7, rows));
            encoded.messages
        });
        std::iter::once(FlightMessage::of_schema(&schema)).chain(encoded).collect()
    }

    #[tokio::test]
    async fn what_is_encoded_is_read_as_it_was() {
        let batches = [batch(50_000), batch(3), batch(0)];
        let data = messages(&batches).into_iter().map(|message| Ok(message.into_flight_data()));
        let read = FlightRecordBatchStream::new_from_flight_data(stream::iter(data));
        assert_eq!(read.try_collect::<Vec<_>>().await.unwrap(), batches);
    }

    #[tokio::test]
    async fn what_is_compressed_is_smaller_and_read_as_it_was() {
        let batches = [batch(50_000), batch(3)];
        let bytes = |messages: &[FlightMessage]| messages.iter().map(FlightMessage::body_bytes).sum::<usize>();
        let plain = bytes(&messages(&batches));
        for compression in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            let messages = compressed(&batches, Some(compression));
            assert!(bytes(&messages) < plain * 3 / 4, "{} of {plain} bytes", bytes(&messages));
            let data = messages.into_iter().map(|message| Ok(message.into_flight_data()));
            let read = FlightRecordBatchStream::new_from_flight_data(stream::iter(data));
            assert_eq!(read.try_collect::<Vec<_>>().await.unwrap(), batches);
        }
    }

    #[test]
    fn a_frame_is_what_prost_makes_of_the_message() {
        for message in messages(&[batch(50_000), batch(1)]) {
            let frame = message.clone().into_frame().unwrap().concat();
            let (prefix, fields) = frame.split_at(GRPC_PREFIX_BYTES);
            assert_eq!(prefix[0], 0);
            assert_eq!(prefix[1..], (fields.len() as u32).to_be_bytes());
            assert_eq!(FlightData::decode(fields).unwrap(), message.into_flight_data());
        }
    }

    #[test]
    fn large_buffers_are_not_copied_and_small_ones_are_put_together() {
        let batch = batch(50_000);
        let numbers = batch.column(0).to_data().buffers()[0].as_ptr();
        let message = messages(&[batch]).pop().unwrap();
        assert!(message.body.iter().any(|piece| piece.as_ptr() == numbers));
        assert!(message.body.windows(2).all(|pair| pair.iter().any(|piece| piece.len() >= PIECE_BYTES_MIN)));
    }
}
