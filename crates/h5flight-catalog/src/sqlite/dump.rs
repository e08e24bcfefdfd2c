//! SQLite's side of a dump: tables are asked of its schema, a read transaction holds one state while others write.

use futures::TryStreamExt;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection};

use super::{SqliteCatalog, fault};
use crate::dump::fields::{self, Fields};
use crate::dump::{self, Column, Kind, Reader, TICKET_SECRET, Table, Writer, damaged, quoted};
use crate::error::{Error, ErrorKind, Result};

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
    sqlx::query("DELETE FROM secrets WHERE name = $1")
        .bind(TICKET_SECRET)
        .execute(&mut *transaction)
        .await
        .map_err(fault)?;
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
    let places = (1..=table.columns.len()).map(|at| format!("${at}")).collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO {} ({}) VALUES ({places})", quoted(&table.table), table.column_list());
    while let Some(row) = reader.row()? {
        let mut query = sqlx::query(AssertSqlSafe(insert.clone()));
        for (column, value) in Fields::parse(row, table)?.into_values() {
            let here =
                target.columns.iter().find(|here| here.name == column.name).map_or(column.kind, |here| here.kind);
            query = bind(query, column.kind, here, value)?;
        }
        query.execute(&mut *connection).await.map_err(fault)?;
    }
    Ok(())
}

type Insert<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Binds a value that was of kind `was` to a column of kind `here`.
fn bind(query: Insert<'_>, was: Kind, here: Kind, value: Option<String>) -> Result<Insert<'_>> {
    let Some(value) = value else { return Ok(query.bind(None::<i64>)) };
    let wrong = |error: &dyn std::fmt::Display| damaged(format!("{value:?} is no {here:?}: {error}"));
    Ok(match (here, was) {
        (Kind::Integer, _) => query.bind(value.parse::<i64>().map_err(|error| wrong(&error))?),
        (Kind::Real, _) => query.bind(value.parse::<f64>().map_err(|error| wrong(&error))?),
        (Kind::Bytes, _) => query.bind(fields::unhex(&value)?),
        // As sqlx writes times, for they are compared as texts.
        (_, Kind::Time) => {
            let time = chrono::DateTime::parse_from_str(&value, "%Y-%m-%d %H:%M:%S%.f%#z");
            query.bind(time.map_err(|error| wrong(&error))?.to_utc())
        }
        (Kind::Text | Kind::Json | Kind::Time, _) => query.bind(value),
    })
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
