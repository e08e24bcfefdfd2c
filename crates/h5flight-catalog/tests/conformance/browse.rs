//! What people look at.

use h5flight_array::inspect::{LinkKind, ObjectKind};
use h5flight_catalog::ErrorKind;
use h5flight_catalog::model::*;
use serde_json::json;

use super::world::*;

pub async fn lists_are_whole_in_pages_of_any_size(world: &World) {
    // Byte order, not a language's: "B" < "a" < "é".
    let animals = ["B", "a", "a b", "é"];
    for (at, animal) in animals.iter().enumerate() {
        let mut file = publication(registered(&format!("{at}.h5")), 1);
        for experiment in ["x", "X", "y"] {
            for name in ["g/1", "g-1", "Z"] {
                file = file.dataset(&path(animal, experiment, name), chunked(1));
            }
        }
        world.first.publish(&file).await.unwrap();
    }
    world.first.publish(&publication(managed("ff00"), 1).dataset(&path("é", "z", "d"), chunked(1))).await.unwrap();
    for size in [1, 2, 3, 1_000] {
        let listed = crate::all_pages!(size, |page| world.first.list_animals(page));
        assert_eq!(
            listed.iter().map(|a| (a.animal.as_str(), a.experiments)).collect::<Vec<_>>(),
            [("B", 3), ("a", 3), ("a b", 3), ("é", 4)]
        );
        let listed = crate::all_pages!(size, |page| world.first.list_experiments("a", page));
        assert_eq!(
            listed.iter().map(|e| (e.experiment.as_str(), e.datasets)).collect::<Vec<_>>(),
            [("X", 3), ("x", 3), ("y", 3)]
        );
        let listed = crate::all_pages!(size, |page| world.first.list_datasets("a", "x", page));
        assert_eq!(listed.iter().map(|d| d.path.dataset.as_str()).collect::<Vec<_>>(), ["Z", "g-1", "g/1"]);
        let found = crate::all_pages!(size, |page| world.first.search("g", page));
        assert_eq!(found.len(), 4 * 3 * 2);
        assert!(found.is_sorted_by_key(|d| (d.path.animal.clone(), d.path.experiment.clone(), d.path.dataset.clone())));
        let files = crate::all_pages!(size, |page| world.first.list_files(page));
        assert_eq!(
            files.iter().map(|f| f.source_name.as_str()).collect::<Vec<_>>(),
            ["upload.h5", "0.h5", "1.h5", "2.h5", "3.h5"]
        );
        assert_eq!(files[0].place, managed("ff00"));
    }
    let page = world.first.list_animals(&Page { size: 1, token: String::new() }).await.unwrap();
    for token in ["x".to_owned(), "00".to_owned(), format!("{}00", page.next), page.next[2..].to_owned()] {
        let error = world.first.list_animals(&Page { size: 1, token }).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
    }
    let other_list = world.first.list_experiments("a", &Page { size: 1, token: page.next }).await.unwrap_err();
    assert_eq!(other_list.kind, ErrorKind::Invalid);
    for error in [
        world.first.list_experiments("b", &Page::default()).await.unwrap_err(),
        world.first.list_datasets("a", "w", &Page::default()).await.unwrap_err(),
        world.first.describe(&path("a", "x", "nothing")).await.unwrap_err(),
    ] {
        assert!(matches!(error.kind, ErrorKind::NotFound { .. }), "{error:?}");
    }
    assert_eq!(world.first.counts().await.unwrap(), Counts { animals: 4, experiments: 13, datasets: 37, files: 5 });
}

