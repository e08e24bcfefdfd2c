//! Virtual datasets: what they say they are made of, and whether libhdf5 may put one together.
//!
//! Nothing here opens a source by its name. libhdf5 itself does, when it is asked for the extent of a dataset that grows
//! with its sources, or for data: that is only let happen where every source was seen to be in this file.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::c_char;

use h5flight_array::codec;
use h5flight_array::inspect::LinkKind;
use h5flight_array::meta::{MAPPINGS_MAX, RANK_MAX, SlabAxis, Space, Storage, VirtualMapping};
use h5flight_array::{Error, Reason, Result};
use hdf5_sys::h5d::H5D_VIRTUAL;
use hdf5_sys::h5i::{H5I_DATASET, H5Iget_type};
use hdf5_sys::h5p::*;
use hdf5_sys::h5s::*;

use crate::handle::{Handle, checked, library_error, truth};
use crate::layout;
use crate::names;
use crate::open::OpenFile;
use crate::walk::{self, Found};

/// Bytes of one name of a source.
const NAME_BYTES_MAX: usize = 4096;
/// Bytes of all names of one dataset: with the numbers, less than a message.
const NAMES_BYTES_MAX: usize = 4 << 20;
/// Links on the way to a source: the bound that HDF5 itself has.
const LINKS_MAX: usize = 16;
/// Virtual datasets made of virtual datasets.
const DEPTH_MAX: usize = 4;

/// Whether a dataset is virtual. To be asked before anything else: its extent may be looked up in its sources.
pub(crate) fn is_virtual(properties: &Handle) -> bool {
    // SAFETY: the property list is alive.
    unsafe { H5Pget_layout(properties.id()) == H5D_VIRTUAL }
}

/// One mapping as the dataset states it.
struct Declared {
    /// `None` is the file itself.
    file: Option<Vec<u8>>,
    path: Vec<u8>,
    slab: Vec<SlabAxis>,
    /// `None` is the whole source.
    source_slab: Option<Vec<SlabAxis>>,
}

/// What a virtual dataset is made of.
pub(crate) struct Composition {
    pub(crate) space: Space,
    pub(crate) max_shape: Vec<Option<u64>>,
    /// Empty where there is a problem.
    pub(crate) mappings: Vec<VirtualMapping>,
    pub(crate) problem: Option<Error>,
}

/// Reads the mappings, and the extent where no other file is needed for it.
pub(crate) fn composition(dataset: &Handle, properties: &Handle, links: &Links<'_>) -> Result<Composition> {
    let mut count = 0;
    // SAFETY: the property list is alive and one number is written.
    checked(unsafe { H5Pget_virtual_count(properties.id(), &raw mut count) }, "mappings")?;
    let refused = |(space, max_shape), problem| {
        Ok(Composition { space, max_shape, mappings: Vec::new(), problem: Some(problem) })
    };
    if count == 0 {
        let problem = Error::new(Reason::VirtualSourceRefused, "the virtual dataset has no sources");
        return refused(layout::space(dataset)?, problem);
    }
    let stored = layout::space_of(&mapped_space(properties, 0)?)?;
    let declared = match declared(properties, count) {
        Ok(declared) => declared,
        Err(problem) => return refused(stored, problem),
    };
    if let Some(problem) = links.growth_problem(&declared) {
        return refused(stored, problem);
    }
    let (space, max_shape) = layout::space(dataset)?;
    match links.mappings(&declared, &space) {
        Ok(mappings) => Ok(Composition { space, max_shape, mappings, problem: None }),
        Err(problem) => refused((space, max_shape), problem),
    }
}

fn mapped_space(properties: &Handle, at: usize) -> Result<Handle> {
    // SAFETY: the property list is alive, and libhdf5 checks the number.
    Handle::new(unsafe { H5Pget_virtual_vspace(properties.id(), at) }, "mapping")
}

