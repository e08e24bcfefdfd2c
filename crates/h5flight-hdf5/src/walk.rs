//! The walk over all links of the file: which objects there are, under which canonical paths, and every other link.
//!
//! Objects are told apart by address, so cycles end. Only hard links are followed, by the address they hold; nothing
//! is ever opened by a path, so no link can lead anywhere else.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;

use h5flight_array::inspect::{InspectLimits, Link, LinkKind};
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5::{H5_INDEX_NAME, H5_ITER_NATIVE, herr_t};
use hdf5_sys::h5i::{H5I_GROUP, H5Iget_type, hid_t};
use hdf5_sys::h5l::{H5L_info2_t, H5Lget_info2, H5Lget_val, H5Literate2, H5Lunpack_elink_val};
use hdf5_sys::h5o::{H5O_INFO_BASIC, H5O_info2_t, H5O_token_t, H5Oget_info3, H5Oopen_by_token};
use hdf5_sys::h5p::H5P_DEFAULT;

use crate::handle::{Handle, about, checked};
use crate::names;
use crate::open::OpenFile;

/// Bytes of one path, all components. Without this bound 1,000 levels of long names take gigabytes.
const PATH_BYTES_MAX: usize = 64 << 10;
/// Bytes of the value of a soft or external link that are read.
const LINK_VALUE_BYTES_MAX: usize = 64 << 10;
/// Types of links in the file format.
const HARD_LINK: c_int = 0;
const SOFT_LINK: c_int = 1;
const EXTERNAL_LINK: c_int = 64;

