//! What libhdf5 stores with its own filters, decoded by the server's codecs and by libhdf5 itself: random types, values,
//! scale factors, fill values and pipelines. Szip is not among them: this libhdf5 is built without it.

#[path = "decoders/stored.rs"]
mod stored;

use bytes::Bytes;
use h5flight_array::codec::{self, Pipeline};
use hdf5_sys::h5t::{H5T_ORDER_BE, H5T_ORDER_LE};

use stored::{Dataset, Stage, Type, write};

/// Cases of each kind.
const CASES: u64 = 400;

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// From `low` to `high`, neither left out.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.between(0, choices.len() as u64 - 1) as usize].clone()
    }

    fn order(&mut self) -> hdf5_sys::h5t::H5T_order_t {
        self.pick(&[H5T_ORDER_LE, H5T_ORDER_BE])
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// What else is in the pipeline of a dataset whose first filter is `first`.
    fn pipeline(&mut self, first: Stage) -> Vec<Stage> {
        let others = [Stage::Shuffle, Stage::Deflate(4), Stage::Fletcher32];
        std::iter::once(first).chain(others.into_iter().filter(|_| self.chance(30))).collect()
    }
}

/// Runs `make` on many seeds and compares what the codecs make of the chunks with what libhdf5 makes of them.
fn check(make: impl Fn(&mut Random) -> Dataset) {
    let first_seed = std::env::var("H5FLIGHT_SEED").ok().and_then(|seed| seed.parse().ok());
    let (first_seed, cases) = first_seed.map_or((now_ns(), CASES), |seed| (seed, 1));
    println!("seeds {first_seed} to {}; one alone: H5FLIGHT_SEED={first_seed}", first_seed.wrapping_add(cases - 1));
    let folder = tempfile::tempdir().unwrap();
    for seed in (0..cases).map(|at| first_seed.wrapping_add(at)) {
        let dataset = make(&mut Random(seed));
        let read = write(&folder.path().join("file.h5"), &dataset);
        let chunk_bytes = dataset.chunk_elements() * read.element_bytes;
        let told = || format!("seed {seed}, {dataset:?}, filters {:?}", read.filters);
        let pipeline = Pipeline::new(&read.filters, read.element_bytes as u64, chunk_bytes);
        let pipeline = pipeline.unwrap_or_else(|error| panic!("{}: {error}", told()));
        let mut scratch = codec::Scratch::default();
        for (at, (mask, stored)) in read.chunks.iter().enumerate() {
            let decoded = pipeline.decode(Bytes::copy_from_slice(stored), *mask, &mut scratch);
            let decoded = decoded.unwrap_or_else(|error| panic!("{}: chunk {at}: {error}", told()));
            let expected = &read.values[at * chunk_bytes..read.values.len().min((at + 1) * chunk_bytes)];
            let differs = decoded.iter().zip(expected).position(|(ours, theirs)| ours != theirs);
            assert_eq!(differs, None, "{}: chunk {at} differs at this byte", told());
        }
    }
}

fn now_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Any number of up to 16 bytes, with insignificant bits around it.
fn odd_number(random: &mut Random) -> Type {
    let bytes = random.pick(&[1usize, 2, 2, 3, 4, 4, 5, 8, 8, 10, 16]);
    let bits = bytes as u64 * 8;
    let (precision, offset) = match random.chance(20) {
        true => (bits, 0),
        false => {
            let precision = random.between(1, bits);
            (precision, random.between(0, bits - precision))
        }
    };
    Type::Integer { bytes, order: random.order(), precision: precision as usize, offset: offset as usize }
}

/// Numbers, and types made of them and of what n-bit leaves alone.
fn any_type(random: &mut Random, depth: u64) -> Type {
    match random.between(0, if depth == 0 { 3 } else { 7 }) {
        0 | 1 => odd_number(random),
        2 => Type::Float { order: random.order() },
        3 => random.pick(&[Type::Opaque(3), Type::Text(5), Type::PlainFloat { bytes: 8, order: H5T_ORDER_BE }]),
        4 | 5 => {
            let members = (0..random.between(1, 4)).map(|_| (random.between(0, 5), any_type(random, depth - 1)));
            Type::Compound(members.map(|(gap, member)| (gap as usize, member)).collect())
        }
        _ => Type::Array(random.between(1, 5), Box::new(any_type(random, depth - 1))),
    }
}

#[test]
fn nbit_is_decoded_as_libhdf5_does() {
    check(|random| {
        let element = if random.chance(40) { odd_number(random) } else { any_type(random, 2) };
        let chunk = [random.between(1, 40), random.between(1, 9)];
        let rows = random.between(1, 3 * chunk[0]);
        let values = random.bytes((rows * chunk[1]) as usize * element.bytes());
        Dataset { element, chunk, rows, values, fill_value: None, stages: random.pipeline(Stage::NBit) }
    });
}

#[test]
fn scaled_and_offset_integers_are_decoded_as_libhdf5_does() {
    check(|random| {
        let bytes = random.pick(&[1usize, 2, 4, 8]);
        let (order, signed) = (random.order(), random.chance(50));
        let chunk = [random.between(1, 40), random.between(1, 9)];
        let rows = random.between(1, 3 * chunk[0]);
        let (start, bits) = (random.next(), random.between(0, bytes as u64 * 8));
        let spread = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        let fill_value = random.next();
        let fills = random.between(0, 1) * random.between(0, 100);
        let number = |random: &mut Random| match random.chance(fills) {
            true => fill_value,
            false => start.wrapping_add(random.next() & spread),
        };
        let numbers: Vec<u64> = (0..rows * chunk[1]).map(|_| number(random)).collect();
        let element = Type::Plain { bytes, order, signed };
        // Automatic, or so many bits, be they enough or not.
        let factor = if random.chance(60) { 0 } else { random.between(1, bytes as u64 * 8) as i32 };
        Dataset {
            values: numbers.iter().flat_map(|number| element.stored(*number)).collect(),
            fill_value: random.chance(70).then(|| element.stored(fill_value)),
            stages: random.pipeline(Stage::ScaleInteger(factor)),
            element,
            chunk,
            rows,
        }
    });
}

#[test]
fn scaled_and_offset_floats_are_decoded_as_libhdf5_does() {
    check(|random| {
        let element = Type::PlainFloat { bytes: random.pick(&[4usize, 8]), order: random.order() };
        let chunk = [random.between(1, 40), random.between(1, 9)];
        let rows = random.between(1, 3 * chunk[0]);
        let factor = random.between(0, 6) as i32;
        let (low, span) = (random.between(0, 2_000_000) as f64 - 1e6, 10f64.powi(random.between(0, 12) as i32 - 4));
        let fill_value = low + random.between(0, 3) as f64;
        let fills = random.between(0, 1) * random.between(0, 100);
        let number = |random: &mut Random| match random.chance(fills) {
            true => fill_value,
            false => low + span * (random.next() as f64 / u64::MAX as f64),
        };
        let numbers: Vec<f64> = (0..rows * chunk[1]).map(|_| number(random)).collect();
        Dataset {
            values: numbers.iter().flat_map(|number| element.stored_float(*number)).collect(),
            fill_value: random.chance(70).then(|| element.stored_float(fill_value)),
            stages: random.pipeline(Stage::ScaleFloat(factor)),
            element,
            chunk,
            rows,
        }
    });
}
