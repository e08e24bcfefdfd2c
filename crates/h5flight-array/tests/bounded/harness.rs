//! Runs a fuzz body a bounded number of times: on slices of real files, on seeds written by hand, on mutations of both
//! and on noise, while an allocator counts what the body takes.

#[path = "../oracle/seed.rs"]
mod seed;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// Memory that a body may take by byte of its input, besides what the input declares.
const FACTOR: u64 = 64;
/// And what it may take for any input.
const FLOOR_BYTES: u64 = 1 << 20;
/// Inputs without `H5FLIGHT_CASES`: all bodies together take some seconds.
const CASES: u32 = 6_000;
/// Longer seeds are tried as they are: mutations of them would take all the time there is.
const SEED_BYTES_MAX: usize = 8 << 10;
/// The longest slice of a real file.
const SLICE_BYTES_MAX: usize = 4096;

thread_local! {
    /// Bytes that this thread holds, and the most it has held since the last reset.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: i64) {
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: everything is passed on to `System` unchanged; counting allocates nothing, as the cells have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as above; `pointer` came from `System`, as all do.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes as i64 - layout.size() as i64);
        // SAFETY: as for `dealloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

/// The most bytes that `work` holds at once, beyond what was there before.
pub fn peak_bytes<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = LIVE.get();
    PEAK.set(before);
    let done = work();
    (done, (PEAK.get() - before).unsigned_abs())
}

/// xorshift64*: enough for tests, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// Runs `body` on seeds and what comes of them.
///
/// # Panics
/// Where the body does, after its input was printed, or where it takes too much memory.
pub fn run(what: &str, body: fn(&[u8]) -> u64, seeds: &[Vec<u8>]) {
    let mut random = Random(seed::seed(what) | 1);
    let files = corpus();
    for seed in seeds {
        check(what, body, seed);
    }
    let seeds: Vec<&Vec<u8>> = seeds.iter().filter(|seed| seed.len() <= SEED_BYTES_MAX).collect();
    for _ in 0..seed::cases(CASES) {
        let mut input = match random.below(4) {
            0 => random.bytes(600),
            1 if !files.is_empty() => slice(&mut random, &files),
            _ if !seeds.is_empty() => seeds[random.below(seeds.len())].clone(),
            _ => random.bytes(60),
        };
        for _ in 0..random.below(4) {
            mutate(&mut random, &mut input);
        }
        check(what, body, &input);
    }
}

/// Prints the input of a body that panics, as a test that could be written.
struct Told<'a>(&'a str, &'a [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.1.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} fails on these {} bytes: {hex}", self.0, self.1.len());
        }
    }
}

fn check(what: &str, body: fn(&[u8]) -> u64, input: &[u8]) {
    let _told = Told(what, input);
    let (declared, peak) = peak_bytes(|| body(input));
    let most = declared + FACTOR * input.len() as u64 + FLOOR_BYTES;
    assert!(peak <= most, "{peak} bytes of memory for an input of {}, the most is {most}", input.len());
}

fn slice(random: &mut Random, files: &[PathBuf]) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let Ok(file) = std::fs::File::open(&files[random.below(files.len())]) else { return Vec::new() };
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let mut slice = vec![0; 1 + random.below(SLICE_BYTES_MAX)];
    let read = file.read_at(&mut slice, random.next() % bytes.max(1)).unwrap_or(0);
    slice.truncate(read);
    // What stands before decides about pipelines, types and sizes: it is random, or all slices would be treated alike.
    let mut head = random.bytes(12);
    head.extend(slice);
    head
}

fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    let at = random.below(input.len() + 1);
    match random.below(7) {
        0 => input.truncate(at),
        1 => drop(input.splice(at..at, random.bytes(8))),
        2 => {
            let end = at + random.below(9).min(input.len() - at);
            drop(input.drain(at..end));
        }
        3 => {
            let end = at + random.below(40).min(input.len() - at);
            let copy = input[at..end].to_vec();
            drop(input.splice(at..at, copy));
        }
        _ if input.is_empty() => input.push(0),
        4 => {
            let at = at % input.len();
            input[at] ^= 1 << random.below(8);
        }
        5 => {
            let at = at % input.len();
            input[at] = [0, 1, 127, 128, 255, b'9', b'-', b'"'][random.below(8)];
        }
        _ => {
            let at = at % input.len();
            input[at] = random.next() as u8;
        }
    }
}

/// The files of the corpus; without one that is said, and the rest runs.
fn corpus() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let root = std::env::var_os("H5FLIGHT_CORPUS").map_or(beside, PathBuf::from);
    let mut files = Vec::new();
    walk(&root, &mut files);
    if files.is_empty() {
        eprintln!("NO CORPUS: set H5FLIGHT_CORPUS to a folder of HDF5 files; only seeds and noise are tried");
    }
    files.sort();
    files
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}
