//! The text of a selection means what numpy means by it. The expected indices are numpy's own.

use h5flight_array::Reason;
use h5flight_array::selection::{AxisSelection, ElementMask, Item, POINTS_MAX, Part, Picked, Points, Selection};
use proptest::prelude::*;

/// (size, text, indices): `numpy.arange(size)[text]`.
const ONE_AXIS: &[(u64, &str, &[u64])] = &[
    (5, "", &[0, 1, 2, 3, 4]),
    (5, "::", &[0, 1, 2, 3, 4]),
    (5, "2", &[2]),
    (5, "-1", &[4]),
    (5, "-5", &[0]),
    (5, "0:3", &[0, 1, 2]),
    (5, "3:", &[3, 4]),
    (5, "-2:", &[3, 4]),
    (5, ":-2", &[0, 1, 2]),
    (5, "::2", &[0, 2, 4]),
    (5, "::-1", &[4, 3, 2, 1, 0]),
    (5, "3:0:-1", &[3, 2, 1]),
    (5, "4::-2", &[4, 2, 0]),
    (5, ":2:-1", &[4, 3]),
    (5, "-1:-4:-1", &[4, 3, 2]),
    (5, "10:", &[]),
    (5, "-10:2", &[0, 1]),
    (5, ":100", &[0, 1, 2, 3, 4]),
    (5, "7:3", &[]),
    (5, "3:7:-1", &[]),
    (5, "1:1", &[]),
    (5, "::7", &[0]),
    (5, "::-7", &[4]),
    (5, "-9:9:3", &[0, 3]),
    (5, "9:-9:-3", &[4, 1]),
    (5, "2:4:9223372036854775807", &[2]),
    (5, "::-9223372036854775808", &[4]),
    (5, "4:-100:-9223372036854775807", &[4]),
    (1, "", &[0]),
    (1, "::", &[0]),
    (1, "-1", &[0]),
    (1, "0:3", &[0]),
    (1, "3:", &[]),
    (1, "-2:", &[0]),
    (1, ":-2", &[]),
    (1, "::2", &[0]),
    (1, "::-1", &[0]),
    (1, "3:0:-1", &[]),
    (1, "4::-2", &[0]),
    (1, ":2:-1", &[]),
    (1, "-1:-4:-1", &[0]),
    (1, "10:", &[]),
    (1, "-10:2", &[0]),
    (1, ":100", &[0]),
    (1, "7:3", &[]),
    (1, "3:7:-1", &[]),
    (1, "1:1", &[]),
    (1, "::7", &[0]),
    (1, "::-7", &[0]),
    (1, "-9:9:3", &[0]),
    (1, "9:-9:-3", &[0]),
    (1, "2:4:9223372036854775807", &[]),
    (1, "::-9223372036854775808", &[0]),
    (1, "4:-100:-9223372036854775807", &[0]),
    (0, "", &[]),
    (0, "::", &[]),
    (0, "0:3", &[]),
    (0, "3:", &[]),
    (0, "-2:", &[]),
    (0, ":-2", &[]),
    (0, "::2", &[]),
    (0, "::-1", &[]),
    (0, "3:0:-1", &[]),
    (0, "4::-2", &[]),
    (0, ":2:-1", &[]),
    (0, "-1:-4:-1", &[]),
    (0, "10:", &[]),
    (0, "-10:2", &[]),
    (0, ":100", &[]),
    (0, "7:3", &[]),
    (0, "3:7:-1", &[]),
    (0, "1:1", &[]),
    (0, "::7", &[]),
    (0, "::-7", &[]),
    (0, "-9:9:3", &[]),
    (0, "9:-9:-3", &[]),
    (0, "2:4:9223372036854775807", &[]),
    (0, "::-9223372036854775808", &[]),
    (0, "4:-100:-9223372036854775807", &[]),
];

