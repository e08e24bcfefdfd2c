//! The door `h5flight.v1.DataService`: decode, ask, answer. Nothing is decided here.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::FlightData;
use futures::{Stream, StreamExt};
use h5flight_array::Reason;
use h5flight_catalog::model::{Principal, Role};
use h5flight_proto::v1::{self, data_service_server::DataService, ingest_request};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::error::{Error, Result as Answer};
use crate::publish::garbage::{self, Collect};
use crate::publish::names::Naming;
use crate::publish::{self, Made, UploadHeader, UploadStatus, Wishes};
use crate::service::Service;
use crate::telemetry::Call;
use crate::{auth, browse, convert, history, read, tables, verify};

/// Reports of a registration that wait for the client.
const REPORTS_QUEUED_MAX: usize = 16;

/// A stream of messages as tonic wants it.
pub type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service behind its gRPC door.
pub struct Grpc {
    service: Arc<Service>,
}

impl Grpc {
    /// In front of the service.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

/// Who asks, entered into the call, and refused unless the role allows it.
///
/// # Errors
/// `unauthenticated`, `permission_denied`, `catalog_unavailable`.
pub async fn admit(service: &Service, call: &mut Call, metadata: &MetadataMap, role: Role) -> Answer<Principal> {
    let principal = service.auth.principal(metadata).await?;
    call.principal(&principal.name);
    auth::require(&principal, role)?;
    Ok(principal)
}

/// Writes the body of a unary call that needs the read role: admit, ask, log, answer.
macro_rules! browse_call {
    ($self:ident, $request:ident, $method:literal, $path:expr, $ask:path) => {{
        let mut call = $self.service.log.call($method);
        let (metadata, _, message) = $request.into_parts();
        let answer = async {
            admit(&$self.service, &mut call, &metadata, Role::Read).await?;
            #[allow(clippy::redundant_closure_call)]
            call.path(&$path(&message));
            $ask(&$self.service, message).await
        };
        let answer = answer.await;
        call.end(answer).map(Response::new).map_err(|error| error.status())
    }};
}

/// The same for one that changes what is visible: it needs the role ingest.
macro_rules! change_call {
    ($self:ident, $request:ident, $method:literal, |$principal:ident, $message:ident| $ask:expr) => {{
        let mut call = $self.service.log.call($method);
        let (metadata, _, $message) = $request.into_parts();
        let answer = async {
            let $principal = admit(&$self.service, &mut call, &metadata, Role::Ingest).await?;
            call.path(&dataset_name(&$message.animal, &$message.experiment, &$message.dataset));
            $ask.await
        };
        let answer = answer.await;
        call.end(answer).map(Response::new).map_err(|error| error.status())
    }};
}

/// A dataset's or an experiment's name for the log.
fn dataset_name(animal: &str, experiment: &str, dataset: &str) -> String {
    [animal, experiment, dataset].join("/").trim_end_matches('/').to_owned()
}

#[tonic::async_trait]
impl DataService for Grpc {
    type GetDataStream = Messages<FlightData>;
    type GetTableStream = Messages<FlightData>;
    type RegisterStream = Messages<v1::RegisterReport>;
    type ListChangedFilesStream = Messages<v1::ChangedFile>;
    type VerifyStream = Messages<v1::VerifyReport>;

    async fn get_data(&self, request: Request<v1::GetDataRequest>) -> Result<Response<Messages<FlightData>>, Status> {
        let mut call = self.service.log.call("GetData");
        let (metadata, _, message) = request.into_parts();
        let begun = async {
            admit(&self.service, &mut call, &metadata, Role::Read).await?;
            let request = convert::read_request(&message)?;
            call.path(&request.path.to_string());
            call.selection(&request.selection);
            read::read(&self.service, request).await
        };
        match begun.await {
            Ok(stream) => Ok(Response::new(stream.messages(call))),
            Err(error) => Err(call.end::<()>(Err(error)).expect_err("it failed").status()),
        }
    }

