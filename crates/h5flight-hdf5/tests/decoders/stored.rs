//! Datasets as libhdf5 stores them: written, and read back both as it gives them and chunk by chunk undecoded.
//!
//! Every call's answer is asserted not to be an error; nothing here meets data from outside.

use std::ffi::{c_char, c_void};
use std::path::Path;

use h5flight_array::meta::Filter;
use hdf5_sys::h5d::*;
use hdf5_sys::h5e::{H5E_DEFAULT, H5Eprint2};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::*;
use hdf5_sys::h5s::{H5S_ALL, H5S_UNLIMITED, H5Sclose, H5Screate_simple};
use hdf5_sys::h5t::*;
use hdf5_sys::h5z::{H5Z_SO_FLOAT_DSCALE, H5Z_SO_INT};

/// A dataset to be written: rows of chunks, each as wide as the dataset.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub(crate) element: Type,
    pub(crate) chunk: [u64; 2],
    pub(crate) rows: u64,
    /// In the file's own form.
    pub(crate) values: Vec<u8>,
    pub(crate) fill_value: Option<Vec<u8>>,
    pub(crate) stages: Vec<Stage>,
}

impl Dataset {
    pub(crate) fn chunk_elements(&self) -> usize {
        (self.chunk[0] * self.chunk[1]) as usize
    }
}

/// Parameters of one filter: libhdf5 refuses to be asked for more.
const PARAMS_MAX: usize = 256;

/// A filter as its writer asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    NBit,
    ScaleInteger(i32),
    ScaleFloat(i32),
    Shuffle,
    Deflate(u32),
    Fletcher32,
}

#[derive(Clone, Debug)]
pub(crate) enum Type {
    Plain {
        bytes: usize,
        order: H5T_order_t,
        signed: bool,
    },
    PlainFloat {
        bytes: usize,
        order: H5T_order_t,
    },
    Integer {
        bytes: usize,
        order: H5T_order_t,
        precision: usize,
        offset: usize,
    },
    /// Of 20 bits in 4 bytes, from bit 7 on.
    Float {
        order: H5T_order_t,
    },
    Opaque(usize),
    Text(usize),
    Array(u64, Box<Type>),
    /// Members, each with the bytes that are free before it.
    Compound(Vec<(usize, Type)>),
}

impl Type {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Plain { bytes, .. } | Self::PlainFloat { bytes, .. } | Self::Integer { bytes, .. } => *bytes,
            Self::Float { .. } => 4,
            Self::Opaque(bytes) | Self::Text(bytes) => *bytes,
            Self::Array(count, item) => *count as usize * item.bytes(),
            Self::Compound(members) => members.iter().map(|(gap, member)| gap + member.bytes()).sum(),
        }
    }

    /// The lowest bytes of this number, as the file has them.
    pub(crate) fn stored(&self, number: u64) -> Vec<u8> {
        let bytes = number.to_le_bytes()[..self.bytes()].to_vec();
        match self {
            Self::Plain { order: H5T_ORDER_BE, .. } | Self::PlainFloat { order: H5T_ORDER_BE, .. } => {
                bytes.into_iter().rev().collect()
            }
            _ => bytes,
        }
    }

    pub(crate) fn stored_float(&self, number: f64) -> Vec<u8> {
        match self.bytes() {
            4 => self.stored((number as f32).to_bits().into()),
            _ => self.stored(number.to_bits()),
        }
    }

    /// The type as libhdf5 has it; never closed, as a test ends soon.
    fn make(&self) -> hid_t {
        match self {
            Self::Plain { bytes, order, signed } => {
                let sign = if *signed { H5T_SGN_2 } else { H5T_SGN_NONE };
                let kind = integer(*bytes, *order, (*bytes * 8, 0));
                // SAFETY: the type was just made.
                good(unsafe { H5Tset_sign(kind, sign) });
                kind
            }
            Self::PlainFloat { bytes, order } => {
                let kind = copy(if *bytes == 4 { *H5T_IEEE_F32LE } else { *H5T_IEEE_F64LE });
                // SAFETY: the type was just made.
                good(unsafe { H5Tset_order(kind, *order) });
                kind
            }
            Self::Integer { bytes, order, precision, offset } => integer(*bytes, *order, (*precision, *offset)),
            Self::Float { order } => small_float(*order),
            Self::Opaque(bytes) => create(H5T_OPAQUE, *bytes),
            Self::Text(bytes) => {
                let kind = copy(*H5T_C_S1);
                // SAFETY: the type was just made.
                good(unsafe { H5Tset_size(kind, *bytes) });
                kind
            }
            // SAFETY: one size is read, as the rank says.
            Self::Array(count, item) => good(unsafe { H5Tarray_create2(item.make(), 1, count) }),
            Self::Compound(members) => {
                let (kind, mut at) = (create(H5T_COMPOUND, self.bytes()), 0);
                for (number, (gap, member)) in members.iter().enumerate() {
                    at += gap;
                    let name = std::ffi::CString::new(format!("m{number}")).expect("no NUL");
                    // SAFETY: both types are alive, and the name is copied.
                    good(unsafe { H5Tinsert(kind, name.as_ptr(), at, member.make()) });
                    at += member.bytes();
                }
                kind
            }
        }
    }
}

