//! What the axes of datasets mean, from the attributes of HDF5 dimension scales and of netCDF-4. Pure.
//!
//! A scale is attached by a reference in DIMENSION_LIST. netCDF-4 numbers its scales (`_Netcdf4Dimid`), because a variable
//! that is a scale itself can have none attached: such a one names its dimensions in `_Netcdf4Coordinates`. A scale that
//! stands for a dimension without values says so in its NAME.

use std::collections::HashMap;

use h5flight_array::inspect::{Object, ObjectKind};
use h5flight_catalog::model::{DatasetPath, Dimension};
use serde_json::{Map, Value};

use super::names::FileNames;
use crate::worker::Inspected;

/// How netCDF-4 begins the NAME of a scale without values.
const WITHOUT_VALUES: &str = "This is a netCDF dimension but not a netCDF variable";

/// The scales of a file.
pub(super) struct Scales<'n> {
    names: &'n FileNames,
    by_path: HashMap<String, Scale>,
    /// Paths by the numbers that netCDF-4 gives.
    by_number: HashMap<i64, String>,
}

struct Scale {
    name: DatasetPath,
    has_values: bool,
}

impl<'n> Scales<'n> {
    /// Collects the scales among all objects.
    pub(super) fn of(objects: &[Inspected], names: &'n FileNames) -> Self {
        let mut scales = Self { names, by_path: HashMap::new(), by_number: HashMap::new() };
        let of_datasets = objects.iter().map(|found| &found.object).filter(|object| object.kind == ObjectKind::Dataset);
        for object in of_datasets.filter(|object| is_scale(&object.attributes)) {
            let Ok(Some(name)) = names.of_object(&object.path) else { continue };
            if let Some(number) = object.attributes.get("_Netcdf4Dimid").and_then(single) {
                scales.by_number.insert(number, object.path.clone());
            }
            let has_values = has_values(&object.attributes);
            scales.by_path.insert(object.path.clone(), Scale { name, has_values });
        }
        scales
    }

    /// What the axes of a dataset mean: one entry for each, or none at all where nothing is said of any.
    pub(super) fn dimensions(&self, at: &DatasetPath, object: &Object) -> Vec<Dimension> {
        let rank = object.array.as_ref().map_or(0, |array| array.shape().len());
        let attributes = &object.attributes;
        let list = |name: &str| attributes.get(name).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
        let (labels, attached, numbers) =
            (list("DIMENSION_LABELS"), list("DIMENSION_LIST"), list("_Netcdf4Coordinates"));
        let mut dimensions = vec![Dimension::default(); rank];
        for (axis, dimension) in dimensions.iter_mut().enumerate() {
            dimension.label = labels.get(axis).and_then(Value::as_str).unwrap_or_default().to_owned();
            let of_axis = attached.get(axis).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
            for path in of_axis.iter().filter_map(|scale| scale.get("ref")?.as_str()) {
                self.attach(dimension, at, path);
            }
            // Only a scale itself has to say it by numbers; others repeat what is attached.
            if attached.is_empty()
                && let Some(path) = numbers.get(axis).and_then(Value::as_i64).and_then(|id| self.by_number.get(&id))
            {
                self.attach(dimension, at, path);
            }
        }
        // A coordinate variable is the scale of its own axis.
        if let [only] = dimensions.as_mut_slice()
            && is_scale(attributes)
            && has_values(attributes)
        {
            only.coordinate = Some(at.dataset.clone());
        }
        if dimensions.iter().all(|dimension| *dimension == Dimension::default()) { Vec::new() } else { dimensions }
    }

    fn attach(&self, dimension: &mut Dimension, at: &DatasetPath, path: &str) {
        match self.by_path.get(path) {
            Some(scale) => self.attach_scale(dimension, at, scale),
            // Something attached that does not call itself a scale still is one to whoever attached it.
            None => {
                if let Ok(Some(name)) = self.names.of_object(path) {
                    self.attach_scale(dimension, at, &Scale { name, has_values: true });
                }
            }
        }
    }

    /// Adds a scale of the same experiment.
    fn attach_scale(&self, dimension: &mut Dimension, at: &DatasetPath, scale: &Scale) {
        let Scale { name, has_values } = scale;
        if (&name.animal, &name.experiment) != (&at.animal, &at.experiment) {
            return;
        }
        if name.dataset != at.dataset {
            dimension.scales.push(name.dataset.clone());
        }
        if *has_values && dimension.coordinate.is_none() {
            dimension.coordinate = Some(name.dataset.clone());
        }
    }
}

fn is_scale(attributes: &Map<String, Value>) -> bool {
    attributes.get("CLASS").and_then(Value::as_str) == Some("DIMENSION_SCALE")
}

