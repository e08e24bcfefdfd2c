//! The small files of appends become few, in the background: a rig that appends every second makes 86,400 a day.
//!
//! A compaction is a put whose client is a read: neighbours in a list of extents are read as rows and written as one file,
//! with the compression that they have, and one transaction puts it in their place. Versions keep their numbers and their
//! rows; who resolved one before reads the old files, which stay for the grace period of garbage. What fails leaves all as
//! it was and is tried again.
//!
//! Which neighbours: those of one size step. Eight files of a step become one of the next, so that each row is written again
//! at most once a step, whatever the rig's rhythm; larger files than [`PIECE_BYTES_MAX`] are left alone.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use futures::{StreamExt, future};
use h5flight_array::Reason;
use h5flight_array::codec::encode::{EncodeOptions, Encoder};
use h5flight_array::inspect::ObjectKind;
use h5flight_array::meta::{ElementType, Storage};
use h5flight_array::plan::{Layout, Strings};
use h5flight_array::selection::{Item, Selection};
use h5flight_array::write::RowForm;
use h5flight_catalog::model::{Compaction, FilePlace, ListedExtent, LongList, ResolvedVersion, VersionSelector};
use serde_json::Map;
use tonic::Code;

use super::super::partial::Partial;
use super::super::upload::{inspect, run};
use super::super::{Wishes, keeping::keep, names::Naming};
use super::filling::{Filling, ROOM_BYTES_MIN};
use super::{Filled, PUTS, PutAsked, PutMode, Rows, clear, hashed, make_room, messages};
use crate::error::{Error, Result};
use crate::read::{self, ReadRequest};
use crate::series::Wish;
use crate::service::Service;
use crate::{faults, memory};

/// Files of a step that become one of the next.
const FANOUT: usize = 8;
/// The smallest step ends here, in bytes; each further one is [`FANOUT`] times larger.
const STEP_BYTES: u64 = 4 << 10;
/// Files of this size are not written again, in bytes.
const PIECE_BYTES_MAX: u64 = 64 << 20;
/// What one compaction writes at most, in bytes of the files that it replaces.
const WRITTEN_BYTES_MAX: u64 = FANOUT as u64 * PIECE_BYTES_MAX;

/// Lists that cannot be compacted: they are left alone until they are longer.
#[derive(Debug, Default)]
pub struct Skipped(HashSet<(i64, usize)>);

/// Compacts what there is to compact; gives how many files went into how many.
///
/// # Errors
/// `catalog_unavailable`. What one list meets is told in the log, and the others go on.
pub async fn compact(service: &Arc<Service>, skipped: &mut Skipped) -> Result<(usize, usize)> {
    let (mut replaced, mut made, mut after) = (0, 0, 0);
    loop {
        let lists = service.catalog.long_lists(FANOUT as u64, after).await?;
        let Some(last) = lists.iter().map(|list| list.list).max() else { break };
        after = last;
        for list in lists {
            let mark = (list.list, list.extents.len());
            if skipped.0.contains(&mark) {
                continue;
            }
            for run in runs_of(&list.extents) {
                let count = run.len();
                if let Err(error) = replace(service, &list, run).await {
                    if error.reason() == Reason::Conflict {
                        // Another server was faster, or a rollback came between.
                        tracing::debug!(error = error.chain(), "small files were changed while they were compacted");
                        break;
                    }
                    let dataset = list.path.to_string();
                    tracing::warn!(dataset, error = error.chain(), "small files were not compacted");
                    if !passes(error.reason()) {
                        skipped.0.insert(mark);
                    }
                    break;
                }
                (replaced, made) = (replaced + count, made + 1);
            }
        }
    }
    Ok((replaced, made))
}

/// Whether what a list met may be gone in the next round.
const fn passes(reason: Reason) -> bool {
    matches!(reason, Reason::Busy | Reason::DiskFull | Reason::CatalogUnavailable)
}

/// Neighbours that are written again, each of them once: what takes their place is looked at in the next round.
fn runs_of(extents: &[ListedExtent]) -> Vec<&[ListedExtent]> {
    let mut runs = Vec::new();
    for mut rest in extents.chunk_by(|a, b| a.first_row + a.rows == b.first_row) {
        let bytes: Vec<u64> = rest.iter().map(|extent| extent.stored_bytes).collect();
        let mut done = 0;
        while let Some(run) = run_of(&bytes[done..]) {
            runs.push(&rest[run.clone()]);
            (rest, done) = (&rest[run.end..], done + run.end);
        }
    }
    runs
}