fn copy(kind: hid_t) -> hid_t {
    // SAFETY: the type is one of libhdf5's own.
    good(unsafe { H5Tcopy(kind) })
}

fn create(class: H5T_class_t, bytes: usize) -> hid_t {
    // SAFETY: only numbers are passed.
    good(unsafe { H5Tcreate(class, bytes) })
}

fn integer(bytes: usize, order: H5T_order_t, (precision, offset): (usize, usize)) -> hid_t {
    let kind = copy(*H5T_STD_U64LE);
    // SAFETY: the type was just made, and only numbers are passed besides. It is made large enough before it is made to fit.
    unsafe {
        good(H5Tset_size(kind, bytes.max(8)));
        good(H5Tset_offset(kind, 0));
        good(H5Tset_precision(kind, precision));
        good(H5Tset_size(kind, bytes));
        good(H5Tset_offset(kind, offset));
        good(H5Tset_order(kind, order));
    }
    kind
}

fn small_float(order: H5T_order_t) -> hid_t {
    let kind = copy(*H5T_IEEE_F32LE);
    // SAFETY: the type was just made, and only numbers are passed besides.
    unsafe {
        good(H5Tset_fields(kind, 26, 20, 6, 7, 13));
        good(H5Tset_offset(kind, 7));
        good(H5Tset_precision(kind, 20));
        good(H5Tset_size(kind, 4));
        good(H5Tset_order(kind, order));
    }
    kind
}

/// What libhdf5 reads from a dataset.
pub(crate) struct Read {
    pub(crate) element_bytes: usize,
    /// The pipeline, with the parameters that libhdf5 worked out.
    pub(crate) filters: Vec<Filter>,
    /// All elements, in the file's own form.
    pub(crate) values: Vec<u8>,
    /// Mask and stored bytes of each chunk.
    pub(crate) chunks: Vec<(u32, Vec<u8>)>,
}

/// Writes the dataset to a new file, closes that, and reads what is in it.
pub(crate) fn write(path: &Path, dataset: &Dataset) -> Read {
    let file = hdf5::File::create(path).unwrap();
    hdf5::sync::sync(|| write_to(&file, dataset));
    file.close().unwrap();
    let file = hdf5::File::open(path).unwrap();
    hdf5::sync::sync(|| read_from(&file, dataset))
}

