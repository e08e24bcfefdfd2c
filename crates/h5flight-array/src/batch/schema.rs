//! How a result looks in Arrow: layout, columns, field and schema metadata. Known before a byte is read.
//!
//! Metadata keys: `h5flight.shape`, `.dtype`, `.type`, `.selection`, `.layout`, `.rows_axis`, `.type_note` of the
//! schema; `h5flight.shape`, `.bool`, `.enum`, `.complex`, `.bitfield`, `.tag`, `.text`, `.record` of fields.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow_schema::extension::{EXTENSION_TYPE_METADATA_KEY, EXTENSION_TYPE_NAME_KEY};

use crate::error::{Error, Reason, Result};
use crate::meta::{ArrayMeta, ByteOrder, ElementType, Member, Text, product};
use crate::plan::axis::Pick;
use crate::plan::extent::estimated_bytes;
use crate::plan::{Layout, PlanOptions, Strings, batch_rows};
use crate::selection::{Picked, Resolved};

/// Columns of [`Layout::Columns`] at most.
const COLUMNS_MAX: u64 = 4096;
/// Fields named in an error at most.
const FIELDS_SHOWN: usize = 20;
/// Bytes of an index column of the tidy layout.
const INDEX_BYTES: u64 = 8;

/// The Arrow side of a plan.
#[derive(Debug)]
pub(crate) struct Output {
    /// Never [`Layout::Auto`].
    pub(crate) layout: Layout,
    pub(crate) schema: SchemaRef,
    /// Delivered bytes of one element, an estimate where elements have no fixed size.
    pub(crate) element_bytes: u64,
    /// Target size of a batch.
    pub(crate) batch_bytes: u64,
    /// What the columns are made of: the element, or the selected members of a compound.
    pub(crate) values: Vec<ValueColumn>,
    /// Axes whose indices are columns of the tidy layout.
    pub(crate) index_axes: Vec<usize>,
}

/// An element, or one member of it, as one column (in the layout COLUMNS: as all columns).
#[derive(Debug)]
pub(crate) struct ValueColumn {
    /// Position among the members of the compound.
    pub(crate) member: Option<usize>,
    /// Where it starts within an element of fixed size.
    pub(crate) offset: usize,
    pub(crate) element: ElementType,
    pub(crate) field: FieldRef,
    /// Set where a row is a list: its item, and its length.
    pub(crate) tensor: Option<(FieldRef, i32)>,
}

/// What the schema depends on.
pub(crate) struct OutputRequest<'a> {
    pub(crate) meta: &'a ArrayMeta,
    pub(crate) selected: &'a Resolved,
    pub(crate) picks: &'a [Pick],
    pub(crate) kept: &'a [usize],
    pub(crate) options: &'a PlanOptions,
}

/// Where a value stands, which decides its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// A column of its own, or a member of such a compound.
    Column,
    /// An item of a sequence.
    ListItem,
    /// An item of a tensor: plain numbers, so that clients need not copy.
    TensorItem,
}

/// The Arrow form of an element.
struct Shown {
    data_type: DataType,
    /// Dimensions that a tensor item adds to its tensor.
    dims: Vec<u64>,
    metadata: HashMap<String, String>,
    nullable: bool,
}

