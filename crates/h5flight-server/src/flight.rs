//! The door Arrow Flight: what any Flight client expects, over the same service.
//!
//! A descriptor's PATH is [animal, experiment, dataset...]; its CMD a GetDataRequest or GetTableRequest in an `Any`. A
//! ticket is one of ours (sealed, pinning the version) or again such a request. DoAction offers browsing to clients that have only Flight:
//! JSON in, JSON out, the fields of the protobuf messages.

mod get;
mod history;
mod put;
mod table;
mod upload;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, Result as ActionResult, SchemaResult, Ticket,
};
use futures::{StreamExt, stream};
use h5flight_array::Reason;
use h5flight_catalog::model::{DatasetPath, DatasetSummary, Page, Principal, Role};
use h5flight_proto::ticket;
use h5flight_proto::v1::{self, GetDataRequest, TicketClaims};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

pub use self::get::FlightDoor;
use crate::convert::{self, as_json};
use crate::error::{Error, Result as Answer};
use crate::grpc::{Messages, admit};
use crate::read::{self, ReadRequest};
use crate::service::Service;
use crate::telemetry::Call;
use crate::{browse, grpc};

/// Endpoints of one answer at most: more parallel streams than this do not make one client faster.
const ENDPOINTS_MAX: u32 = 64;
/// Body of an action, in bytes.
const ACTION_BYTES_MAX: usize = 1 << 20;
/// Flights listed at most; longer lists are paged by the action `list-datasets`.
const FLIGHTS_MAX: usize = 10_000;

/// The actions with what they are for, as ListActions tells.
const ACTIONS: &[(&str, &str)] = &[
    ("list-animals", "{page_size?, page_token?} -> {animals, next_token}"),
    ("list-experiments", "{animal, page_size?, page_token?} -> {experiments, next_token}"),
    ("list-datasets", "{animal, experiment, page_size?, page_token?} -> {datasets, next_token}"),
    (
        "describe",
        "{animal, experiment, path?, at?} -> {path, kind, attributes, attribute_types, dataset, dims, children, aliases}",
    ),
    ("search", "{query, page_size?, page_token?} -> {datasets, next_token}"),
    ("search-experiments", "{query, page_size?, page_token?} -> {experiments that have such datasets, next_token}"),
    ("list-chunks", "{animal, experiment, dataset, page_size?, page_token?} -> {chunks, next_token}"),
    ("register", "{path, animal?, experiment?, replace?} -> one report per file; needs the role ingest"),
    (
        "upload-status",
        "{file_bytes, blake3?, idempotency_key?} -> {durable_bytes, state}; needs the role ingest; the upload itself is a DoExchange",
    ),
    ("server-info", "{} -> version, catalogue, caches, totals"),
];

/// All actions.
fn actions() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    ACTIONS.iter().chain(history::ACTIONS)
}

/// The service behind its Flight door.
pub struct Flight {
    service: Arc<Service>,
}

impl Flight {
    /// In front of the service.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }

    async fn read(&self, call: &mut Call, metadata: &MetadataMap, ticket: &Ticket) -> Answer<read::ReadStream> {
        let principal = admit(&self.service, call, metadata, Role::Read).await?;
        if let Some(asked) = h5flight_proto::unpack_table_request(&ticket.ticket) {
            return table::read(&self.service, call, &asked).await;
        }
        let (request, version_id) = open_ticket(&self.service, &principal, &ticket.ticket)?;
        name_read(call, &request);
        match version_id {
            Some(version_id) => read::read_pinned(&self.service, request, version_id).await,
            None => read::read(&self.service, request).await,
        }
    }

