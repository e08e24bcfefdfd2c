#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(h5flight_array_fuzz::expression_text(data)));