impl Output {
    pub(crate) fn new(request: &OutputRequest<'_>) -> Result<Self> {
        let layout = layout(request)?;
        let shape = request.selected.shape();
        let row_shape = match layout {
            Layout::Tensor | Layout::Auto => shape.get(1..).unwrap_or(&[]),
            Layout::Columns | Layout::Tidy => &[],
        };
        let members = selected_members(&request.meta.element, request.selected.fields())?;
        let is_whole =
            request.selected.fields().is_empty() && is_record(&request.meta.element, request.options.strings);
        let values = if members.is_empty() || is_whole {
            vec![ValueColumn::new("value", &request.meta.element, row_shape, request.options.strings)?]
        } else {
            let columns = members.iter().map(|(position, member)| {
                let column = ValueColumn::new(&member.name, &member.element, row_shape, request.options.strings)?;
                Ok(ValueColumn { member: Some(*position), offset: member.offset as usize, ..column })
            });
            columns.collect::<Result<_>>()?
        };
        let index_axes = match (layout, request.selected.picked()) {
            (Layout::Tidy, Picked::Axes(_)) => request.kept.to_vec(),
            (Layout::Tidy, Picked::Elements(_)) => (0..request.meta.shape().len()).collect(),
            (Layout::Auto | Layout::Tensor | Layout::Columns, _) => Vec::new(),
        };
        let mut fields: Vec<FieldRef> =
            index_axes.iter().map(|axis| Arc::new(Field::new(format!("dim_{axis}"), DataType::Int64, false))).collect();
        match (layout, request.kept.get(1)) {
            (Layout::Columns, Some(axis)) => {
                let pick = &request.picks[*axis];
                let named = |place| Arc::new(values[0].field.as_ref().clone().with_name(pick.at(place).to_string()));
                fields.extend((0..pick.count()).map(named));
            }
            _ => fields.extend(values.iter().map(|column| FieldRef::clone(&column.field))),
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, schema_metadata(request, layout, &shape)));
        let element_bytes =
            values.iter().fold(0u64, |bytes, column| bytes.saturating_add(estimated_bytes(&column.element)));
        Ok(Self { layout, schema, element_bytes, batch_bytes: request.options.batch_bytes, values, index_axes })
    }

    /// Result rows of a batch of the target size, for rows of this many elements.
    pub(crate) fn batch_rows(&self, items: u64, options: &PlanOptions) -> u64 {
        let rows_min = if self.layout == Layout::Columns { options.batch_rows_min_columns } else { 1 };
        batch_rows(self.row_bytes(items), rows_min, options)
    }

    /// Delivered bytes of a row of this many elements, its indices included.
    pub(crate) fn row_bytes(&self, items: u64) -> u64 {
        let index_bytes = INDEX_BYTES * self.index_axes.len() as u64;
        items.saturating_mul(self.element_bytes.saturating_add(index_bytes))
    }
}

impl ValueColumn {
    fn new(name: &str, element: &ElementType, row_shape: &[u64], strings: Strings) -> Result<Self> {
        let is_array = matches!(element, ElementType::Array { .. });
        if row_shape.is_empty() && !is_array {
            let Shown { data_type, metadata, nullable, .. } = show_column(element, Standing::Column, strings)?;
            let field = Arc::new(Field::new(name, data_type, nullable).with_metadata(metadata));
            return Ok(Self { member: None, offset: 0, element: element.clone(), field, tensor: None });
        }
        let Shown { data_type, dims, mut metadata, nullable } = show_column(element, Standing::TensorItem, strings)?;
        let shape: Vec<u64> = row_shape.iter().copied().chain(dims).collect();
        let size = list_size(&shape)?;
        metadata.insert("h5flight.shape".into(), json(&shape));
        if data_type.is_numeric() {
            metadata.insert(EXTENSION_TYPE_NAME_KEY.into(), "arrow.fixed_shape_tensor".into());
            metadata.insert(EXTENSION_TYPE_METADATA_KEY.into(), format!("{{\"shape\":{}}}", json(&shape)));
        }
        let item = Arc::new(Field::new("item", data_type, nullable));
        let list = DataType::FixedSizeList(FieldRef::clone(&item), size);
        let field = Arc::new(Field::new(name, list, false).with_metadata(metadata));
        Ok(Self { member: None, offset: 0, element: element.clone(), field, tensor: Some((item, size)) })
    }
}

