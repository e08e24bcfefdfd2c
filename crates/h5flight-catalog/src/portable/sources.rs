//! The sources of virtual arrays: looked up level by level when a version is resolved, so that they are pinned with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Store, dialect};
use crate::error::{Error, ErrorKind, Result};
use crate::model::*;
use crate::mosaic::{ARRAYS_MAX, Asked, DEPTH_MAX, POINTERS_MAX, Sources, asked, mappings};
use crate::rows;

/// Gives every virtual array of a version its sources. A version without one costs nothing.
///
/// # Errors
/// [`ErrorKind::Refused`] with `file_too_complex` where there are too many.
pub(super) async fn attach(store: &Store, version: &mut ResolvedVersion) -> Result<()> {
    let is_virtual = |array: &Arc<ArrayRecord>| !mappings(array).is_empty();
    let mut level: Vec<Arc<ArrayRecord>> = version.extents.iter().map(|extent| Arc::clone(&extent.array)).collect();
    level.retain(is_virtual);
    if level.is_empty() {
        return Ok(());
    }
    let mut sources = Sources::default();
    for _ in 0..=DEPTH_MAX {
        level = next_level(store, version.dataset_id, &level, &mut sources).await?;
        level.retain(is_virtual);
        if level.is_empty() {
            break;
        }
    }
    for extent in &mut version.extents {
        extent.array = sources.made(&extent.array);
    }
    Ok(())
}

/// The arrays that these are made of and that were not known yet.
async fn next_level(
    store: &Store,
    dataset_id: i64,
    level: &[Arc<ArrayRecord>],
    sources: &mut Sources,
) -> Result<Vec<Arc<ArrayRecord>>> {
    let mut own: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    let (mut files, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for array in level {
        let unknown = |asked: &Asked<'_>| !sources.knows(&array.file, asked);
        for asked in mappings(array).iter().map(|mapping| asked(mapping, &array.file)).filter(unknown) {
            match asked {
                Asked::Own(path) => {
                    own.entry(array.file.id).or_default().insert(path);
                }
                Asked::Other(file, path) => {
                    files.insert(file);
                    paths.insert(path);
                }
            }
        }
    }
    let mut found = Vec::new();
    for (file_id, paths) in own {
        let paths: Vec<&str> = paths.into_iter().collect();
        let rows = dialect::file_arrays(store, dataset_id, file_id, &paths).await?;
        for array in completed(store, rows, sources.len()).await? {
            sources.add_own(Arc::clone(&array));
            found.push(array);
        }
    }
    if !files.is_empty() {
        let (files, paths): (Vec<&str>, Vec<&str>) = (files.into_iter().collect(), paths.into_iter().collect());
        let rows = dialect::current_arrays(store, dataset_id, &files, &paths).await?;
        for array in completed(store, rows, sources.len()).await? {
            sources.add_other(Arc::clone(&array));
            found.push(array);
        }
    }
    Ok(found)
}

/// Arrays with their chunk indexes, unless these are too many.
async fn completed(store: &Store, rows: Vec<rows::ArrayRow>, before: usize) -> Result<Vec<Arc<ArrayRecord>>> {
    let pointers: u64 = rows.iter().map(|row| u64::try_from(row.chunks).unwrap_or(0)).sum();
    if rows.len() + before > ARRAYS_MAX || pointers > POINTERS_MAX {
        let count = rows.len();
        let message =
            format!("a virtual dataset of {count} sources with {pointers} chunks is more than is put together");
        return Err(Error::new(ErrorKind::Refused("file_too_complex".into()), message));
    }
    let chunked: Vec<i64> = rows.iter().filter(|row| row.chunks > 0).map(|row| row.array_id).collect();
    let runs = if chunked.is_empty() { Vec::new() } else { dialect::runs_of(store, &chunked).await? };
    rows::arrays(rows, runs).await
}
