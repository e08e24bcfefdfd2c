//! How files become visible: registration in place, and uploads.
//!
//! Both go the same way: open -> inspect in a worker -> name -> one transaction -> tell the caches. An upload is durable
//! before the transaction, which is what makes it visible: completely or not at all.

mod checksums;
mod dimensions;
pub mod garbage;
mod header;
mod held;
mod keeping;
pub mod names;
mod partial;
pub mod put;
mod receiving;
mod running;
mod upload;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use h5flight_array::Reason;
use h5flight_array::file::StoredFile;
use h5flight_array::inspect::ObjectKind;
use h5flight_array::meta::{ArrayMeta, ElementType, Space, Storage};
use h5flight_catalog::model::{
    Append, Appended, DatasetPath, ExpectedVersion, ExperimentFacts, FilePlace, Fingerprint, NewArray, NewLink,
    NewObject, Principal, Publication, Published,
};

pub use header::UploadHeader;
pub use running::Uploads;
pub use upload::{UploadStatus, Uploaded, upload, upload_status};

use self::dimensions::Scales;
use self::names::{LeftOut, Lost, Naming};
use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::{Error, Result};
use crate::faults;
use crate::files::{self, Located};
use crate::service::Service;
use crate::worker::{Inspected, Inspection};

/// Two changes of a file that are further apart than this have different times: twice the longest tick of Linux (100 Hz).
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// What the one who publishes says about it.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Animal and experiment, where given.
    pub naming: Naming,
    /// Whether datasets served from another file are replaced.
    pub replace: bool,
    /// Who.
    pub principal: String,
    /// What it is based on.
    pub expected: Vec<ExpectedVersion>,
}

/// What a publication made, and what it could not.
#[derive(Clone, Debug)]
pub struct Made {
    /// What is visible.
    pub published: Published,
    /// What is not.
    pub left_out: LeftOut,
}

/// Indexes one file in place and publishes it.
///
/// # Errors
/// Those of opening and inspecting; `dataset_exists`, `conflict`, `catalog_unavailable`.
pub async fn register(service: &Arc<Service>, at: &Located, wishes: &Wishes) -> Result<Made> {
    let place = FilePlace::Registered { root: at.root.clone(), path: at.relative.clone() };
    let source_name = at.relative.rsplit('/').next().unwrap_or_default().to_owned();
    let (file, before) = open(service, place.clone()).await?;
    let inspection = inspect(service, &file, before).await?;
    let (publication, left_out) = publication(place, before, source_name, inspection, wishes);
    let published = match already_named(service, &publication, wishes).await? {
        Some(published) => published,
        None => publish(service, publication).await?,
    };
    Ok(Made { published, left_out })
}

/// A file that is registered under other names than it gives itself is not moved by registering it again without names:
/// unchanged, it is what it was; changed, somebody has to say whose data it is now.
///
/// # Errors
/// `dataset_exists`, naming both.
async fn already_named(service: &Service, publication: &Publication, wishes: &Wishes) -> Result<Option<Published>> {
    if wishes.naming != Naming::default() || wishes.replace {
        return Ok(None);
    }
    let Some(known) = service.catalog.find_file(&publication.place).await? else { return Ok(None) };
    let published = service.catalog.published(known.id).await?;
    let named = publication.objects.iter().map(|object| (object.animal.clone(), object.experiment.clone()));
    let named: BTreeSet<(String, String)> = named.collect();
    if known.quarantined.is_some() || published.experiments.iter().any(|before| named.contains(before)) {
        return Ok(None);
    }
    if known.fingerprint == publication.fingerprint {
        return Ok(Some(published));
    }
    let list = |names: &mut dyn Iterator<Item = &(String, String)>| {
        names.map(|(animal, experiment)| format!("{animal}/{experiment}")).collect::<Vec<_>>().join(", ")
    };
    let (before, now) = (list(&mut published.experiments.iter()), list(&mut named.iter()));
    let message = format!(
        "{} has changed and is registered as {before}, but calls itself {now}: say which with --animal and --experiment, or move it with --replace",
        publication.source_name
    );
    Err(Error::new(Reason::DatasetExists, message))
}

/// All HDF5 files at or below `path`.
///
/// # Errors
/// `outside_roots`, `file_not_found`, `file_too_complex`.
pub async fn files_below(service: &Arc<Service>, path: &str) -> Result<Vec<Located>> {
    let at = service.files.locate(path)?;
    let files = Arc::clone(&service.files);
    service.blocking.run(Lane::Decode(&Share::default(), 0), move || files.list_hdf5(&at)).await
}

/// The HDF5 files at or below `path` that are not registered as they are.
///
/// # Errors
/// `outside_roots`, `file_not_found`, `file_too_complex`; the catalogue's.
pub async fn changed_below(service: &Arc<Service>, path: &str) -> Result<Vec<(Located, Fingerprint)>> {
    let at = service.files.locate(path)?;
    let known = service.catalog.fingerprints_below(&at.root, &at.relative).await?;
    let files = Arc::clone(&service.files);
    service.blocking.run(Lane::Decode(&Share::default(), 0), move || files.list_changed(&at, &known)).await
}

