//! The contract on the wire: generated messages and services, tickets, error details; feature `client`: the Rust client.
//!
//! What never lives here: SQL, HDF5, anything of the server's inside.

pub mod reason;
pub mod ticket;

#[cfg(feature = "client")]
pub mod client;

/// Generated from `proto/h5flight/v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("h5flight.v1");
}

/// All descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Type URL of a [`v1::GetDataRequest`] in an `Any`: a ticket or a descriptor's command.
pub const GET_DATA_TYPE_URL: &str = "type.googleapis.com/h5flight.v1.GetDataRequest";

/// Type URL of a [`v1::GetTableRequest`] in an `Any`: a ticket or a descriptor's command.
pub const GET_TABLE_TYPE_URL: &str = "type.googleapis.com/h5flight.v1.GetTableRequest";

/// Type URL of a [`v1::IngestHeader`] in an `Any`: the command of an upload over Flight.
pub const INGEST_HEADER_TYPE_URL: &str = "type.googleapis.com/h5flight.v1.IngestHeader";

/// Type URL of a [`v1::PutRequest`] in an `Any`: the command of a put over Flight.
pub const PUT_TYPE_URL: &str = "type.googleapis.com/h5flight.v1.PutRequest";

/// Trailer with the statistics of a read, a JSON object.
pub const STATS_TRAILER: &str = "h5flight-stats";

use prost::Message;

/// Packs a request as a ticket or a descriptor's command.
pub fn pack_request(request: &v1::GetDataRequest) -> Vec<u8> {
    prost_types::Any { type_url: GET_DATA_TYPE_URL.into(), value: request.encode_to_vec() }.encode_to_vec()
}

/// The request in a ticket or command made by [`pack_request`]; `None` for anything else.
pub fn unpack_request(bytes: &[u8]) -> Option<v1::GetDataRequest> {
    let any = prost_types::Any::decode(bytes).ok().filter(|any| any.type_url == GET_DATA_TYPE_URL)?;
    v1::GetDataRequest::decode(any.value.as_slice()).ok()
}

/// Packs a request for a table as a ticket or a descriptor's command.
pub fn pack_table_request(request: &v1::GetTableRequest) -> Vec<u8> {
    prost_types::Any { type_url: GET_TABLE_TYPE_URL.into(), value: request.encode_to_vec() }.encode_to_vec()
}

/// The request in a ticket or command made by [`pack_table_request`]; `None` for anything else.
pub fn unpack_table_request(bytes: &[u8]) -> Option<v1::GetTableRequest> {
    let any = prost_types::Any::decode(bytes).ok().filter(|any| any.type_url == GET_TABLE_TYPE_URL)?;
    v1::GetTableRequest::decode(any.value.as_slice()).ok()
}

/// The header of an upload in a descriptor's command; `None` for anything else.
pub fn unpack_header(bytes: &[u8]) -> Option<v1::IngestHeader> {
    let any = prost_types::Any::decode(bytes).ok().filter(|any| any.type_url == INGEST_HEADER_TYPE_URL)?;
    v1::IngestHeader::decode(any.value.as_slice()).ok()
}

/// The request of a put in a descriptor's command; `None` for anything else.
pub fn unpack_put(bytes: &[u8]) -> Option<v1::PutRequest> {
    let any = prost_types::Any::decode(bytes).ok().filter(|any| any.type_url == PUT_TYPE_URL)?;
    v1::PutRequest::decode(any.value.as_slice()).ok()
}