/// The neighbours that are written again first, by the sizes of all: as many of one step as make one of the next, and
/// smaller ones between them. Would smaller ones count as well, one large file would be written again for every few of them.
fn run_of(bytes: &[u64]) -> Option<Range<usize>> {
    let (mut floor, mut limit) = (0, STEP_BYTES);
    loop {
        let mut first = 0;
        while first < bytes.len() {
            let (mut end, mut total, mut of_step) = (first, 0u64, 0);
            while end < bytes.len() && bytes[end] <= limit && total.saturating_add(bytes[end]) <= WRITTEN_BYTES_MAX {
                total += bytes[end];
                of_step += usize::from(bytes[end] >= floor);
                end += 1;
            }
            if of_step >= FANOUT {
                return Some(first..end);
            }
            first = end.max(first + 1);
        }
        if limit >= PIECE_BYTES_MAX {
            return None;
        }
        (floor, limit) = (limit, (limit * FANOUT as u64).min(PIECE_BYTES_MAX));
    }
}

/// One file in the place of these extents of a list.
async fn replace(service: &Arc<Service>, list: &LongList, replaced: &[ListedExtent]) -> Result<()> {
    faults::pass("compact::begin")?;
    let (Some(first), Some(last)) = (replaced.first(), replaced.last()) else { return Ok(()) };
    let rows = first.first_row..last.first_row + last.rows;
    let version = service.versions.pinned(list.version_id).await?;
    let asked = as_put(&version, list, rows.start)?;
    let (rows, form) = rows_of(service, list, rows).await?;
    let form = fitting(form, &version)?;
    let encoder = Encoder::new(&asked.encoding, form.element_bytes())?;
    let mut filling = Filling::new(service, &asked, form, encoder)?;
    let bytes = filling.memory_bytes();
    let _memory = memory::reserve(service, &service.put_memory, memory::put_units(service, bytes)).await?;
    let number = PUTS.fetch_add(1, Ordering::Relaxed);
    let slot = service.uploads.enter(&format!("put-{number:032x}")).await?;
    make_room(service, &slot, ROOM_BYTES_MIN).await?;
    let folder = service.uploads.folder().to_owned();
    let partial = run(service, move || Partial::nameless(&folder).map(Box::new)).await?;
    let path = partial.path().to_owned();
    let done = async {
        filling.begin(&partial, slot)?;
        let filled = filling.fill(rows).await?;
        finish(service, list, (asked, replaced), (filled, partial)).await
    };
    let done = done.await;
    if done.is_err() {
        clear(service, path).await;
    }
    done
}

/// What a client would ask for who wrote these rows anew.
fn as_put(version: &ResolvedVersion, list: &LongList, first_row: u64) -> Result<PutAsked> {
    let refuse = |what: &str| Error::new(Reason::PutMismatch, format!("{} {what}", list.path));
    let extent = version.extents.iter().find(|extent| extent.first_row == first_row);
    let meta = &extent.ok_or_else(|| refuse("was changed meanwhile"))?.array.meta;
    let encoding = EncodeOptions::of(&meta.filters).ok_or_else(|| refuse("has filters that are not written here"))?;
    // Chunks that hold fewer rows than their file were asked for; others are as small as the append was.
    let chunk_shape = match &meta.storage {
        Storage::Chunked { chunk_shape } if chunk_shape.first() < meta.shape().first() => chunk_shape.clone(),
        _ => Vec::new(),
    };
    Ok(PutAsked {
        path: list.path.clone(),
        mode: PutMode::Append,
        chunk_shape,
        encoding,
        attributes: Map::new(),
        writer: None,
        expected_version: None,
        expected_first_row: None,
        principal: String::new(),
    })
}

/// The rows as a client would send them.
async fn rows_of(
    service: &Arc<Service>,
    list: &LongList,
    rows: Range<u64>,
) -> Result<(Rows<impl futures::Stream<Item = Result<arrow_flight::FlightData>> + Unpin + Send + use<>>, RowForm)> {
    let bound = |row: u64| i64::try_from(row).ok();
    let item = Item::Slice { start: bound(rows.start), stop: bound(rows.end), step: None };
    let request = ReadRequest {
        path: list.path.clone(),
        version: VersionSelector::Current,
        selection: Selection::new(vec![item], Vec::new())?,
        layout: Layout::Tensor,
        strings: Strings::Fixed,
        rows: None,
        batch_bytes: None,
        compression: None,
        wish: Wish::default(),
    };
    let mut call = service.log.call("Compact");
    call.path(&list.path.to_string());
    let mut messages = read::read_pinned(service, request, list.version_id).await?.messages(call);
    let broken = |status: &tonic::Status| {
        Error::new(Reason::Internal, format!("reading the rows to be compacted: {}", status.message()))
    };
    let first = messages.next().await.transpose().map_err(|status| broken(&status))?.unwrap_or_default();
    let schema = messages::schema(&first.data_header)?;
    let form = RowForm::of(&schema)?;
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let messages = messages.filter_map(move |message| {
        future::ready(match message {
            Ok(message) => Some(Ok(message)),
            // The last message of a read that went well is its statistics.
            Err(status) if status.code() == Code::Ok => {
                end.store(true, Ordering::Release);
                None
            }
            Err(status) => Some(Err(broken(&status))),
        })
    });
    Ok((Rows { schema, messages, ended }, form))
}