pub async fn a_description_has_children_links_and_aliases(world: &World) {
    let at = |name: &str| path("a", "e", name);
    let file = publication(registered("a.h5"), 1)
        .group(&at(""), json!({"root": true}))
        .group(&at("g"), json!({"of": "g"}))
        .group(&at("g/sub"), json!({}))
        .object(&at("g/type"), ObjectKind::NamedType, json!({"t": 1}), None)
        .dataset(&at("g/data"), chunked(3))
        .dataset(&at("g/sub/inner"), chunked(3))
        .link(&at("g/alias"), LinkKind::Hard, "g/data")
        .link(&at("g/soft"), LinkKind::Soft, "g/alias")
        .link(&at("g/up"), LinkKind::Soft, "g/sub")
        .link(&at("g/dangling"), LinkKind::Soft, "nothing")
        .link(&at("g/out"), LinkKind::External, "x.h5:/y")
        .link(&at("top"), LinkKind::Hard, "g/data");
    world.first.publish(&file).await.unwrap();
    let group = world.first.describe(&at("g")).await.unwrap();
    assert_eq!((group.kind, &group.path, group.attributes["of"].as_str()), (ObjectKind::Group, &at("g"), Some("g")));
    use ChildKind::{Link, Object};
    use ObjectKind::{Dataset, Group, NamedType};
    let children = [
        ("alias", Object(Dataset)),
        ("dangling", Link(LinkKind::Soft)),
        ("data", Object(Dataset)),
        ("out", Link(LinkKind::External)),
        ("soft", Object(Dataset)),
        ("sub", Object(Group)),
        ("type", Object(NamedType)),
        ("up", Object(Group)),
    ];
    assert_eq!(group.children, children.map(|(name, kind)| (name.to_owned(), kind)));
    let refused = world.first.describe(&at("g/out/x")).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused("external_link_refused".into()));
    let dangling = world.first.describe(&at("g/dangling")).await.unwrap_err();
    assert!(dangling.message.contains("is a link to \"nothing\""), "{}", dangling.message);
    assert!(group.aliases.is_empty() && group.dataset.is_none());
    let root = world.first.describe(&at("")).await.unwrap();
    assert_eq!((root.kind, root.attributes["root"].as_bool()), (Group, Some(true)));
    assert_eq!(root.children, [("g".to_owned(), Object(Group)), ("top".to_owned(), Object(Dataset))]);
    let data = world.first.describe(&at("g/data")).await.unwrap();
    assert_eq!((data.kind, data.aliases), (Dataset, vec!["g/alias".to_owned(), "top".to_owned()]));
    let summary = data.dataset.unwrap();
    assert_eq!(
        (summary.version, summary.chunks, summary.stored_bytes, summary.meta.shape()),
        (1, 3, 300, [30].as_slice())
    );
    assert_eq!(world.first.describe(&at("g/type")).await.unwrap().kind, NamedType);
    assert_eq!(world.first.describe(&at("g/up/inner")).await.unwrap().path, at("g/sub/inner"));
}

pub async fn groups_of_several_files_are_one(world: &World) {
    let at = |name: &str| path("a", "e", name);
    let file = |n: i64| {
        publication(registered(&format!("{n}.h5")), 1)
            .group(&at("g"), json!({"same": n, format!("only {n}"): n}))
            .dataset(&at(&format!("g/d{n}")), chunked(1))
    };
    world.first.publish(&file(1)).await.unwrap();
    world.first.publish(&file(2)).await.unwrap();
    let group = world.first.describe(&at("g")).await.unwrap();
    assert_eq!(group.attributes, attributes(json!({"same": 2, "only 1": 1, "only 2": 2})));
    assert_eq!(group.children.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["d1", "d2"]);
    // No file says so, yet every experiment has a root.
    let root = world.first.describe(&at("")).await.unwrap();
    assert_eq!(
        (root.kind, root.children),
        (ObjectKind::Group, vec![("g".to_owned(), ChildKind::Object(ObjectKind::Group))])
    );
    // A dataset in place of the other file's group.
    world.first.publish(&publication(registered("3.h5"), 1).dataset(&at("g"), chunked(1))).await.unwrap();
    let dataset = world.first.describe(&at("g")).await.unwrap();
    assert_eq!((dataset.kind, dataset.attributes.is_empty()), (ObjectKind::Dataset, true));
}

