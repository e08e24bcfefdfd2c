//! Whether the catalogue and the files agree: what `h5flight verify` asks.
//!
//! File by file: is it there, is it the one that was indexed, do its chunks lie in it ([`file`]); deep, what it holds, read
//! past every cache ([`deep`]). Then what lies among the managed files without a name in the catalogue ([`stray`]). A
//! repair ([`repair`]) changes the catalogue only: nothing here writes to a file or deletes one.
//!
//! It is a job beside the reads: it decodes in turn with them and waits for memory for as long as they have it. Dropped, it
//! ends; what it repaired until then stays repaired.

mod deep;
mod file;
mod found;
mod repair;
mod stray;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use h5flight_array::Reason;
use h5flight_catalog::model::{FilePlace, FileRecord, Page, Principal};
use tokio::sync::mpsc;

pub use self::found::{Finding, Found};
pub use self::repair::Repaired;
pub use self::stray::Stray;
use crate::error::{Error, Result};
use crate::service::Service;

/// How often the bytes of a file under way are reported.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How closely is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At files and addresses.
    Places,
    /// At contents too: everything is read and decoded.
    Contents,
}

/// What is done about what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It is reported.
    Report,
    /// The catalogue is brought to what is there.
    Repair,
}

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Animal; empty is everything.
    pub animal: String,
    /// Experiment; empty is all of the animal.
    pub experiment: String,
    /// How closely.
    pub depth: Depth,
    /// What then.
    pub remedy: Remedy,
    /// Who asks.
    pub principal: Principal,
}

/// What was just found, if anything, and how far it is.
#[derive(Debug)]
pub struct Report {
    /// Files that are done.
    pub files_done: u64,
    /// Files there are; 0 where that is not known.
    pub files_total: u64,
    /// Bytes that were read so far.
    pub bytes_read: u64,
    /// What was found.
    pub subject: Subject,
}

/// What a report is about.
#[derive(Debug)]
pub enum Subject {
    /// That it goes on.
    Progress,
    /// A file that is done.
    File(Box<Verified>),
    /// A file without a name.
    Stray(Stray),
}

/// One file that is done.
#[derive(Debug)]
pub struct Verified {
    /// Its record.
    pub record: FileRecord,
    /// What is wrong with it.
    pub found: Found,
    /// Why it is out of use, after a repair.
    pub quarantine_reason: String,
    /// What a repair did.
    pub repaired: Repaired,
    /// Why a repair did not succeed.
    pub repair_error: String,
    /// How long it took.
    pub took: Duration,
}

struct Verifier {
    service: Arc<Service>,
    asked: Asked,
    reports: mpsc::Sender<Report>,
    files_done: u64,
    files_total: u64,
    bytes_read: Arc<AtomicU64>,
}

/// Refuses names that do not exist: an answer "nothing is wrong" about a misspelt animal would be a lie.
///
/// # Errors
/// `animal_not_found`, `experiment_not_found`, `bad_request`.
pub async fn check_names(service: &Service, asked: &Asked) -> Result<()> {
    let first = Page { size: 1, token: String::new() };
    let Asked { animal, experiment, .. } = asked;
    match (animal.is_empty(), experiment.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(Error::new(Reason::BadRequest, "an experiment is named without its animal")),
        (false, true) => Ok(service.catalog.list_experiments(animal, &first).await.map(|_| ())?),
        (false, false) => Ok(service.catalog.list_datasets(animal, experiment, &first).await.map(|_| ())?),
    }
}

/// Verifies all that is asked for.
///
/// # Errors
/// `busy` while another one is under way; the catalogue's. What is wrong with a file is in its report.
pub async fn verify(service: &Arc<Service>, asked: Asked, reports: mpsc::Sender<Report>) -> Result<()> {
    let Ok(_alone) = service.verifying.try_lock() else {
        return Err(Error::new(Reason::Busy, "another verification is under way on this server"));
    };
    let everything = asked.animal.is_empty();
    let files_total = if everything { service.catalog.counts().await?.files } else { 0 };
    let mut verifier = Verifier {
        service: Arc::clone(service),
        asked,
        reports,
        files_done: 0,
        files_total,
        bytes_read: Arc::default(),
    };
    verifier.files().await?;
    if everything { verifier.strays().await } else { Ok(()) }
}

impl Verifier {
    async fn files(&mut self) -> Result<()> {
        let mut page = Page { size: 1_000, token: String::new() };
        loop {
            let Asked { animal, experiment, .. } = &self.asked;
            let files = self.service.catalog.list_files_of(animal, experiment, &page).await?;
            for record in files.items {
                self.file(record).await?;
            }
            if files.next.is_empty() {
                return Ok(());
            }
            page.token = files.next;
        }
    }

    async fn file(&mut self, mut record: FileRecord) -> Result<()> {
        let began = Instant::now();
        let mut found = self.checked(&record).await?;
        // What was registered anew since the list was made is looked at as it is now.
        if !found.findings.is_empty()
            && let Some(newer) = self.service.catalog.find_file(&record.place).await?
            && newer.id != record.id
        {
            found = self.checked(&newer).await?;
            record = newer;
        }
        let mut verified = Verified {
            quarantine_reason: record.quarantined.as_ref().map(|(reason, _)| reason.clone()).unwrap_or_default(),
            record,
            found,
            repaired: Repaired::Nothing,
            repair_error: String::new(),
            took: Duration::ZERO,
        };
        if self.asked.remedy == Remedy::Repair {
            repair::repair(&self.service, &self.asked, &mut verified).await;
        }
        verified.took = began.elapsed();
        self.files_done += 1;
        self.report(Subject::File(Box::new(verified))).await;
        Ok(())
    }

    /// Looks at a file and tells every now and then that it goes on.
    async fn checked(&self, record: &FileRecord) -> Result<Found> {
        let check = file::check(&self.service, record, self.asked.depth, &self.bytes_read);
        tokio::pin!(check);
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        ticks.tick().await;
        loop {
            tokio::select! {
                found = &mut check => return found,
                _ = ticks.tick() => self.report(Subject::Progress).await,
            }
        }
    }

    async fn strays(&self) -> Result<()> {
        for folder in stray::folders(&self.service).await? {
            for stray in stray::of_folder(&self.service, folder).await? {
                self.report(Subject::Stray(stray)).await;
            }
        }
        Ok(())
    }

    async fn report(&self, subject: Subject) {
        let report = Report {
            files_done: self.files_done,
            files_total: if self.files_total == 0 { 0 } else { self.files_total.max(self.files_done) },
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            subject,
        };
        // Nobody receives any more: then this is about to be dropped.
        let _ = self.reports.send(report).await;
    }
}

/// A place as people read it: nothing of it is a path of the server.
pub fn place_text(place: &FilePlace) -> String {
    match place {
        FilePlace::Registered { root, path } => format!("{root}:{path}"),
        FilePlace::Managed { content } => format!("managed:{content}"),
    }
}