fn declared(properties: &Handle, count: usize) -> Result<Vec<Declared>> {
    if count > MAPPINGS_MAX {
        return Err(too_complex(format!("{count} mappings, the most is {MAPPINGS_MAX}")));
    }
    let mut names_bytes = 0;
    let mut all = Vec::with_capacity(count);
    for at in 0..count {
        let file = name(|buffer, bytes| {
            // SAFETY: at most as many bytes are written as said.
            unsafe { H5Pget_virtual_filename(properties.id(), at, buffer, bytes) as isize }
        })?;
        let path = name(|buffer, bytes| {
            // SAFETY: as above.
            unsafe { H5Pget_virtual_dsetname(properties.id(), at, buffer, bytes) as isize }
        })?;
        names_bytes += file.len() + path.len();
        if names_bytes > NAMES_BYTES_MAX {
            return Err(too_complex(format!("sources whose names take more than {NAMES_BYTES_MAX} bytes")));
        }
        // SAFETY: the property list is alive, and libhdf5 checks the number.
        let source = Handle::new(unsafe { H5Pget_virtual_srcspace(properties.id(), at) }, "mapping")?;
        let slab = slab(&mapped_space(properties, at)?, at)?;
        let Some(slab) = slab.or_else(|| whole(properties, at)) else { continue };
        let source_slab = self::slab(&source, at)?;
        let file = (file != b".").then_some(file);
        all.push(Declared { file, path, slab, source_slab });
    }
    Ok(all)
}

/// The selection of everything, as a slab; `None` where that is nothing.
fn whole(properties: &Handle, at: usize) -> Option<Vec<SlabAxis>> {
    match layout::space_of(&mapped_space(properties, at).ok()?).ok()?.0 {
        Space::Simple { shape } => Some(shape.iter().map(|size| SlabAxis::run(0, *size)).collect()),
        Space::Null => None,
    }
}

/// Asks for the length of a text, then for the text.
fn name(ask: impl Fn(*mut c_char, usize) -> isize) -> Result<Vec<u8>> {
    let bytes = usize::try_from(ask(std::ptr::null_mut(), 0)).map_err(|_| library_error("the name of a source"))?;
    if bytes > NAME_BYTES_MAX {
        return Err(too_complex(format!("a source whose name has {bytes} bytes, the most is {NAME_BYTES_MAX}")));
    }
    let mut text = vec![0u8; bytes + 1];
    if ask(text.as_mut_ptr().cast::<c_char>(), text.len()) < 0 {
        return Err(library_error("the name of a source"));
    }
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(bytes));
    Ok(text)
}

/// The selection of a dataspace by axis; `None` where it is everything.
fn slab(space: &Handle, at: usize) -> Result<Option<Vec<SlabAxis>>> {
    let unsupported = |what: &str| Error::new(Reason::UnsupportedLayout, format!("mapping {at}: {what}"));
    // SAFETY: the dataspace is alive.
    match unsafe { H5Sget_select_type(space.id()) } {
        H5S_sel_type::H5S_SEL_ALL => return Ok(None),
        H5S_sel_type::H5S_SEL_HYPERSLABS => {}
        _ => return Err(unsupported("the selection is neither everything nor a hyperslab")),
    }
    // SAFETY: as above.
    if !truth(unsafe { H5Sis_regular_hyperslab(space.id()) }, "selection")? {
        return Err(unsupported("the selection is not a regular hyperslab"));
    }
    // SAFETY: as above.
    let rank = unsafe { H5Sget_simple_extent_ndims(space.id()) };
    let rank = usize::try_from(rank).ok().filter(|rank| *rank <= RANK_MAX);
    let rank = rank.ok_or_else(|| unsupported("the selection has more axes than HDF5 knows"))?;
    let mut numbers = [[0u64; RANK_MAX]; 4];
    let [start, stride, count, block] = &mut numbers;
    let (start, stride) = (start.as_mut_ptr(), stride.as_mut_ptr());
    // SAFETY: there is room for the largest rank.
    let status = unsafe { H5Sget_regular_hyperslab(space.id(), start, stride, count.as_mut_ptr(), block.as_mut_ptr()) };
    checked(status, "selection")?;
    let [start, stride, count, block] = numbers;
    let axis = |axis: usize| match (count[axis], block[axis]) {
        // A block without end has a start and no stride; index by index it is the same.
        (_, H5S_UNLIMITED) => SlabAxis { start: start[axis], stride: 1, count: None, block: 1 },
        (H5S_UNLIMITED, block) => SlabAxis { start: start[axis], stride: stride[axis], count: None, block },
        (count, block) => SlabAxis { start: start[axis], stride: stride[axis].max(block), count: Some(count), block },
    };
    Ok(Some((0..rank).map(axis).collect()))
}

