//! What an NWB file says of itself: which session, which subject, with which devices.

use std::collections::BTreeMap;
use std::ffi::CStr;

use h5flight_array::inspect::{InspectLimits, NwbFacts};
use h5flight_array::meta::{ElementType, Space, Storage, product};
use hdf5_sys::h5i::{H5I_DATASET, H5Iget_type};
use serde_json::{Map, Value};

use crate::attribute;
use crate::handle::Handle;
use crate::layout;
use crate::open::OpenFile;
use crate::packed::Layout;
use crate::read::{self, Source};
use crate::reference::References;
use crate::sources;
use crate::walk::{self, Found};

/// Bytes of one text, and of the elements of a list of them.
const FACT_BYTES_MAX: u64 = 4 << 10;
/// Texts of a list: keywords, experimenters, devices.
const LIST_LEN_MAX: usize = 64;

/// Details of one text each: their names, and where NWB keeps them.
const TEXTS: [(&str, &str); 18] = [
    ("session_description", "/session_description"),
    ("experiment_description", "/general/experiment_description"),
    ("institution", "/general/institution"),
    ("lab", "/general/lab"),
    ("notes", "/general/notes"),
    ("pharmacology", "/general/pharmacology"),
    ("protocol", "/general/protocol"),
    ("slices", "/general/slices"),
    ("stimulus_notes", "/general/stimulus"),
    ("surgery", "/general/surgery"),
    ("virus", "/general/virus"),
    ("age", "/general/subject/age"),
    ("date_of_birth", "/general/subject/date_of_birth"),
    ("genotype", "/general/subject/genotype"),
    ("sex", "/general/subject/sex"),
    ("strain", "/general/subject/strain"),
    ("subject_description", "/general/subject/description"),
    ("weight", "/general/subject/weight"),
];
/// Details that are lists; NWB 1 has one text in their place.
const LISTS: [(&str, &str); 3] = [
    ("experimenter", "/general/experimenter"),
    ("keywords", "/general/keywords"),
    ("related_publications", "/general/related_publications"),
];
/// Details that count the rows of a table. Before NWB 2.0 was final the table of electrodes was one dataset of records.
const COUNTS: [(&str, &[&str]); 3] = [
    ("electrode_count", &["/general/extracellular_ephys/electrodes/id", "/general/extracellular_ephys/electrodes"]),
    ("trial_count", &["/intervals/trials/id"]),
    ("unit_count", &["/units/id"]),
];
/// The group whose members are the devices.
const DEVICES: &str = "/general/devices/";

/// The facts; `None` for any other file.
pub(crate) fn nwb_facts(file: &OpenFile, found: &[Found], references: &References) -> Option<NwbFacts> {
    let objects = found.iter().filter_map(|found| match found {
        Found::Object { path, address } => Some((path.as_str(), *address)),
        Found::Link(_) => None,
    });
    let recording = Recording { file, objects: objects.collect(), references };
    let version = recording.version().or_else(|| recording.text("/nwb_version"))?;
    Some(NwbFacts {
        version,
        identifier: recording.text("/identifier"),
        session_id: recording.text("/general/session_id"),
        subject_id: recording.text("/general/subject/subject_id"),
        session_start_time: recording.text("/session_start_time"),
        species: recording.text("/general/subject/species"),
        details: recording.details(),
    })
}

/// A file whose objects are known by path.
struct Recording<'a> {
    file: &'a OpenFile,
    objects: BTreeMap<&'a str, u64>,
    references: &'a References<'a>,
}

impl Recording<'_> {
    fn version(&self) -> Option<String> {
        let limits = InspectLimits { attribute_bytes_max: FACT_BYTES_MAX, ..InspectLimits::default() };
        one_text(attribute::one(&self.file.handle, NWB_VERSION, &limits, self.references).value)
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        for (name, path) in TEXTS {
            if let Some(text) = self.text(path) {
                details.insert(name.to_owned(), text.into());
            }
        }
        for (name, path) in LISTS {
            details.insert(name.to_owned(), self.texts(path).unwrap_or_default().into());
        }
        details.insert("devices".to_owned(), self.devices().into());
        for (name, paths) in COUNTS {
            if let Some(rows) = paths.iter().find_map(|path| self.rows(path)) {
                details.insert(name.to_owned(), rows.into());
            }
        }
        details.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
        details
    }

    fn devices(&self) -> Vec<String> {
        let below = self.objects.range(DEVICES..).map_while(|(path, _)| path.strip_prefix(DEVICES));
        below.filter(|name| !name.contains('/')).take(LIST_LEN_MAX).map(str::to_owned).collect()
    }

    /// The dataset at a path.
    fn dataset(&self, path: &str) -> Option<Handle> {
        let dataset = walk::open_at(self.file.handle.id(), *self.objects.get(path)?).ok()?;
        // SAFETY: the object is alive.
        (unsafe { H5Iget_type(dataset.id()) } == H5I_DATASET).then_some(dataset)
    }

    /// Length of axis 0 of a dataset.
    fn rows(&self, path: &str) -> Option<u64> {
        match layout::space(&self.dataset(path)?).ok()?.0 {
            Space::Simple { shape } => shape.first().copied(),
            Space::Null => None,
        }
    }

    /// The text of a dataset that holds one.
    fn text(&self, path: &str) -> Option<String> {
        let texts = self.texts(path)?;
        <[String; 1]>::try_from(texts).ok().map(|[text]| text)
    }

    /// The texts of a small dataset; those that are too long are left out.
    fn texts(&self, path: &str) -> Option<Vec<String>> {
        let dataset = self.dataset(path)?;
        let translated = read::translated(&dataset).ok()?;
        let properties = layout::properties(&dataset).ok()?;
        if sources::is_virtual(&properties) {
            return None;
        }
        let (Space::Simple { shape }, _) = layout::space(&dataset).ok()? else { return None };
        let here = match layout::storage(&dataset, &properties, shape.len(), 0).ok()? {
            Storage::Compact | Storage::Contiguous { .. } | Storage::Chunked { .. } => true,
            Storage::Virtual { .. } | Storage::External => false,
        };
        let is_text = matches!(translated.element, ElementType::VarString { .. } | ElementType::FixedString { .. });
        let layout = Layout::of(&translated.memory).ok()?;
        let bytes = product(&shape).filter(|texts| *texts <= LIST_LEN_MAX as u64)? * layout.size as u64;
        if !here || !is_text || bytes > FACT_BYTES_MAX {
            return None;
        }
        let memory = Source::new(&dataset, &shape, &translated.memory, &layout).whole().ok()?;
        let value = attribute::array(&translated.element, &layout, memory.bytes(), &shape, self.references).ok()?;
        Some(all_texts(value))
    }
}

const NWB_VERSION: &CStr = c"nwb_version";

/// All texts of a value, those of lists in it too.
fn all_texts(value: Value) -> Vec<String> {
    match value {
        Value::String(text) if text.len() as u64 <= FACT_BYTES_MAX => vec![text],
        Value::Array(items) => items.into_iter().flat_map(all_texts).collect(),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// The text of a value that has one.
fn one_text(value: Value) -> Option<String> {
    <[String; 1]>::try_from(all_texts(value)).ok().map(|[text]| text)
}
