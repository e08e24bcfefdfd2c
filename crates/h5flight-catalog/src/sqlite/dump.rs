//! SQLite's side of a dump: tables are asked of its schema, a read transaction holds one state while others write.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{SqliteCatalog, fault};
use crate::dump::fields::{self, Fields};
use crate::dump::{self, Column, Kind, OWNER_SECRET, Reader, TICKET_SECRET, Table, Writer, damaged, quoted};
use crate::error::{Error, ErrorKind, Result};

/// Values of one INSERT: a statement for each row took ten times as long.
const INSERT_VALUES_MAX: usize = 4_000;
/// Rows of one INSERT, as the dump has them.
const INSERT_BYTES: usize = 4 << 20;

pub(super) async fn dump(store: &SqliteCatalog, out: &mut (dyn std::io::Write + Send)) -> Result<()> {
    let mut transaction = store.readers.begin().await.map_err(fault)?;
    let mut writer = Writer::begin(out, "sqlite", schema(&mut transaction).await?)?;
    for table in tables(&mut transaction).await? {
        writer.table(&table)?;
        let select = format!("SELECT {} FROM {}", table.column_list(), quoted(&table.table));
        let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut *transaction);
        while let Some(row) = rows.try_next().await.map_err(fault)? {
            writer.rows(line(&row, &table)?.as_bytes())?;
        }
        drop(rows);
        let last_id = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = $1");
        let last_id = last_id.bind(&table.table).fetch_optional(&mut *transaction).await.map_err(fault)?;
        writer.end_table(last_id)?;
    }
    writer.finish()
}

pub(super) async fn occupied(store: &SqliteCatalog) -> Result<Option<String>> {
    let mut connection = store.readers.acquire().await.map_err(fault)?;
    first_occupied(&mut connection).await
}

pub(super) async fn load(store: &SqliteCatalog, from: &mut (dyn std::io::BufRead + Send)) -> Result<()> {
    let (mut reader, header) = Reader::begin(from)?;
    let mut transaction = super::dialect::begin(store).await?;
    dump::check_schema(&header, schema(&mut transaction).await?)?;
    if let Some(table) = first_occupied(&mut transaction).await? {
        return Err(dump::occupied(&table));
    }
    // Tables come in any order; at the end all keys must be there.
    sqlx::query("PRAGMA defer_foreign_keys = ON").execute(&mut *transaction).await.map_err(fault)?;
    let known = tables(&mut transaction).await?;
    while let Some(table) = reader.table()? {
        let target = dump::counterpart(&known, &table)?;
        load_rows(&mut transaction, &mut reader, &table, target).await?;
        if let Some(last_id) = reader.end_table()?.last_id {
            keep_last_id(&mut transaction, &table.table, last_id).await?;
        }
    }
    for secret in [TICKET_SECRET, OWNER_SECRET] {
        let forget = sqlx::query("DELETE FROM secrets WHERE name = $1").bind(secret);
        forget.execute(&mut *transaction).await.map_err(fault)?;
    }
    transaction.commit().await.map_err(fault)
}

async fn schema(connection: &mut SqliteConnection) -> Result<i64> {
    let newest = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
    newest.fetch_one(connection).await.map_err(fault)
}

async fn tables(connection: &mut SqliteConnection) -> Result<Vec<Table>> {
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT t.name, c.name, c.type FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.name <> '_sqlx_migrations' \
         ORDER BY t.name, c.cid",
    )
    .fetch_all(connection)
    .await
    .map_err(fault)?;
    let mut tables: Vec<Table> = Vec::new();
    for (table, name, declared) in columns {
        let kind = match declared.as_str() {
            "INTEGER" => Kind::Integer,
            "REAL" => Kind::Real,
            "TEXT" => Kind::Text,
            "BLOB" => Kind::Bytes,
            other => {
                return Err(Error::new(ErrorKind::Database, format!("{table}.{name} is {other}: it cannot be dumped")));
            }
        };
        if tables.last().is_none_or(|last| last.table != table) {
            tables.push(Table { table, columns: Vec::new() });
        }
        tables.last_mut().expect("one was pushed").columns.push(Column { name, kind });
    }
    Ok(tables)
}

