//! Virtual arrays and their sources: which record of the catalogue a mapping means. Pure; the SQL is in `portable/`.
//!
//! A source is an array of the same experiment: of the same file by its path, or a current dataset of a file with the
//! name that the mapping says. Whatever else it may be is refused by name, and so is a circle.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_array::meta::{Storage, VirtualMapping};

use crate::model::{ArrayRecord, FilePlace, FileRecord, SourceRecord};

/// Virtual arrays made of virtual arrays.
pub(crate) const DEPTH_MAX: usize = 4;
/// Arrays that one version may be made of: as many as one virtual array may have mappings.
pub(crate) const ARRAYS_MAX: usize = h5flight_array::meta::MAPPINGS_MAX;
/// Chunk pointers of all of them: 96 MiB in memory.
pub(crate) const POINTERS_MAX: u64 = 4 << 20;

macro_rules! select_file_arrays {
    () => {
        concat!(
            "SELECT ",
            crate::rows::array_columns!(),
            " FROM arrays a JOIN files f ON f.id = a.file_id JOIN objects o ON o.id = a.object_id \
             WHERE o.experiment_id = (SELECT experiment_id FROM datasets WHERE id = $1) AND a.file_id = $2 "
        )
    };
}
pub(crate) use select_file_arrays;

macro_rules! select_current_arrays {
    () => {
        concat!(
            "SELECT ",
            crate::rows::array_columns!(),
            " FROM datasets d JOIN versions v ON v.id = d.current_version_id \
             JOIN extents x ON x.version_id = coalesce(v.extents_of, v.id) AND x.ordinal = 0 AND x.array_row = 0 AND x.rows = v.rows \
             JOIN arrays a ON a.id = x.array_id AND a.rows = x.rows JOIN files f ON f.id = a.file_id \
             WHERE d.experiment_id = (SELECT experiment_id FROM datasets WHERE id = $1) AND d.withdrawn_by IS NULL "
        )
    };
}
pub(crate) use select_current_arrays;

macro_rules! select_runs {
    () => {
        "SELECT r.array_id, r.first_number, r.last_number, r.pointers, r.packed, r.checksums FROM chunk_runs r "
    };
}
pub(crate) use select_runs;

/// All arrays found so far, and what their mappings mean.
#[derive(Default)]
pub(crate) struct Sources {
    /// Arrays by file and path.
    found: HashMap<(i64, String), Arc<ArrayRecord>>,
    /// Keys of `found` by name of the file and path, of files other than the asking one.
    by_name: HashMap<(String, String), HashSet<i64>>,
    made: HashMap<(i64, usize), Arc<ArrayRecord>>,
}

/// What a mapping asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// A path in its own file.
    Own(&'a str),
    /// A path in a file of this name, without folders.
    Other(&'a str, &'a str),
}

/// The mappings of an array; none where it is not virtual.
pub(crate) fn mappings(array: &ArrayRecord) -> &[VirtualMapping] {
    match &array.meta.storage {
        Storage::Virtual { mappings } => mappings,
        Storage::Compact | Storage::Contiguous { .. } | Storage::Chunked { .. } | Storage::External => &[],
    }
}

/// What a mapping of an array of `file` asks for. A file may name itself.
pub(crate) fn asked<'a>(mapping: &'a VirtualMapping, file: &FileRecord) -> Asked<'a> {
    match &mapping.file {
        Some(name) if *name != file.source_name => Asked::Other(last_part(name), &mapping.path),
        Some(_) | None => Asked::Own(&mapping.path),
    }
}

impl Sources {
    /// Whether there are too many of them.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether an array of this file is known already.
    pub(crate) fn knows(&self, file: &FileRecord, asked: &Asked<'_>) -> bool {
        match asked {
            Asked::Own(path) => self.found.contains_key(&(file.id, (*path).to_owned())),
            Asked::Other(name, path) => self.by_name.contains_key(&((*name).to_owned(), (*path).to_owned())),
        }
    }

    /// Takes an array that was found in the own file of a virtual one.
    pub(crate) fn add_own(&mut self, array: Arc<ArrayRecord>) {
        self.found.insert((array.file.id, array.hdf5_path.clone()), array);
    }