fn has_values(attributes: &Map<String, Value>) -> bool {
    !attributes.get("NAME").and_then(Value::as_str).is_some_and(|name| name.starts_with(WITHOUT_VALUES))
}

/// A number that may stand in a list of one.
fn single(value: &Value) -> Option<i64> {
    match value {
        Value::Array(items) if items.len() == 1 => items[0].as_i64(),
        other => other.as_i64(),
    }
}

#[cfg(test)]
mod tests {
    use h5flight_array::meta::{ArrayMeta, ByteOrder, ElementType, Space, Storage};
    use serde_json::json;

    use super::super::names::Naming;
    use super::*;

    fn dataset(path: &str, shape: &[u64], attributes: Value) -> Inspected {
        let array = ArrayMeta {
            space: Space::Simple { shape: shape.to_vec() },
            max_shape: Vec::new(),
            element: ElementType::Integer { bytes: 4, signed: true, order: ByteOrder::Little },
            converted: false,
            type_note: String::new(),
            storage: Storage::Compact,
            filters: Vec::new(),
            fill: None,
        };
        let Value::Object(attributes) = attributes else { panic!("attributes are an object") };
        let object = Object {
            path: path.into(),
            kind: ObjectKind::Dataset,
            attributes,
            attribute_types: Map::new(),
            array: Some(array),
            problem: None,
            address: 0,
        };
        Inspected { object, runs: Vec::new(), checksums: Vec::new(), inline: None }
    }

    fn dimensions(objects: &[Inspected], path: &str) -> Vec<Dimension> {
        let names = Naming::default().of_file("f.h5", None);
        let scales = Scales::of(objects, &names);
        let object = &objects.iter().find(|found| found.object.path == path).unwrap().object;
        scales.dimensions(&names.of_object(path).unwrap().unwrap(), object)
    }

    fn dimension(label: &str, scales: &[&str], coordinate: Option<&str>) -> Dimension {
        let scales = scales.iter().map(|&name| name.to_owned()).collect();
        Dimension { label: label.into(), scales, coordinate: coordinate.map(str::to_owned) }
    }

    #[test]
    fn scales_are_named_within_the_experiment_and_those_without_values_are_no_coordinates() {
        let scale = |name: &str, id: i64| json!({"CLASS": "DIMENSION_SCALE", "NAME": name, "_Netcdf4Dimid": id});
        let at = |name: &str| format!("/animals/a/experiments/e/{name}");
        let objects = [
            dataset(&at("time"), &[4], scale("time", 0)),
            dataset(&at("x"), &[3], scale(&format!("{WITHOUT_VALUES}         3"), 1)),
            dataset("/animals/b/experiments/e/y", &[2], scale("y", 2)),
            dataset(
                &at("v"),
                &[4, 3, 2],
                json!({
                    "DIMENSION_LIST": [[{"ref": at("time")}], [{"ref": at("x")}, {"ref": null}],
                                       [{"ref": "/animals/b/experiments/e/y"}]],
                    "DIMENSION_LABELS": ["t", "", "up"],
                }),
            ),
        ];
        let expected =
            [dimension("t", &["time"], Some("time")), dimension("", &["x"], None), dimension("up", &[], None)];
        assert_eq!(dimensions(&objects, &at("v")), expected);
        assert_eq!(dimensions(&objects, &at("time")), [dimension("", &[], Some("time"))]);
        assert!(dimensions(&objects, &at("x")).is_empty());
    }

    #[test]
    fn a_scale_of_two_axes_names_them_by_number() {
        let objects = [
            dataset(
                "/n",
                &[9],
                json!({"CLASS": "DIMENSION_SCALE", "NAME": format!("{WITHOUT_VALUES} 9"), "_Netcdf4Dimid": 5}),
            ),
            dataset(
                "/t",
                &[4, 9],
                json!({"CLASS": "DIMENSION_SCALE", "_Netcdf4Dimid": 2, "_Netcdf4Coordinates": [2, 5]}),
            ),
        ];
        let expected = [dimension("", &[], Some("t")), dimension("", &["n"], None)];
        assert_eq!(dimensions(&objects, "/t"), expected);
    }

    #[test]
    fn nonsense_in_the_attributes_means_nothing() {
        let objects = [dataset(
            "/d",
            &[1, 2],
            json!({"DIMENSION_LIST": [7, {"ref": "/x"}, []], "DIMENSION_LABELS": 3, "_Netcdf4Coordinates": ["a", -1]}),
        )];
        assert!(dimensions(&objects, "/d").is_empty());
    }
}
