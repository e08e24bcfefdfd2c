//! Blocks of virtual datasets: each is read from its sources as any other read is, and put together.
//!
//! The sources are part of the resolved version, and each is opened as the file that was indexed: a source that changed
//! meanwhile is an error, never a mix. Their blocks come from the same caches and files as when they are read under
//! their own names; what was put together is not cached. Of one block, one batch of one source is in memory at a time.
//!
//! Mappings may overlap and sources be virtual themselves: what a block is made of is a tree, and a small file can ask
//! for any size of it. Before a block is fetched its whole tree is looked at ([`sized`]), within the bound of [`Looks`];
//! what is put together afterwards is the same tree. The bound is of a block, not of a read: a read of a large dataset
//! is long, and its client takes it batch by batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use h5flight_array::batch::{Composition, Decoded};
use h5flight_array::plan::{
    Block, BlockId, BlockSource, Looks, Plan, PlanOptions, SourceView, VirtualCopy, VirtualSource,
};
use h5flight_array::{Error as ArrayError, Reason};
use h5flight_catalog::model::{ArrayRecord, SourceRecord};

use super::fetch::{Fetched, Fetcher, Wanted, reserved_bytes};
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

/// Looks that are taken on an async thread: about a tenth of a millisecond. Whatever takes more begins again off it.
const LOOKS_AT_ONCE: u64 = 1 << 13;

/// The arrays that virtual ones are made of, each prepared once for a read.
///
/// Lock order: held for the look-up only, never across an await and never while an array is prepared.
#[derive(Default)]
pub(super) struct Sources {
    /// By address: the same array has other sources where it lies deeper. The record keeps the address its own.
    prepared: Mutex<HashMap<usize, (Arc<ArrayRecord>, VirtualSource)>>,
}

impl Sources {
    /// An array, ready for any number of plans.
    ///
    /// # Errors
    /// `virtual_source_refused`; `result_too_large` when the looks do not suffice: one for each of its mappings.
    fn prepare(&self, array: &Arc<ArrayRecord>, looks: &mut Looks) -> Result<VirtualSource> {
        let address = Arc::as_ptr(array).addr();
        let prepared = || self.prepared.lock().expect("no code panics while it holds this lock");
        if let Some((_, source)) = prepared().get(&address) {
            return Ok(source.clone());
        }
        looks.take(array.sources.len() as u64)?;
        let source = VirtualSource::new(&array.meta, array.inline.is_some(), &views(array))?;
        prepared().insert(address, (Arc::clone(array), source.clone()));
        Ok(source)
    }

    /// The source of a copy, and the plan of reading it.
    fn plan(
        &self,
        array: &ArrayRecord,
        copy: &VirtualCopy,
        options: &PlanOptions,
        looks: &mut Looks,
    ) -> Result<(Arc<ArrayRecord>, Plan)> {
        let Some(SourceRecord::Served(source)) = array.sources.get(copy.mapping as usize) else {
            return Err(Error::new(Reason::Internal, "a plan reads from a source that is not served"));
        };
        let prepared = self.prepare(source, looks)?;
        Ok((Arc::clone(source), copy.plan(&prepared, options, looks)?))
    }
}

/// Finding out what a block is made of, and what memory that takes.
pub(super) struct Sizing<'a> {
    sources: &'a Sources,
    options: &'a PlanOptions,
    looks: Looks,
}

impl Sizing<'_> {
    fn block(&mut self, plan: &Plan, id: BlockId, array: &ArrayRecord) -> Result<Wanted> {
        let block = plan.block_within(id, &array.index, &mut self.looks)?;
        let bytes = reserved_bytes(array, &block, self)?;
        Ok(Wanted { block, bytes })
    }
}

/// What a block of the plan is, and the memory that fetching it takes. Small and plain blocks are looked at at once.
///
/// # Errors
/// Of a virtual array why a source cannot be read; `result_too_large` where it is made of too many parts.
pub(super) async fn sized(fetcher: &Fetcher, plan: &Arc<Plan>, id: BlockId) -> Result<Wanted> {
    let (array, options, sources) = (fetcher.array(id), &fetcher.options, &fetcher.sources);
    let mut at_once = Sizing { sources, options, looks: Looks::new(LOOKS_AT_ONCE) };
    let wanted = at_once.block(plan, id, array);
    if !at_once.looks.is_spent() {
        return wanted;
    }
    let (array, options, sources) = (Arc::clone(array), Arc::clone(options), Arc::clone(sources));
    let plan = Arc::clone(plan);
    let look =
        move || Sizing { sources: &sources, options: &options, looks: Looks::default() }.block(&plan, id, &array);
    // Up to half a second, so not in the lane of what is short.
    fetcher.service.blocking.run(Lane::Decode(&fetcher.share, 0), look).await
}

