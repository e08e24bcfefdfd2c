//! Tickets: opaque to clients, stateless for the server, authenticated, bound to a principal, expiring.
//!
//! Form: [`MAGIC`], 32 bytes of MAC (keyed blake3 over the claims), the claims ([`TicketClaims`]). A ticket that a client made itself is a
//! `GetDataRequest` in an `Any` and is worth no more than the principal who sends it.

use prost::Message;

use crate::v1::{GetDataRequest, TicketClaims};

const MAGIC: &[u8; 5] = b"h5ft1";
const MAC_BYTES: usize = 32;
/// Longer tickets are refused unread. A selection of 1,000,000 listed indices is about 5 MB.
pub const TICKET_BYTES_MAX: usize = 16 << 20;

/// What a ticket turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Ticket {
    /// Made by a server of this catalogue: the MAC is right.
    Sealed(TicketClaims),
    /// Made by the client.
    Request(GetDataRequest),
}

/// Why a ticket is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Neither form.
    #[error("the ticket is damaged or was not made by this server")]
    Damaged,
    /// Longer than [`TICKET_BYTES_MAX`].
    #[error("the ticket has more than {TICKET_BYTES_MAX} bytes")]
    TooLong,
}

/// Seals claims with the catalogue's ticket key.
pub fn seal(key: &[u8; 32], claims: &TicketClaims) -> Vec<u8> {
    let claims = claims.encode_to_vec();
    let mut ticket = Vec::with_capacity(MAGIC.len() + MAC_BYTES + claims.len());
    ticket.extend_from_slice(MAGIC);
    ticket.extend_from_slice(blake3::keyed_hash(key, &claims).as_bytes());
    ticket.extend_from_slice(&claims);
    ticket
}

/// Opens either form. Expiry and principal are the caller's to check: it has the clock and the principal.
///
/// # Errors
/// [`TicketError`]; the comparison of the MAC takes constant time.
pub fn open(key: &[u8; 32], ticket: &[u8]) -> Result<Ticket, TicketError> {
    if ticket.len() > TICKET_BYTES_MAX {
        return Err(TicketError::TooLong);
    }
    let Some(sealed) = ticket.strip_prefix(MAGIC) else {
        return crate::unpack_request(ticket).map(Ticket::Request).ok_or(TicketError::Damaged);
    };
    let (mac, claims) = sealed.split_first_chunk::<MAC_BYTES>().ok_or(TicketError::Damaged)?;
    if blake3::keyed_hash(key, claims) != blake3::Hash::from_bytes(*mac) {
        return Err(TicketError::Damaged);
    }
    TicketClaims::decode(claims).map(Ticket::Sealed).map_err(|_| TicketError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> TicketClaims {
        let request = GetDataRequest { animal: "m1".into(), ..Default::default() };
        TicketClaims { version_id: 7, request: Some(request), principal_id: 3, expires_s: 1_800_000_000 }
    }

    #[test]
    fn a_sealed_ticket_opens_with_its_key_only() {
        let ticket = seal(&[1; 32], &claims());
        assert_eq!(open(&[1; 32], &ticket), Ok(Ticket::Sealed(claims())));
        assert_eq!(open(&[2; 32], &ticket), Err(TicketError::Damaged));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let ticket = seal(&[1; 32], &claims());
        for bit in 0..ticket.len() * 8 {
            let mut forged = ticket.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&[1; 32], &forged), Err(TicketError::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_request_is_a_ticket_and_garbage_is_not() {
        let request = claims().request.unwrap();
        assert_eq!(open(&[1; 32], &crate::pack_request(&request)), Ok(Ticket::Request(request)));
        assert_eq!(open(&[1; 32], b""), Err(TicketError::Damaged));
        assert_eq!(open(&[1; 32], b"h5ft1"), Err(TicketError::Damaged));
        assert_eq!(open(&[1; 32], &vec![0; TICKET_BYTES_MAX + 1]), Err(TicketError::TooLong));
    }
}
