#![no_main]
#[path = "../src/ticket.rs"]
mod ticket;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(ticket::ticket(data)));