/// Memory that reading the sources of a block takes beside the block, in bytes: that of the largest batch.
///
/// # Errors
/// As [`sized`].
pub(super) fn sources_bytes(array: &ArrayRecord, copies: &[VirtualCopy], sizing: &mut Sizing<'_>) -> Result<u64> {
    let mut most = 0;
    for copy in copies {
        let (source, plan) = sizing.sources.plan(array, copy, sizing.options, &mut sizing.looks)?;
        for at in 0..plan.batches() {
            let batch = plan.batch(at);
            sizing.looks.take(batch.blocks().len() as u64)?;
            let mut bytes = 0u64;
            for id in batch.blocks() {
                bytes = bytes.saturating_add(sizing.block(&plan, *id, &source)?.bytes);
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
        // Counted when the block was sized.
        let (source, plan) = fetcher.sources.plan(array, copy, &fetcher.options, &mut Looks::default())?;
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
    let mut blocks = Vec::with_capacity(batch.blocks().len());
    for id in batch.blocks() {
        blocks.push(of_source.block(plan, *id).await?);
    }
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
    of_source.service.blocking.run(Lane::Decode(&of_source.share, 0), work).await
}

#[cfg(test)]
mod tests {
    use h5flight_array::index::ChunkIndex;
    use h5flight_array::meta::{ArrayMeta, ElementType, SlabAxis, Space, Storage, VirtualMapping};
    use h5flight_array::plan::ExtentView;
    use h5flight_array::selection::Selection;
    use h5flight_catalog::model::{FilePlace, FileRecord, Fingerprint};

    use super::*;

    const ROWS: u64 = 10;

    fn array(id: i64, storage: Storage, sources: Vec<SourceRecord>) -> Arc<ArrayRecord> {
        let element = ElementType::Integer { bytes: 1, signed: false, order: h5flight_array::meta::ByteOrder::Little };
        let fingerprint = Fingerprint { device: 0, inode: 0, bytes: 0, modified_ns: 0 };
        let file = FileRecord {
            id: 1,
            place: FilePlace::Managed { content: String::new() },
            fingerprint,
            source_name: "hostile.h5".into(),
            quarantined: None,
            created_at: Default::default(),
            datasets: 1,
        };
        let meta = ArrayMeta {
            space: Space::Simple { shape: vec![ROWS] },
            max_shape: vec![Some(ROWS)],
            element,
            converted: false,
            type_note: String::new(),
            storage,
            filters: Vec::new(),
            fill: None,
        };
        let (problem, inline, index) = (None, None, ChunkIndex::default());
        let (identity, hdf5_path, file) = ([0; 16], String::new(), Arc::new(file));
        Arc::new(ArrayRecord { id, identity, hdf5_path, meta, index, inline, problem, file, sources })
    }

    /// Virtual arrays of virtual arrays; each maps the whole of the next one this many times over itself.
    fn overlapping(levels: i64, mappings: usize) -> Arc<ArrayRecord> {
        let last = array(0, Storage::Contiguous { offset: Some(0) }, Vec::new());
        (1..=levels).fold(last, |source, id| {
            let slab = vec![SlabAxis::run(0, ROWS)];
            let mapping = VirtualMapping { file: None, path: "/next".into(), slab, source_slab: None };
            array(
                id,
                Storage::Virtual { mappings: vec![mapping; mappings] },
                vec![SourceRecord::Served(source); mappings],
            )
        })
    }

    /// The error of sizing the only block, the looks left, and how many sources were prepared.
    fn size(array: &ArrayRecord) -> (Option<Reason>, u64, usize) {
        let (meta, sources) = (&array.meta, views(array));
        let view = ExtentView { first_row: 0, array_row: 0, rows: ROWS, meta, inline: false, sources: &sources };
        let selected = Selection::all().resolve(&[ROWS]).unwrap();
        let (options, sources) = (PlanOptions::default(), Sources::default());
        let plan = Plan::new(&[view], &selected, &options).unwrap();
        let mut sizing = Sizing { sources: &sources, options: &options, looks: Looks::default() };
        let wanted = sizing.block(&plan, plan.batch(0).blocks()[0], array);
        let left = sizing.looks.left();
        (wanted.err().map(|error| error.reason()), left, sources.prepared.lock().unwrap().len())
    }

    #[test]
    fn what_overlapping_mappings_multiply_to_is_counted_and_refused() {
        let all = Looks::default().left();
        for (levels, mappings, copies) in [(1, 1000, 1000), (2, 100, 10_100), (4, 10, 11_110)] {
            let (refused, left, prepared) = size(&overlapping(levels, mappings));
            assert_eq!((refused, prepared), (None, levels as usize), "{levels} levels of {mappings} mappings");
            let looks = (all - left) / copies;
            assert!((256..512).contains(&looks), "{looks} looks a copy: {levels} levels of {mappings} mappings");
        }
        // 10^12 and 4 x 10^9 copies: the work ends with the looks, each array is prepared once.
        for (levels, mappings) in [(4, 1000), (2, 65_536)] {
            let (refused, _, prepared) = size(&overlapping(levels, mappings));
            let expected = (Some(Reason::ResultTooLarge), levels as usize);
            assert_eq!((refused, prepared), expected, "{levels} levels of {mappings} mappings");
        }
    }
}
