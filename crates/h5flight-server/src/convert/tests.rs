//! Selections in all their forms mean the same: the table in `tests/selections.jsonl`, whose results are numpy's.

use h5flight_array::selection::{AxisSelection, Picked, Resolved};
use prost::Message;
use serde_json::Value;

use super::*;

const TABLE: &str = include_str!("../../../../tests/selections.jsonl");

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|number| number.as_u64().expect("a number")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits")).collect()
}

/// Positions in C order of everything that is selected.
fn elements(resolved: &Resolved) -> Vec<u64> {
    let axes = match resolved.picked() {
        Picked::Elements(positions) => return positions.to_vec(),
        Picked::Axes(axes) => axes,
    };
    let mut found = vec![0];
    for (axis, size) in axes.iter().zip(resolved.source_shape()) {
        let indices: Vec<u64> = match axis {
            AxisSelection::Index(index) => vec![*index],
            AxisSelection::List(list) => list.to_vec(),
            AxisSelection::Runs(runs) => runs.ranges().flatten().collect(),
            AxisSelection::Range { start, step, count } => {
                (0..*count).map(|at| start.checked_add_signed(step * at as i64).expect("an index")).collect()
            }
        };
        found = found.iter().flat_map(|before| indices.iter().map(move |index| before * size + index)).collect();
    }
    found
}

#[test]
fn text_message_and_numpy_mean_the_same() {
    assert!(TABLE.lines().count() > 40);
    for line in TABLE.lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let (shape, text) = (numbers(&row["shape"]), row["text"].as_str().expect("text"));
        let parts = v1::Selection::decode(bytes(row["wire"].as_str().expect("digits")).as_slice()).expect("a message");
        let of_text = Selection::parse(text).expect(text).resolve(&shape);
        let of_parts = selection(&parts).expect(text).resolve(&shape);
        if row["refused"] == true {
            let (one, other) = (of_text.expect_err(text), of_parts.expect_err(text));
            assert_eq!((one.reason, &one.message), (other.reason, &other.message), "{text}");
            continue;
        }
        let (of_text, of_parts) = (of_text.expect(text), of_parts.expect(text));
        assert_eq!((of_text.picked(), of_text.fields()), (of_parts.picked(), of_parts.fields()), "{text} of {shape:?}");
        assert_eq!(of_text.shape(), numbers(&row["result"]), "{text} of {shape:?}");
        assert_eq!(elements(&of_text), numbers(&row["elements"]), "{text} of {shape:?}");
    }
}

#[test]
fn messages_that_contradict_themselves_are_bad_selections() {
    use v1::selection::Elements;
    let of = |axes, elements| v1::Selection { axes, fields: Vec::new(), elements };
    let nothing = || v1::AxisSelection { kind: None };
    let points = |rank, coordinates| Some(Elements::Points(v1::Points { rank, coordinates }));
    let mask = |length, bits, skips| {
        Some(Elements::Mask(v1::ElementMask { shape: vec![2, 2], bits, length, first: 0, skips }))
    };
    let flags = v1::Mask { bits: vec![0], length: 9 };
    let flags = v1::AxisSelection { kind: Some(axis_selection::Kind::Mask(flags)) };
    for (parts, message) in [
        (of(vec![nothing()], None), "item 0 of the selection says nothing"),
        (of(vec![flags], None), "a mask of 9 flags has 1 bytes"),
        (of(vec![nothing()], points(1, vec![0])), "1 axes and of single elements"),
        (of(vec![], points(2, vec![0, 1, 2])), "3 coordinates are no whole number of points of rank 2"),
        (of(vec![], points(0, vec![0])), "rank 0"),
        (of(vec![], points(u32::MAX, vec![])), "at most 32 axes"),
        (of(vec![], mask(5, vec![0], vec![])), "a mask of 5 flags from element 0 on for shape [2, 2]"),
        (of(vec![], mask(4, vec![0], vec![1])), "4 flags and 1 skips"),
        (of(vec![], mask(0, vec![], vec![4])), "outside of shape [2, 2]"),
    ] {
        let error = selection(&parts).expect_err(message);
        assert_eq!(error.reason(), Reason::BadSelection, "{message}");
        assert!(error.to_string().contains(message), "{error} does not say {message:?}");
    }
}

#[test]
fn a_version_is_named_in_one_way_and_a_time_is_one() {
    let request = |version, kind: Option<version_selector::Kind>| v1::GetDataRequest {
        animal: "a".into(),
        experiment: "e".into(),
        dataset: "d".into(),
        version,
        at: kind.map(|kind| v1::VersionSelector { kind: Some(kind) }),
        ..v1::GetDataRequest::default()
    };
    let selected = |version, kind| read_request(&request(version, kind)).map(|read| read.version);
    use version_selector::Kind::{AsOfUs, Tag, Version};
    assert_eq!(selected(0, None).unwrap(), VersionSelector::Current);
    assert_eq!(selected(7, None).unwrap(), VersionSelector::Number(7));
    assert_eq!(selected(0, Some(Version(0))).unwrap(), VersionSelector::Current);
    assert_eq!(selected(0, Some(Version(7))).unwrap(), VersionSelector::Number(7));
    assert_eq!(
        selected(0, Some(AsOfUs(-1))).unwrap(),
        VersionSelector::AsOf(DateTime::from_timestamp_micros(-1).unwrap())
    );
    assert_eq!(selected(0, Some(Tag("x".into()))).unwrap(), VersionSelector::Tag("x".into()));
    for (version, kind) in [
        (1, Tag("x".into())),
        (0, AsOfUs(i64::MAX)),
        (0, AsOfUs(i64::MIN)),
        (0, Tag(String::new())),
        (0, Tag("x".repeat(1_000))),
    ] {
        let error = selected(version, Some(kind.clone())).expect_err("no version");
        assert_eq!(error.reason(), Reason::BadRequest, "{kind:?}");
    }
}