/// The form of the rows, with the element type that the dataset has: texts of a fixed size are the same bytes in both.
fn fitting(mut form: RowForm, version: &ResolvedVersion) -> Result<RowForm> {
    let known = version.extents.first().map(|extent| &extent.array.meta.element);
    let same_bytes = |known: &ElementType| matches!((known, &form.element), (ElementType::FixedString { bytes, .. }, ElementType::FixedString { bytes: read, .. }) if bytes == read);
    match known {
        Some(known) if *known == form.element || same_bytes(known) => {
            form.element = known.clone();
            // They are those of the dataset, which has them.
            form.attributes = Map::new();
            Ok(form)
        }
        _ => {
            let message = format!("{} has elements that are not written here as they are read", version.path);
            Err(Error::new(Reason::PutMismatch, message))
        }
    }
}

/// Makes the file durable and puts it in the place of the others.
async fn finish(
    service: &Arc<Service>,
    list: &LongList,
    (asked, replaced): (PutAsked, &[ListedExtent]),
    (filled, partial): (Filled, Box<Partial>),
) -> Result<()> {
    let partial = hashed(service, partial).await?;
    let content = partial.content();
    let inspected = inspect(service, partial.path().to_owned()).await?;
    let (files, address) = (Arc::clone(&service.files), content.clone());
    let address = run(service, move || files.managed_path(&address)).await?;
    let held = keep(service, partial, address, &content).await?;
    let naming = Naming { animal: list.path.animal.clone(), experiment: list.path.experiment.clone() };
    let wishes = Wishes { naming, ..Wishes::default() };
    let place = FilePlace::Managed { content: content.clone() };
    let source_name = format!("{} compacted", super::source_name(&asked.path.dataset, &content));
    let (publication, _) =
        super::super::publication(place, inspected.fingerprint, source_name, inspected.inspection, &wishes);
    let object = publication.objects.into_iter().find(|object| object.kind == ObjectKind::Dataset);
    let object = object.ok_or_else(|| Error::new(Reason::Internal, "a compaction made no dataset"))?;
    faults::pass("compact::publish")?;
    let compaction = Compaction {
        list: list.list,
        replaced: replaced.to_vec(),
        object,
        place: publication.place,
        fingerprint: publication.fingerprint,
        source_name: publication.source_name,
    };
    service.catalog.compact(&compaction).await?;
    faults::pass("compact::committed")?;
    // What this server knows of the dataset would go on reading the old files for as long as it is kept.
    service.versions.forget_made_of(&list.path);
    drop((held, filled));
    Ok(())
}

/// Forgets files that no list has named for the grace period; then they are garbage.
///
/// # Errors
/// `catalog_unavailable`.
pub async fn drop_unused(service: &Service) -> Result<u64> {
    let grace = Duration::from_secs(service.config.garbage_grace_hours.saturating_mul(3600));
    let before = chrono::Duration::from_std(grace).ok().and_then(|grace| Utc::now().checked_sub_signed(grace));
    let Some(before) = before else { return Ok(0) };
    let mut dropped = 0;
    loop {
        let files = service.catalog.drop_unused(before).await?;
        if files.is_empty() {
            return Ok(dropped);
        }
        for file_id in &files {
            service.versions.forget_file(*file_id);
        }
        dropped += files.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends one file after the other and compacts whenever there is something; gives the sizes and what was written.
    fn appended(count: usize, bytes: u64) -> (Vec<u64>, u64) {
        let (mut sizes, mut written) = (Vec::new(), 0);
        for _ in 0..count {
            sizes.push(bytes);
            while let Some(run) = run_of(&sizes) {
                let total: u64 = sizes[run.clone()].iter().sum();
                written += total;
                sizes.splice(run, [total]);
            }
        }
        (sizes, written)
    }

    #[test]
    fn an_hour_of_seconds_becomes_few_files_and_no_row_is_written_often() {
        for (bytes, files_max) in [(1_000, 40), (100_000, 40), (15_000_000, 4_000 / 8 + 16)] {
            let count = 4_000;
            let (sizes, written) = appended(count, bytes);
            assert_eq!(sizes.iter().sum::<u64>(), count as u64 * bytes);
            assert!(sizes.len() <= files_max, "{bytes}: {} files", sizes.len());
            assert!(written <= 7 * count as u64 * bytes, "{bytes}: {written} bytes were written");
        }
    }

    #[test]
    fn large_files_and_a_few_small_ones_are_left_alone() {
        assert_eq!(run_of(&[100; 7]), None);
        assert_eq!(run_of(&[100; 9]), Some(0..9));
        assert_eq!(run_of(&[PIECE_BYTES_MAX + 1; 20]), None);
        let mixed = [vec![1 << 30], vec![100; 5], vec![1 << 30], vec![5_000; 8]].concat();
        assert_eq!(run_of(&mixed), Some(7..15));
        let (total, most) = (PIECE_BYTES_MAX * 20, WRITTEN_BYTES_MAX);
        let run = run_of(&[PIECE_BYTES_MAX; 20]).unwrap();
        assert!(run.len() as u64 * PIECE_BYTES_MAX <= most && most < total);
    }
}
