//! PostgreSQL's side of a dump: COPY in one transaction that sees one state. No pg_dump: its version would have to fit
//! the server's, it would have to be installed beside us, and the password would have to be handed to it.

use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::{PostgresCatalog, fault};
use crate::dump::{self, Column, Kind, OWNER_SECRET, Reader, TICKET_SECRET, Table, Writer, quoted};
use crate::error::{Error, ErrorKind, Result};

/// Values are written as every database reads them, and a large catalogue takes its time.
const SESSION: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '30s'; \
                       SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL TIME ZONE 'UTC'; \
                       SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL bytea_output = 'hex'; \
                       SET LOCAL extra_float_digits = 1";
/// Bytes of rows that are sent at once.
const SEND_BYTES: usize = 256 << 10;

pub(super) async fn dump(store: &PostgresCatalog, out: &mut (dyn std::io::Write + Send)) -> Result<()> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let mut transaction = store.readers.begin_with(begin).await.map_err(fault)?;
    transaction.execute(SESSION).await.map_err(fault)?;
    let mut writer = Writer::begin(out, "postgres", schema(&mut transaction).await?)?;
    for (table, sequence) in tables(&mut transaction).await? {
        writer.table(&table)?;
        let copy = format!("COPY {} ({}) TO STDOUT", quoted(&table.table), table.column_list());
        let mut rows = transaction.copy_out_raw(&copy).await.map_err(fault)?;
        while let Some(part) = rows.try_next().await.map_err(fault)? {
            writer.rows(&part)?;
        }
        drop(rows);
        writer.end_table(last_id(&mut transaction, sequence.as_deref()).await?)?;
    }
    transaction.rollback().await.map_err(fault)?;
    writer.finish()
}

pub(super) async fn occupied(store: &PostgresCatalog) -> Result<Option<String>> {
    let mut connection = store.readers.acquire().await.map_err(fault)?;
    first_occupied(&mut connection).await
}

pub(super) async fn load(store: &PostgresCatalog, from: &mut (dyn std::io::BufRead + Send)) -> Result<()> {
    let (mut reader, header) = Reader::begin(from)?;
    let mut transaction = store.writer.begin().await.map_err(fault)?;
    transaction.execute(SESSION).await.map_err(fault)?;
    dump::check_schema(&header, schema(&mut transaction).await?)?;
    // Tables come in any order, and some name each other: their keys are checked when all are there.
    let keys = drop_foreign_keys(&mut transaction).await?;
    if let Some(table) = first_occupied(&mut transaction).await? {
        return Err(dump::occupied(&table));
    }
    let known = tables(&mut transaction).await?;
    let plain: Vec<Table> = known.iter().map(|(table, _)| table.clone()).collect();
    while let Some(table) = reader.table()? {
        dump::counterpart(&plain, &table)?;
        load_rows(&mut transaction, &mut reader, &table).await?;
        let sequence =
            known.iter().find(|(known, _)| known.table == table.table).and_then(|(_, sequence)| sequence.as_ref());
        if let (Some(last_id), Some(sequence)) = (reader.end_table()?.last_id, sequence) {
            sqlx::query("SELECT setval($1::text::regclass, $2)")
                .bind(sequence)
                .bind(last_id)
                .execute(&mut *transaction)
                .await
                .map_err(fault)?;
        }
    }
    for key in keys {
        transaction.execute(AssertSqlSafe(key)).await.map_err(fault)?;
    }
    for secret in [TICKET_SECRET, OWNER_SECRET] {
        let forget = sqlx::query("DELETE FROM secrets WHERE name = $1").bind(secret);
        forget.execute(&mut *transaction).await.map_err(fault)?;
    }
    transaction.commit().await.map_err(fault)
}

async fn schema(connection: &mut PgConnection) -> Result<i64> {
    let newest = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
    newest.fetch_one(connection).await.map_err(fault)
}

/// The tables, each with the sequence that its ids come from.
async fn tables(connection: &mut PgConnection) -> Result<Vec<(Table, Option<String>)>> {
    let columns: Vec<(String, String, String, Option<String>)> = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL), \
         pg_get_serial_sequence(quote_ident(c.relname), a.attname) \
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname <> '_sqlx_migrations' \
         AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY c.relname, a.attnum",
    )
    .fetch_all(connection)
    .await
    .map_err(fault)?;
    let mut tables: Vec<(Table, Option<String>)> = Vec::new();
    for (table, name, declared, sequence) in columns {
        let kind = match declared.as_str() {
            "bigint" | "integer" | "smallint" => Kind::Integer,
            "double precision" => Kind::Real,
            "text" => Kind::Text,
            "bytea" => Kind::Bytes,
            "json" | "jsonb" => Kind::Json,
            "timestamp with time zone" => Kind::Time,
            other => {
                return Err(Error::new(ErrorKind::Database, format!("{table}.{name} is {other}: it cannot be dumped")));
            }
        };
        if tables.last().is_none_or(|(last, _)| last.table != table) {
            tables.push((Table { table, columns: Vec::new() }, None));
        }
        let (table, known) = tables.last_mut().expect("one was pushed");
        table.columns.push(Column { name, kind });
        *known = known.take().or(sequence);
    }
    Ok(tables)
}

async fn last_id(connection: &mut PgConnection, sequence: Option<&str>) -> Result<Option<i64>> {
    let Some(sequence) = sequence else { return Ok(None) };
    let last = sqlx::query_scalar("SELECT pg_sequence_last_value($1::text::regclass)").bind(sequence);
    last.fetch_one(connection).await.map_err(fault)
}

async fn first_occupied(connection: &mut PgConnection) -> Result<Option<String>> {
    for (Table { table, .. }, _) in tables(connection).await? {
        let any = format!("SELECT EXISTS (SELECT 1 FROM {})", quoted(&table));
        if sqlx::query_scalar(AssertSqlSafe(any)).fetch_one(&mut *connection).await.map_err(fault)? {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Drops all foreign keys within the transaction, and gives the statements that bring them back and check them.
async fn drop_foreign_keys(connection: &mut PgConnection) -> Result<Vec<String>> {
    let keys: Vec<(String, String)> = sqlx::query_as(
        "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname), \
         format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) \
         FROM pg_constraint WHERE contype = 'f' AND connamespace = current_schema()::regnamespace ORDER BY oid",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(fault)?;
    let mut back = Vec::new();
    for (drop, add) in keys {
        connection.execute(AssertSqlSafe(drop)).await.map_err(fault)?;
        back.push(add);
    }
    Ok(back)
}

async fn load_rows(connection: &mut PgConnection, reader: &mut Reader<'_>, table: &Table) -> Result<()> {
    let copy = format!("COPY {} ({}) FROM STDIN", quoted(&table.table), table.column_list());
    let mut sink = connection.copy_in_raw(&copy).await.map_err(fault)?;
    let mut rows = Vec::new();
    loop {
        let row = match reader.row() {
            Ok(row) => row,
            Err(error) => {
                sink.abort("the dump is damaged").await.map_err(fault)?;
                return Err(error);
            }
        };
        if let Some(row) = row {
            rows.extend_from_slice(row);
        }
        if row.is_none() || rows.len() >= SEND_BYTES {
            let at_end = row.is_none();
            sink.send(rows.as_slice()).await.map_err(fault)?;
            rows.clear();
            if at_end {
                sink.finish().await.map_err(fault)?;
                return Ok(());
            }
        }
    }
}
