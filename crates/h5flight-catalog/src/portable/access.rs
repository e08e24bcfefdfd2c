//! Who may see it, who saw it: tokens, the access log, secrets that all servers share.

use chrono::SubsecRound;
use sqlx::Connection;

use super::{Db, Store, dialect, fault};
use crate::error::{Error, Result};
use crate::model::*;
use crate::rows::{AccessRow, TokenRow, damaged, now};
use crate::staging::{LogRow, Slice};
use crate::text::{self, NAME_BYTES_MAX};
use crate::token::{TokenText, random_bytes};

/// Lines of the access log that one call returns at most.
const ACCESSES_MAX: u32 = 10_000;

pub(super) async fn ping(store: &Store) -> Result<()> {
    let mut connection = store.readers.acquire().await.map_err(fault)?;
    connection.ping().await.map_err(fault)
}

pub(super) async fn secret(store: &Store, name: &str) -> Result<[u8; 32]> {
    let name = text::name("name of the secret", name, NAME_BYTES_MAX)?;
    if let Some(known) = known_secret(store, name).await? {
        return Ok(known);
    }
    sqlx::query::<Db>(
        "INSERT INTO secrets (name, value, created_at) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(random_bytes::<32>()?.to_vec())
    .bind(now())
    .execute(&store.writer)
    .await
    .map_err(fault)?;
    // Another server may have been first: what counts is what is stored.
    known_secret(store, name).await?.ok_or_else(|| damaged("a secret vanished"))
}

async fn known_secret(store: &Store, name: &str) -> Result<Option<[u8; 32]>> {
    let known: Option<Vec<u8>> = sqlx::query_scalar::<Db, _>("SELECT value FROM secrets WHERE name = $1")
        .bind(name)
        .fetch_optional(&store.readers)
        .await
        .map_err(fault)?;
    known.map(|value| value.try_into().map_err(|_| damaged("a secret is not 32 bytes"))).transpose()
}

/// Makes the principal where it is missing, and its token, in one transaction.
pub(super) async fn create_token(store: &Store, new: &NewToken) -> Result<CreatedToken> {
    let principal = text::name("name of the principal", &new.principal, NAME_BYTES_MAX)?;
    let token = TokenText::random()?;
    let mut transaction = dialect::begin(store).await?;
    sqlx::query::<Db>("INSERT INTO principals (name, created_at) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
        .bind(principal)
        .bind(now())
        .execute(&mut *transaction)
        .await
        .map_err(fault)?;
    sqlx::query::<Db>(
        "INSERT INTO tokens (principal_id, prefix, hash, role, created_at, expires_at) \
         SELECT id, $2, $3, $4, $5, $6 FROM principals WHERE name = $1",
    )
    .bind(principal)
    .bind(&token.prefix)
    .bind(token.hash().as_bytes().to_vec())
    .bind(new.role.as_str())
    .bind(now())
    .bind(new.expires_at.map(|end| end.trunc_subsecs(6)))
    .execute(&mut *transaction)
    .await
    .map_err(fault)?;
    transaction.commit().await.map_err(fault)?;
    Ok(CreatedToken { token: token.text, prefix: token.prefix })
}

macro_rules! select_tokens {
    () => {
        "SELECT t.prefix, t.hash, t.principal_id, p.name AS principal, t.role, t.created_at, t.expires_at, \
         t.revoked_at \
         FROM tokens t JOIN principals p ON p.id = t.principal_id "
    };
}

pub(super) async fn authenticate(store: &Store, token: &str) -> Result<Option<Principal>> {
    let Some(token) = TokenText::parse(token) else { return Ok(None) };
    let row: Option<TokenRow> = sqlx::query_as::<Db, _>(concat!(select_tokens!(), "WHERE t.prefix = $1"))
        .bind(&token.prefix)
        .fetch_optional(&store.readers)
        .await
        .map_err(fault)?;
    let Some(row) = row.filter(|row| token.matches(&row.hash) && row.valid_at(now())) else { return Ok(None) };
    let role = row.role()?;
    Ok(Some(Principal { id: row.principal_id, name: row.principal, role, token_prefix: row.prefix }))
}

/// Tokens are made by hand, so all of them are one answer.
async fn tokens(store: &Store) -> Result<Vec<TokenRow>> {
    sqlx::query_as::<Db, _>(concat!(select_tokens!(), "ORDER BY t.id")).fetch_all(&store.readers).await.map_err(fault)
}

pub(super) async fn list_tokens(store: &Store) -> Result<Vec<TokenSummary>> {
    tokens(store).await?.into_iter().map(TokenRow::summary).collect()
}

pub(super) async fn has_tokens(store: &Store) -> Result<bool> {
    let any: Option<i64> = sqlx::query_scalar::<Db, _>("SELECT id FROM tokens ORDER BY id LIMIT 1")
        .fetch_optional(&store.readers)
        .await
        .map_err(fault)?;
    Ok(any.is_some())
}

pub(super) async fn revoke_token(store: &Store, prefix: &str) -> Result<bool> {
    let revoked = sqlx::query::<Db>("UPDATE tokens SET revoked_at = coalesce(revoked_at, $2) WHERE prefix = $1")
        .bind(text::asked(prefix))
        .bind(now())
        .execute(&store.writer)
        .await
        .map_err(fault)?;
    Ok(revoked.rows_affected() > 0)
}

pub(super) async fn log_accesses(store: &Store, entries: &[AccessEntry]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut rows = entries.iter().map(|entry| Ok(LogRow::new(entry)));
    let mut transaction = dialect::begin(store).await?;
    loop {
        let slice = Slice::next_of(&mut rows)?;
        if slice.is_empty() {
            return transaction.commit().await.map_err(fault);
        }
        dialect::insert_log(&mut transaction, &slice).await?;
    }
}

pub(super) async fn list_accesses(store: &Store, limit: u32) -> Result<Vec<AccessEntry>> {
    if limit == 0 {
        return Err(Error::invalid("the number of entries is 0"));
    }
    let rows: Vec<AccessRow> = sqlx::query_as::<Db, _>(
        "SELECT at, principal, call, path, selection, outcome, rows, bytes, tier, millis \
         FROM access_log ORDER BY id DESC LIMIT $1",
    )
    .bind(i64::from(limit.min(ACCESSES_MAX)))
    .fetch_all(&store.readers)
    .await
    .map_err(fault)?;
    rows.into_iter().map(AccessRow::entry).collect()
}
