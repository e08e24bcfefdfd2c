//! A read whose batches stay here: for what is put together from several reads, as tables are.
//!
//! It goes the same way as one for a client, and is not sent. Whoever asks has memory reserved for what comes out: two
//! reservations of one call would wait for each other when memory is short.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use h5flight_catalog::model::ResolvedVersion;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::fetch::Fetcher;
use super::window::{Outlet, Window};
use super::{BATCHES_QUEUED_MAX, ReadRequest, ReadStats, in_its_place, internal, open_files, plan_version};
use crate::error::Result;
use crate::series::Granted;
use crate::service::Service;

/// What a part of a version has as its columns, without reading it.
///
/// # Errors
/// As [`super::plan`].
pub(crate) fn fields(service: &Service, version: &Arc<ResolvedVersion>, request: &ReadRequest) -> Result<SchemaRef> {
    Ok(plan_version(service, Arc::clone(version), request, &Granted::default())?.plan.schema())
}

/// A part of a version in one batch. Its size is for the caller to bound.
///
/// # Errors
/// As [`super::read`].
pub(crate) async fn records(
    service: &Arc<Service>,
    version: &Arc<ResolvedVersion>,
    request: &ReadRequest,
    stats: &Arc<ReadStats>,
) -> Result<RecordBatch> {
    match records_now(service, Arc::clone(version), request, stats).await {
        Err(error) => records_now(service, in_its_place(service, version, error).await?, request, stats).await,
        found => found,
    }
}

async fn records_now(
    service: &Arc<Service>,
    version: Arc<ResolvedVersion>,
    request: &ReadRequest,
    stats: &Arc<ReadStats>,
) -> Result<RecordBatch> {
    let planned = plan_version(service, version, request, &Granted::default())?;
    let schema = planned.plan.schema();
    if planned.plan.rows() == 0 {
        return Ok(RecordBatch::new_empty(schema));
    }
    let files = open_files(service, &planned.version).await?;
    let fetcher = Fetcher::new(service, &planned, files, Arc::clone(stats))?;
    let window = Window::new(Arc::clone(service), Arc::clone(&planned.plan), Arc::new(fetcher));
    let (sender, mut receiver) = mpsc::channel(BATCHES_QUEUED_MAX);
    let run = window.run(Plain, Arc::clone(&schema), sender);
    let mut batches = Vec::with_capacity(planned.plan.batches());
    if planned.plan.batches() <= 1 {
        run.await?;
        batches.extend(receiver.recv().await);
    } else {
        let task = AbortOnDropHandle::new(tokio::spawn(run));
        while let Some(batch) = receiver.recv().await {
            batches.push(batch);
        }
        task.await.map_err(|error| internal("the read's pipeline panicked", error))??;
    }
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([whole]) => Ok(whole),
        Err(batches) => concat_batches(&schema, &batches).map_err(|error| internal("joining batches", error)),
    }
}

/// Batches as they are.
struct Plain;

impl Outlet for Plain {
    type Item = RecordBatch;

    fn compresses(&self) -> bool {
        false
    }

    fn pass(&mut self, batch: RecordBatch, _: std::ops::Range<u64>) -> Result<RecordBatch> {
        Ok(batch)
    }
}
