//! Tickets. Stands alone: the tests of h5flight-proto include it by itself.

use h5flight_proto::ticket::{Ticket, open, seal};
use h5flight_proto::{pack_request, unpack_request};

const KEY: [u8; 32] = [9; 32];

/// Any bytes as a ticket, as the claims of a sealed one, and as a request: opened to what seals to the same, or refused.
pub fn ticket(data: &[u8]) -> u64 {
    let sealed = [&b"h5ft1"[..], blake3::keyed_hash(&KEY, data).as_bytes(), data].concat();
    for bytes in [data, &sealed] {
        match open(&KEY, bytes) {
            Ok(Ticket::Sealed(claims)) => {
                assert_eq!(open(&KEY, &seal(&KEY, &claims)), Ok(Ticket::Sealed(claims)));
            }
            Ok(Ticket::Request(request)) => {
                assert_eq!(unpack_request(&pack_request(&request)).as_ref(), Some(&request));
            }
            Err(_) => {}
        }
    }
    if let Ok(request) = <h5flight_proto::v1::GetDataRequest as prost::Message>::decode(data) {
        assert_eq!(open(&KEY, &pack_request(&request)), Ok(Ticket::Request(request)));
    }
    0
}