/// Opens a file and takes its fingerprint, once the file is old enough to have one: a change that follows the one before
/// within a tick of the kernel's clock leaves the same time behind.
async fn open(service: &Arc<Service>, place: FilePlace) -> Result<(StoredFile, Fingerprint)> {
    loop {
        let (files, place) = (Arc::clone(&service.files), place.clone());
        let work = move || {
            let file = files.open_place(&place)?;
            let fingerprint = files::fingerprint(&file)?;
            Ok::<_, Error>((file, fingerprint))
        };
        let (file, fingerprint) = service.blocking.run(Lane::Decode(&Share::default(), 0), work).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = Duration::from_nanos(u64::try_from(fingerprint.modified_ns).unwrap_or(0));
        // A time in the future tells nothing: such a file is taken as it is.
        match now.checked_sub(modified) {
            Some(age) if age < CLOCK_TICK => tokio::time::sleep(CLOCK_TICK - age).await,
            _ => return Ok((file, fingerprint)),
        }
    }
}

/// Inspects a file and makes sure that it did not change meanwhile.
async fn inspect(service: &Arc<Service>, file: &StoredFile, before: Fingerprint) -> Result<Inspection> {
    let duplicate = file.as_file().try_clone();
    let duplicate = duplicate.map_err(|error| files::disk_error("opening the file for a worker", error))?;
    let inspection = service.workers.inspect(&duplicate.into(), before.bytes).await?;
    if files::fingerprint(file)? != before {
        return Err(Error::new(Reason::FileChanged, "the file changed while it was indexed; try again"));
    }
    Ok(inspection)
}

/// Makes a publication visible and drops what it supersedes from memory. Redis lets it expire.
async fn publish(service: &Arc<Service>, publication: Publication) -> Result<Published> {
    faults::pass("publish::begin")?;
    let published = service.catalog.publish(&publication).await?;
    faults::pass("publish::committed")?;
    for (animal, experiment) in &published.experiments {
        service.versions.forget(animal, experiment);
    }
    service.memory.forget(&published.superseded);
    Ok(published)
}

/// Makes rows visible behind those of a dataset, and drops what they supersede from memory.
async fn append(service: &Arc<Service>, append: Append) -> Result<Appended> {
    faults::pass("publish::begin")?;
    let made = service.catalog.append(&append).await?;
    faults::pass("publish::committed")?;
    service.versions.forget(&append.object.animal, &append.object.experiment);
    service.memory.forget(&made.superseded);
    Ok(made)
}

fn publication(
    place: FilePlace,
    fingerprint: Fingerprint,
    source_name: String,
    inspection: Inspection,
    wishes: &Wishes,
) -> (Publication, LeftOut) {
    let nwb = inspection.facts.nwb.clone();
    let names = wishes.naming.of_file(&source_name, nwb.as_ref());
    let mut left_out = LeftOut::default();
    let scales = Scales::of(&inspection.objects, &names);
    let mut objects = Vec::with_capacity(inspection.objects.len());
    for inspected in inspection.objects {
        if inspected.object.kind == ObjectKind::Group && inspected.object.problem.is_some() {
            left_out.add(Lost::Unlisted);
        }
        let path = match names.of_object(&inspected.object.path) {
            Ok(Some(path)) => path,
            Ok(None) => continue,
            Err(lost) => {
                left_out.add(lost);
                continue;
            }
        };
        objects.push(new_object(path, inspected, &scales));
    }
    let mut links = Vec::with_capacity(inspection.links.len());
    for link in inspection.links {
        match names.of_link(link) {
            Ok((path, link)) => links.push(NewLink { animal: path.animal, experiment: path.experiment, link }),
            Err(lost) => left_out.add(lost),
        }
    }
    let facts = nwb.map_or_else(ExperimentFacts::default, |nwb| ExperimentFacts {
        identifier: nwb.identifier,
        session_id: nwb.session_id,
        start_time: nwb.session_start_time,
        nwb_version: Some(nwb.version),
        species: nwb.species,
        details: nwb.details,
    });
    let publication = Publication {
        place,
        fingerprint,
        source_name,
        objects,
        links,
        facts,
        ingest_key: None,
        replace: wishes.replace,
        principal: wishes.principal.clone(),
        expected: wishes.expected.clone(),
        writer: None,
    };
    (publication, left_out)
}

fn new_object(path: DatasetPath, inspected: Inspected, scales: &Scales<'_>) -> NewObject {
    let dimensions = scales.dimensions(&path, &inspected.object);
    let Inspected { object, runs, checksums, inline } = inspected;
    let problem = object.problem.map(|(reason, message)| (reason.as_str().to_owned(), message));
    let meta = object.array.or_else(|| (object.kind == ObjectKind::Dataset).then(unreadable));
    NewObject {
        animal: path.animal,
        experiment: path.experiment,
        name: path.dataset,
        hdf5_path: object.path,
        kind: object.kind,
        attributes: object.attributes,
        attribute_types: object.attribute_types,
        dimensions,
        array: meta.map(|meta| NewArray { meta, runs, checksums, inline, problem }),
    }
}

/// What stands for a dataset that could not even be opened: listed with its problem, which refuses every read.
fn unreadable() -> ArrayMeta {
    ArrayMeta {
        space: Space::Null,
        max_shape: Vec::new(),
        element: ElementType::Unsupported { why: "the dataset cannot be opened".into() },
        converted: false,
        type_note: String::new(),
        storage: Storage::Compact,
        filters: Vec::new(),
        fill: None,
    }
}

impl Wishes {
    /// For a principal.
    pub fn new(naming: Naming, replace: bool, principal: &Principal) -> Self {
        Self { naming, replace, principal: principal.name.clone(), expected: Vec::new() }
    }
}
