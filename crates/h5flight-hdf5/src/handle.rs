//! Identifiers of libhdf5 that are closed when dropped, and what libhdf5 says when a call fails.
//!
//! The rest of the crate calls libhdf5 directly; every call goes through [`Handle::new`] or [`checked`], so that no
//! status is overlooked and the error stack is read before anything else touches it.

use std::ffi::{CStr, c_uint, c_void};

use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5::herr_t;
use hdf5_sys::h5e::{H5E_DEFAULT, H5E_WALK_UPWARD, H5E_error2_t, H5Ewalk2};
use hdf5_sys::h5i::{H5Idec_ref, hid_t};

/// Entries of the error stack that are looked at; libhdf5 keeps 32.
const STACK_ENTRIES_MAX: usize = 64;

/// One reference to an object of libhdf5.
#[derive(Debug)]
pub(crate) struct Handle(hid_t);

impl Handle {
    /// Takes over what a call of libhdf5 returned; `what` names the call for people.
    pub(crate) fn new(id: hid_t, what: &str) -> Result<Self> {
        if id >= 0 { Ok(Self(id)) } else { Err(library_error(what)) }
    }

    /// Gives it back and hears whether that went well.
    pub(crate) fn close(self, what: &str) -> Result<()> {
        let id = std::mem::ManuallyDrop::new(self).0;
        // SAFETY: the identifier was returned to us by libhdf5, and its drop does not run any more.
        if unsafe { H5Idec_ref(id) } >= 0 { Ok(()) } else { Err(library_error(what)) }
    }

    /// For calls; valid as long as the handle lives.
    pub(crate) fn id(&self) -> hid_t {
        self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the identifier was returned to us by libhdf5 and this is the only place that gives it back.
        unsafe { H5Idec_ref(self.0) };
    }
}

/// Turns a negative status into what libhdf5 says about it.
pub(crate) fn checked(status: herr_t, what: &str) -> Result<()> {
    if status >= 0 { Ok(()) } else { Err(library_error(what)) }
}

/// A tri-state answer.
pub(crate) fn truth(answer: hdf5_sys::h5::htri_t, what: &str) -> Result<bool> {
    if answer >= 0 { Ok(answer > 0) } else { Err(library_error(what)) }
}

/// One line of the error stack.
struct StackEntry {
    function: String,
    text: String,
}

/// What the error stack says, innermost first. To be called before any other call, which would clear it.
pub(crate) fn library_error(what: &str) -> Error {
    let mut stack: Vec<StackEntry> = Vec::new();
    // SAFETY: the callback only runs during this call, and the pointer it gets is the vector above.
    unsafe { H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, Some(keep_entry), (&raw mut stack).cast()) };
    let reason = reason_of(&stack);
    let message = match stack.first() {
        Some(innermost) => format!("{what}: {}", innermost.text),
        None => what.to_owned(),
    };
    let chain: Vec<String> = stack.iter().map(|entry| format!("{}: {}", entry.function, entry.text)).collect();
    Error::new(reason, message).with_source(chain.join("; "))
}

unsafe extern "C" fn keep_entry(_: c_uint, entry: *const H5E_error2_t, stack: *mut c_void) -> herr_t {
    // SAFETY: `library_error` passes its vector, and nothing else refers to it while libhdf5 walks.
    let stack = unsafe { &mut *stack.cast::<Vec<StackEntry>>() };
    if entry.is_null() || stack.len() >= STACK_ENTRIES_MAX {
        return 0;
    }
    // SAFETY: libhdf5 passes a valid entry for the time of the call.
    let entry = unsafe { &*entry };
    let text = |pointer: *const std::ffi::c_char| {
        if pointer.is_null() {
            return String::new();
        }
        // SAFETY: the strings of an entry are NUL-terminated and live as long as it.
        unsafe { CStr::from_ptr(pointer) }.to_string_lossy().chars().filter(|c| !c.is_control()).take(300).collect()
    };
    stack.push(StackEntry { function: text(entry.func_name), text: text(entry.desc) });
    0
}

/// The nearest of our reasons. libhdf5's own error numbers are too coarse ("unable to read") to tell these apart.
fn reason_of(stack: &[StackEntry]) -> Reason {
    let function = |part: &str| stack.iter().any(|entry| entry.function.contains(part));
    let text = |part: &str| stack.iter().any(|entry| entry.text.contains(part));
    // A superblock of an unknown version ends in a checksum error as well: only the first cause counts.
    let cause = |part: &str| stack.first().is_some_and(|entry| entry.text.contains(part));
    if text("required filter") || text("required plugin") {
        Reason::UnsupportedFilter
    } else if function("fletcher32") || cause("incorrect metadata checksum") {
        Reason::Checksum
    } else if function("H5HG_") {
        Reason::HeapAddress
    } else if text("truncated file") || text("addr overflow") || text("address overflow") {
        Reason::Truncated
    } else {
        Reason::MalformedFile
    }
}

/// Puts the object's path before a message.
pub(crate) fn about(path: &str) -> impl Fn(Error) -> Error {
    move |error| Error { message: format!("{path}: {}", error.message), ..error }
}
