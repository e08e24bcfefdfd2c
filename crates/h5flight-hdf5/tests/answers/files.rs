//! Small files made with libhdf5, and what the worker says about them.
//!
//! What the safe binding cannot write (odd types, raw chunks, references) is written with direct calls. They return
//! negative numbers on failure, and every one is asserted; nothing here meets data from outside.

use std::ffi::{CString, c_void};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use h5flight_array::Reason;
use h5flight_array::index::ChunkRun;
use h5flight_array::inspect::{FileFacts, Frame, Hyperslab, InspectLimits, Link, Message, Object, Request};
use h5flight_array::meta::ArrayMeta;
use h5flight_hdf5::answer;
use hdf5_sys::h5d::{H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS, H5Dclose, H5Dcreate2, H5Dwrite, H5Dwrite_chunk};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::*;
use hdf5_sys::h5r::{H5R_OBJECT1, H5Rcreate};
use hdf5_sys::h5s::{H5S_ALL, H5S_NULL, H5S_SELECT_SET, H5Screate, H5Screate_simple, H5Sselect_hyperslab};
use hdf5_sys::h5t::*;
use hdf5_sys::h5z::H5Z_FLAG_OPTIONAL;

/// A file of its own folder, which goes away with it.
pub(crate) struct Scratch {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

/// One object with what followed it.
pub(crate) struct SeenObject {
    pub(crate) object: Object,
    pub(crate) runs: Vec<ChunkRun>,
    pub(crate) inline: Option<Vec<u8>>,
}

/// All frames of an inspection.
pub(crate) struct Seen {
    pub(crate) facts: FileFacts,
    pub(crate) objects: Vec<SeenObject>,
    pub(crate) links: Vec<Link>,
    pub(crate) last: Message,
}

impl Seen {
    pub(crate) fn object(&self, path: &str) -> &SeenObject {
        let found = self.objects.iter().find(|seen| seen.object.path == path);
        found.unwrap_or_else(|| panic!("no object {path}, the end was {:?}", self.last))
    }

    pub(crate) fn array(&self, path: &str) -> &ArrayMeta {
        let object = &self.object(path).object;
        assert_eq!(object.problem, None, "{path}");
        object.array.as_ref().expect("a dataset has an array")
    }
}

impl Scratch {
    pub(crate) fn new(fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>) -> Self {
        Self::made(|path| hdf5::File::create(path), fill)
    }

    pub(crate) fn with_user_block(bytes: u64, fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>) -> Self {
        Self::made(|path| hdf5::File::with_options().with_fcpl(|create| create.userblock(bytes)).create(path), fill)
    }

    /// With the newest file format.
    pub(crate) fn latest(fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>) -> Self {
        Self::made(|path| hdf5::File::with_options().with_fapl(|access| access.libver_latest()).create(path), fill)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let scratch = Self::empty();
        std::fs::write(&scratch.path, bytes).unwrap();
        scratch
    }

