//! One seed for a run, printed at its start and given by `H5FLIGHT_SEED` to repeat it. `H5FLIGHT_CASES` makes it longer.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of a run: the given one, else a new one.
pub fn seed(what: &str) -> u64 {
    let given = std::env::var("H5FLIGHT_SEED").ok().map(|seed| seed.parse().expect("H5FLIGHT_SEED is a number"));
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let seed: u64 = given.unwrap_or_else(clock);
    println!("{what}: H5FLIGHT_SEED={seed}");
    seed
}

/// Cases of a run.
pub fn cases(otherwise: u32) -> u32 {
    std::env::var("H5FLIGHT_CASES").map_or(otherwise, |cases| cases.parse().expect("H5FLIGHT_CASES is a number"))
}