/// The layout that was meant, refused where it cannot show the result.
fn layout(request: &OutputRequest<'_>) -> Result<Layout> {
    let rank = request.kept.len();
    let columns = request.kept.get(1).map_or(0, |axis| request.picks[*axis].count());
    let element = &request.meta.element;
    let numeric = matches!(element, ElementType::Integer { .. } | ElementType::Float { .. } | ElementType::Bool);
    let refuse = |why: String| Err(Error::new(Reason::BadLayout, format!("layout columns: {why}")));
    match request.options.layout {
        Layout::Auto if rank == 2 && numeric && (1..=COLUMNS_MAX).contains(&columns) => Ok(Layout::Columns),
        Layout::Auto | Layout::Tensor => Ok(Layout::Tensor),
        Layout::Columns if rank < 2 => Ok(Layout::Tensor),
        Layout::Columns if rank > 2 => refuse(format!("the result has rank {rank}, the most is 2")),
        Layout::Columns if columns > COLUMNS_MAX => refuse(format!("{columns} columns, the most is {COLUMNS_MAX}")),
        Layout::Columns if matches!(element, ElementType::Compound { .. }) => {
            refuse("the elements are compounds, which have a column for each member".into())
        }
        Layout::Columns => Ok(Layout::Columns),
        Layout::Tidy => Ok(Layout::Tidy),
    }
}

/// The members that become columns, with their positions; none where the element is no compound.
fn selected_members<'a>(element: &'a ElementType, fields: &[String]) -> Result<Vec<(usize, &'a Member)>> {
    let ElementType::Compound { members, .. } = element else {
        return match fields {
            [] => Ok(Vec::new()),
            [field, ..] => {
                let message = format!("field {field:?} of an array whose elements are no compounds");
                Err(Error::new(Reason::BadSelection, message))
            }
        };
    };
    if fields.is_empty() {
        return Ok(members.iter().enumerate().collect());
    }
    let find = |field: &String| {
        let found = members.iter().enumerate().find(|(_, member)| member.name == *field);
        found.ok_or_else(|| {
            let names: Vec<&str> = members.iter().take(FIELDS_SHOWN).map(|member| member.name.as_str()).collect();
            let more = if members.len() > FIELDS_SHOWN { ", ..." } else { "" };
            let message = format!("no field {field:?}; the fields are {}{more}", names.join(", "));
            Error::new(Reason::BadSelection, message)
        })
    };
    fields.iter().map(find).collect()
}

/// Whether a compound is delivered as one value.
fn is_record(element: &ElementType, strings: Strings) -> bool {
    matches!(element, ElementType::Compound { .. }) && strings == Strings::Fixed && element.is_packed()
}

/// What stands in a column, not in a member or a sequence of one.
fn show_column(element: &ElementType, standing: Standing, strings: Strings) -> Result<Shown> {
    let (ElementType::Compound { bytes, .. }, true) = (element, is_record(element, strings)) else {
        return show(element, standing, strings);
    };
    let metadata = HashMap::from([("h5flight.record".to_owned(), numpy_type(element))]);
    Ok(Shown { data_type: binary_type(*bytes)?, dims: Vec::new(), metadata, nullable: false })
}

