//! Messages of Flight become batches. Nothing in them is trusted: where buffers lie, and what they say they decompress to,
//! is checked before Arrow's reader sees them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::{self, MessageHeader};
use arrow_flight::FlightData;
use bytes::Bytes;
use h5flight_array::Reason;

use crate::error::{Error, Result};

/// Bytes that a compressed batch may decompress to: four times the largest message.
const DECOMPRESSED_BYTES_MAX: u64 = 64 << 20;

/// The schema in the first message of a put.
///
/// # Errors
/// `bad_request`.
pub fn schema(header: &[u8]) -> Result<SchemaRef> {
    let refuse = |why: String| Error::new(Reason::BadRequest, format!("a put begins with an Arrow schema: {why}"));
    let message = ipc::root_as_message(header).map_err(|error| refuse(error.to_string()))?;
    let schema = message.header_as_schema().ok_or_else(|| refuse("the first message is none".to_owned()))?;
    Ok(Arc::new(ipc::convert::fb_to_schema(schema)))
}

/// The batch in a message; `None` where it has none.
///
/// # Errors
/// `put_mismatch` for one that does not fit the schema, `bad_request` for a message that is none.
pub fn batch(message: FlightData, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
    let FlightData { data_header, data_body, .. } = message;
    if data_header.is_empty() {
        return Ok(None);
    }
    let refuse = |why: String| Error::new(Reason::BadRequest, format!("a message of a put is no batch: {why}"));
    let message = ipc::root_as_message(&data_header).map_err(|error| refuse(error.to_string()))?;
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch().ok_or_else(|| refuse("it is empty".into()))?,
        other => return Err(refuse(format!("it is {other:?}"))),
    };
    check_buffers(batch, &data_body)?;
    let body = Buffer::from(data_body);
    let version = message.version();
    let read = ipc::reader::read_record_batch(&body, batch, SchemaRef::clone(schema), &HashMap::new(), None, &version);
    let unfit = |error| {
        let error: arrow::error::ArrowError = error;
        Error::new(Reason::PutMismatch, format!("a batch does not fit the schema: {error}"))
    };
    read.map(Some).map_err(unfit)
}

fn check_buffers(batch: ipc::RecordBatch<'_>, body: &Bytes) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Reason::BadRequest, format!("a batch of a put {why}")));
    let mut decompressed = 0u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let (from, bytes) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        let part = from.ok().zip(bytes.ok()).and_then(|(from, bytes)| body.get(from..from.checked_add(bytes)?));
        let Some(part) = part else { return refuse(format!("has a buffer outside its {} bytes", body.len())) };
        if let (true, Some(head)) = (batch.compression().is_some(), part.first_chunk::<8>()) {
            // -1 is a buffer that is stored as it is.
            let bytes = i64::from_le_bytes(*head);
            decompressed = decompressed.saturating_add(u64::try_from(bytes).unwrap_or(part.len() as u64));
        }
    }
    if decompressed > DECOMPRESSED_BYTES_MAX {
        return refuse(format!("decompresses to {decompressed} bytes, the most is {DECOMPRESSED_BYTES_MAX}"));
    }
    match batch.length() {
        0.. => Ok(()),
        rows => refuse(format!("has {rows} rows")),
    }
}
