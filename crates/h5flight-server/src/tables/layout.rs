//! Which datasets a table's columns are, and whether they fit together. No values are read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use h5flight_array::Reason;
use h5flight_array::inspect::ObjectKind;
use h5flight_array::meta::ElementType;
use h5flight_array::ragged::LARGE_VALUES_MIN;
use h5flight_catalog::model::{DatasetPath, Description, ResolvedVersion, VersionSelector};
use h5flight_catalog::names::{did_you_mean, nearest};
use serde_json::{Map, Value};

use super::column::{Column, Reader, rows_of};
use super::{BLOCK_ROWS_MAX, TableRequest, is_plain};
use crate::error::{Error, Result};

/// Indexes of one column, each into the next, at most.
const INDEXES_MAX: usize = 4;
/// Columns of a table at most.
const COLUMNS_MAX: usize = 4_096;
/// Values of an enumeration at most.
pub(super) const LABELS_MAX: u64 = 1 << 16;

/// A table as it was found.
pub(super) struct Table {
    pub(super) path: DatasetPath,
    pub(super) version: VersionSelector,
    pub(super) rows: u64,
    /// All that a filter may name.
    pub(super) columns: Vec<Column>,
    /// Positions of those that are delivered, in order.
    shown: Vec<usize>,
    /// Of the schema.
    pub(super) metadata: HashMap<String, String>,
}

impl Table {
    pub(super) fn shown(&self) -> impl Iterator<Item = &Column> {
        self.shown.iter().map(|at| &self.columns[*at])
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Bytes of a row without its lists.
    pub(super) fn row_bytes(&self) -> u64 {
        self.shown().map(Column::row_bytes).fold(1, u64::saturating_add)
    }

    /// Rows that are gone through at once, for batches of this size.
    pub(super) fn block_rows(&self, batch_bytes: u64) -> u64 {
        (batch_bytes / self.row_bytes()).clamp(1, BLOCK_ROWS_MAX)
    }
}

/// Finds the table of a request.
///
/// # Errors
/// `not_a_table`, `malformed_table`, `column_not_found`; those of names.
pub(super) async fn find(reader: &Reader, request: &TableRequest) -> Result<Table> {
    let described = reader.service.catalog.describe(&request.path).await?;
    let mut table = match described.kind {
        ObjectKind::Dataset => of_compound(reader, request).await?,
        ObjectKind::Group => of_group(reader, request, &described).await?,
        ObjectKind::NamedType => return Err(no_table(&request.path, "it is a named type")),
    };
    for (key, value) in [
        ("h5flight.animal", &request.path.animal),
        ("h5flight.experiment", &request.path.experiment),
        ("h5flight.table", &described.path.dataset),
    ] {
        table.metadata.insert(key.to_owned(), value.clone());
    }
    table.metadata.insert("h5flight.attributes".to_owned(), Value::Object(described.attributes).to_string());
    table.shown = match request.columns.as_slice() {
        [] => (0..table.columns.len()).collect(),
        asked => {
            let at = |name: &String| table.columns.iter().position(|column| column.name == *name);
            let found = asked.iter().map(|name| at(name).ok_or_else(|| no_column(name, &table.names())));
            found.collect::<Result<_>>()?
        }
    };
    if table.shown.iter().collect::<HashSet<_>>().len() < table.shown.len() {
        return Err(Error::new(Reason::BadRequest, "a column is asked for twice"));
    }
    Ok(table)
}

fn no_table(path: &DatasetPath, why: &str) -> Error {
    Error::new(Reason::NotATable, format!("{path} is no table: {why}"))
}

pub(super) fn malformed(message: String) -> Error {
    Error::new(Reason::MalformedTable, message)
}

/// The error for a name that no column has.
pub(super) fn no_column(name: &str, names: &[String]) -> Error {
    let hint = did_you_mean(&nearest(name, names));
    Error::new(Reason::ColumnNotFound, format!("the table has no column {name:?}{hint}"))
}

/// The members of a dataset of one axis.
async fn of_compound(reader: &Reader, request: &TableRequest) -> Result<Table> {
    let version = reader.service.versions.resolve(&request.path, request.version.clone()).await?;
    let element = version.extents.first().map(|extent| &extent.array.meta.element);
    let Some(ElementType::Compound { members, .. }) = element else {
        return Err(no_table(&request.path, "it is a dataset of single values; read it with GetData"));
    };
    let rows = rows_of(&version).filter(|_| rank_of(&version) == 1);
    let Some(rows) = rows else { return Err(no_table(&request.path, "it has not one axis")) };
    let mut columns = Vec::with_capacity(members.len());
    for member in members {
        let fields = reader.fields(&version, std::slice::from_ref(&member.name))?;
        let [field] = fields.fields().as_ref() else {
            return Err(malformed(format!("member {:?} is no single column", member.name)));
        };
        columns.push(Column {
            name: member.name.clone(),
            field: Arc::clone(field),
            member: Some(member.name.clone()),
            values: Arc::clone(&version),
            indexes: Vec::new(),
            region: None,
            labels: None,
            joined: None,
        });
    }
    let version = VersionSelector::Number(version.version);
    Ok(Table { path: request.path.clone(), version, rows, columns, shown: Vec::new(), metadata: HashMap::new() })
}

fn rank_of(version: &ResolvedVersion) -> usize {
    version.extents.first().map_or(0, |extent| extent.array.meta.shape().len())
}

/// The columns of a group, as NWB has them.
async fn of_group(reader: &Reader, request: &TableRequest, group: &Description) -> Result<Table> {
    if matches!(request.version, VersionSelector::Number(_)) {
        let message = "a group has no version numbers: name a time or a tag";
        return Err(Error::new(Reason::BadRequest, message));
    }
    let path = &group.path;
    let Some(names) = column_names(&group.attributes) else {
        return Err(no_table(path, "it has no attribute \"colnames\""));
    };
    let children: HashSet<&str> = group.children.iter().map(|(name, _)| name.as_str()).collect();
    let mut finder = Finder { reader, group: path, children, version: request.version.clone(), seen: HashMap::new() };
    let mut columns = finder.columns(&names).await?;
    if request.version == VersionSelector::Current && finder.of_several_files() {
        // Somebody may be publishing just now: at one moment all columns are of one publication.
        finder.version = VersionSelector::AsOf(chrono::Utc::now());
        finder.seen.clear();
        columns = finder.columns(&names).await?;
    }
    let rows = columns.first().map_or(0, Column::rows);
    for column in &columns {
        if column.rows() != rows {
            let (name, other) = (&column.name, column.rows());
            return Err(malformed(format!("{path}: column {name:?} has {other} rows, \"id\" has {rows}")));
        }
    }
    let (path, version) = (path.clone(), finder.version);
    Ok(Table { path, version, rows, columns, shown: Vec::new(), metadata: HashMap::new() })
}

/// What the attribute says; one name alone may be a text of its own.
fn column_names(attributes: &Map<String, Value>) -> Option<Vec<String>> {
    let names = match attributes.get("colnames")? {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        // No column at all but the id.
        Value::Null => Vec::new(),
        _ => return None,
    };
    Some(names)
}

struct Finder<'a> {
    reader: &'a Reader,
    group: &'a DatasetPath,
    children: HashSet<&'a str>,
    version: VersionSelector,
    seen: HashMap<String, Arc<ResolvedVersion>>,
}

