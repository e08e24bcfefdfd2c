//! Puts: what is asked for, and what was made.

use h5flight_array::codec::encode::{Codec, EncodeOptions};
use h5flight_array::write::attributes;
use h5flight_catalog::model::{Principal, WriterSequence};
use h5flight_proto::v1::{self, PutCodec};

use super::{bad_request, dataset_path};
use crate::error::Result;
use crate::publish::names::NAME_BYTES_MAX;
use crate::publish::put::{Put, PutAsked, PutMode};

/// What is asked of a put.
///
/// # Errors
/// `bad_request`.
pub fn put_request(request: v1::PutRequest, principal: &Principal) -> Result<PutAsked> {
    let mode = match v1::PutMode::try_from(request.mode) {
        Ok(v1::PutMode::Create) => PutMode::Create,
        Ok(v1::PutMode::Replace) => PutMode::Replace,
        Ok(v1::PutMode::Append) => PutMode::Append,
        Err(_) => return Err(bad_request(format!("there is no mode {} of a put", request.mode))),
    };
    let codec = match PutCodec::try_from(request.codec) {
        Ok(PutCodec::Auto | PutCodec::Zstd) => Codec::Zstd,
        Ok(PutCodec::None) => Codec::None,
        Ok(PutCodec::Deflate) => Codec::Deflate,
        Ok(PutCodec::Lz4) => Codec::Lz4,
        Err(_) => return Err(bad_request(format!("there is no compression {}", request.codec))),
    };
    let writer = request.writer;
    if writer.len() > NAME_BYTES_MAX {
        return Err(bad_request(format!("a writer's name has {} bytes, the most is {NAME_BYTES_MAX}", writer.len())));
    }
    Ok(PutAsked {
        path: dataset_path(&request.animal, &request.experiment, &request.dataset)?,
        mode,
        chunk_shape: request.chunk_shape,
        encoding: EncodeOptions { codec, level: request.level, shuffle: request.shuffle },
        attributes: attributes::parse(&request.attributes_json)?,
        writer: (!writer.is_empty()).then_some(WriterSequence { writer, sequence: request.sequence }),
        expected_version: request.expected_version,
        expected_first_row: request.expected_first_row,
        principal: principal.name.clone(),
    })
}

/// What a put made.
pub fn put_response(put: Put) -> v1::PutResponse {
    let Put { version, first_row, rows, total_rows, already, content } = put;
    v1::PutResponse { version, first_row, rows, total_rows, already, content }
}