/// `H5L_info2_t` with its type as a number: a file may hold any of 256, and the binding's enum has four.
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkInfo {
    kind: c_int,
    creation_order_valid: bool,
    creation_order: i64,
    character_set: c_int,
    /// The token of a hard link, in a union with the size of another link's value.
    value: LinkValue,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct LinkValue([u8; 16]);

const _: () = assert!(size_of::<LinkInfo>() == size_of::<H5L_info2_t>());

impl LinkInfo {
    fn address(&self) -> u64 {
        address_in(&self.value.0)
    }

    fn value_bytes(&self) -> usize {
        usize::from_ne_bytes(self.value.0[..size_of::<usize>()].try_into().expect("16 bytes hold a size"))
    }
}

/// What the walk met, in depth-first order.
pub(crate) enum Found {
    /// An object, for the first time.
    Object {
        /// Canonical path.
        path: String,
        /// Address without the user block.
        address: u64,
    },
    /// Any other link.
    Link(Link),
}

/// All of it.
pub(crate) struct Survey {
    /// In the order in which it is reported.
    pub(crate) found: Vec<Found>,
    /// Canonical paths of all objects.
    pub(crate) paths: HashMap<u64, String>,
    /// Addresses of groups of which libhdf5 could not list all links.
    pub(crate) cut_short: HashSet<u64>,
}

struct Pending {
    path: String,
    address: u64,
    depth: u32,
}

impl Survey {
    /// Walks the whole file.
    ///
    /// # Errors
    /// `file_too_complex` beyond the limits. What cannot be opened or listed is no error here: it is met again when
    /// the object is looked at.
    pub(crate) fn walk(file: &OpenFile, limits: &InspectLimits) -> Result<Self> {
        let mut survey = Self { found: Vec::new(), paths: HashMap::new(), cut_short: HashSet::new() };
        let mut links_left = limits.links_max;
        let mut stack = vec![Pending { path: "/".into(), address: address(&file.handle)?, depth: 0 }];
        while let Some(Pending { path, address, depth }) = stack.pop() {
            if let Some(canonical) = survey.paths.get(&address) {
                let link = Link { path, kind: LinkKind::Hard, target: canonical.clone() };
                survey.found.push(Found::Link(link));
                continue;
            }
            if survey.paths.len() as u64 >= limits.objects_max {
                return Err(too_complex(format!("more than {} objects (inspect_objects_max)", limits.objects_max)));
            }
            survey.paths.insert(address, path.clone());
            survey.found.push(Found::Object { path: path.clone(), address });
            let Ok(object) = open_at(file.handle.id(), address) else { continue };
            // SAFETY: the object is alive.
            if unsafe { H5Iget_type(object.id()) } != H5I_GROUP {
                continue;
            }
            let Links { mut links, whole } = links_of(&object, limits, &mut links_left).map_err(about(&path))?;
            if !whole {
                survey.cut_short.insert(address);
            }
            if depth >= limits.depth_max && !links.is_empty() {
                return Err(too_complex(format!(
                    "groups nested deeper than {} levels (inspect_depth_max)",
                    limits.depth_max
                )));
            }
            links.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            survey.keep_other_links(&object, &path, &links);
            for link in links.iter().rev().filter(|link| link.info.kind == HARD_LINK) {
                let path = names::joined(&path, &names::escape(link.name.to_bytes()));
                if path.len() > PATH_BYTES_MAX {
                    return Err(too_complex(format!("a path of more than {PATH_BYTES_MAX} bytes")));
                }
                stack.push(Pending { path, address: link.info.address(), depth: depth + 1 });
            }
        }
        Ok(survey)
    }

    fn keep_other_links(&mut self, group: &Handle, path: &str, links: &[RawLink]) {
        for link in links.iter().filter(|link| link.info.kind != HARD_LINK) {
            let (kind, target) = match link.info.kind {
                SOFT_LINK => {
                    let value = link_value(group, link).unwrap_or_default();
                    let target = value.split(|byte| *byte == 0).next().unwrap_or_default();
                    (LinkKind::Soft, names::absolute(path, target))
                }
                EXTERNAL_LINK => (LinkKind::External, external_target(group, link).unwrap_or_default()),
                _ => (LinkKind::User, String::new()),
            };
            let path = names::joined(path, &names::escape(link.name.to_bytes()));
            self.found.push(Found::Link(Link { path, kind, target }));
        }
    }
}

/// Opens an object by its address, as a hard link holds it.
pub(crate) fn open_at(file: hid_t, address: u64) -> Result<Handle> {
    let mut bytes = [0u8; size_of::<H5O_token_t>()];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    // SAFETY: a token is 16 plain bytes; libhdf5's own storage writes the address into them, little-endian.
    let token = unsafe { std::mem::transmute::<[u8; 16], H5O_token_t>(bytes) };
    // SAFETY: the file is open.
    Handle::new(unsafe { H5Oopen_by_token(file, token) }, "object cannot be opened")
}

/// The address of an open object; of the root group for a file.
pub(crate) fn address(object: &Handle) -> Result<u64> {
    let mut info = MaybeUninit::<H5O_info2_t>::zeroed();
    // SAFETY: the object is alive and the struct has room for what is asked.
    checked(unsafe { H5Oget_info3(object.id(), info.as_mut_ptr(), H5O_INFO_BASIC) }, "object header")?;
    // SAFETY: libhdf5 has filled it, and zeros were there before.
    let token = unsafe { (&raw const (*info.as_ptr()).token).cast::<[u8; 16]>().read() };
    Ok(address_in(&token))
}

/// Follows a path as the inspection reported it, component by component, by hard links only.
///
/// # Errors
/// `file_changed` where it leads nowhere: the file is not the one that was inspected.
pub(crate) fn resolve(file: &OpenFile, path: &str) -> Result<Handle> {
    let gone = |component: &str| {
        Error::new(
            Reason::FileChanged,
            format!("{path}: there is no object {component:?} any more; index the file again"),
        )
    };
    let mut object = open_at(file.handle.id(), address(&file.handle)?)?;
    for component in path.split('/').filter(|component| !component.is_empty()) {
        let name = names::unescape(component)?;
        // libhdf5 would take these names for more than one component, or none.
        if name.contains(&b'/') || name == b"." {
            return Err(gone(component));
        }
        let name = CString::new(name).map_err(|_| gone(component))?;
        let mut info = MaybeUninit::<LinkInfo>::zeroed();
        // SAFETY: the name is NUL-terminated; the struct has the size and alignment that libhdf5 fills.
        let status =
            unsafe { H5Lget_info2(object.id(), name.as_ptr(), info.as_mut_ptr().cast::<H5L_info2_t>(), H5P_DEFAULT) };
        checked(status, "link").map_err(|error| gone(component).with_source(error))?;
        // SAFETY: zeros or what libhdf5 wrote: every field takes any bits but the bool, which libhdf5 sets to 0 or 1.
        let info = unsafe { info.assume_init() };
        if info.kind != HARD_LINK {
            return Err(gone(component));
        }
        object = open_at(file.handle.id(), info.address())?;
    }
    Ok(object)
}

/// One link of a group.
struct RawLink {
    name: CString,
    info: LinkInfo,
}

struct LinkListing {
    links: Vec<RawLink>,
    name_bytes_max: usize,
    links_max: u64,
    exceeded: Option<String>,
}

/// The links of a group.
struct Links {
    links: Vec<RawLink>,
    /// Whether these are all.
    whole: bool,
}

/// All links of a group, in one pass. Where libhdf5 fails on the way, those before are served all the same.
fn links_of(group: &Handle, limits: &InspectLimits, links_left: &mut u64) -> Result<Links> {
    let mut listing = LinkListing {
        links: Vec::new(),
        name_bytes_max: limits.name_bytes_max as usize,
        links_max: *links_left,
        exceeded: None,
    };
    let mut at = 0;
    // SAFETY: the callback only runs during this call, and the pointer it gets is the listing above.
    let status = unsafe {
        H5Literate2(group.id(), H5_INDEX_NAME, H5_ITER_NATIVE, &raw mut at, Some(keep_link), (&raw mut listing).cast())
    };
    if let Some(what) = listing.exceeded {
        return Err(too_complex(what));
    }
    *links_left -= listing.links.len() as u64;
    Ok(Links { links: listing.links, whole: status >= 0 })
}

unsafe extern "C" fn keep_link(
    _: hid_t,
    name: *const c_char,
    info: *const H5L_info2_t,
    listing: *mut c_void,
) -> herr_t {
    // SAFETY: `links_of` passes its listing, and nothing else refers to it while libhdf5 iterates.
    let listing = unsafe { &mut *listing.cast::<LinkListing>() };
    // SAFETY: libhdf5 passes a NUL-terminated name and a filled struct of this layout, valid for the time of the call.
    let (name, info) = unsafe { (CStr::from_ptr(name), info.cast::<LinkInfo>().read()) };
    if name.count_bytes() > listing.name_bytes_max {
        listing.exceeded = Some(format!(
            "a link name of {} bytes, allowed are {} (inspect_name_bytes_max)",
            name.count_bytes(),
            listing.name_bytes_max
        ));
        return -1;
    }
    if listing.links.len() as u64 >= listing.links_max {
        listing.exceeded = Some("more links than are indexed (inspect_links_max)".into());
        return -1;
    }
    listing.links.push(RawLink { name: name.to_owned(), info });
    0
}

fn link_value(group: &Handle, link: &RawLink) -> Result<Vec<u8>> {
    let mut value = vec![0u8; link.info.value_bytes().min(LINK_VALUE_BYTES_MAX)];
    // SAFETY: at most the size of the buffer is written.
    let status = unsafe {
        H5Lget_val(group.id(), link.name.as_ptr(), value.as_mut_ptr().cast::<c_void>(), value.len(), H5P_DEFAULT)
    };
    checked(status, "link value")?;
    Ok(value)
}

fn external_target(group: &Handle, link: &RawLink) -> Result<String> {
    let value = link_value(group, link)?;
    let (mut file, mut path) = (std::ptr::null(), std::ptr::null());
    // SAFETY: the value is as long as said; libhdf5 checks that its strings end inside and sets pointers into it.
    let status = unsafe {
        H5Lunpack_elink_val(value.as_ptr().cast(), value.len(), std::ptr::null_mut(), &raw mut file, &raw mut path)
    };
    checked(status, "external link")?;
    let text = |pointer: *const c_char| {
        if pointer.is_null() {
            return String::new();
        }
        // SAFETY: as above, and the value is alive.
        names::shown(unsafe { CStr::from_ptr(pointer) }.to_bytes())
    };
    Ok(format!("{}:{}", text(file), text(path)))
}

fn address_in(token: &[u8; 16]) -> u64 {
    u64::from_le_bytes(token[..8].try_into().expect("16 bytes hold an address"))
}

fn too_complex(what: String) -> Error {
    Error::new(Reason::FileTooComplex, format!("the file has {what}"))
}