fn show(element: &ElementType, standing: Standing, strings: Strings) -> Result<Shown> {
    let plain = |data_type: DataType| Shown { data_type, dims: Vec::new(), metadata: HashMap::new(), nullable: false };
    let with = |data_type: DataType, key: &str, value: String| Shown {
        metadata: HashMap::from([(format!("h5flight.{key}"), value)]),
        ..plain(data_type)
    };
    let yes = || "true".to_owned();
    Ok(match element {
        ElementType::Integer { .. } | ElementType::Float { .. } => plain(number_type(element)?),
        ElementType::Bool if standing == Standing::TensorItem => with(DataType::UInt8, "bool", yes()),
        ElementType::Bool => with(DataType::Boolean, "bool", yes()),
        ElementType::Enum { base, members } => {
            let data_type = match standing {
                Standing::Column => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
                Standing::ListItem | Standing::TensorItem => number_type(base)?,
            };
            with(data_type, "enum", json(members))
        }
        ElementType::FixedString { bytes, .. } if strings == Strings::Fixed => {
            with(binary_type(*bytes)?, "text", "fixed".into())
        }
        ElementType::FixedString { text, .. } | ElementType::VarString { text } => match (text, strings) {
            (Text::Utf8, Strings::AsIndexed | Strings::Fixed) => plain(DataType::Utf8),
            (Text::Binary, _) | (_, Strings::Binary) => with(DataType::Binary, "text", "binary".into()),
        },
        ElementType::VarLen { item } => plain(DataType::List(item_field(show(item, Standing::ListItem, strings)?))),
        ElementType::Compound { members, .. } => plain(DataType::Struct(member_fields(members, standing, strings)?)),
        ElementType::Array { dims, item } => {
            let mut shown = show(item, Standing::TensorItem, strings)?;
            shown.dims.splice(0..0, dims.iter().map(|dim| u64::from(*dim)));
            if standing != Standing::TensorItem {
                let dims = std::mem::take(&mut shown.dims);
                shown.metadata.insert("h5flight.shape".into(), json(&dims));
                let item = Arc::new(Field::new("item", shown.data_type, shown.nullable));
                shown.data_type = DataType::FixedSizeList(item, list_size(&dims)?);
                shown.nullable = false;
            }
            shown
        }
        ElementType::Complex { part } if standing == Standing::TensorItem => {
            Shown { dims: vec![2], ..with(number_type(part)?, "complex", yes()) }
        }
        ElementType::Complex { part } => {
            with(DataType::FixedSizeList(item_field(plain(number_type(part)?)), 2), "complex", yes())
        }
        ElementType::Opaque { bytes, tag } => with(binary_type(*bytes)?, "tag", tag.clone()),
        ElementType::Bitfield { bytes, .. } => with(binary_type(*bytes)?, "bitfield", yes()),
        ElementType::Reference { .. } => Shown { nullable: true, ..plain(DataType::Utf8) },
        ElementType::Unsupported { why } => return Err(Error::new(Reason::UnsupportedType, why.clone())),
    })
}

fn member_fields(members: &[Member], standing: Standing, strings: Strings) -> Result<Fields> {
    // A compound inside a list is not a column: its members keep their plain numbers.
    let standing = if standing == Standing::Column { Standing::Column } else { Standing::ListItem };
    let field = |member: &Member| {
        let Shown { data_type, metadata, nullable, .. } = show(&member.element, standing, strings)?;
        Ok(Field::new(&member.name, data_type, nullable).with_metadata(metadata))
    };
    Ok(members.iter().map(field).collect::<Result<Vec<_>>>()?.into())
}

fn item_field(shown: Shown) -> FieldRef {
    Arc::new(Field::new("item", shown.data_type, shown.nullable).with_metadata(shown.metadata))
}

/// The Arrow type of an integer or a float.
fn number_type(element: &ElementType) -> Result<DataType> {
    Ok(match element {
        ElementType::Integer { bytes: 1, signed: true, .. } => DataType::Int8,
        ElementType::Integer { bytes: 2, signed: true, .. } => DataType::Int16,
        ElementType::Integer { bytes: 4, signed: true, .. } => DataType::Int32,
        ElementType::Integer { bytes: 8, signed: true, .. } => DataType::Int64,
        ElementType::Integer { bytes: 1, signed: false, .. } => DataType::UInt8,
        ElementType::Integer { bytes: 2, signed: false, .. } => DataType::UInt16,
        ElementType::Integer { bytes: 4, signed: false, .. } => DataType::UInt32,
        ElementType::Integer { bytes: 8, signed: false, .. } => DataType::UInt64,
        ElementType::Float { bytes: 2, .. } => DataType::Float16,
        ElementType::Float { bytes: 4, .. } => DataType::Float32,
        ElementType::Float { bytes: 8, .. } => DataType::Float64,
        other => {
            let message = format!("no arrow number for {}", numpy_type(other));
            return Err(Error::new(Reason::UnsupportedType, message));
        }
    })
}

fn binary_type(bytes: u32) -> Result<DataType> {
    i32::try_from(bytes).map(DataType::FixedSizeBinary).map_err(|_| {
        Error::new(Reason::UnsupportedType, format!("elements of {bytes} bytes, arrow has at most {}", i32::MAX))
    })
}

