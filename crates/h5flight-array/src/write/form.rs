//! What a schema means: an array, or a table of compounds.
//!
//! One column `value` is an array whose elements are its values; several columns, or one of another name, are the members
//! of a compound. The metadata of fields is what [`crate::batch`] gives out with them, so that what was read can be
//! written again: `h5flight.shape`, `.bool`, `.enum`, `.complex`, `.text`, `.tag`, `.bitfield`, `.record`, and for texts
//! `h5flight.bytes`, the size of the field.

use std::collections::{HashMap, HashSet};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow_schema::extension::{EXTENSION_TYPE_METADATA_KEY, EXTENSION_TYPE_NAME_KEY};
use serde_json::{Map, Value};

use crate::error::{Error, Reason, Result};
use crate::meta::{
    ByteOrder, ElementType, MEMBERS_MAX, Member, RANK_MAX, StringPadding, TYPE_DEPTH_MAX, Text, product,
};

/// The one column of an array.
const VALUE: &str = "value";

/// What the rows of a put are.
#[derive(Clone, Debug)]
pub struct RowForm {
    /// Of each element of the dataset.
    pub element: ElementType,
    /// The axes after the first.
    pub row_shape: Vec<u64>,
    /// What the schema says that the element type does not: units of times.
    pub attributes: Map<String, Value>,
    pub(super) columns: Vec<Column>,
    pub(super) row_bytes: usize,
}

/// Where a column's values go.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// For messages.
    pub(super) name: String,
    pub(super) leaf: Leaf,
    /// Values of a row.
    pub(super) items: usize,
    /// Bytes of one value.
    pub(super) item_bytes: usize,
    /// Where the first of them stands in the row, or in the struct it is a member of.
    pub(super) offset: usize,
}

/// How one value becomes bytes.
#[derive(Clone, Debug)]
pub(super) enum Leaf {
    /// As Arrow has them.
    Plain,
    /// A bit becomes a byte.
    Bits,
    /// A byte becomes 0 or 1.
    Bools,
    /// Text in a field of the value's size, filled up with NUL.
    Text,
    /// Members, each at its offset.
    Members(Vec<Column>),
}

/// A column before its place is known.
struct Shape {
    element: ElementType,
    dims: Vec<u64>,
    leaf: Leaf,
    unit: Option<String>,
}

impl RowForm {
    /// What this schema means.
    ///
    /// # Errors
    /// `put_mismatch` naming the column that has no form in HDF5 here.
    pub fn of(schema: &Schema) -> Result<Self> {
        let fields = schema.fields();
        match fields.as_ref() {
            [] => Err(mismatch("the schema has no column")),
            [field] if field.name() == VALUE => Self::array(field, schema.metadata()),
            _ => {
                let fields: Vec<&Field> = fields.iter().map(AsRef::as_ref).collect();
                let mut attributes = Map::new();
                let shape = compound("the schema", &fields, 0, &mut attributes)?;
                let mut form = Self::new(shape, attributes)?;
                // The columns are written side by side, as the members of the one value of a row.
                if let Some(Column { leaf: Leaf::Members(members), .. }) = form.columns.pop() {
                    form.columns = members;
                }
                Ok(form)
            }
        }
    }

    fn array(field: &Field, metadata: &HashMap<String, String>) -> Result<Self> {
        let mut attributes = Map::new();
        let mut shape = shape_of(field, 0, &mut attributes)?;
        if field.metadata().contains_key("h5flight.record") {
            shape.element = record(field.name(), &shape.element, metadata.get("h5flight.type"))?;
        }
        if let Some(unit) = shape.unit.take() {
            attributes.insert("unit".into(), unit.into());
        }
        Self::new(shape, attributes)
    }