    async fn info(&self, call: &mut Call, metadata: &MetadataMap, asked: FlightDescriptor) -> Answer<FlightInfo> {
        let principal = admit(&self.service, call, metadata, Role::Read).await?;
        if let Some(message) = h5flight_proto::unpack_table_request(&asked.cmd) {
            return table::info(&self.service, call, message, asked).await;
        }
        let mut message = descriptor_request(&asked)?;
        convert::pin_events(message.windows.as_mut(), message.at.as_ref());
        let request = convert::read_request(&message)?;
        name_read(call, &request);
        let planned = read::plan(&self.service, &request).await?;
        let expires = SystemTime::now() + Duration::from_secs(self.service.config.ticket_ttl_s);
        let endpoints_max = message.endpoints_max.clamp(1, ENDPOINTS_MAX) as usize;
        let mut endpoints = Vec::new();
        for rows in planned.plan.split(endpoints_max) {
            let mut pinned = message.clone();
            (pinned.version, pinned.at, pinned.endpoints_max) = (planned.version.version, None, 0);
            if endpoints_max > 1 {
                pinned.rows = Some(v1::RowRange { start: rows.start, stop: rows.end });
            }
            let claims = TicketClaims {
                version_id: planned.version.version_id,
                request: Some(pinned),
                principal_id: principal.id,
                expires_s: unix_seconds(expires),
            };
            let ticket = ticket::seal(&self.service.ticket_key, &claims);
            let mut endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket: ticket.into() });
            endpoint.expiration_time = Some(prost_types::Timestamp::from(expires));
            endpoints.push(endpoint);
        }
        let mut info = FlightInfo::new()
            .try_with_schema(&planned.schema)
            .map_err(|error| internal("encoding a schema", error))?
            .with_descriptor(asked)
            .with_ordered(true)
            .with_total_records(i64::try_from(planned.plan.records()).unwrap_or(-1))
            .with_total_bytes(planned.bytes().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1))
            .with_app_metadata(planned.facts().to_string());
        info.endpoint = endpoints;
        Ok(info)
    }

    async fn act(&self, call: &mut Call, metadata: &MetadataMap, action: &Action) -> Answer<Vec<Value>> {
        let of_history = history::role(&action.r#type);
        let needed = of_history.unwrap_or(match action.r#type.as_str() {
            "register" | "upload-status" => Role::Ingest,
            _ => Role::Read,
        });
        let principal = admit(&self.service, call, metadata, needed).await?;
        let asked = Asked::read(action)?;
        call.path(&asked.name());
        let service = &self.service;
        if of_history.is_some() {
            return Ok(vec![history::act(service, &principal, &action.r#type, asked).await?]);
        }
        let page = asked.page();
        let Asked {
            animal, experiment, dataset, path, query, replace, at, file_bytes, blake3, idempotency_key, ..
        } = asked;
        Ok(vec![match action.r#type.as_str() {
            "list-animals" => {
                let found = browse::animals(service, v1::ListAnimalsRequest { page }).await?;
                let animals: Vec<_> = found.animals.iter().map(as_json::animal).collect();
                json!({ "animals": animals, "next_token": found.next_token })
            }
            "list-experiments" => {
                let found = browse::experiments(service, v1::ListExperimentsRequest { animal, page }).await?;
                let experiments: Vec<_> = found.experiments.iter().map(as_json::experiment).collect();
                json!({ "experiments": experiments, "next_token": found.next_token })
            }
            "list-datasets" => {
                let found = browse::datasets(service, v1::ListDatasetsRequest { animal, experiment, page }).await?;
                let datasets: Vec<_> = found.datasets.iter().map(as_json::dataset).collect();
                json!({ "datasets": datasets, "next_token": found.next_token })
            }
            "describe" => {
                let at = Some(at.selector()?);
                let asked = v1::DescribeRequest { animal, experiment, path, at };
                as_json::description(&browse::describe(service, asked).await?)
            }
            "search" => {
                let search_for = v1::SearchFor::Datasets.into();
                let found = browse::search(service, v1::SearchRequest { query, page, search_for }).await?;
                let datasets: Vec<_> = found.datasets.iter().map(as_json::dataset).collect();
                json!({ "datasets": datasets, "next_token": found.next_token })
            }
            "search-experiments" => {
                let search_for = v1::SearchFor::Experiments.into();
                let found = browse::search(service, v1::SearchRequest { query, page, search_for }).await?;
                let experiments: Vec<_> = found.experiments.iter().map(as_json::experiment).collect();
                json!({ "experiments": experiments, "next_token": found.next_token })
            }
            "list-chunks" => {
                let asked = v1::ListChunksRequest { animal, experiment, dataset, page };
                let found = browse::chunks(service, asked).await?;
                let chunks: Vec<_> = found.chunks.iter().map(as_json::chunk).collect();
                json!({ "chunks": chunks, "next_token": found.next_token })
            }
            "server-info" => as_json::server_info(&browse::server_info(service, &principal).await),
            "upload-status" => {
                let asked = v1::UploadStatusRequest { file_bytes, blake3, idempotency_key };
                as_json::upload_status(&grpc::upload_status(service, &principal, asked).await?)
            }
            "register" => {
                let request = v1::RegisterRequest { path, animal, experiment, replace };
                let mut reports = grpc::register(service, &principal, &request).await?;
                let mut all = Vec::new();
                while let Some(report) = reports.recv().await {
                    all.push(as_json::report(&report));
                }
                return Ok(all);
            }
            other => {
                let known: Vec<_> = actions().map(|(name, _)| *name).collect();
                let message = format!("there is no action {other:?}; there are {}", known.join(", "));
                return Err(Error::new(Reason::NotImplemented, message));
            }
        }])
    }
}

/// The body of an action. Fields that an action does not use are ignored; unknown ones are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    animal: String,
    experiment: String,
    dataset: String,
    path: String,
    query: String,
    replace: bool,
    file_bytes: u64,
    blake3: String,
    idempotency_key: String,
    page_size: u32,
    page_token: String,
    at: history::AskedVersion,
    from: history::AskedVersion,
    to: history::AskedVersion,
    tag: String,
    r#move: bool,
    expected_version: u64,
}