fn list_size(shape: &[u64]) -> Result<i32> {
    product(shape).and_then(|size| i32::try_from(size).ok()).ok_or_else(|| {
        Error::new(Reason::ResultTooLarge, format!("rows of shape {shape:?} have more than {} items", i32::MAX))
    })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("numbers, strings and lists of them are JSON")
}

fn schema_metadata(request: &OutputRequest<'_>, layout: Layout, shape: &[u64]) -> HashMap<String, String> {
    let ArrayMeta { element, type_note, .. } = request.meta;
    let mut metadata = HashMap::new();
    let mut put = |key: &str, value: String| metadata.insert(format!("h5flight.{key}"), value);
    put("shape", json(&shape));
    put("dtype", numpy_type(element));
    put("type", json(element));
    let layout = match layout {
        Layout::Auto | Layout::Tensor => "tensor",
        Layout::Columns => "columns",
        Layout::Tidy => "tidy",
    };
    put("layout", layout.into());
    // Points lie on no axis.
    let rows_axis = match request.selected.picked() {
        Picked::Axes(_) => request.kept.first(),
        Picked::Elements(_) => None,
    };
    put("rows_axis", json(&rows_axis));
    if let Some(text) = request.selected.text() {
        put("selection", text.into());
    }
    if !type_note.is_empty() {
        put("type_note", type_note.clone());
    }
    metadata
}

/// The element type as numpy names it, byte order included; `|O` for what numpy keeps as objects.
pub fn numpy_type(element: &ElementType) -> String {
    let order = |bytes: u32, order: ByteOrder| match (bytes, order) {
        (1, _) => '|',
        (_, ByteOrder::Little) => '<',
        (_, ByteOrder::Big) => '>',
    };
    match element {
        ElementType::Integer { bytes, signed, order: of } => {
            format!("{}{}{bytes}", order(*bytes, *of), if *signed { 'i' } else { 'u' })
        }
        ElementType::Float { bytes, order: of } => format!("{}f{bytes}", order(*bytes, *of)),
        ElementType::Bool => "|b1".into(),
        ElementType::Enum { base, .. } => numpy_type(base),
        ElementType::FixedString { bytes, .. } => format!("|S{bytes}"),
        ElementType::Bitfield { bytes: bytes @ (1 | 2 | 4 | 8), order: of } => {
            format!("{}u{bytes}", order(*bytes, *of))
        }
        ElementType::Opaque { bytes, .. } | ElementType::Bitfield { bytes, .. } => format!("|V{bytes}"),
        ElementType::Complex { part } => match **part {
            ElementType::Float { bytes, order: of } => format!("{}c{}", order(bytes, of), bytes * 2),
            _ => "|O".into(),
        },
        ElementType::Array { dims, item } => format!("{}{}", numpy_shape(dims), numpy_type(item)),
        ElementType::Compound { members, .. } => {
            let members: Vec<String> = members.iter().map(numpy_member).collect();
            format!("[{}]", members.join(", "))
        }
        ElementType::VarString { .. } | ElementType::VarLen { .. } | ElementType::Reference { .. } => "|O".into(),
        ElementType::Unsupported { .. } => "|V0".into(),
    }
}

/// An entry of numpy's list of fields: name, type, and a shape where there is one.
fn numpy_member(member: &Member) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let (element, shape) = match &member.element {
        ElementType::Array { dims, item } => (item.as_ref(), format!(", {}", numpy_shape(dims))),
        element => (element, String::new()),
    };
    let of = match element {
        ElementType::Compound { .. } => numpy_type(element),
        _ => quoted(&numpy_type(element)),
    };
    format!("({}, {of}{shape})", quoted(&member.name))
}

fn numpy_shape(dims: &[u32]) -> String {
    let sizes: Vec<String> = dims.iter().map(u32::to_string).collect();
    format!("({}{})", sizes.join(", "), if dims.len() == 1 { "," } else { "" })
}