    fn new(shape: Shape, attributes: Map<String, Value>) -> Result<Self> {
        let Shape { element, dims, leaf, .. } = shape;
        if dims.len() + 1 > RANK_MAX {
            return Err(mismatch(format!("rows of {} axes, the most is {}", dims.len(), RANK_MAX - 1)));
        }
        element.check().map_err(|error| mismatch(error.message))?;
        let column = placed(VALUE, &element, &dims, leaf)?;
        let row_bytes = column.items * column.item_bytes;
        Ok(Self { element, row_shape: dims, attributes, columns: vec![column], row_bytes })
    }

    /// Bytes of one element.
    pub fn element_bytes(&self) -> usize {
        self.element.fixed_bytes().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(self.row_bytes)
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }
}

/// Members one behind the other, without gaps, as numpy has them.
fn compound(name: &str, fields: &[&Field], depth: usize, attributes: &mut Map<String, Value>) -> Result<Shape> {
    if fields.is_empty() || fields.len() > MEMBERS_MAX || depth > TYPE_DEPTH_MAX {
        return Err(mismatch(format!("{name} has {} members at depth {depth}", fields.len())));
    }
    let (mut members, mut columns, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    let mut offset = 0usize;
    for field in fields {
        if field.name().is_empty() || field.name().contains('\0') || !names.insert(field.name()) {
            return Err(mismatch(format!("{name} has two columns {:?}, or one without a name", field.name())));
        }
        let Shape { element, dims, leaf, unit } = shape_of(field, depth + 1, attributes)?;
        if let Some(unit) = unit {
            attributes.insert(format!("{}.unit", field.name()), unit.into());
        }
        let column = Column { offset, ..placed(field.name(), &element, &dims, leaf)? };
        let element = match dims.as_slice() {
            [] => element,
            dims => {
                let too_large = |_| mismatch(format!("column {:?} has rows of shape {dims:?}", field.name()));
                let dims = dims.iter().map(|dim| u32::try_from(*dim)).collect::<Result<_, _>>().map_err(too_large)?;
                ElementType::Array { dims, item: Box::new(element) }
            }
        };
        let too_large = || mismatch(format!("{name} has rows of more than 4 GiB"));
        members.push(Member {
            name: field.name().clone(),
            offset: u32::try_from(offset).map_err(|_| too_large())?,
            element,
        });
        let bytes = column.items.checked_mul(column.item_bytes);
        offset = bytes.and_then(|bytes| offset.checked_add(bytes)).ok_or_else(too_large)?;
        columns.push(column);
    }
    let bytes = u32::try_from(offset).map_err(|_| mismatch(format!("{name} has rows of {offset} bytes")))?;
    let element = ElementType::Compound { bytes, members };
    Ok(Shape { element, dims: Vec::new(), leaf: Leaf::Members(columns), unit: None })
}

fn placed(name: &str, element: &ElementType, dims: &[u64], leaf: Leaf) -> Result<Column> {
    let too_large = || mismatch(format!("column {name:?} has rows of shape {dims:?}, which are too large"));
    let bytes = element.fixed_bytes().ok_or_else(too_large)?;
    let items = product(dims).ok_or_else(too_large)?;
    let row_bytes = items.checked_mul(bytes).filter(|bytes| *bytes <= u64::from(u32::MAX)).ok_or_else(too_large)?;
    if row_bytes == 0 {
        return Err(mismatch(format!("column {name:?} has rows of shape {dims:?}, which hold nothing")));
    }
    Ok(Column { name: name.to_owned(), leaf, items: items as usize, item_bytes: bytes as usize, offset: 0 })
}

fn shape_of(field: &Field, depth: usize, attributes: &mut Map<String, Value>) -> Result<Shape> {
    let name = field.name();
    let said = |key: &str| field.metadata().get(&format!("h5flight.{key}"));
    let mut sizes = Vec::new();
    let mut item = field.data_type();
    while let DataType::FixedSizeList(of, size) = item {
        sizes.push(u64::try_from(*size).map_err(|_| mismatch(format!("column {name:?} has lists of {size}")))?);
        item = of.data_type();
        if sizes.len() > RANK_MAX {
            return Err(mismatch(format!("column {name:?} has lists in more than {RANK_MAX} levels")));
        }
    }
    let mut dims = dims_of(field, sizes)?;
    let (mut element, mut leaf, unit) = match item {
        DataType::Struct(members) => {
            let members: Vec<&Field> = members.iter().map(AsRef::as_ref).collect();
            let shape = compound(&format!("column {name:?}"), &members, depth, attributes)?;
            (shape.element, shape.leaf, None)
        }
        item => leaf_of(name, item, said)?,
    };
    if said("bool").is_some() && matches!(item, DataType::UInt8) {
        (element, leaf) = (ElementType::Bool, Leaf::Bools);
    }
    if let Some(members) = said("enum") {
        element = named_numbers(name, element, members)?;
    }
    if said("complex").is_some() {
        if dims.pop() != Some(2) || !matches!(element, ElementType::Float { .. }) {
            return Err(mismatch(format!(
                "column {name:?} is said to be complex, but its values are no pairs of floats"
            )));
        }
        element = ElementType::Complex { part: Box::new(element) };
    }
    Ok(Shape { element, dims, leaf, unit })
}

/// The shape of a row: of the tensor where one is declared, else of the lists.
fn dims_of(field: &Field, sizes: Vec<u64>) -> Result<Vec<u64>> {
    let (name, metadata) = (field.name(), field.metadata());
    let broken = |what: &str| mismatch(format!("column {name:?} has {what}, for lists of {sizes:?}"));
    let is_tensor = metadata.get(EXTENSION_TYPE_NAME_KEY).is_some_and(|name| name == "arrow.fixed_shape_tensor");
    let declared = match (is_tensor, metadata.get("h5flight.shape")) {
        (true, _) => {
            let text = metadata.get(EXTENSION_TYPE_METADATA_KEY).map_or("", String::as_str);
            let tensor: Value =
                serde_json::from_str(text).map_err(|_| broken("a tensor's metadata that are no JSON"))?;
            let order: Option<Vec<usize>> = serde_json::from_value(tensor["permutation"].clone()).ok();
            if order.is_some_and(|order| !order.is_sorted()) {
                return Err(broken("a tensor whose axes are permuted: send them in their order"));
            }
            Some(tensor["shape"].clone())
        }
        (false, Some(text)) => Some(serde_json::from_str(text).map_err(|_| broken("a shape that is no JSON"))?),
        (false, None) => None,
    };
    let Some(declared) = declared else { return Ok(sizes) };
    let declared: Vec<u64> = serde_json::from_value(declared).map_err(|_| broken("a shape that is none"))?;
    match product(&declared) == product(&sizes) && declared.len() <= RANK_MAX {
        true => Ok(declared),
        false => Err(broken(&format!("the shape {declared:?}"))),
    }
}

fn leaf_of<'a>(
    name: &str,
    item: &DataType,
    said: impl Fn(&str) -> Option<&'a String>,
) -> Result<(ElementType, Leaf, Option<String>)> {
    let order = ByteOrder::Little;
    let integer = |bytes, signed| Ok((ElementType::Integer { bytes, signed, order }, Leaf::Plain, None));
    let time = |unit: String| Ok((ElementType::Integer { bytes: 8, signed: true, order }, Leaf::Plain, Some(unit)));
    let float = |bytes| Ok((ElementType::Float { bytes, order }, Leaf::Plain, None));
    match item {
        DataType::Int8 => integer(1, true),
        DataType::Int16 => integer(2, true),
        DataType::Int32 => integer(4, true),
        DataType::Int64 => integer(8, true),
        DataType::UInt8 => integer(1, false),
        DataType::UInt16 => integer(2, false),
        DataType::UInt32 => integer(4, false),
        DataType::UInt64 => integer(8, false),
        DataType::Float16 => float(2),
        DataType::Float32 => float(4),
        DataType::Float64 => float(8),
        DataType::Boolean => Ok((ElementType::Bool, Leaf::Bits, None)),
        DataType::Duration(unit) => time(unit_name(*unit).to_owned()),
        DataType::Timestamp(unit, _) => time(format!("{} since 1970-01-01T00:00:00Z", unit_name(*unit))),
        DataType::FixedSizeBinary(bytes) => {
            let bytes = u32::try_from(*bytes).ok().filter(|bytes| *bytes > 0);
            let bytes = bytes.ok_or_else(|| mismatch(format!("column {name:?} has values of no bytes")))?;
            let padding = StringPadding::NullPadded;
            let element = match (said("text"), said("bitfield"), said("tag")) {
                (Some(_), _, _) => ElementType::FixedString { bytes, padding, text: Text::Binary },
                (None, Some(_), _) if matches!(bytes, 1 | 2 | 4 | 8) => ElementType::Bitfield { bytes, order },
                (None, _, tag) => ElementType::Opaque { bytes, tag: tag.cloned().unwrap_or_default() },
            };
            Ok((element, Leaf::Plain, None))
        }
        DataType::Utf8 | DataType::LargeUtf8 => {
            let bytes = said("bytes").and_then(|bytes| bytes.parse().ok()).filter(|bytes| *bytes > 0);
            let bytes = bytes.ok_or_else(|| {
                mismatch(format!(
                    "column {name:?} has texts of any length: say in the field's metadata as h5flight.bytes how many bytes of \
                     UTF-8 the longest has"
                ))
            })?;
            let element = ElementType::FixedString { bytes, padding: StringPadding::NullPadded, text: Text::Utf8 };
            Ok((element, Leaf::Text, None))
        }
        other => Err(mismatch(format!("column {name:?} is {other}, which has no form in HDF5 here"))),
    }
}