/// (text, shape): `numpy.empty((4, 5, 6))[text].shape`, lists by `numpy.ix_`.
const THREE_AXES: &[(&str, &[u64])] = &[
    ("", &[4, 5, 6]),
    ("()", &[4, 5, 6]),
    ("1", &[5, 6]),
    ("1, 2", &[6]),
    ("1, 2, 3", &[]),
    (":, 2", &[4, 6]),
    ("..., 2", &[4, 5]),
    ("1, ...", &[5, 6]),
    ("1, ..., ::2", &[5, 3]),
    ("...", &[4, 5, 6]),
    ("0:2, 0:2, 0:2, ...", &[2, 2, 2]),
    ("[0,2]", &[2, 5, 6]),
    ("[0,2], 1:3, ::-4", &[2, 2, 2]),
    ("[0,2], [1,1,1], [5]", &[2, 3, 1]),
    (":, :, [5,5,0]", &[4, 5, 3]),
    ("0:0, 1", &[0, 6]),
    ("-1, -1, -1", &[]),
    ("2:, [], ...", &[2, 0, 6]),
    ("..., 1, 2, 3", &[]),
    ("[True,False,True,False], 0", &[2, 6]),
    (" 1 ,\t0 : 2 : 1 , [ 1 , 2 , ] , ", &[2, 2]),
];

/// (text, part of the message): everything that is refused as text.
const REFUSED: &[(&str, &str)] = &[
    ("1:2:0", "character 5: a step of 0"),
    ("1, None", "new axes"),
    ("np.newaxis, 1", "new axes"),
    ("..., ...", "2 ellipses"),
    ("1 2", "character 3: expected ',' or the end of the selection, found \"2\""),
    ("1, x", "character 4: expected an index"),
    ("[1, 2", "character 6: expected ',' or ']', found the end"),
    ("[1, [2]]", "character 5: expected a number"),
    ("[1:2]", "character 3: expected ',' or ']'"),
    ("[True, 1]", "expected True or False"),
    ("1:2:3:4", "character 6: expected ',' or the end"),
    ("-", "character 1: expected a number"),
    ("9223372036854775808", "does not fit 64 bits"),
    ("1.5", "character 2: expected ','"),
    ("..", "expected an index"),
    (",", "expected an index"),
    ("1,,2", "character 3: expected an index"),
    ("\"t", "does not end"),
    ("\"t\", 't'", "field \"t\" is selected twice"),
    ("(1, 2)", "expected an index"),
    ("() 1", "expected the end"),
    ("é", "character 1"),
    ("points", "character 7: expected '[' and points"),
    ("points[1, 2]", "character 8: expected '[' and the coordinates"),
    ("points[[1, 2], [3]]", "character 17: point 1 has 1 coordinates, expected 2"),
    ("points[[]]", "point 0 has 0 coordinates, expected at least 1"),
    ("points[[1, 2]], 3", "character 17: expected nothing besides points"),
    ("0, points[[1, 2]]", "character 4: expected an index: points take the place of all axes"),
    ("points[[1]], points[[2]]", "nothing besides points"),
    ("points[[True]]", "expected a number"),
    ("1, 2.0", "character 5: expected ','"),
    ("0:1e3", "character 4: expected ','"),
    ("None, points[[0]]", "new axes"),
];

fn indices(text: &str, size: u64) -> Vec<u64> {
    let resolved = Selection::parse(text).unwrap().resolve(&[size]).unwrap();
    match &resolved.axes()[0] {
        AxisSelection::Index(index) => vec![*index],
        AxisSelection::Range { start, step, count } => {
            (0..*count).map(|at| start.checked_add_signed(step * at as i64).unwrap()).collect()
        }
        AxisSelection::List(list) => list.to_vec(),
        AxisSelection::Runs(runs) => runs.ranges().flatten().collect(),
    }
}

#[test]
fn slices_and_indices_of_one_axis_are_those_of_numpy() {
    for (size, text, expected) in ONE_AXIS {
        assert_eq!(indices(text, *size), *expected, "arange({size})[{text}]");
    }
}