impl Declared {
    fn growing(&self) -> Option<usize> {
        self.slab.iter().position(|axis| axis.count.is_none())
    }

    /// Whether each block of the growing axis has a source of its own, whose name holds the block's number.
    fn is_numbered(&self) -> bool {
        let source_grows = self.source_slab.iter().flatten().any(|axis| axis.count.is_none());
        self.growing().is_some() && !source_grows
    }

    fn shown(&self) -> String {
        names::shown(&self.path)
    }
}

/// All names of a file, to find out what a path leads to. Made when the first virtual dataset asks.
pub(crate) struct Links<'a> {
    found: &'a [Found],
    index: OnceCell<Index<'a>>,
}

struct Index<'a> {
    objects: HashSet<&'a str>,
    links: HashMap<&'a str, (LinkKind, &'a str)>,
}

impl<'a> Links<'a> {
    pub(crate) fn new(found: &'a [Found]) -> Self {
        Self { found, index: OnceCell::new() }
    }

    fn index(&self) -> &Index<'a> {
        self.index.get_or_init(|| {
            let mut index = Index { objects: HashSet::new(), links: HashMap::new() };
            for found in self.found {
                match found {
                    Found::Object { path, .. } => {
                        index.objects.insert(path);
                    }
                    Found::Link(link) => {
                        index.links.insert(&link.path, (link.kind, &link.target));
                    }
                }
            }
            index
        })
    }

    /// The canonical path of the object that a path leads to; `None` where it leads nowhere or out of the file.
    fn canonical(&self, path: &str) -> Option<String> {
        let index = self.index();
        let mut path = path.to_owned();
        for _ in 0..=LINKS_MAX {
            if index.objects.contains(path.as_str()) {
                return Some(path);
            }
            let ends = path.char_indices().filter(|(at, char)| *char == '/' && *at > 0).map(|(at, _)| at);
            let link = ends.chain([path.len()]).rev().find_map(|end| Some((end, index.links.get(&path[..end])?)));
            let (end, (LinkKind::Hard | LinkKind::Soft, target)) = link? else { return None };
            path = format!("{}{}", target.trim_end_matches('/'), &path[end..]);
        }
        None
    }

    /// Why the extent of a dataset is not asked for: libhdf5 would open what it grows with.
    fn growth_problem(&self, declared: &[Declared]) -> Option<Error> {
        let leads_out = || {
            let mut kinds = self.index().links.values().map(|(kind, _)| kind);
            kinds.any(|kind| matches!(kind, LinkKind::External | LinkKind::User))
        };
        let problem = |at: usize, reason, what: String| Some(Error::new(reason, format!("mapping {at}: {what}")));
        for (at, mapping) in declared.iter().enumerate().filter(|(_, mapping)| mapping.growing().is_some()) {
            let shown = mapping.shown();
            if mapping.file.is_some() {
                let what = format!("the dataset grows with {shown} of another file, which is not followed");
                return problem(at, Reason::UnsupportedLayout, what);
            }
            if mapping.is_numbered() {
                if leads_out() {
                    let what = "the dataset grows with numbered sources, in a file with links that lead out of it";
                    return problem(at, Reason::UnsupportedLayout, what.into());
                }
            } else if self.canonical(&names::absolute("/", &numbered(&mapping.path, None))).is_none() {
                let what = format!("the dataset grows with {shown}, which is not in the file");
                return problem(at, Reason::VirtualSourceRefused, what);
            }
        }
        None
    }

    fn mappings(&self, declared: &[Declared], space: &Space) -> Result<Vec<VirtualMapping>> {
        let Space::Simple { shape } = space else {
            return Err(Error::new(Reason::NullDataspace, "a virtual dataset with a null dataspace"));
        };
        let mut mappings = Vec::new();
        for mapping in declared {
            let growing = mapping.growing().filter(|_| mapping.is_numbered());
            let Some(axis) = growing else {
                mappings.push(self.mapping(mapping, mapping.slab.clone(), None));
                continue;
            };
            let SlabAxis { start, stride, block, .. } = mapping.slab[axis];
            let size = shape.get(axis).copied().unwrap_or(0);
            let starts = (0..).map(|number| (number, start + stride * number)).take_while(|(_, start)| *start < size);
            for (number, start) in starts {
                if mappings.len() >= MAPPINGS_MAX {
                    return Err(too_complex(format!("more than {MAPPINGS_MAX} sources")));
                }
                let mut slab = mapping.slab.clone();
                slab[axis] = SlabAxis::run(start, block);
                mappings.push(self.mapping(mapping, slab, Some(number)));
            }
        }
        Ok(mappings)
    }

    fn mapping(&self, declared: &Declared, slab: Vec<SlabAxis>, number: Option<u64>) -> VirtualMapping {
        let path = names::absolute("/", &numbered(&declared.path, number));
        let file = declared.file.as_ref().map(|file| names::shown(&numbered(file, number)));
        let canonical = if file.is_none() { self.canonical(&path) } else { None };
        let source_slab = declared.source_slab.clone();
        VirtualMapping { file, path: canonical.unwrap_or(path), slab, source_slab }
    }
}

