//! What people look at, asked of the catalogue: one function a call, for both doors.

use std::sync::Arc;

use h5flight_array::Reason;
use h5flight_array::meta::Storage;
use h5flight_catalog::model::{Paged, Principal, VersionSelector};
use h5flight_proto::v1;

use crate::convert;
use crate::error::{Error, Result};
use crate::service::Service;

/// Chunks of a page when the client does not say, and at most.
const CHUNKS_PAGE: u32 = 1_000;
const CHUNKS_PAGE_MAX: u32 = 100_000;

/// Animals.
///
/// # Errors
/// `bad_request` for a bad page token; `catalog_unavailable`.
pub async fn animals(service: &Service, request: v1::ListAnimalsRequest) -> Result<v1::ListAnimalsResponse> {
    let Paged { items, next } = service.catalog.list_animals(&convert::page(request.page)).await?;
    Ok(v1::ListAnimalsResponse { animals: items.into_iter().map(convert::animal).collect(), next_token: next })
}

/// Experiments of an animal.
///
/// # Errors
/// Also `animal_not_found`.
pub async fn experiments(
    service: &Service,
    request: v1::ListExperimentsRequest,
) -> Result<v1::ListExperimentsResponse> {
    let page = convert::page(request.page);
    let Paged { items, next } = service.catalog.list_experiments(&request.animal, &page).await?;
    let experiments = items.into_iter().map(convert::experiment).collect();
    Ok(v1::ListExperimentsResponse { experiments, next_token: next })
}

/// Datasets of an experiment.
///
/// # Errors
/// Also `animal_not_found`, `experiment_not_found`.
pub async fn datasets(service: &Service, request: v1::ListDatasetsRequest) -> Result<v1::ListDatasetsResponse> {
    let page = convert::page(request.page);
    let found = service.catalog.list_datasets(&request.animal, &request.experiment, &page).await?;
    let datasets = found.items.into_iter().map(convert::dataset).collect();
    Ok(v1::ListDatasetsResponse { datasets, next_token: found.next })
}

/// One object, or one version of a dataset.
///
/// # Errors
/// Also `dataset_not_found`, `version_not_found`.
pub async fn describe(service: &Service, request: v1::DescribeRequest) -> Result<v1::DescribeResponse> {
    let path = convert::object_path(&request.animal, &request.experiment, &request.path)?;
    let described = match convert::version_selector(request.at.as_ref())? {
        VersionSelector::Current => service.catalog.describe(&path).await?,
        older => {
            let (version_id, _) = service.catalog.find_version(&path, &older).await?;
            service.catalog.describe_version(version_id).await?
        }
    };
    Ok(convert::description(described))
}

/// Datasets that match words and conditions, or the experiments that have such datasets.
///
/// # Errors
/// `bad_request` for a bad page token; `bad_expression`; `catalog_unavailable`.
pub async fn search(service: &Service, request: v1::SearchRequest) -> Result<v1::SearchResponse> {
    let wanted = request.search_for();
    let (query, page) = (request.query, convert::page(request.page));
    let mut answer = v1::SearchResponse::default();
    match wanted {
        v1::SearchFor::Datasets => {
            let Paged { items, next } = service.catalog.search(&query, &page).await?;
            answer.datasets = items.into_iter().map(convert::dataset).collect();
            answer.next_token = next;
        }
        v1::SearchFor::Experiments => {
            let Paged { items, next } = service.catalog.search_experiments(&query, &page).await?;
            answer.experiments = items.into_iter().map(convert::experiment).collect();
            answer.next_token = next;
        }
    }
    Ok(answer)
}

/// The chunk pointers of a dataset's current version, expanded. The page token is the position in the index.
///
/// # Errors
/// `dataset_not_found`, `bad_request`.
pub async fn chunks(service: &Service, request: v1::ListChunksRequest) -> Result<v1::ListChunksResponse> {
    let path = convert::dataset_path(&request.animal, &request.experiment, &request.dataset)?;
    let v1::PageRequest { size, token } = request.page.unwrap_or_default();
    let bad_token = || Error::new(Reason::BadRequest, format!("{token:?} is not a page token of this list"));
    let mut skip: usize = if token.is_empty() { 0 } else { token.parse().map_err(|_| bad_token())? };
    let size = if size == 0 { CHUNKS_PAGE } else { size.min(CHUNKS_PAGE_MAX) } as usize;
    let version = service.versions.resolve(&path, VersionSelector::Current).await?;
    let (start, mut chunks) = (skip, Vec::new());
    for extent in &version.extents {
        let pointers = extent.array.index.pointers();
        let Storage::Chunked { .. } = &extent.array.meta.storage else { continue };
        let from = skip.min(pointers.len());
        skip -= from;
        for pointer in pointers[from..].iter().take(size - chunks.len()) {
            chunks.push(v1::Chunk {
                position: extent.array.meta.chunk_position(pointer.number),
                offset: pointer.offset,
                stored_bytes: u64::from(pointer.bytes),
                filter_mask: pointer.mask,
            });
        }
    }
    let next_token = if chunks.len() == size { (start + size).to_string() } else { String::new() };
    Ok(v1::ListChunksResponse { chunks, next_token })
}

/// The server, as this principal sees it. Answers also when the catalogue is away: totals are 0 then.
pub async fn server_info(service: &Arc<Service>, principal: &Principal) -> v1::GetServerInfoResponse {
    let counts = service.catalog.counts().await.unwrap_or_default();
    let redis = match &service.redis {
        None => "off",
        Some(redis) if redis.ping().await => "up",
        Some(_) => "down",
    };
    let (cache_bytes, cache_bytes_max) = service.memory.size();
    v1::GetServerInfoResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        catalog: service.catalog.backend().into(),
        redis: redis.into(),
        roots: service.files.root_names(),
        animals: counts.animals,
        experiments: counts.experiments,
        datasets: counts.datasets,
        files: counts.files,
        cache_bytes,
        cache_bytes_max,
        principal: principal.name.clone(),
        role: principal.role.as_str().into(),
        uptime_s: service.started.elapsed().as_secs(),
        sandbox: service.sandbox.clone(),
    }
}