#[test]
fn shapes_of_results_are_those_of_numpy() {
    for (text, shape) in THREE_AXES {
        let selection = Selection::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selection.resolve(&[4, 5, 6]).unwrap().shape(), *shape, "{text}");
    }
}

#[test]
fn lists_and_masks_keep_their_order_and_duplicates() {
    assert_eq!(indices("[3,1,1,-1]", 5), [3, 1, 1, 4]);
    assert_eq!(indices("[4,3,2]", 5), [4, 3, 2]);
    assert_eq!(indices("[2,2]", 5), [2, 2]);
    assert_eq!(indices("[]", 5), [0u64; 0]);
    assert_eq!(indices("[True,False,True,True,False]", 5), [0, 2, 3]);
}

fn positions(selection: &Selection, shape: &[u64]) -> Vec<u64> {
    match selection.resolve(shape).unwrap().picked() {
        Picked::Elements(positions) => positions.to_vec(),
        Picked::Axes(axes) => panic!("{axes:?}"),
    }
}

#[test]
fn points_are_single_elements_in_their_order_and_negative_coordinates_count_from_the_end() {
    let points = |text: &str| Selection::parse(text).unwrap();
    assert_eq!(positions(&points("points[[0, 1], [3, 4], [0, 1], [-1, -5]]"), &[4, 5]), [1, 19, 1, 15]);
    assert_eq!(positions(&points(" points [ [ 2 , ] , ] , 't'"), &[3]), [2]);
    assert_eq!(points("'t', points[[1,2],[3,-4]]").to_string(), "\"t\", points[[1,2],[3,-4]]");
    for shape in [&[][..], &[3], &[0, 5]] {
        assert_eq!(points("points[]").resolve(shape).unwrap().shape(), [0], "{shape:?}");
    }
    let error = points("points[[0, 0]]").resolve(&[1 << 40, 1 << 40]).unwrap_err();
    assert!(error.message.contains("more than 2^64"), "{}", error.message);
}

#[test]
fn a_mask_over_all_axes_is_the_points_at_which_it_is_true() {
    let mask = |first, length, bits: &[u8]| {
        Selection::of(Part::Mask(ElementMask::new(vec![3, 4], first, length, bits.to_vec()).unwrap()), Vec::new())
    };
    let whole = mask(0, 12, &[0b1000_0001, 0b1111_1010]).unwrap();
    assert_eq!(positions(&whole, &[3, 4]), [0, 7, 9, 11]);
    assert_eq!(whole.to_string(), "points[[0,0],[1,3],[2,1],[2,3]]");
    let text = Selection::parse(&whole.to_string()).unwrap();
    assert_eq!(whole.resolve(&[3, 4]).unwrap(), text.resolve(&[3, 4]).unwrap());
    assert_eq!(positions(&mask(5, 3, &[0b0000_0110]).unwrap(), &[3, 4]), [6, 7]);
    let sparse = |first, skips: &[u64]| ElementMask::sparse(vec![3, 4], first, skips);
    let same = Selection::of(Part::Mask(sparse(0, &[0, 6, 1, 1]).unwrap()), Vec::new()).unwrap();
    assert_eq!(same.to_string(), whole.to_string());
    assert_eq!(same.resolve(&[3, 4]).unwrap(), whole.resolve(&[3, 4]).unwrap());
    for (first, skips) in [(0, &[12][..]), (11, &[0, 0]), (u64::MAX, &[1]), (1, &[u64::MAX])] {
        assert_eq!(sparse(first, skips).unwrap_err().reason, Reason::BadSelection);
    }
    let error = whole.resolve(&[4, 4]).unwrap_err();
    assert_eq!(error.message, "a mask of shape [3, 4] for an array of shape [4, 4]");
    for (first, length, bytes) in [(0, 13, 2), (12, 1, 1), (0, 12, 1), (0, 12, 3), (u64::MAX, 8, 1), (0, u64::MAX, 8)] {
        let refused = ElementMask::new(vec![3, 4], first, length, vec![0; bytes]).unwrap_err();
        assert_eq!(refused.reason, Reason::BadSelection, "{}", refused.message);
    }
}

