//! Blocks of virtual datasets: each is read from its sources as any other read is, and put together.
//!
//! The sources are part of the resolved version, and each is opened as the file that was indexed: a source that changed
//! meanwhile is an error, never a mix. Their blocks come from the same caches and files as when they are read under
//! their own names; what was put together is not cached. Of one block, one batch of one source is in memory at a time.

use std::collections::HashMap;
use std::sync::Arc;

use h5flight_array::batch::{Composition, Decoded};
use h5flight_array::plan::{Block, BlockId, BlockSource, ExtentView, Plan, PlanOptions, SourceView, VirtualCopy};
use h5flight_array::{Error as ArrayError, Reason};
use h5flight_catalog::model::{ArrayRecord, SourceRecord};

use super::fetch::{Fetched, Fetcher, reserved_bytes};
use crate::blocking::Lane;
use crate::error::{Error, Result};
use crate::memory::Growth;

/// What plans know of the sources of an array.
pub(super) fn views(array: &ArrayRecord) -> Vec<SourceView<'_>> {
    array.sources.iter().map(view).collect()
}

fn view(source: &SourceRecord) -> SourceView<'_> {
    match source {
        SourceRecord::Served(source) => match refusal(source) {
            None => SourceView::Served(&source.meta),
            Some((reason, message)) => SourceView::Refused(reason, message),
        },
        SourceRecord::Refused(reason, message) => SourceView::Refused(*reason, message),
    }
}

/// Why an array that is listed is not read: it has a problem, or its file was quarantined.
pub(super) fn refusal(array: &ArrayRecord) -> Option<(Reason, &str)> {
    let (reason, message) = array.problem.as_ref().or(array.file.quarantined.as_ref())?;
    Some((Reason::from_text(reason).unwrap_or(Reason::MalformedFile), message))
}

/// The source of a copy, and the plan of reading it.
fn planned(array: &ArrayRecord, copy: &VirtualCopy, options: &PlanOptions) -> Result<(Arc<ArrayRecord>, Plan)> {
    let Some(SourceRecord::Served(source)) = array.sources.get(copy.mapping as usize) else {
        return Err(Error::new(Reason::Internal, "a plan reads from a source that is not served"));
    };
    let sources = views(source);
    let (meta, inline) = (&source.meta, source.inline.is_some());
    let rows = meta.shape().first().copied().unwrap_or(1);
    let view = ExtentView { first_row: 0, array_row: 0, rows, meta, inline, sources: &sources };
    Ok((Arc::clone(source), copy.plan(&view, options)?))
}

/// Memory that reading the sources of a block takes beside the block, in bytes: that of the largest batch.
pub(super) fn sources_bytes(array: &ArrayRecord, copies: &[VirtualCopy], options: &PlanOptions) -> Result<u64> {
    let mut most = 0;
    for copy in copies {
        let (source, plan) = planned(array, copy, options)?;
        for at in 0..plan.batches() {
            let mut bytes = 0u64;
            for id in plan.batch(at).blocks() {
                let block = plan.block(*id, &source.index)?;
                bytes = bytes.saturating_add(reserved_bytes(&source, &block, options)?);
            }
            most = bytes.max(most);
        }
    }
    Ok(most)
}

/// Puts a block together. Values of no fixed size reserve what they take as they come.
///
/// # Errors
/// What reading a source finds, `file_changed` among it; `busy`.
pub(super) async fn compose(fetcher: &Fetcher, block: &Block, growth: &mut Growth) -> Result<Decoded> {
    let array = fetcher.array(block.id);
    let BlockSource::Virtual(copies) = &block.source else {
        return Err(ArrayError::new(Reason::Internal, "a block that is not virtual was to be put together").into());
    };
    let mut composition = Composition::new(block, &array.meta)?;
    let mut last: Option<(i64, Arc<Fetcher>)> = None;
    for copy in copies {
        let (source, plan) = planned(array, copy, &fetcher.options)?;
        let of_source = match last.take().filter(|(id, _)| *id == source.id) {
            Some((_, of_source)) => of_source,
            None => Arc::new(fetcher.of_source(&source).await?),
        };
        let (copy, plan) = (Arc::new(copy.clone()), Arc::new(plan));
        for at in 0..plan.batches() {
            let before = composition.bytes();
            composition = take(composition, &of_source, &copy, &plan, at).await?;
            if block.decoded_bytes.is_none() {
                // Once as they were taken, and once more in their order.
                growth.admit(2 * (composition.bytes() - before) as u64).await?;
            }
        }
        last = Some((source.id, of_source));
    }
    Ok(composition.finish(&array.meta)?)
}

/// Takes the values of one batch of a copy.
async fn take(
    mut composition: Composition,
    of_source: &Arc<Fetcher>,
    copy: &Arc<VirtualCopy>,
    plan: &Arc<Plan>,
    at: usize,
) -> Result<Composition> {
    let batch = plan.batch(at);
    let blocks = batch.blocks().iter().map(|id| of_source.block(plan, *id)).collect::<Result<Vec<_>>>()?;
    // What they take was reserved with the block that is put together; what they take beyond is held until it is copied.
    let mut fetched: HashMap<BlockId, Fetched> = HashMap::new();
    for fetching in of_source.start(blocks, None) {
        fetched.extend(fetching.wait().await?.into_iter().map(|fetched| (fetched.id, fetched)));
    }
    let block = |id: &BlockId| fetched.get(id).map(|fetched| Arc::clone(&fetched.block));
    let blocks: Option<Vec<Arc<Decoded>>> = batch.blocks().iter().map(block).collect();
    let blocks = blocks.ok_or_else(|| Error::new(Reason::Internal, "a block of a source is missing"))?;
    let (copy, plan) = (Arc::clone(copy), Arc::clone(plan));
    let work = move || {
        composition.take(&copy, &plan, &batch, &blocks)?;
        Ok::<_, Error>(composition)
    };
    of_source.service.blocking.run(Lane::Decode, work).await
}