/// The enum over these integers, its members as a read gives them out.
fn named_numbers(name: &str, base: ElementType, members: &str) -> Result<ElementType> {
    let members: Vec<(String, i64)> = serde_json::from_str(members)
        .map_err(|_| mismatch(format!("column {name:?} has h5flight.enum, which is no list of names and numbers")))?;
    let ElementType::Integer { bytes, signed, .. } = base else {
        return Err(mismatch(format!("column {name:?} has h5flight.enum, but its values are no integers")));
    };
    let (mut names, bits) = (HashSet::new(), 8 * bytes);
    let fits = |value: i64| match (signed, bits) {
        (_, 64) => signed || value >= 0,
        (true, bits) => (-(1i64 << (bits - 1))..1i64 << (bits - 1)).contains(&value),
        (false, bits) => (0..1i64 << bits).contains(&value),
    };
    let sound = |(member, value): &(String, i64)| !member.is_empty() && !member.contains('\0') && fits(*value);
    if members.is_empty() || members.len() > MEMBERS_MAX || !members.iter().all(sound) {
        return Err(mismatch(format!(
            "column {name:?} has h5flight.enum with a member that does not fit its integers"
        )));
    }
    if !members.iter().all(|(member, value)| names.insert(member.clone()) && names.insert(format!("\0{value}"))) {
        return Err(mismatch(format!("column {name:?} has h5flight.enum with a name or a number twice")));
    }
    Ok(ElementType::Enum { base: Box::new(base), members })
}

/// The compound that a record is, which only the schema's own metadata tell.
fn record(name: &str, bytes: &ElementType, described: Option<&String>) -> Result<ElementType> {
    let element: Option<ElementType> = described.and_then(|text| serde_json::from_str(text).ok());
    let sound = |element: &ElementType| {
        matches!(element, ElementType::Compound { .. })
            && element.check().is_ok()
            && element.is_packed()
            && element.fixed_bytes() == bytes.fixed_bytes()
    };
    element.filter(sound).ok_or_else(|| {
        mismatch(format!("column {name:?} has records, and h5flight.type of the schema does not tell their members"))
    })
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

pub(super) fn mismatch(message: impl Into<String>) -> Error {
    Error::new(Reason::PutMismatch, message)
}
