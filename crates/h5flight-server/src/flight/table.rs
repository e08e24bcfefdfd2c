//! Tables over Flight: a GetTableRequest is a command and a ticket.
//!
//! The ticket of an answer is the request again, and it says at what time: what is published meanwhile is not read.
//! It needs no seal: it is worth no more than whoever sends it.

use std::sync::Arc;

use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use h5flight_catalog::model::VersionSelector;
use h5flight_proto::v1::{self, version_selector};

use super::internal;
use crate::convert;
use crate::error::Result as Answer;
use crate::read::ReadStream;
use crate::service::Service;
use crate::tables;
use crate::telemetry::Call;

/// Reads the table of a ticket.
pub(super) async fn read(service: &Arc<Service>, call: &mut Call, asked: &v1::GetTableRequest) -> Answer<ReadStream> {
    let request = convert::table_request(asked)?;
    name(call, &request, asked);
    tables::read(service, request).await
}

/// What a table looks like, and a ticket for it.
pub(super) async fn info(
    service: &Arc<Service>,
    call: &mut Call,
    mut asked: v1::GetTableRequest,
    descriptor: FlightDescriptor,
) -> Answer<FlightInfo> {
    let windows = asked.event_lists.as_mut().and_then(|lists| lists.windows.as_mut());
    convert::pin_events(windows, asked.at.as_ref());
    let mut request = convert::table_request(&asked)?;
    name(call, &request, &asked);
    if request.version == VersionSelector::Current {
        let now = chrono::Utc::now();
        asked.at = Some(v1::VersionSelector { kind: Some(version_selector::Kind::AsOfUs(now.timestamp_micros())) });
        request.version = convert::version_selector(asked.at.as_ref())?;
    }
    let planned = tables::plan(service, &request).await?;
    let records = planned.records(&request).and_then(|rows| i64::try_from(rows).ok());
    let ticket = Ticket { ticket: h5flight_proto::pack_table_request(&asked).into() };
    Ok(FlightInfo::new()
        .try_with_schema(&planned.schema)
        .map_err(|error| internal("encoding a schema", error))?
        .with_descriptor(descriptor)
        .with_ordered(true)
        .with_total_records(records.unwrap_or(-1))
        .with_total_bytes(-1)
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket)))
}

/// Enters what is read into the call.
fn name(call: &mut Call, request: &tables::TableRequest, asked: &v1::GetTableRequest) {
    call.path(&request.path.to_string());
    call.selection(&asked.r#where);
}