/// A name with its `%b` replaced by the number of the block, and `%%` by `%`.
fn numbered(name: &[u8], number: Option<u64>) -> Cow<'_, [u8]> {
    if !name.contains(&b'%') {
        return Cow::Borrowed(name);
    }
    let mut text = Vec::with_capacity(name.len());
    let mut bytes = name.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek(), number) {
            (b'%', Some(b'%'), _) => bytes.next().map_or((), |byte| text.push(byte)),
            (b'%', Some(b'b'), Some(number)) => {
                bytes.next();
                text.extend_from_slice(number.to_string().as_bytes());
            }
            _ => text.push(byte),
        }
    }
    Cow::Owned(text)
}

/// Refuses a virtual dataset that libhdf5 cannot read from this file alone, down to the last of its sources: it would
/// open other files, deliver the fill value for what is missing, and not come back from a circle.
///
/// # Errors
/// `virtual_source_refused`, `virtual_cycle`, `unsupported_layout`, `unsupported_filter`.
pub(crate) fn refuse_other_sources(file: &OpenFile, path: &str, properties: &Handle) -> Result<()> {
    let mut seen = HashSet::new();
    let mut level = vec![(path.to_owned(), own_mappings(path, properties)?)];
    // Each round looks at the sources of the last one; one dataset is looked at once in a round.
    for _ in 0..=DEPTH_MAX {
        let mut next = Vec::new();
        seen.clear();
        for (owner, sources) in std::mem::take(&mut level) {
            for source in sources {
                if seen.insert(source.clone())
                    && let Some(sources) = sources_of(file, &owner, &source)?
                {
                    next.push((source, sources));
                }
            }
        }
        if next.is_empty() {
            return Ok(());
        }
        level = next;
    }
    let message = format!("{path}: virtual datasets in a circle, or more than {DEPTH_MAX} deep");
    Err(Error::new(Reason::VirtualCycle, message))
}

