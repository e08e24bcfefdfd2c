//! The text of a selection.

use h5flight_array::meta::ELEMENTS_MAX;
use h5flight_array::selection::{AxisSelection, Picked, Selection};

/// Text in, selection out: the canonical text is the same selection, and what it resolves to lies inside its axes.
pub fn selection_text(data: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(data) else { return 0 };
    let Ok(selection) = Selection::parse(text) else { return 0 };
    let canonical = selection.to_string();
    assert_eq!(Selection::parse(&canonical).unwrap(), selection, "{canonical:?} is another selection");
    let rank = selection.items().len();
    let shapes = [vec![], vec![1000, 8, 7], vec![10; rank], vec![ELEMENTS_MAX; rank], vec![u64::MAX; rank], vec![0; 3]];
    for shape in shapes {
        let Ok(resolved) = selection.resolve(&shape) else { continue };
        if let Picked::Elements(positions) = resolved.picked() {
            let elements: u128 = shape.iter().map(|size| u128::from(*size)).product();
            assert!(positions.iter().all(|position| u128::from(*position) < elements), "{positions:?} of {elements}");
            continue;
        }
        assert_eq!(resolved.axes().len(), shape.len());
        for (axis, size) in resolved.axes().iter().zip(&shape) {
            let inside = match axis {
                AxisSelection::Index(index) => index < size,
                AxisSelection::Range { count: 0, .. } => true,
                AxisSelection::Range { start, step, count } => {
                    let last = i128::from(*start) + i128::from(*step) * i128::from(count - 1);
                    start < size && (0..i128::from(*size)).contains(&last)
                }
                AxisSelection::List(list) => list.iter().all(|index| index < size),
                AxisSelection::Runs(runs) => runs.ranges().all(|range| range.start < range.end && range.end <= *size),
            };
            assert!(inside, "{axis:?} of {size}");
        }
    }
    0
}
