//! Versions, their differences and what changes them, on the wire and as JSON.

use chrono::{DateTime, SecondsFormat};
use h5flight_array::meta::Space;
use h5flight_catalog::model::{ExpectedVersion, VersionSummary};
use h5flight_proto::v1;
use serde_json::{Value, json};

use crate::error::Result;

/// What a publication is based on.
///
/// # Errors
/// `bad_request` naming the part of the name.
pub fn expected(expected: &v1::ExpectedVersion) -> Result<ExpectedVersion> {
    let path = super::dataset_path(&expected.animal, &expected.experiment, &expected.dataset)?;
    Ok(ExpectedVersion { path, version: expected.version })
}

/// A version of a history on the wire.
pub fn version(found: VersionSummary) -> v1::Version {
    v1::Version {
        version: found.number,
        created_us: found.created_at.timestamp_micros(),
        principal: found.principal,
        shape: found.meta.shape().to_vec(),
        dtype: super::dtype(&found.meta),
        source_name: found.source_name,
        managed: found.managed,
        restored: found.restored.unwrap_or(0),
        tags: found.tags,
        extents: found.extents,
        stored_chunks: found.chunks,
        stored_bytes: found.stored_bytes,
        problem_reason: found.problem.map(|(reason, _)| reason).unwrap_or_default(),
        is_null: found.meta.space == Space::Null,
    }
}

/// The same as JSON; the time as RFC 3339 text.
pub fn version_json(found: &v1::Version) -> Value {
    let created = DateTime::from_timestamp_micros(found.created_us).unwrap_or_default();
    json!({
        "version": found.version, "created_at": created.to_rfc3339_opts(SecondsFormat::Micros, true),
        "principal": found.principal, "shape": found.shape, "dtype": found.dtype, "source_name": found.source_name,
        "managed": found.managed, "restored": found.restored, "tags": found.tags, "extents": found.extents,
        "stored_chunks": found.stored_chunks, "stored_bytes": found.stored_bytes,
        "problem_reason": found.problem_reason, "is_null": found.is_null,
    })
}

/// A difference as JSON; values are values here.
pub fn diff_json(found: &v1::DiffVersionsResponse) -> Value {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let change = |of: &v1::Change| json!({ "name": of.name, "from": value(&of.from_json), "to": value(&of.to_json) });
    let range = |of: &v1::SharedRows| json!({ "from_row": of.from_row, "to_row": of.to_row, "rows": of.rows });
    json!({
        "from": found.from, "to": found.to, "from_rows": found.from_rows, "to_rows": found.to_rows,
        "changes": found.changes.iter().map(change).collect::<Vec<_>>(),
        "attributes": found.attributes.iter().map(change).collect::<Vec<_>>(),
        "shared": found.shared.iter().map(range).collect::<Vec<_>>(),
    })
}

/// What a rollback made, as JSON.
pub fn rollback_json(made: &v1::RollbackResponse) -> Value {
    json!({ "version": made.version, "before": made.before, "restored": made.restored, "already": made.already })
}
