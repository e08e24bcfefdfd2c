//! Decoded blocks as they come from a cache, the catalogue or the worker.

use bytes::Bytes;
use h5flight_array::batch::Decoded;
use h5flight_array::index::ChunkIndex;
use h5flight_array::meta::{ArrayMeta, Space, Storage};
use h5flight_array::plan::{ExtentView, Layout, Plan, PlanOptions, Strings, total_shape};
use h5flight_array::selection::Selection;

use super::input::Input;

/// Any bytes as the values of an array of any type: refused, or assembled in any layout without a surprise.
pub fn cached_values(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let shape: Vec<u64> = (0..input.below(4)).map(|_| input.below(6) as u64).collect();
    let meta = ArrayMeta {
        max_shape: Vec::new(),
        space: Space::Simple { shape: shape.clone() },
        element: input.element(0),
        converted: input.coin(),
        type_note: String::new(),
        storage: Storage::Compact,
        filters: Vec::new(),
        fill: None,
    };
    let layout = [Layout::Auto, Layout::Tensor, Layout::Columns, Layout::Tidy][input.below(4)];
    let strings = [Strings::AsIndexed, Strings::Binary, Strings::Fixed][input.below(3)];
    let text = ["", "::-1", "..., ::2", "0", "[0,0]"][input.below(5)];
    if meta.check().is_err() {
        return 0;
    }
    let rows = shape.first().copied().unwrap_or(1);
    let view = ExtentView { first_row: 0, array_row: 0, rows, meta: &meta, inline: true, sources: &[] };
    let options = PlanOptions {
        layout,
        strings,
        batch_bytes: 64,
        chunk_bytes_max: 1 << 20,
        row_bytes_max: 1 << 20,
        ..PlanOptions::default()
    };
    let shape = total_shape(&[view]).unwrap();
    let Ok(selected) = Selection::parse(text).unwrap().resolve(&shape) else { return 0 };
    let Ok(plan) = Plan::new(&[view], &selected, &options) else { return 0 };
    let values = Bytes::copy_from_slice(input.rest());
    for at in 0..plan.batches() {
        let batch = plan.batch(at);
        // Rows without a value need no block.
        let Some(id) = batch.blocks().first() else { continue };
        let block = plan.block(*id, &ChunkIndex::default()).unwrap();
        let decoded = Decoded::new(values.clone(), &block, &meta).or_else(|_| Decoded::fill(&block, &meta)).unwrap();
        assert!(block.decoded_bytes.is_none_or(|bytes| bytes == decoded.bytes().len() as u64));
        match plan.assemble(&batch, &[decoded.into()]) {
            Ok(records) => assert_eq!(records.schema(), plan.schema()),
            Err(error) => assert_ne!(error.reason, h5flight_array::Reason::Internal, "{error}: {:?}", error.source),
        }
    }
    // A batch of its largest row, and the fill values of its block, each with what Arrow adds.
    4 * ((1 << 20) + (64 << 10))
}