pub async fn types_of_attributes_and_meanings_of_axes_come_back(world: &World) {
    let at = |name: &str| path("a", "e", name);
    let dimensions =
        vec![Dimension { label: "t".into(), scales: vec!["time".into()], coordinate: Some("time".into()) }];
    let mut file = publication(registered("1.h5"), 1).group(&at("g"), json!({"n": 1, "m": 1})).object(
        &at("g/d"),
        ObjectKind::Dataset,
        json!({"big": u64::MAX, "float": 0.1, "sum": 0.30000000000000004}),
        Some(chunked(1)),
    );
    file.objects[0].attribute_types = attributes(json!({"n": "|i1", "m": ["<u2", [1]]}));
    file.objects[1].attribute_types = attributes(json!({"big": "<u8"}));
    file.objects[1].dimensions = dimensions.clone();
    world.first.publish(&file).await.unwrap();
    let found = world.first.describe(&at("g/d")).await.unwrap();
    assert_eq!((&found.dimensions, &found.attribute_types), (&dimensions, &file.objects[1].attribute_types));
    assert_eq!(found.attributes, file.objects[1].attributes);
    let version = world.first.resolve(&at("g/d"), VersionSelector::Current).await.unwrap();
    assert_eq!(version.dimensions, dimensions);
    // The type goes with the value: of each attribute, that of the newest file that has it.
    let mut newer = publication(registered("2.h5"), 1).group(&at("g"), json!({"n": "text"}));
    newer.objects[0].attribute_types = attributes(json!({}));
    world.first.publish(&newer).await.unwrap();
    let merged = world.first.describe(&at("g")).await.unwrap();
    assert_eq!(merged.attributes, attributes(json!({"n": "text", "m": 1})));
    assert_eq!(merged.attribute_types, attributes(json!({"m": ["<u2", [1]]})));
}