#[test]
fn points_that_are_none_or_too_many_are_refused_with_their_numbers() {
    let refused = |rank, count| Points::new(rank, vec![0; count]).unwrap_err().message;
    assert_eq!(refused(2, 5), "5 coordinates are no whole number of points of rank 2");
    assert_eq!(refused(0, 1), "1 coordinates are no whole number of points of rank 0");
    assert_eq!(refused(33, 33), "points of 33 coordinates, an array has at most 32 axes");
    assert_eq!(refused(1, POINTS_MAX + 1), "4194305 points, the most in one selection is 4194304");
    assert_eq!(Points::new(3, Vec::new()).unwrap(), Points::new(2, Vec::new()).unwrap());
}

#[test]
fn bounds_of_more_than_64_bits_are_clipped_and_indices_refused() {
    assert_eq!(indices("-99999999999999999999:99999999999999999999:1", 3), [0, 1, 2]);
    assert_eq!(indices("::-99999999999999999999", 3), [2]);
    assert!(Selection::parse("99999999999999999999").unwrap_err().message.contains("does not fit 64 bits"));
    assert!(Selection::parse("[99999999999999999999]").unwrap_err().message.contains("does not fit 64 bits"));
    assert!(Selection::parse("points[[99999999999999999999]]").unwrap_err().message.contains("does not fit 64 bits"));
}

#[test]
fn text_that_is_no_selection_names_the_position_and_what_was_expected() {
    for (text, expected) in REFUSED {
        let error = Selection::parse(text).expect_err(text);
        assert_eq!(error.reason, Reason::BadSelection, "{text}");
        assert!(error.message.contains(expected), "{text}: {}", error.message);
    }
}

#[test]
fn what_does_not_fit_the_shape_is_refused_with_its_numbers() {
    let refused = |text: &str| {
        let error = Selection::parse(text).unwrap().resolve(&[4, 5]).unwrap_err();
        (error.reason, error.message)
    };
    let out_of_bounds = |message: &str| (Reason::OutOfBounds, message.to_owned());
    assert_eq!(refused("0, 7"), out_of_bounds("index 7 is out of bounds for axis 1 of size 5"));
    assert_eq!(refused("-5"), out_of_bounds("index -5 is out of bounds for axis 0 of size 4"));
    assert_eq!(refused("..., [0,5]"), out_of_bounds("index 5 is out of bounds for axis 1 of size 5"));
    let bad = |message: &str| (Reason::BadSelection, message.to_owned());
    assert_eq!(refused("0, 0, 0"), bad("3 indices for an array of rank 2"));
    let points = "points[[0, 0], [3, -1], [1, 5]]";
    assert_eq!(refused(points), out_of_bounds("point 2: index 5 is out of bounds for axis 1 of size 5"));
    assert_eq!(refused("points[[-5, 0]]"), out_of_bounds("point 0: index -5 is out of bounds for axis 0 of size 4"));
    assert_eq!(refused("points[[0]]"), bad("points of 1 coordinates for an array of rank 2"));
    assert_eq!(refused("[True,False]"), bad("a mask of 2 values for axis 0 of size 4"));
}

#[test]
fn a_scalar_takes_only_the_whole_selection() {
    for text in ["", "()", "..."] {
        assert_eq!(Selection::parse(text).unwrap().resolve(&[]).unwrap().shape(), [0u64; 0]);
    }
    assert_eq!(Selection::parse("0").unwrap().resolve(&[]).unwrap_err().reason, Reason::BadSelection);
    assert_eq!(Selection::parse(":").unwrap().resolve(&[]).unwrap_err().reason, Reason::BadSelection);
}