    fn made(
        create: impl FnOnce(&Path) -> hdf5::Result<hdf5::File>,
        fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>,
    ) -> Self {
        let scratch = Self::empty();
        let file = create(&scratch.path).unwrap();
        fill(&file).unwrap();
        file.close().unwrap();
        scratch
    }

    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.h5");
        Self { _folder: folder, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    pub(crate) fn bytes_with(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = self.bytes();
        change(&mut bytes);
        bytes
    }

    pub(crate) fn inspect(&self) -> Seen {
        self.inspect_within(InspectLimits::default())
    }

    pub(crate) fn inspect_within(&self, limits: InspectLimits) -> Seen {
        let file_bytes = std::fs::metadata(&self.path).unwrap().len();
        self.seen(&Request::Inspect { limits, inline: true, file_bytes, memory_bytes_max: u64::MAX })
    }

    pub(crate) fn inspect_without_inline(&self) -> Seen {
        let file_bytes = std::fs::metadata(&self.path).unwrap().len();
        let limits = InspectLimits::default();
        self.seen(&Request::Inspect { limits, inline: false, file_bytes, memory_bytes_max: u64::MAX })
    }

    pub(crate) fn inspect_as_of(&self, file_bytes: u64) -> Seen {
        let limits = InspectLimits::default();
        self.seen(&Request::Inspect { limits, inline: true, file_bytes, memory_bytes_max: u64::MAX })
    }

    pub(crate) fn inspect_opened(&self, file: &File) -> Seen {
        let (limits, file_bytes) = (InspectLimits::default(), file.metadata().unwrap().len());
        seen(frames(file, &Request::Inspect { limits, inline: true, file_bytes, memory_bytes_max: u64::MAX }))
    }

    fn seen(&self, request: &Request) -> Seen {
        seen(self.frames(request))
    }

    pub(crate) fn read(&self, seen: &Seen, path: &str, blocks: &[Hyperslab]) -> Result<Vec<Vec<u8>>, (Reason, String)> {
        self.read_as(path, seen.array(path), blocks)
    }

    pub(crate) fn read_as(
        &self,
        path: &str,
        meta: &ArrayMeta,
        blocks: &[Hyperslab],
    ) -> Result<Vec<Vec<u8>>, (Reason, String)> {
        let (path, meta) = (path.to_owned(), Box::new(meta.clone()));
        let request = Request::Read { path, meta, blocks: blocks.to_vec(), memory_bytes_max: u64::MAX };
        let mut frames = self.frames(&request);
        if let Message::Failed { reason, message } = frames.pop().expect("the last frame").message {
            return Err((reason, message));
        }
        for (at, frame) in frames.iter().enumerate() {
            assert_eq!(frame.message, Message::Block { at: at as u32 });
        }
        Ok(frames.into_iter().map(|frame| frame.data.to_vec()).collect())
    }

    fn frames(&self, request: &Request) -> Vec<Frame> {
        frames(&File::open(&self.path).unwrap(), request)
    }
}

fn frames(file: &File, request: &Request) -> Vec<Frame> {
    let mut wire = Vec::new();
    answer(request, file.as_fd(), &mut std::io::empty(), &mut wire).unwrap();
    let mut rest = wire.as_slice();
    std::iter::from_fn(|| Frame::read_from(&mut rest).unwrap()).collect()
}

fn seen(mut frames: Vec<Frame>) -> Seen {
    let mut seen = Seen { facts: FileFacts::default(), objects: Vec::new(), links: Vec::new(), last: Message::Done };
    seen.last = frames.pop().expect("the last frame").message;
    for Frame { message, data } in frames {
        match message {
            Message::File(facts) => seen.facts = facts,
            Message::Link(link) => seen.links.push(link),
            Message::Object(object) => {
                seen.objects.push(SeenObject { object: *object, runs: Vec::new(), inline: None });
            }
            Message::Run { first_number, last_number, pointers } => {
                let run = ChunkRun { first_number, last_number, pointers, packed: data.to_vec() };
                seen.objects.last_mut().expect("an object before").runs.push(run);
            }
            Message::Inline => seen.objects.last_mut().expect("an object before").inline = Some(data.to_vec()),
            other => panic!("an inspection does not say {other:?}"),
        }
    }
    seen
}

/// An identifier or status that must not be an error.
fn good<T: Copy + PartialOrd + From<i32> + std::fmt::Debug>(answer: T) -> T {
    assert!(answer >= T::from(0), "libhdf5 answers {answer:?}");
    answer
}

fn name(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

/// Creates a one-dimensional dataset with these properties.
fn create(file: &hdf5::File, path: &str, kind: hid_t, (length, properties): (u64, hid_t)) -> hid_t {
    // SAFETY: all identifiers are alive, and pointers are only used during the calls.
    unsafe {
        let space = good(H5Screate_simple(1, &raw const length, std::ptr::null()));
        good(H5Dcreate2(file.id(), name(path).as_ptr(), kind, space, H5P_DEFAULT, properties, H5P_DEFAULT))
    }
}

/// A dataset of this type with these bytes, in the file's own form.
pub(crate) fn dataset(file: &hdf5::File, path: &str, kind: hid_t, bytes: &[u8]) {
    // SAFETY: the type is alive.
    let size = unsafe { H5Tget_size(kind) };
    let dataset = create(file, path, kind, ((bytes.len() / size) as u64, H5P_DEFAULT));
    // SAFETY: as many elements are written as there are bytes for.
    unsafe {
        good(H5Dwrite(dataset, kind, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.as_ptr().cast::<c_void>()));
        good(H5Dclose(dataset));
    }
}

pub(crate) fn string_of(bytes: usize, padding: H5T_str_t) -> hid_t {
    // SAFETY: no pointers are passed.
    unsafe {
        let kind = good(H5Tcopy(*H5T_C_S1));
        good(H5Tset_size(kind, bytes));
        good(H5Tset_strpad(kind, padding));
        kind
    }
}

/// IEEE binary16, which the binding does not name.
pub(crate) fn half() -> hid_t {
    unsafe extern "C" {
        static H5T_IEEE_F16LE_g: hid_t;
    }
    // SAFETY: libhdf5 sets it when it is initialised, which creating a file has done.
    unsafe { H5T_IEEE_F16LE_g }
}

pub(crate) fn integer_of(bytes: usize, bits: usize, order: H5T_order_t) -> hid_t {
    // SAFETY: no pointers are passed.
    unsafe {
        let kind = good(H5Tcopy(*H5T_STD_I32LE));
        good(H5Tset_precision(kind, bits));
        good(H5Tset_size(kind, bytes));
        good(H5Tset_order(kind, order));
        kind
    }
}

/// A little-endian float with its sign in the highest bit.
pub(crate) fn float_of(bytes: usize, (exponent_bits, mantissa_bits, bias): (usize, usize, usize)) -> hid_t {
    // SAFETY: no pointers are passed.
    unsafe {
        let kind = good(H5Tcopy(*H5T_IEEE_F32LE));
        let sign_at = exponent_bits + mantissa_bits;
        good(H5Tset_fields(kind, sign_at, mantissa_bits, exponent_bits, 0, mantissa_bits));
        good(H5Tset_precision(kind, bytes * 8));
        good(H5Tset_ebias(kind, bias));
        good(H5Tset_size(kind, bytes));
        kind
    }
}

/// A long double of this machine, 16 bytes.
pub(crate) fn long_double(file: &hdf5::File, path: &str, value: f64) {
    let dataset = create(file, path, *H5T_NATIVE_LDOUBLE, (1, H5P_DEFAULT));
    // SAFETY: one double is read.
    unsafe {
        let from = (&raw const value).cast::<c_void>();
        good(H5Dwrite(dataset, *H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, from));
        good(H5Dclose(dataset));
    }
}

/// A complex number as h5py writes it.
pub(crate) fn complex(file: &hdf5::File, path: &str, parts: [f64; 2]) {
    // SAFETY: the names are NUL-terminated and copied.
    let kind = unsafe {
        let kind = good(H5Tcreate(H5T_COMPOUND, 16));
        good(H5Tinsert(kind, c"r".as_ptr(), 0, *H5T_IEEE_F64LE));
        good(H5Tinsert(kind, c"i".as_ptr(), 8, *H5T_IEEE_F64LE));
        kind
    };
    dataset(file, path, kind, &parts.map(f64::to_le_bytes).concat());
}

/// A complex number of HDF5 2.0.
pub(crate) fn native_complex(file: &hdf5::File, path: &str, parts: [f64; 2]) {
    dataset(file, path, *H5T_COMPLEX_IEEE_F64LE, &parts.map(f64::to_le_bytes).concat());
}

/// References to these objects; the empty path is a null reference.
pub(crate) fn object_references(file: &hdf5::File, path: &str, targets: &[&str]) {
    let mut references = vec![[0u8; 8]; targets.len()];
    for (reference, target) in references.iter_mut().zip(targets).filter(|(_, target)| !target.is_empty()) {
        let to = reference.as_mut_ptr().cast::<c_void>();
        // SAFETY: an object reference has 8 bytes.
        good(unsafe { H5Rcreate(to, file.id(), name(target).as_ptr(), H5R_OBJECT1, -1) });
    }
    dataset(file, path, *H5T_STD_REF_OBJ, &references.concat());
}

pub(crate) fn null_dataset(file: &hdf5::File, path: &str) {
    // SAFETY: all identifiers are alive, and the name is only used during the call.
    unsafe {
        let space = good(H5Screate(H5S_NULL));
        let kind = *H5T_STD_I32LE;
        good(H5Dclose(good(H5Dcreate2(
            file.id(),
            name(path).as_ptr(),
            kind,
            space,
            H5P_DEFAULT,
            H5P_DEFAULT,
            H5P_DEFAULT,
        ))));
    }
}

fn creation_properties() -> hid_t {
    // SAFETY: the class is one of libhdf5's own.
    good(unsafe { H5Pcreate(*H5P_CLS_DATASET_CREATE) })
}

/// Four bytes that lie in another file.
pub(crate) fn external(file: &hdf5::File, path: &str, other: &str) {
    let properties = creation_properties();
    // SAFETY: the name is copied.
    good(unsafe { H5Pset_external(properties, name(other).as_ptr(), 0, 4) });
    // SAFETY: the dataset was just created.
    good(unsafe { H5Dclose(create(file, path, *H5T_STD_U8LE, (4, properties))) });
}

/// Four bytes that lie in a dataset of another file.
pub(crate) fn virtual_dataset(file: &hdf5::File, path: &str) {
    let (properties, length) = (creation_properties(), 4);
    // SAFETY: the names are copied, the spaces alive.
    unsafe {
        let space = good(H5Screate_simple(1, &raw const length, std::ptr::null()));
        good(H5Pset_virtual(properties, space, c"other.h5".as_ptr(), c"/x".as_ptr(), space));
        good(H5Dclose(create(file, path, *H5T_STD_U8LE, (4, properties))));
    }
}

/// A part of a virtual dataset and the source of which it is the first elements.
pub(crate) struct Mapping {
    pub(crate) file: &'static str,
    pub(crate) source: &'static str,
    /// Start, stride, count, block.
    pub(crate) slab: (u64, u64, u64, u64),
}

/// Bytes that lie in other datasets of six bytes.
pub(crate) fn virtual_of(file: &hdf5::File, path: &str, length: u64, mappings: &[Mapping]) {
    let (properties, six) = (creation_properties(), 6);
    for Mapping { file, source, slab: (start, stride, count, block) } in mappings {
        let (zero, elements) = (0, count * block);
        // SAFETY: the names are copied, the spaces alive, and each has one axis.
        unsafe {
            let to = good(H5Screate_simple(1, &raw const length, std::ptr::null()));
            good(H5Sselect_hyperslab(to, H5S_SELECT_SET, start, stride, count, block));
            let from = good(H5Screate_simple(1, &raw const six, std::ptr::null()));
            let (start, count) = (&raw const zero, &raw const elements);
            good(H5Sselect_hyperslab(from, H5S_SELECT_SET, start, std::ptr::null(), count, std::ptr::null()));
            good(H5Pset_virtual(properties, to, name(file).as_ptr(), name(source).as_ptr(), from));
        }
    }
    // SAFETY: the dataset was just created.
    good(unsafe { H5Dclose(create(file, path, *H5T_STD_U8LE, (length, properties))) });
}

/// Four 32-bit integers in one chunk, whose stored bytes and filter are as given.
pub(crate) fn with_raw_chunk(file: &hdf5::File, path: &str, filter: u32, params: &[u32], stored: &[u8]) {
    let (properties, chunk, origin) = (creation_properties(), 4, 0);
    // SAFETY: as many parameters and bytes are read as there are.
    unsafe {
        good(H5Pset_chunk(properties, 1, &raw const chunk));
        good(H5Pset_filter(properties, filter as i32, H5Z_FLAG_OPTIONAL, params.len(), params.as_ptr()));
        let dataset = create(file, path, *H5T_STD_I32LE, (4, properties));
        let from = stored.as_ptr().cast::<c_void>();
        good(H5Dwrite_chunk(dataset, H5P_DEFAULT, 0, &raw const origin, stored.len(), from));
        good(H5Dclose(dataset));
    }
}

/// 150 integers in chunks of 100, deflated but for the one over the edge.
pub(crate) fn unfiltered_edge(file: &hdf5::File, path: &str) {
    let (properties, chunk, values) = (creation_properties(), 100, [7i32; 150]);
    // SAFETY: as many elements are written as there are.
    unsafe {
        good(H5Pset_chunk(properties, 1, &raw const chunk));
        good(H5Pset_chunk_opts(properties, H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS));
        good(H5Pset_deflate(properties, 4));
        let dataset = create(file, path, *H5T_STD_I32LE, (150, properties));
        good(H5Dwrite(dataset, *H5T_STD_I32LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.as_ptr().cast::<c_void>()));
        good(H5Dclose(dataset));
    }
}