impl Asked {
    fn read(action: &Action) -> Answer<Self> {
        let refuse = |why: String| Error::new(Reason::BadRequest, format!("action {:?}: {why}", action.r#type));
        if action.body.len() > ACTION_BYTES_MAX {
            return Err(refuse(format!("the body has more than {ACTION_BYTES_MAX} bytes")));
        }
        if action.body.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(&action.body).map_err(|error| refuse(format!("the body is not understood: {error}")))
    }

    fn page(&self) -> Option<v1::PageRequest> {
        Some(v1::PageRequest { size: self.page_size, token: self.page_token.clone() })
    }

    fn name(&self) -> String {
        let parts = [&self.animal, &self.experiment, &self.dataset, &self.path, &self.query];
        let named: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
        named.join("/")
    }
}

#[tonic::async_trait]
impl FlightService for Flight {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoExchangeStream = Messages<FlightData>;
    type DoActionStream = Messages<ActionResult>;
    type ListActionsStream = Messages<ActionType>;

    /// Basic authentication as pyarrow and ADBC do it: the password is the token, and the answer's header carries it
    /// back as a bearer. The user name is for people.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let mut call = self.service.log.call("Handshake");
        let answer = async {
            let token = basic_password(request.metadata())?;
            let principal = self.service.auth.token(&token).await?;
            call.principal(&principal.name);
            Ok(token)
        };
        let answer = answer.await;
        let token = call.end(answer).map_err(|error| error.status())?;
        let body = HandshakeResponse { protocol_version: 0, payload: token.clone().into_bytes().into() };
        let messages: Self::HandshakeStream = Box::pin(stream::once(async { Ok(body) }));
        let mut response = Response::new(messages);
        let bearer = format!("Bearer {token}").parse().expect("a token that was found is plain text");
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let mut call = self.service.log.call("ListFlights");
        let (metadata, _, criteria) = request.into_parts();
        let answer = async {
            admit(&self.service, &mut call, &metadata, Role::Read).await?;
            list_flights(&self.service, &criteria.expression).await
        };
        let answer = answer.await;
        let flights = call.end(answer).map_err(|error| error.status())?;
        Ok(Response::new(Box::pin(stream::iter(flights.into_iter().map(Ok)))))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let mut call = self.service.log.call("GetFlightInfo");
        let (metadata, _, descriptor) = request.into_parts();
        let answer = self.info(&mut call, &metadata, descriptor).await;
        call.end(answer).map(Response::new).map_err(|error| error.status())
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(not_offered("PollFlightInfo", "GetFlightInfo answers at once"))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let mut call = self.service.log.call("GetSchema");
        let (metadata, _, descriptor) = request.into_parts();
        let answer = self.info(&mut call, &metadata, descriptor).await;
        let info = call.end(answer).map_err(|error| error.status())?;
        Ok(Response::new(SchemaResult { schema: info.schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let mut call = self.service.log.call("DoGet");
        let (metadata, _, ticket) = request.into_parts();
        match self.read(&mut call, &metadata, &ticket).await {
            Ok(stream) => Ok(Response::new(stream.messages(call))),
            Err(error) => Err(call.end::<()>(Err(error)).expect_err("it failed").status()),
        }
    }

    /// Rows that become a dataset: see [`put`].
    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let call = self.service.log.call("DoPut");
        Ok(Response::new(put::put(Arc::clone(&self.service), call, request)))
    }

    /// An upload: see [`upload`].
    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let call = self.service.log.call("DoExchange");
        let (metadata, _, messages) = request.into_parts();
        Ok(Response::new(upload::exchange(Arc::clone(&self.service), call, metadata, messages)))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let mut call = self.service.log.call("DoAction");
        let (metadata, _, action) = request.into_parts();
        let answer = self.act(&mut call, &metadata, &action).await;
        let results = call.end(answer).map_err(|error| error.status())?;
        let messages = results.into_iter().map(|value| Ok(ActionResult { body: value.to_string().into() }));
        Ok(Response::new(Box::pin(stream::iter(messages))))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let describe = |(name, use_for): &(&str, &str)| {
            Ok(ActionType { r#type: (*name).to_owned(), description: (*use_for).to_owned() })
        };
        Ok(Response::new(stream::iter(actions().map(describe)).boxed()))
    }
}

/// Enters what is read into the call.
fn name_read(call: &mut Call, request: &ReadRequest) {
    call.path(&request.path.to_string());
    call.selection(&request.selection);
}

/// The request of a ticket, and the version it pins. Authorisation was decided already; here is checked that the ticket
/// is ours, still valid, and this principal's.
fn open_ticket(service: &Service, principal: &Principal, bytes: &[u8]) -> Answer<(ReadRequest, Option<i64>)> {
    let refuse = |message: &str| Err(Error::new(Reason::BadTicket, message));
    let opened = ticket::open(&service.ticket_key, bytes);
    match opened.map_err(|error| Error::new(Reason::BadTicket, error.to_string()))? {
        ticket::Ticket::Request(request) => Ok((convert::read_request(&request)?, None)),
        ticket::Ticket::Sealed(claims) => {
            if claims.principal_id != principal.id {
                return refuse("the ticket was made for somebody else");
            }
            if claims.expires_s < unix_seconds(SystemTime::now()) {
                return refuse("the ticket has expired; ask GetFlightInfo for a new one");
            }
            let Some(request) = claims.request else { return refuse("the ticket is damaged") };
            Ok((convert::read_request(&request)?, Some(claims.version_id)))
        }
    }
}

/// The request that a descriptor means.
fn descriptor_request(descriptor: &FlightDescriptor) -> Answer<GetDataRequest> {
    let refuse = |message: &str| Err(Error::new(Reason::BadRequest, message));
    match descriptor.r#type() {
        DescriptorType::Path => match descriptor.path.as_slice() {
            [animal, experiment, dataset @ ..] if !dataset.is_empty() => Ok(GetDataRequest {
                animal: animal.clone(),
                experiment: experiment.clone(),
                dataset: dataset.join("/"),
                ..GetDataRequest::default()
            }),
            _ => refuse("a descriptor's path is [animal, experiment, dataset...]"),
        },
        DescriptorType::Cmd => match h5flight_proto::unpack_request(&descriptor.cmd) {
            Some(request) => Ok(request),
            None => refuse(
                "a descriptor's command is a h5flight.v1.GetDataRequest or GetTableRequest in a google.protobuf.Any",
            ),
        },
        DescriptorType::Unknown => refuse("a descriptor has a path or a command"),
    }
}

/// Flights for the datasets of an experiment, or of all; the criteria are JSON: {"animal"?, "experiment"?}.
async fn list_flights(service: &Service, criteria: &[u8]) -> Answer<Vec<FlightInfo>> {
    let asked = Asked::read(&Action::new("list-flights", bytes::Bytes::copy_from_slice(criteria)))?;
    let mut flights = Vec::new();
    for (animal, experiment) in experiments(service, &asked).await? {
        let mut page = Page { size: 1000, token: String::new() };
        while flights.len() < FLIGHTS_MAX {
            let found = service.catalog.list_datasets(&animal, &experiment, &page).await?;
            flights.extend(found.items.into_iter().map(flight));
            page.token = found.next;
            if page.token.is_empty() {
                break;
            }
        }
    }
    flights.truncate(FLIGHTS_MAX);
    Ok(flights)
}

async fn experiments(service: &Service, asked: &Asked) -> Answer<Vec<(String, String)>> {
    if !asked.animal.is_empty() && !asked.experiment.is_empty() {
        return Ok(vec![(asked.animal.clone(), asked.experiment.clone())]);
    }
    if !asked.animal.is_empty() {
        return experiments_of(service, &asked.animal).await;
    }
    let (mut all, mut page) = (Vec::new(), Page { size: 1000, token: String::new() });
    loop {
        let found = service.catalog.list_animals(&page).await?;
        for animal in found.items {
            all.extend(experiments_of(service, &animal.animal).await?);
        }
        page.token = found.next;
        // Each has a dataset, or nearly: more are not listed.
        if page.token.is_empty() || all.len() >= FLIGHTS_MAX {
            return Ok(all);
        }
    }
}

async fn experiments_of(service: &Service, animal: &str) -> Answer<Vec<(String, String)>> {
    let (mut all, mut page) = (Vec::new(), Page { size: 1000, token: String::new() });
    loop {
        let found = service.catalog.list_experiments(animal, &page).await?;
        all.extend(found.items.into_iter().map(|found| (found.animal, found.experiment)));
        page.token = found.next;
        if page.token.is_empty() || all.len() >= FLIGHTS_MAX {
            return Ok(all);
        }
    }
}

/// A dataset as a flight without schema and ticket: GetFlightInfo has those, and plans for it.
fn flight(dataset: DatasetSummary) -> FlightInfo {
    let DatasetPath { animal, experiment, dataset: name } = dataset.path.clone();
    let mut path = vec![animal, experiment];
    path.extend(name.split('/').map(str::to_owned));
    let rows = dataset.meta.shape().first().map_or(Some(1), |rows| i64::try_from(*rows).ok());
    FlightInfo::new()
        .with_descriptor(FlightDescriptor::new_path(path))
        .with_total_records(rows.unwrap_or(-1))
        .with_app_metadata(as_json::dataset(&convert::dataset(dataset)).to_string())
}

/// The password of `authorization: Basic base64(user:password)`.
fn basic_password(metadata: &MetadataMap) -> Answer<String> {
    use base64::Engine;
    let refused =
        || Error::new(Reason::Unauthenticated, "the handshake needs \"authorization: Basic\", password = token");
    let header = metadata.get("authorization").and_then(|header| header.to_str().ok()).ok_or_else(refused)?;
    let encoded =
        header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")).ok_or_else(refused)?;
    let decoded = base64::prelude::BASE64_STANDARD.decode(encoded.1.trim()).map_err(|_| refused())?;
    let text = String::from_utf8(decoded).map_err(|_| refused())?;
    text.split_once(':').map(|(_, password)| password.to_owned()).ok_or_else(refused)
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn not_offered(call: &str, instead: &str) -> Status {
    Error::new(Reason::NotImplemented, format!("{call} is not offered; {instead}")).status()
}

fn internal(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    h5flight_array::Error::new(Reason::Internal, doing).with_source(error).into()
}