async fn first_occupied(connection: &mut SqliteConnection) -> Result<Option<String>> {
    for Table { table, .. } in tables(connection).await? {
        let any = format!("SELECT EXISTS (SELECT 1 FROM {})", quoted(&table));
        if sqlx::query_scalar(AssertSqlSafe(any)).fetch_one(&mut *connection).await.map_err(fault)? {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

fn line(row: &SqliteRow, table: &Table) -> Result<String> {
    let mut line = String::new();
    for (at, column) in table.columns.iter().enumerate() {
        let value = match column.kind {
            Kind::Integer => row.try_get::<Option<i64>, _>(at).map_err(fault)?.map(|number| number.to_string()),
            Kind::Real => row.try_get::<Option<f64>, _>(at).map_err(fault)?.map(|number| number.to_string()),
            Kind::Bytes => row.try_get::<Option<&[u8]>, _>(at).map_err(fault)?.map(fields::hex),
            Kind::Text | Kind::Json | Kind::Time => row.try_get(at).map_err(fault)?,
        };
        if at > 0 {
            line.push('\t');
        }
        fields::push(&mut line, value.as_deref());
    }
    line.push('\n');
    Ok(line)
}

async fn load_rows(
    connection: &mut SqliteConnection,
    reader: &mut Reader<'_>,
    table: &Table,
    target: &Table,
) -> Result<()> {
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    while let Some(row) = reader.row()? {
        batch_bytes += row.len();
        let mut values = Vec::with_capacity(table.columns.len());
        for (column, value) in Fields::parse(row, table)?.into_values() {
            let here = target.columns.iter().find(|here| here.name == column.name);
            values.push(Value::new(value, column.kind, here.map_or(column.kind, |here| here.kind))?);
        }
        batch.push(values);
        if (batch.len() + 1) * table.columns.len() > INSERT_VALUES_MAX || batch_bytes > INSERT_BYTES {
            insert(connection, table, std::mem::take(&mut batch)).await?;
            batch_bytes = 0;
        }
    }
    match batch.is_empty() {
        true => Ok(()),
        false => insert(connection, table, batch).await,
    }
}

async fn insert(connection: &mut SqliteConnection, table: &Table, rows: Vec<Vec<Value>>) -> Result<()> {
    let insert = format!("INSERT INTO {} ({}) ", quoted(&table.table), table.column_list());
    let mut query = QueryBuilder::<Sqlite>::new(insert);
    query.push_values(rows, |mut places, row| {
        for value in row {
            match value {
                Value::Null => places.push_bind(None::<i64>),
                Value::Integer(number) => places.push_bind(number),
                Value::Real(number) => places.push_bind(number),
                Value::Text(text) => places.push_bind(text),
                Value::Bytes(bytes) => places.push_bind(bytes),
                Value::Time(at) => places.push_bind(at),
            };
        }
    });
    query.build().execute(connection).await.map_err(fault).map(|_| ())
}

/// A value as SQLite takes it.
enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Bound as a time, for sqlx writes it as it does all others: they are compared as texts.
    Time(DateTime<Utc>),
}

impl Value {
    /// A value that was of kind `was`, for a column of kind `here`.
    fn new(value: Option<String>, was: Kind, here: Kind) -> Result<Self> {
        let Some(value) = value else { return Ok(Self::Null) };
        let wrong = |error: &dyn std::fmt::Display| damaged(format!("{value:?} is no {here:?}: {error}"));
        Ok(match (here, was) {
            (Kind::Integer, _) => Self::Integer(value.parse().map_err(|error: std::num::ParseIntError| wrong(&error))?),
            (Kind::Real, _) => Self::Real(value.parse().map_err(|error: std::num::ParseFloatError| wrong(&error))?),
            (Kind::Bytes, _) => Self::Bytes(fields::unhex(&value)?),
            (_, Kind::Time) => {
                let at = DateTime::parse_from_str(&value, "%Y-%m-%d %H:%M:%S%.f%#z");
                Self::Time(at.map_err(|error| wrong(&error))?.to_utc())
            }
            (Kind::Text | Kind::Json | Kind::Time, _) => Self::Text(value),
        })
    }
}

async fn keep_last_id(connection: &mut SqliteConnection, table: &str, last_id: i64) -> Result<()> {
    for statement in [
        "DELETE FROM sqlite_sequence WHERE name = $1 AND $2 = $2",
        "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)",
    ] {
        sqlx::query(statement).bind(table).bind(last_id).execute(&mut *connection).await.map_err(fault)?;
    }
    Ok(())
}
