//! The body of the fuzz target `ticket`, a bounded number of times, with a bound on memory.

#[path = "../../h5flight-array/fuzz/src/ticket.rs"]
mod body;
#[path = "../../h5flight-array/tests/bounded/harness.rs"]
mod harness;

use h5flight_proto::v1::{
    AxisSelection, GetDataRequest, IndexList, Mask, Selection, Slice, axis_selection, get_data_request,
};
use h5flight_proto::{pack_request, ticket, v1::TicketClaims};
use prost::Message;

#[test]
fn tickets_of_any_bytes_are_opened_or_refused() {
    let axis = |kind| AxisSelection { kind: Some(kind) };
    let axes = vec![
        axis(axis_selection::Kind::Slice(Slice { start: Some(-5), stop: None, step: Some(2) })),
        axis(axis_selection::Kind::List(IndexList { indices: (0..300).collect() })),
        axis(axis_selection::Kind::Mask(Mask { length: 20, bits: vec![255, 1, 15] })),
    ];
    let part = get_data_request::Part::Parts(Selection { axes, fields: vec!["t".into()], elements: None });
    let request = GetDataRequest { animal: "m1".into(), part: Some(part), ..GetDataRequest::default() };
    let claims = TicketClaims { version_id: 7, request: Some(request.clone()), principal_id: 3, expires_s: -1 };
    let many = vec![AxisSelection::default(); 50_000];
    let wide =
        get_data_request::Part::Parts(Selection { axes: many, fields: vec![String::new(); 50_000], elements: None });
    let wide = GetDataRequest { part: Some(wide), ..GetDataRequest::default() };
    let seeds = [
        pack_request(&request),
        ticket::seal(&[9; 32], &claims),
        claims.encode_to_vec(),
        request.encode_to_vec(),
        wide.encode_to_vec(),
        pack_request(&wide),
    ];
    harness::run("ticket", body::ticket, &seeds);
}
