//! The history of datasets, for both doors: versions and what is different between them, tags, and rollbacks.
//!
//! A rollback is a publication: what it supersedes is dropped from memory, as after any other.

mod diff;

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_catalog::model::{NewTag, Paged, Principal, Rollback, TagScope};
use h5flight_proto::v1;

use crate::convert;
use crate::error::{Error, Result};
use crate::read;
use crate::service::Service;

/// Versions of a dataset, the newest first.
///
/// # Errors
/// `dataset_not_found`, `bad_request` for a bad page token.
pub async fn versions(service: &Service, request: v1::ListVersionsRequest) -> Result<v1::ListVersionsResponse> {
    let path = convert::dataset_path(&request.animal, &request.experiment, &request.dataset)?;
    let Paged { items, next } = service.catalog.list_versions(&path, &convert::page(request.page)).await?;
    let versions = items.into_iter().map(convert::history::version).collect();
    Ok(v1::ListVersionsResponse { versions, next_token: next })
}

/// What is different between two versions, by what the catalogue knows of them.
///
/// # Errors
/// `dataset_not_found`, `version_not_found`.
pub async fn diff(service: &Service, request: v1::DiffVersionsRequest) -> Result<v1::DiffVersionsResponse> {
    let path = convert::dataset_path(&request.animal, &request.experiment, &request.dataset)?;
    let from = service.versions.resolve(&path, convert::version_selector(request.from.as_ref())?).await?;
    let to = service.versions.resolve(&path, convert::version_selector(request.to.as_ref())?).await?;
    Ok(diff::between(&from, &to))
}

/// Makes an older version the newest one again. One that cannot be read is refused: nobody wants it back.
///
/// # Errors
/// `version_not_found`; `conflict`; `file_changed` and whatever else refuses a read of the older version.
pub async fn roll_back(
    service: &Arc<Service>,
    principal: &Principal,
    request: v1::RollbackRequest,
) -> Result<v1::RollbackResponse> {
    let path = convert::dataset_path(&request.animal, &request.experiment, &request.dataset)?;
    if request.to.as_ref().is_none_or(|to| to.kind.is_none()) {
        return Err(Error::new(Reason::BadRequest, "no version to roll back to is named"));
    }
    let old = service.versions.resolve(&path, convert::version_selector(request.to.as_ref())?).await?;
    read::check_readable(service, &old).await?;
    let rollback = Rollback {
        path: old.path.clone(),
        version: old.version,
        expected: (request.expected_version > 0).then_some(request.expected_version),
        principal: principal.name.clone(),
    };
    let done = service.catalog.roll_back(&rollback).await?;
    service.versions.forget(&done.path.animal, &done.path.experiment);
    service.memory.forget(&done.superseded);
    let (version, before, already) = (done.version, done.before, done.already);
    Ok(v1::RollbackResponse { version, before, restored: old.version, already })
}

/// Gives versions a name.
///
/// # Errors
/// `tag_exists`, `version_not_found`, `bad_request` for a bad name.
pub async fn set_tag(
    service: &Service,
    principal: &Principal,
    request: v1::SetTagRequest,
) -> Result<v1::SetTagResponse> {
    let tag = NewTag {
        of: scope(&request.animal, &request.experiment, &request.dataset)?,
        version: convert::version_selector(request.at.as_ref())?,
        name: request.tag,
        move_existing: request.r#move,
        principal: principal.name.clone(),
    };
    let tagged = service.catalog.set_tag(&tag).await?;
    service.versions.forget(&request.animal, &request.experiment);
    Ok(v1::SetTagResponse { datasets: tagged.datasets, changed: tagged.changed })
}

/// Removes a name of versions.
///
/// # Errors
/// `version_not_found` when nothing has it.
pub async fn delete_tag(service: &Service, request: v1::DeleteTagRequest) -> Result<v1::DeleteTagResponse> {
    let of = scope(&request.animal, &request.experiment, &request.dataset)?;
    let tagged = service.catalog.delete_tag(&of, &request.tag).await?;
    service.versions.forget(&request.animal, &request.experiment);
    Ok(v1::DeleteTagResponse { datasets: tagged.datasets })
}

/// One dataset, or all of an experiment where none is named.
fn scope(animal: &str, experiment: &str, dataset: &str) -> Result<TagScope> {
    if !dataset.trim_matches('/').is_empty() {
        return Ok(TagScope::Dataset(convert::dataset_path(animal, experiment, dataset)?));
    }
    let naming = convert::naming(animal, experiment)?;
    Ok(TagScope::Experiment { animal: naming.animal, experiment: naming.experiment })
}