    /// Takes a current array that was found by the name of its file.
    pub(crate) fn add_other(&mut self, array: Arc<ArrayRecord>) {
        let key = (array.file.source_name.clone(), array.hdf5_path.clone());
        self.by_name.entry(key).or_default().insert(array.file.id);
        self.add_own(array);
    }

    /// The array with its sources, down to the last.
    pub(crate) fn made(&mut self, array: &Arc<ArrayRecord>) -> Arc<ArrayRecord> {
        self.made_below(array, &mut Vec::new())
    }

    /// `above` are the ids of the arrays that this one is a source of.
    fn made_below(&mut self, array: &Arc<ArrayRecord>, above: &mut Vec<i64>) -> Arc<ArrayRecord> {
        let mappings = mappings(array);
        if mappings.is_empty() {
            return Arc::clone(array);
        }
        let key = (array.id, above.len());
        if let Some(made) = self.made.get(&key) {
            return Arc::clone(made);
        }
        above.push(array.id);
        let sources = mappings.iter().map(|mapping| self.source(mapping, array, above)).collect();
        above.pop();
        let made = Arc::new(ArrayRecord { sources, ..ArrayRecord::clone(array) });
        self.made.insert(key, Arc::clone(&made));
        made
    }

    fn source(&mut self, mapping: &VirtualMapping, of: &ArrayRecord, above: &mut Vec<i64>) -> SourceRecord {
        let (own, name) = (&of.hdf5_path, mapping.source_name());
        let refused = |reason, what: &str| {
            SourceRecord::Refused(reason, format!("{own}: the source {name} of the virtual dataset {what}").into())
        };
        let found = match self.find(mapping, &of.file) {
            Ok(found) => found,
            Err(what) => return refused(Reason::VirtualSourceRefused, what),
        };
        if above.contains(&found.id) {
            return refused(Reason::VirtualCycle, "is made of it");
        }
        if !mappings(&found).is_empty() && above.len() > DEPTH_MAX {
            return refused(Reason::VirtualCycle, "is virtual itself, more than 4 levels deep");
        }
        SourceRecord::Served(self.made_below(&found, above))
    }

    /// The one array that a mapping means, or why there is none.
    fn find(&self, mapping: &VirtualMapping, file: &FileRecord) -> Result<Arc<ArrayRecord>, &'static str> {
        let (name, path) = match asked(mapping, file) {
            Asked::Own(path) => {
                let found = self.found.get(&(file.id, path.to_owned()));
                return found.cloned().ok_or("is no dataset of its file and experiment");
            }
            Asked::Other(name, path) => (name, path),
        };
        let files = self.by_name.get(&(name.to_owned(), path.to_owned()));
        let arrays: Vec<&Arc<ArrayRecord>> =
            files.into_iter().flatten().filter_map(|id| self.found.get(&(*id, path.to_owned()))).collect();
        let beside = |array: &&&Arc<ArrayRecord>| is_beside(&array.file, file, mapping.file.as_deref().unwrap_or(name));
        match arrays.as_slice() {
            [] => Err("is in no file of the experiment that is served"),
            [array] => Ok(Arc::clone(array)),
            several => {
                let mut beside = several.iter().filter(beside);
                match (beside.next(), beside.next()) {
                    (Some(array), None) => Ok(Arc::clone(array)),
                    _ => Err("is in several files of that name"),
                }
            }
        }
    }
}

/// Whether `other` is what `name` leads to from the folder of `file`.
fn is_beside(other: &FileRecord, file: &FileRecord, name: &str) -> bool {
    let (FilePlace::Registered { root, path }, FilePlace::Registered { root: own_root, path: own }) =
        (&other.place, &file.place)
    else {
        return false;
    };
    let mut parts: Vec<&str> = own.split('/').collect();
    parts.pop();
    for part in name.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return false;
        }
    }
    root == own_root && *path == parts.join("/")
}

/// The name of a file without its folders, whichever system wrote it.
fn last_part(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}