fn write_to(file: &hdf5::File, dataset: &Dataset) {
    let kind = dataset.element.make();
    // SAFETY: the type is alive.
    assert_eq!(unsafe { H5Tget_size(kind) }, dataset.element.bytes());
    // Chunks may be larger than what can grow.
    let (shape, max_shape) = ([dataset.rows, dataset.chunk[1]], [H5S_UNLIMITED, dataset.chunk[1]]);
    // SAFETY: all identifiers are alive, pointers are only used during the calls, and the buffers have the sizes of the
    // shape, the chunk, and the elements.
    unsafe {
        let properties = good(H5Pcreate(*H5P_CLS_DATASET_CREATE));
        good(H5Pset_chunk(properties, 2, dataset.chunk.as_ptr()));
        if let Some(value) = &dataset.fill_value {
            good(H5Pset_fill_value(properties, kind, value.as_ptr().cast::<c_void>()));
        }
        for stage in &dataset.stages {
            good(match *stage {
                Stage::NBit => H5Pset_nbit(properties),
                Stage::ScaleInteger(factor) => H5Pset_scaleoffset(properties, H5Z_SO_INT, factor),
                Stage::ScaleFloat(factor) => H5Pset_scaleoffset(properties, H5Z_SO_FLOAT_DSCALE, factor),
                Stage::Shuffle => H5Pset_shuffle(properties),
                Stage::Deflate(level) => H5Pset_deflate(properties, level),
                Stage::Fletcher32 => H5Pset_fletcher32(properties),
            });
        }
        let space = good(H5Screate_simple(2, shape.as_ptr(), max_shape.as_ptr()));
        let name = c"data".as_ptr();
        let id = good(H5Dcreate2(file.id(), name, kind, space, H5P_DEFAULT, properties, H5P_DEFAULT));
        let values = dataset.values.as_ptr().cast::<c_void>();
        good(H5Dwrite(id, kind, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
        good(H5Dclose(id));
        good(H5Sclose(space));
        good(H5Pclose(properties));
    }
}

fn read_from(file: &hdf5::File, dataset: &Dataset) -> Read {
    // SAFETY: the name is NUL-terminated, and every buffer is as large as the call is told.
    unsafe {
        let id = good(H5Dopen2(file.id(), c"data".as_ptr(), H5P_DEFAULT));
        let kind = good(H5Dget_type(id));
        let mut values = vec![0; dataset.values.len()];
        good(H5Dread(id, kind, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.as_mut_ptr().cast::<c_void>()));
        let chunks = (0..dataset.rows).step_by(dataset.chunk[0] as usize).map(|row| chunk(id, [row, 0])).collect();
        let properties = good(H5Dget_create_plist(id));
        let filters = (0..dataset.stages.len()).map(|at| filter(properties, at as u32)).collect();
        let read = Read { element_bytes: H5Tget_size(kind), filters, values, chunks };
        good(H5Pclose(properties));
        good(H5Dclose(id));
        read
    }
}

/// Mask and stored bytes of the chunk at an origin.
fn chunk(dataset: hid_t, origin: [u64; 2]) -> (u32, Vec<u8>) {
    let (mut mask, mut address, mut bytes) = (0, 0, 0);
    // SAFETY: an origin has as many coordinates as the dataset axes, and the numbers live during the call.
    good(unsafe {
        H5Dget_chunk_info_by_coord(dataset, origin.as_ptr(), &raw mut mask, &raw mut address, &raw mut bytes)
    });
    let mut stored = vec![0u8; bytes as usize];
    let (to, mut room) = (stored.as_mut_ptr().cast::<c_void>(), stored.len());
    // SAFETY: the buffer has as much room as is said.
    good(unsafe { H5Dread_chunk(dataset, H5P_DEFAULT, origin.as_ptr(), &raw mut mask, to, &raw mut room) });
    (mask, stored)
}

fn filter(properties: hid_t, at: u32) -> Filter {
    let (mut params, mut flags, mut config) = (vec![0; PARAMS_MAX], 0, 0);
    let mut count = params.len();
    // SAFETY: at most as many parameters are written as there is room for, and no name.
    let id = unsafe {
        let name = std::ptr::null_mut::<c_char>();
        let params = params.as_mut_ptr();
        H5Pget_filter2(properties, at, &raw mut flags, &raw mut count, params, 0, name, &raw mut config)
    };
    params.truncate(count);
    Filter { id: good(id) as u32, name: String::new(), params }
}

fn good<T: Copy + PartialOrd + From<i32> + std::fmt::Debug>(answer: T) -> T {
    if answer < T::from(0) {
        // SAFETY: the stack is this thread's own, and null stands for standard error.
        unsafe { H5Eprint2(H5E_DEFAULT, std::ptr::null_mut()) };
        panic!("libhdf5 answers {answer:?}");
    }
    answer
}