impl Finder<'_> {
    async fn columns(&mut self, names: &[String]) -> Result<Vec<Column>> {
        if names.len() >= COLUMNS_MAX {
            let message = format!("{}: {} columns, the server reads at most {COLUMNS_MAX}", self.group, names.len());
            return Err(malformed(message));
        }
        let mut columns = vec![self.column("id").await?];
        for name in names.iter().filter(|name| *name != "id") {
            if columns.iter().any(|column| column.name == *name) {
                return Err(malformed(format!("{}: colnames has {name:?} twice", self.group)));
            }
            columns.push(self.column(name).await?);
        }
        Ok(columns)
    }

    fn of_several_files(&self) -> bool {
        let extents = self.seen.values().flat_map(|version| &version.extents);
        extents.map(|extent| extent.array.file.id).collect::<HashSet<_>>().len() > 1
    }

    async fn dataset(&mut self, name: &str) -> Result<Arc<ResolvedVersion>> {
        if !self.children.contains(name) || name.contains('/') {
            return Err(malformed(format!("{}: its column {name:?} is missing", self.group)));
        }
        let path = DatasetPath { dataset: format!("{}/{name}", self.group.dataset), ..self.group.clone() };
        let found = self.reader.service.versions.resolve(&path, self.version.clone()).await;
        let version = found.map_err(|error| match error.reason() {
            Reason::DatasetNotFound => malformed(format!("{}: its column {name:?} is no dataset", self.group)),
            _ => error,
        })?;
        self.seen.insert(name.to_owned(), Arc::clone(&version));
        Ok(version)
    }

    /// The values and the chain of indexes into them: `X_index_index` into `X_index` into `X`.
    async fn column(&mut self, name: &str) -> Result<Column> {
        let values = self.dataset(name).await?;
        let mut indexes = Vec::new();
        let mut index = format!("{name}_index");
        while self.children.contains(index.as_str()) {
            if indexes.len() >= INDEXES_MAX {
                return Err(malformed(format!("{}: more than {INDEXES_MAX} indexes of {name:?}", self.group)));
            }
            let version = self.dataset(&index).await?;
            if rank_of(&version) != 1 {
                return Err(malformed(format!("{}: the index {index:?} has not one axis", self.group)));
            }
            indexes.push(version);
            index.push_str("_index");
        }
        indexes.reverse();
        if rows_of(&values).is_none() {
            return Err(malformed(format!("{}: column {name:?} is a single value", self.group)));
        }
        let labels = self.labels(name, &values).await?;
        let fields = self.reader.fields(&values, &[])?;
        let value = value_field(name, &values, fields.fields());
        let value = match &labels {
            None => value,
            Some((_, labels)) => Arc::new(value.as_ref().clone().with_data_type(labels.clone())),
        };
        let region = region(&values);
        let field = listed(name, &value, &indexes, &values);
        let labels = labels.map(|(version, _)| version);
        Ok(Column { name: name.to_owned(), field, member: None, values, indexes, region, labels, joined: None })
    }

    /// The names of an enumeration: a column of numbers with names beside it.
    async fn labels(
        &mut self,
        name: &str,
        values: &ResolvedVersion,
    ) -> Result<Option<(Arc<ResolvedVersion>, DataType)>> {
        if values.attributes.get("neurodata_type").and_then(Value::as_str) != Some("EnumData") {
            return Ok(None);
        }
        let labels = self.dataset(&format!("{name}_elements")).await?;
        if rank_of(&labels) != 1 || rows_of(&labels).is_none_or(|rows| rows > LABELS_MAX) {
            let message = format!("{}: the names of {name:?} are no list of at most {LABELS_MAX}", self.group);
            return Err(malformed(message));
        }
        let fields = self.reader.fields(&labels, &[])?;
        let kind = fields.field(0).data_type().clone();
        Ok(Some((labels, DataType::Dictionary(Box::new(DataType::Int32), Box::new(kind)))))
    }
}