#[test]
fn fields_are_quoted_names_anywhere_in_the_text() {
    assert!(Selection::parse("'it's'").is_err(), "a quote inside a name needs a backslash");
    let selection = Selection::parse(r#""t", 0:10, 'it\'s "x"\\'"#).unwrap();
    assert_eq!(selection.fields(), ["t", r#"it's "x"\"#]);
    assert_eq!(selection.items(), [Item::Slice { start: Some(0), stop: Some(10), step: None }]);
    assert_eq!(selection.to_string(), r#""t", "it's \"x\"\\", 0:10"#);
}

#[test]
fn axes_of_more_than_63_bits_do_not_overflow() {
    let size = u64::MAX;
    assert_eq!(indices("-1", size), [u64::MAX - 1]);
    assert_eq!(indices("-1::-9223372036854775808", size), [u64::MAX - 1, (1 << 63) - 2]);
    let whole = Selection::parse("::-1").unwrap().resolve(&[size]).unwrap();
    assert_eq!(whole.axes()[0], AxisSelection::Range { start: u64::MAX - 1, step: -1, count: u64::MAX });
}

#[test]
fn a_list_of_650_000_entries_is_read_and_resolved_in_linear_time() {
    let entries: Vec<i64> = (0..650_000).map(|at| at * 7919 % 1_000_000).collect();
    let selection = Selection::new(vec![Item::List(entries.clone())], Vec::new()).unwrap();
    assert_eq!(Selection::parse(&selection.to_string()).unwrap(), selection);
    let resolved = selection.resolve(&[1_000_000]).unwrap();
    assert_eq!(resolved.axes()[0], AxisSelection::List(entries.iter().map(|entry| *entry as u64).collect()));
    assert_eq!(resolved.text(), None);
}

/// Each of them once looked at all of the text in front of it.
#[test]
fn a_million_points_or_items_are_read_in_linear_time() {
    let points = format!("points[{}]", "[1,2],".repeat(500_000));
    let Part::Points(read) = Selection::parse(&points).unwrap().part().clone() else { panic!("points") };
    assert_eq!(read.len(), 500_000);
    for many in ["::2,", "1,", "...,"] {
        assert_eq!(Selection::parse(&many.repeat(1_000_000)).unwrap_err().reason, Reason::BadSelection);
    }
}

fn item() -> impl Strategy<Value = Item> {
    let bound = || prop_oneof![Just(None), any::<i64>().prop_map(Some), (-9i64..9).prop_map(Some)];
    prop_oneof![
        any::<i64>().prop_map(Item::Index),
        (bound(), bound(), bound().prop_filter("not 0", |step| *step != Some(0)))
            .prop_map(|(start, stop, step)| Item::Slice { start, stop, step }),
        prop::collection::vec(any::<i64>(), 0..5).prop_map(Item::List),
        prop::collection::vec(any::<bool>(), 1..5).prop_map(Item::Mask),
    ]
}

proptest! {
    #[test]
    fn the_text_of_a_selection_reads_as_the_same_selection(
        items in prop::collection::vec(item(), 0..5),
        ellipsis in prop::option::of(0usize..5),
        fields in prop::collection::btree_set(".{0,6}", 0..3),
        points in prop::option::of((1usize..5, prop::collection::vec(any::<i64>(), 0..12))),
    ) {
        let mut items = items;
        if let Some(at) = ellipsis {
            items.insert(at.min(items.len()), Item::Ellipsis);
        }
        let part = match points {
            Some((rank, mut coordinates)) => {
                coordinates.truncate(coordinates.len() / rank * rank);
                Part::Points(Points::new(rank, coordinates).unwrap())
            }
            None => Part::Axes(items),
        };
        let selection = Selection::of(part, fields.into_iter().collect()).unwrap();
        let text = selection.to_string();
        prop_assert_eq!(Selection::parse(&text).unwrap(), selection, "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(points\\[)?[-+0-9:.,\\[\\]\"' \\\\()TrueFalsNonewaxispté]{0,30}") {
        let _ = Selection::parse(&text);
    }
}