pub async fn search_finds_words_as_they_are(world: &World) {
    let file = publication(registered("a.h5"), 1)
        .object(
            &path("Mouse_1", "Tag Ä", "raw/100%"),
            ObjectKind::Dataset,
            json!({"unit": "µVolt", "n": {"x": ["Deep\\Text"]}}),
            Some(chunked(1)),
        )
        .object(
            &path("Mouse_1", "Tag Ä", "raw/other"),
            ObjectKind::Dataset,
            json!({"unit": "nul \u{0} inside"}),
            Some(chunked(1)),
        )
        .dataset(&path("MouseX1", "b", "raw"), chunked(1));
    let facts = ExperimentFacts { session_id: Some("SESSION-Ü".into()), ..ExperimentFacts::default() };
    world.first.publish(&Publication { facts, ..file }).await.unwrap();
    for (query, expected) in [
        ("", 3),
        ("  raw ", 3),
        ("mouse_1", 2),
        ("MOUSE_1 100%", 1),
        ("%", 1),
        ("_", 2),
        ("\\", 1),
        ("deep\\text µvolt", 1),
        ("tag ä other", 1),
        ("session-ü", 3),
        ("session-ü b", 1),
        ("raw nothing", 0),
        ("inside nul", 1),
        ("a\0b", 0),
        ("\"' OR 1=1 --\"", 0),
        ("session-other", 1),
        ("raw-mouse_1", 2),
    ] {
        let found = crate::all_pages!(2u32, |page| world.first.search(query, page));
        // "b" is also in no other text: "session-ü b" is the animal MouseX1's experiment.
        assert_eq!(
            found.len(),
            expected,
            "{query:?}: {:?}",
            found.iter().map(|d| d.path.to_string()).collect::<Vec<_>>()
        );
    }
    for query in ["x ".repeat(17), "x".repeat(1_025)] {
        assert_eq!(world.first.search(&query, &Page::default()).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    // A file that lost a dataset loses it here too.
    let smaller = publication(registered("a.h5"), 2).dataset(&path("MouseX1", "b", "raw"), chunked(1));
    world.first.publish(&smaller).await.unwrap();
    assert_eq!(crate::all_pages!(2u32, |page| world.first.search("raw", page)).len(), 1);
}

/// What both databases answer to a condition.
pub async fn search_compares_what_datasets_have(world: &World) {
    let dataset = |name: &str, attributes| (path("m1", "day1", name), ObjectKind::Dataset, attributes);
    let (a, b, c) = (
        dataset("s/data", json!({"unit": "volts", "gain": 0.1, "flag": true, "note": "nul \u{0}"})),
        dataset("s/starting_time", json!({"rate": 30000.0, "gain": 9_007_199_254_740_993_i64})),
        dataset("other", json!({"unit": "Volts", "gain": "0.1", "flag": false, "none": null})),
    );
    let mut file = publication(registered("a.h5"), 1).object(
        &path("m1", "day1", "s"),
        ObjectKind::Group,
        json!({"neurodata_type": "ElectricalSeries"}),
        None,
    );
    for (path, kind, attributes) in [a, b, c] {
        file = file.object(&path, kind, attributes, Some(chunked(3)));
    }
    let details = json!({
        "sex": "F", "keywords": ["motor", "ΔF/F"], "unit_count": 17, "lab": "nul \u{0}", "devices": ["probe A"],
    });
    let details = details.as_object().cloned().unwrap_or_default();
    let facts = ExperimentFacts { species: Some("Mus musculus".into()), details, ..ExperimentFacts::default() };
    world.first.publish(&Publication { facts, ..file }).await.unwrap();
    let silent = publication(registered("b.h5"), 1).dataset(&path("m1", "day2", "unknown"), chunked(1));
    world.first.publish(&silent).await.unwrap();
    for (query, expected) in [
        ("unit = 'volts'", &["s/data"][..]),
        ("unit like 'VOLT_'", &["other", "s/data"]),
        ("unit contains '%'", &[]),
        ("attr.gain = 0.1", &["s/data"]),
        ("attr.gain = '0.1'", &["other"]),
        ("attr.gain = 9007199254740993", &["s/starting_time"]),
        ("attr.gain = 9007199254740992", &[]),
        ("attr.gain > 0", &["s/data", "s/starting_time"]),
        ("attr.gain in (0.1, 7)", &["s/data"]),
        ("attr.flag = true", &["s/data"]),
        ("attr.flag != true", &["other"]),
        ("not attr.flag = true", &["other"]),
        ("attr.none is null", &["other", "s/data", "s/starting_time", "unknown"]),
        ("attr.flag is not null", &["other", "s/data"]),
        ("attr.note contains 'nul'", &["s/data"]),
        ("rate between 20000 and 30000", &["s/data", "s/starting_time"]),
        ("neurodata_type = 'ElectricalSeries' AND unit = 'volts'", &["s/data"]),
        ("species = 'Mus musculus' dataset like '%other'", &["other"]),
        ("species = 'mus musculus'", &[]),
        ("sex = 'F' rank = 1 unit is not null", &["other", "s/data"]),
        ("sex = 'M'", &[]),
        ("sex is null", &["unknown"]),
        ("NOT sex = 'M' dataset = 'other'", &["other"]),
        ("unit_count between 10 and 17.5 dataset = 'other'", &["other"]),
        ("unit_count > 17", &[]),
        ("keywords = 'motor' dataset = 'other'", &["other"]),
        ("keywords in ('x', 'ΔF/F') dataset = 'other'", &["other"]),
        ("keywords contains 'MOT' AND keywords contains 'F/F' AND dataset = 'other'", &["other"]),
        ("keywords = 'motor ΔF/F'", &[]),
        ("NOT keywords = 'motor'", &["unknown"]),
        ("keywords is null", &["unknown"]),
        ("devices like 'PROBE _' dataset = 'other'", &["other"]),
        ("experimenter is not null", &[]),
        ("lab contains 'nul' dataset = 'other'", &["other"]),
        ("motor other", &["other"]),
        ("rank > 9", &[]),
        ("rows >= 0 AND NOT (dataset = 'other' OR s)", &["unknown"]),
        ("volts OR starting_time", &["other", "s/data", "s/starting_time"]),
        ("starting-time", &["s/starting_time"]),
    ] {
        let found = crate::all_pages!(2u32, |page| world.first.search(query, page));
        let names: Vec<&str> = found.iter().map(|found| found.path.dataset.as_str()).collect();
        assert_eq!(names, expected, "{query}");
    }
    for (query, expected) in [
        ("sex = 'F'", &["day1"][..]),
        ("motor", &["day1"]),
        ("keywords is null", &["day2"]),
        ("dataset = 'other' OR dataset = 'unknown'", &["day1", "day2"]),
        ("unit = 'volts' sex = 'M'", &[]),
        ("", &["day1", "day2"]),
    ] {
        let found = crate::all_pages!(1u32, |page| world.first.search_experiments(query, page));
        let names: Vec<&str> = found.iter().map(|found| found.experiment.as_str()).collect();
        assert_eq!(names, expected, "{query}");
    }
    let found = crate::all_pages!(1u32, |page| world.first.search_experiments("sex = 'F'", page));
    let listed = crate::all_pages!(10u32, |page| world.first.list_experiments("m1", page));
    assert_eq!((found.len(), &found[0], &found[0].facts.details["unit_count"]), (1, &listed[0], &json!(17)));
    let refused = world.first.search("spezies = 'x'", &Page::default()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Refused("bad_expression".into()));
    assert!(refused.message.contains("did you mean \"species\""), "{}", refused.message);
}