/// Paths of the sources of a virtual dataset, all in its own file.
fn own_mappings(path: &str, properties: &Handle) -> Result<Vec<String>> {
    let mut count = 0;
    // SAFETY: the property list is alive and one number is written.
    checked(unsafe { H5Pget_virtual_count(properties.id(), &raw mut count) }, "mappings")?;
    let own = |mapping: Declared| {
        if mapping.file.is_some() {
            let message = format!("{path}: the source {} lies in another file", mapping.shown());
            return Err(Error::new(Reason::VirtualSourceRefused, message));
        }
        if mapping.growing().is_some() {
            let message = format!("{path}: libhdf5 is not asked for a virtual dataset that grows");
            return Err(Error::new(Reason::UnsupportedLayout, message));
        }
        Ok(names::absolute("/", &numbered(&mapping.path, None)))
    };
    declared(properties, count)?.into_iter().map(own).collect()
}

/// The sources of a source; `None` where it has its own data.
fn sources_of(file: &OpenFile, owner: &str, path: &str) -> Result<Option<Vec<String>>> {
    let refuse = |what: &str| {
        let message = format!("{owner}: the source {path} {what}");
        Error::new(Reason::VirtualSourceRefused, message)
    };
    let source =
        walk::resolve(file, path).map_err(|error| refuse("is not reached by hard links").with_source(error))?;
    // SAFETY: the object is alive.
    if unsafe { H5Iget_type(source.id()) } != H5I_DATASET {
        return Err(refuse("is no dataset"));
    }
    let properties = layout::properties(&source)?;
    if is_virtual(&properties) {
        return own_mappings(path, &properties).map(Some);
    }
    let (Space::Simple { shape }, _) = layout::space(&source)? else { return Err(refuse("holds no value")) };
    if layout::storage(&source, &properties, shape.len(), file.base)? == Storage::External {
        return Err(refuse("lies in external files"));
    }
    match layout::missing_filter(&layout::filters(&properties)?) {
        None => Ok(None),
        Some(filter) => {
            let message =
                format!("{owner}: the source {path} has {}, which is not supported", codec::described(filter));
            Err(Error::new(Reason::UnsupportedFilter, message))
        }
    }
}

fn too_complex(what: String) -> Error {
    Error::new(Reason::FileTooComplex, format!("the virtual dataset has {what}"))
}

#[cfg(test)]
mod tests {
    use h5flight_array::inspect::Link;

    use super::*;

    #[test]
    fn paths_lead_over_hard_and_soft_links_and_never_out_of_the_file() {
        let object = |path: &str| Found::Object { path: path.into(), address: 0 };
        let link =
            |path: &str, kind, target: &str| Found::Link(Link { path: path.into(), kind, target: target.into() });
        let found = [
            object("/"),
            object("/a"),
            object("/a/x"),
            link("/b", LinkKind::Hard, "/a"),
            link("/c", LinkKind::Soft, "/b"),
            link("/c2", LinkKind::Soft, "/c/x"),
            link("/out", LinkKind::External, "other.h5:/a"),
            link("/user", LinkKind::User, ""),
            link("/round", LinkKind::Soft, "/round"),
            link("/root", LinkKind::Hard, "/"),
        ];
        let links = Links::new(&found);
        for path in ["/a/x", "/b/x", "/c/x", "/c2", "/root/a/x", "/root/root/c2"] {
            assert_eq!(links.canonical(path).as_deref(), Some("/a/x"), "{path}");
        }
        for path in ["/x", "/a/y", "/out", "/out/x", "/user", "/round", "/round/x", "/a/x/y"] {
            assert_eq!(links.canonical(path), None, "{path}");
        }
    }

    #[test]
    fn numbers_stand_for_their_blocks() {
        let text = |name: &str, number| String::from_utf8(numbered(name.as_bytes(), number).into_owned()).unwrap();
        assert_eq!(text("f_%b/%%b%", Some(12)), "f_12/%b%");
        assert_eq!(text("f_%b/%%b%", None), "f_%b/%b%");
        assert_eq!(text("plain", Some(1)), "plain");
    }
}