/// The field of one value: a compound is a struct.
fn value_field(name: &str, values: &ResolvedVersion, fields: &arrow::datatypes::Fields) -> FieldRef {
    let field = match fields.as_ref() {
        [field] if !is_compound(values) => field.as_ref().clone().with_name(name),
        _ => Field::new(name, DataType::Struct(fields.clone()), false),
    };
    Arc::new(field)
}

pub(super) fn is_compound(version: &ResolvedVersion) -> bool {
    let element = version.extents.first().map(|extent| &extent.array.meta.element);
    matches!(element, Some(ElementType::Compound { .. }))
}

/// The field of a column: lists around the values, one for each index, the outermost first.
pub(super) fn listed(
    name: &str,
    value: &FieldRef,
    indexes: &[Arc<ResolvedVersion>],
    values: &ResolvedVersion,
) -> FieldRef {
    let mut field = Arc::clone(value);
    // From the innermost: each index is of the one behind it, the last of the values.
    for at in (0..indexes.len()).rev() {
        let items = indexes.get(at + 1).map_or(values, |index| index.as_ref());
        let item = Arc::new(field.as_ref().clone().with_name("item"));
        let kind = match rows_of(items).unwrap_or(0) > LARGE_VALUES_MIN {
            true => DataType::LargeList(item),
            false => DataType::List(item),
        };
        field = Arc::new(Field::new(name, kind, false));
    }
    match values.attributes.get("description").and_then(Value::as_str) {
        None => field,
        Some(text) => {
            let mut metadata = field.metadata().clone();
            metadata.insert("h5flight.description".to_owned(), text.to_owned());
            Arc::new(field.as_ref().clone().with_metadata(metadata))
        }
    }
}

/// The table that a region points to, by its name in the experiment.
fn region(values: &ResolvedVersion) -> Option<String> {
    let target = values.attributes.get("table")?.get("ref")?.as_str()?;
    // A file of several experiments has more in front of a path than the name in the experiment.
    let in_file = values.extents.first()?.array.hdf5_path.as_str();
    let prefix = in_file.strip_suffix(values.path.dataset.as_str()).unwrap_or("/");
    Some(target.strip_prefix(prefix).unwrap_or(target).trim_start_matches('/').to_owned())
}

/// What is wrong with a filter's name, if anything.
pub(super) fn filtered<'t>(table: &'t Table, name: &str) -> Result<&'t Column> {
    let refuse = |message: String| Error::new(Reason::BadExpression, message);
    let Some(column) = table.columns.iter().find(|column| column.name == name) else {
        let hint = did_you_mean(&nearest(name, &table.names()));
        return Err(refuse(format!("the table has no column {name:?}{hint}")));
    };
    if !is_plain(column) {
        return Err(refuse(format!("column {name:?} is a list, it has no single value a row that a filter compares")));
    }
    Ok(column)
}
