//! The catalogue is brought to what is there: what changed is registered again, what is gone or damaged is taken out of
//! use, what is whole again is put back. Files are left as they are.

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_catalog::model::{FilePlace, FileRecord};

use super::{Asked, Depth, Finding, Verified};
use crate::blocking::Lane;
use crate::error::{Error, Result};
use crate::files::Located;
use crate::publish::names::Naming;
use crate::publish::{self, Wishes};
use crate::service::Service;

/// What a repair did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// Nothing.
    Nothing,
    /// The file was indexed again.
    Registered,
    /// Reads of the file are refused from now on.
    Quarantined,
    /// Reads of the file are answered again.
    Released,
}

impl Repaired {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Registered => "registered",
            Self::Quarantined => "quarantined",
            Self::Released => "released",
        }
    }
}

/// Does what can be done about a file.
pub(super) async fn repair(service: &Arc<Service>, asked: &Asked, verified: &mut Verified) {
    match attempt(service, asked, verified).await {
        Ok(repaired) => {
            verified.repaired = repaired;
            match repaired {
                Repaired::Nothing | Repaired::Quarantined => {}
                Repaired::Registered | Repaired::Released => verified.quarantine_reason.clear(),
            }
        }
        Err(error) => verified.repair_error = error.status().message().to_owned(),
    }
}

async fn attempt(service: &Arc<Service>, asked: &Asked, verified: &mut Verified) -> Result<Repaired> {
    let Verified { record, found, .. } = verified;
    if found.findings.is_empty() {
        // What could not be looked at may be what is damaged.
        return match found.unchecked.is_empty() {
            true => release(service, asked.depth, record).await,
            false => Ok(Repaired::Nothing),
        };
    }
    let changed = found.findings.iter().any(|finding| finding.reason == Reason::FileChanged);
    if let (true, FilePlace::Registered { root, path }) = (changed, &record.place) {
        let at = Located { root: root.clone(), relative: path.clone() };
        register(service, asked, record, &at).await?;
        return Ok(Repaired::Registered);
    }
    let Some(damage) = found.findings.iter().find(|finding| finding.is_damage()) else { return Ok(Repaired::Nothing) };
    if record.quarantined.is_some() {
        return Ok(Repaired::Nothing);
    }
    refuse_without_root(service, record, damage).await?;
    let (reason, message) = (damage.reason.as_str(), &damage.message);
    service.catalog.quarantine(record.id, reason, &format!("verification found: {message}")).await?;
    service.versions.forget_file(record.id);
    verified.quarantine_reason = reason.to_owned();
    Ok(Repaired::Quarantined)
}

/// Puts back what was taken out of use for a reason that was looked for now, and not found.
async fn release(service: &Service, depth: Depth, record: &FileRecord) -> Result<Repaired> {
    let Some((reason, _)) = &record.quarantined else { return Ok(Repaired::Nothing) };
    let missing = reason.as_str() == Reason::FileNotFound.as_str();
    if depth != Depth::Contents && !missing {
        return Ok(Repaired::Nothing);
    }
    service.catalog.release(record.id).await?;
    service.versions.forget_file(record.id);
    Ok(Repaired::Released)
}

/// The same as registering it by hand; where it is known under a name that it does not give itself, under that name.
async fn register(service: &Arc<Service>, asked: &Asked, record: &FileRecord, at: &Located) -> Result<()> {
    let wishes = Wishes::new(Naming::default(), false, &asked.principal);
    let refused = match publish::register(service, at, &wishes).await {
        Err(error) if error.reason() == Reason::DatasetExists => error,
        done => return done.map(|_| ()),
    };
    match service.catalog.published(record.id).await?.experiments.as_slice() {
        [(animal, experiment)] => {
            let naming = Naming { animal: animal.clone(), experiment: experiment.clone() };
            let wishes = Wishes::new(naming, false, &asked.principal);
            publish::register(service, at, &wishes).await.map(|_| ())
        }
        _ => Err(refused),
    }
}

/// # Errors
/// `io` where a file is missing because its whole root is: a disk that is not mounted takes nothing out of use.
async fn refuse_without_root(service: &Service, record: &FileRecord, damage: &Finding) -> Result<()> {
    if damage.reason != Reason::FileNotFound {
        return Ok(());
    }
    let (files, place) = (Arc::clone(&service.files), record.place.clone());
    let look = move || {
        Ok::<_, Error>(match &place {
            FilePlace::Registered { root, .. } => files.root_is_away(root),
            FilePlace::Managed { .. } => files.managed_folders()?.len() <= 1,
        })
    };
    let what = match &record.place {
        FilePlace::Registered { root, .. } => format!("the root {root} is empty or not configured"),
        FilePlace::Managed { .. } => "the data folder has no files".to_owned(),
    };
    match service.blocking.run(Lane::Deliver, look).await? {
        false => Ok(()),
        true => Err(Error::new(Reason::Io, format!("{what}: is its disk mounted?"))),
    }
}