    async fn get_table(&self, request: Request<v1::GetTableRequest>) -> Result<Response<Messages<FlightData>>, Status> {
        let mut call = self.service.log.call("GetTable");
        let (metadata, _, message) = request.into_parts();
        let begun = async {
            admit(&self.service, &mut call, &metadata, Role::Read).await?;
            let request = convert::table_request(&message)?;
            call.path(&request.path.to_string());
            call.selection(&message.r#where);
            tables::read(&self.service, request).await
        };
        match begun.await {
            Ok(stream) => Ok(Response::new(stream.messages(call))),
            Err(error) => Err(call.end::<()>(Err(error)).expect_err("it failed").status()),
        }
    }

    async fn ingest(
        &self,
        request: Request<Streaming<v1::IngestRequest>>,
    ) -> Result<Response<v1::IngestResponse>, Status> {
        let call = self.service.log.call("Ingest");
        let (metadata, _, messages) = request.into_parts();
        let answer = tokio::spawn(ingest(Arc::clone(&self.service), call, metadata, messages)).await;
        let answer = answer.map_err(|_| Error::new(Reason::Internal, "an upload panicked")).flatten();
        answer.map(Response::new).map_err(|error| error.status())
    }

    async fn upload_status(
        &self,
        request: Request<v1::UploadStatusRequest>,
    ) -> Result<Response<v1::UploadStatusResponse>, Status> {
        let mut call = self.service.log.call("UploadStatus");
        let (metadata, _, message) = request.into_parts();
        let answer = async {
            let principal = admit(&self.service, &mut call, &metadata, Role::Ingest).await?;
            upload_status(&self.service, &principal, message).await
        };
        let answer = answer.await;
        call.end(answer).map(Response::new).map_err(|error| error.status())
    }

    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<Messages<v1::RegisterReport>>, Status> {
        let mut call = self.service.log.call("Register");
        let (metadata, _, message) = request.into_parts();
        let begun = async {
            let principal = admit(&self.service, &mut call, &metadata, Role::Ingest).await?;
            call.path(&message.path);
            register(&self.service, &principal, &message).await
        };
        let reports = begun.await;
        let reports = call.end(reports).map_err(|error| error.status())?;
        let stream = tokio_stream::wrappers::ReceiverStream::new(reports).map(Ok);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_changed_files(
        &self,
        request: Request<v1::ListChangedFilesRequest>,
    ) -> Result<Response<Messages<v1::ChangedFile>>, Status> {
        let mut call = self.service.log.call("ListChangedFiles");
        let (metadata, _, message) = request.into_parts();
        let files = async {
            admit(&self.service, &mut call, &metadata, Role::Ingest).await?;
            call.path(&message.path);
            publish::changed_below(&self.service, &message.path).await
        };
        let files = match files.await {
            Ok(files) if files.is_empty() => {
                call.end_quietly();
                files
            }
            files => call.end(files).map_err(|error| error.status())?,
        };
        let files = files.into_iter().map(|file| Ok(convert::changed_file(file)));
        Ok(Response::new(Box::pin(futures::stream::iter(files))))
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<Messages<v1::VerifyReport>>, Status> {
        let mut call = self.service.log.call("Verify");
        let (metadata, _, message) = request.into_parts();
        let begun = async {
            let role = if message.repair { Role::Admin } else { Role::Ingest };
            let principal = admit(&self.service, &mut call, &metadata, role).await?;
            call.path(&format!("{}/{}", message.animal, message.experiment));
            let asked = convert::verify_request(message, principal)?;
            verify::check_names(&self.service, &asked).await?;
            Ok(asked)
        };
        match begun.await {
            Ok(asked) => Ok(Response::new(verified(&self.service, call, asked))),
            Err(error) => Err(call.end::<()>(Err(error)).expect_err("it failed").status()),
        }
    }

    async fn list_animals(
        &self,
        request: Request<v1::ListAnimalsRequest>,
    ) -> Result<Response<v1::ListAnimalsResponse>, Status> {
        browse_call!(self, request, "ListAnimals", |_: &_| String::new(), browse::animals)
    }

    async fn list_experiments(
        &self,
        request: Request<v1::ListExperimentsRequest>,
    ) -> Result<Response<v1::ListExperimentsResponse>, Status> {
        let path = |asked: &v1::ListExperimentsRequest| asked.animal.clone();
        browse_call!(self, request, "ListExperiments", path, browse::experiments)
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsResponse>, Status> {
        let path = |asked: &v1::ListDatasetsRequest| format!("{}/{}", asked.animal, asked.experiment);
        browse_call!(self, request, "ListDatasets", path, browse::datasets)
    }

    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        let path = |asked: &v1::DescribeRequest| format!("{}/{}/{}", asked.animal, asked.experiment, asked.path);
        browse_call!(self, request, "Describe", path, browse::describe)
    }

    async fn search(&self, request: Request<v1::SearchRequest>) -> Result<Response<v1::SearchResponse>, Status> {
        browse_call!(self, request, "Search", |asked: &v1::SearchRequest| asked.query.clone(), browse::search)
    }

    async fn list_chunks(
        &self,
        request: Request<v1::ListChunksRequest>,
    ) -> Result<Response<v1::ListChunksResponse>, Status> {
        let path = |asked: &v1::ListChunksRequest| format!("{}/{}/{}", asked.animal, asked.experiment, asked.dataset);
        browse_call!(self, request, "ListChunks", path, browse::chunks)
    }

    async fn list_versions(
        &self,
        request: Request<v1::ListVersionsRequest>,
    ) -> Result<Response<v1::ListVersionsResponse>, Status> {
        let path = |of: &v1::ListVersionsRequest| dataset_name(&of.animal, &of.experiment, &of.dataset);
        browse_call!(self, request, "ListVersions", path, history::versions)
    }

    async fn diff_versions(
        &self,
        request: Request<v1::DiffVersionsRequest>,
    ) -> Result<Response<v1::DiffVersionsResponse>, Status> {
        let path = |of: &v1::DiffVersionsRequest| dataset_name(&of.animal, &of.experiment, &of.dataset);
        browse_call!(self, request, "DiffVersions", path, history::diff)
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        change_call!(self, request, "Rollback", |principal, message| history::roll_back(
            &self.service,
            &principal,
            message
        ))
    }

    async fn set_tag(&self, request: Request<v1::SetTagRequest>) -> Result<Response<v1::SetTagResponse>, Status> {
        change_call!(self, request, "SetTag", |principal, message| history::set_tag(&self.service, &principal, message))
    }

    async fn delete_tag(
        &self,
        request: Request<v1::DeleteTagRequest>,
    ) -> Result<Response<v1::DeleteTagResponse>, Status> {
        change_call!(self, request, "DeleteTag", |_principal, message| history::delete_tag(&self.service, message))
    }

    async fn collect_garbage(
        &self,
        request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<v1::CollectGarbageResponse>, Status> {
        let mut call = self.service.log.call("CollectGarbage");
        let (metadata, _, message) = request.into_parts();
        let how = if message.dry_run { Collect::Tell } else { Collect::Remove };
        let answer = async {
            admit(&self.service, &mut call, &metadata, Role::Admin).await?;
            garbage::collect(&self.service, how).await.map(convert::collection)
        };
        let answer = answer.await;
        call.end(answer).map(Response::new).map_err(|error| error.status())
    }

    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let mut call = self.service.log.call("GetServerInfo");
        let admitted = admit(&self.service, &mut call, request.metadata(), Role::Read).await;
        let principal = call.end(admitted).map_err(|error| error.status())?;
        Ok(Response::new(browse::server_info(&self.service, &principal).await))
    }
}

/// Takes an upload. It runs in a task of its own: a client that goes away ends the stream of its messages, not the work
/// that keeps what came.
async fn ingest(
    service: Arc<Service>,
    mut call: Call,
    metadata: MetadataMap,
    mut messages: Streaming<v1::IngestRequest>,
) -> Answer<v1::IngestResponse> {
    let answer = async {
        let principal = admit(&service, &mut call, &metadata, Role::Ingest).await?;
        let header = match messages.next().await.transpose().map_err(broken)?.and_then(|message| message.kind) {
            Some(ingest_request::Kind::Header(header)) => header,
            Some(ingest_request::Kind::Data(_)) | None => {
                return Err(Error::new(Reason::BadRequest, "an upload begins with its header"));
            }
        };
        call.path(&header.file_name);
        let header = convert::upload_header(header, &principal)?;
        let data = messages.map(|message| match message.map_err(broken)?.kind {
            Some(ingest_request::Kind::Data(data)) => Ok(data),
            Some(ingest_request::Kind::Header(_)) | None => {
                Err(Error::new(Reason::BadRequest, "an upload has one header, then bytes only"))
            }
        });
        let uploaded = publish::upload(&service, header, data, |_| {}).await?;
        call.sent(0, 0, "upload");
        Ok(convert::uploaded(uploaded))
    };
    let answer = answer.await;
    call.end(answer)
}

/// How far an upload of this principal is.
///
/// # Errors
/// `upload_mismatch`, `catalog_unavailable`, `io`.
pub async fn upload_status(
    service: &Arc<Service>,
    principal: &Principal,
    asked: v1::UploadStatusRequest,
) -> Answer<v1::UploadStatusResponse> {
    let header = UploadHeader {
        file_bytes: asked.file_bytes,
        blake3: asked.blake3,
        key: asked.idempotency_key,
        wishes: Wishes::new(Naming::default(), false, principal),
        ..UploadHeader::default()
    };
    let status = publish::upload_status(service, &header).await?;
    let (state, durable_bytes) = match status {
        UploadStatus::None => (v1::UploadState::None, 0),
        UploadStatus::Partial(bytes) => (v1::UploadState::Partial, bytes),
        UploadStatus::Running(bytes) => (v1::UploadState::Running, bytes),
        UploadStatus::Complete => (v1::UploadState::Complete, header.file_bytes),
    };
    Ok(v1::UploadStatusResponse { durable_bytes, state: state.into() })
}

/// A client went away.
pub fn broken(status: Status) -> Error {
    let message = "the upload broke off before its end";
    h5flight_array::Error::new(Reason::UploadBroken, message).with_source(status).into()
}

/// Registers file by file in a task of its own; it ends early when nobody receives the reports any more.
///
/// # Errors
/// What is wrong with the request as a whole; what is wrong with a file is in its report.
pub async fn register(
    service: &Arc<Service>,
    principal: &Principal,
    request: &v1::RegisterRequest,
) -> Answer<mpsc::Receiver<v1::RegisterReport>> {
    let naming = convert::naming(&request.animal, &request.experiment)?;
    let wishes = Wishes::new(naming, request.replace, principal);
    let found = publish::files_below(service, &request.path).await?;
    let (reports, receiver) = mpsc::channel(REPORTS_QUEUED_MAX);
    let service = Arc::clone(service);
    tokio::spawn(async move {
        for at in found {
            let mut call = service.log.call("RegisterFile");
            call.principal(&wishes.principal);
            call.path(&at.to_string());
            let started = std::time::Instant::now();
            let outcome = call.end(publish::register(&service, &at, &wishes).await);
            let millis = started.elapsed().as_secs_f64() * 1e3;
            if reports.send(report(at.to_string(), outcome, millis)).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// The reports of a verification that runs in a task of its own; what ends it early comes last.
fn verified(service: &Arc<Service>, call: Call, asked: verify::Asked) -> Messages<v1::VerifyReport> {
    let (reports, receiver) = mpsc::channel(REPORTS_QUEUED_MAX);
    let service = Arc::clone(service);
    let task = async move { call.end(verify::verify(&service, asked, reports).await) };
    let task = AbortOnDropHandle::new(tokio::spawn(task));
    let reports =
        tokio_stream::wrappers::ReceiverStream::new(receiver).map(|report| Ok(convert::verify_report(report)));
    let end = async move {
        match task.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error.status())),
            Err(_) => Some(Err(Error::new(Reason::Internal, "a verification panicked").status())),
        }
    };
    Box::pin(reports.chain(futures::stream::once(end).filter_map(std::future::ready)))
}

fn report(path: String, outcome: Answer<Made>, millis: f64) -> v1::RegisterReport {
    match outcome {
        Ok(Made { published, left_out }) => v1::RegisterReport {
            path,
            publication: Some(convert::publication(published, left_out)),
            reason: String::new(),
            message: left_out.to_string(),
            millis,
        },
        Err(error) => v1::RegisterReport {
            path,
            publication: None,
            reason: error.reason().as_str().into(),
            message: error.status().message().into(),
            millis,
        },
    }
}
