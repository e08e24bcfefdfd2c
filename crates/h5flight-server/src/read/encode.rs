//! A record batch becomes Flight messages.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::FlightData;
use h5flight_proto::v1::BatchMetadata;
use prost::Message;

use super::internal;
use crate::error::Result;

/// One batch as messages: dictionaries where it has some, then the batch.
pub struct EncodedBatch {
    /// In order.
    pub messages: Vec<FlightData>,
    /// Rows of the result.
    pub rows: u64,
    /// Bytes of the messages' bodies.
    pub bytes: u64,
}

/// Encodes the batches of one stream, in order: it remembers which dictionaries the client has.
pub struct Encoder {
    options: IpcWriteOptions,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    /// For a new stream.
    pub fn new() -> Self {
        Self {
            options: IpcWriteOptions::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
        }
    }

    /// The first message of the stream; it also gives every dictionary its number.
    pub fn schema(&mut self, schema: &Schema) -> FlightData {
        let generator = IpcDataGenerator::default();
        generator.schema_to_bytes_with_dictionary_tracker(schema, &mut self.dictionaries, &self.options).into()
    }

    /// The messages of a batch that begins at `first_row` of the result and has `rows` of its rows.
    ///
    /// # Errors
    /// `internal`: every batch that the plan makes can be encoded.
    pub fn batch(&mut self, batch: &RecordBatch, first_row: u64, rows: u64) -> Result<EncodedBatch> {
        let encoded =
            IpcDataGenerator::default().encode(batch, &mut self.dictionaries, &self.options, &mut self.context);
        let (dictionaries, data) = encoded.map_err(|error| internal("encoding a batch", error))?;
        let mut messages: Vec<FlightData> = dictionaries.into_iter().map(Into::into).collect();
        let metadata = BatchMetadata { first_row, rows }.encode_to_vec();
        messages.push(FlightData::from(data).with_app_metadata(metadata));
        let bytes = messages.iter().map(|message| message.data_body.len() as u64).sum();
        Ok(EncodedBatch { messages, rows, bytes })
    }
}
