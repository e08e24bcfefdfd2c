//! `h5flight watch`: files are registered as they appear and change.
//!
//! The server says which files it does not know as they are; this command decides when each is due ([`pace`]) and has it
//! registered. So it needs to see no file itself: it works for a server in a container or on another machine. It asks
//! again and again instead of being told, because no network file system tells. Nothing is kept in between: the catalogue
//! knows what is registered, so both sides may be started anew at any time.

mod pace;

use std::time::{Duration, Instant};

use h5flight_proto::client::Client;
use h5flight_proto::v1::{ChangedFile, ListChangedFilesRequest, RegisterReport, RegisterRequest};
use serde_json::json;
use tonic::{Code, Status};

use self::pace::{Outcome, Pending, Tell};
use super::register::{report_json, report_line, server_path};
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, clean, json, line, note};
use crate::quantity::{BareNumber, parse_millis, show_number_of};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders below a root of the server, as the server sees them; "ROOT:RELATIVE/PATH" names a place below a root
    #[arg(required = true, value_name = "DIR")]
    pub paths: Vec<String>,
    /// Animal; without it each file decides
    #[arg(long)]
    pub animal: Option<String>,
    /// Experiment; without it each file decides
    #[arg(long)]
    pub experiment: Option<String>,
    /// Replace datasets that are served from another file
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub pace: Pace,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// How fast.
#[derive(Clone, Debug, clap::Args)]
pub struct Pace {
    /// How long size and time of a file must stay as they are before it is registered [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    settle: Option<Duration>,
    /// How long to wait between two looks [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    every: Option<Duration>,
}

impl Pace {
    /// Whether anything was said about it.
    pub const fn is_given(&self) -> bool {
        self.settle.is_some() || self.every.is_some()
    }

    fn settle(&self) -> Duration {
        self.settle.unwrap_or(Duration::from_secs(5))
    }

    fn every(&self) -> Duration {
        self.every.unwrap_or(Duration::from_secs(2))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let millis = parse_millis(text, BareNumber::Seconds)?;
    if millis == 0 { Err("0 is no time at all".into()) } else { Ok(Duration::from_millis(millis)) }
}

/// Watches until it is interrupted, which is a good end.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    let paths = args.paths.iter().map(|path| server_path(path)).collect::<Result<Vec<_>, _>>()?;
    let mut tally = Tally::default();
    let watched = with_client(&args.connection, globals, async |client| {
        let pending = paths.iter().map(|_| Pending::new(args.pace.settle())).collect();
        let troubled = vec![false; paths.len()];
        let watch = Watch { client, args, form: globals.form, pending, tally: &mut tally, troubled };
        watch.run(&paths).await
    });
    match watched {
        Err(Failure::Interrupted) => {
            note(&tally.text());
            Ok(())
        }
        other => other,
    }
}

/// What became of the files so far.
#[derive(Default)]
struct Tally {
    registered: u64,
    refused: u64,
}

impl Tally {
    fn text(&self) -> String {
        let Self { registered, refused } = self;
        format!("{} registered, {refused} refused", show_number_of(*registered, "file"))
    }
}

struct Watch<'a> {
    client: Client,
    args: &'a Args,
    form: Form,
    /// By path.
    pending: Vec<Pending>,
    tally: &'a mut Tally,
    /// By path, whether the last look failed.
    troubled: Vec<bool>,
}

impl Watch<'_> {
    async fn run(mut self, paths: &[String]) -> Result<(), Failure> {
        for (path, given) in paths.iter().zip(&self.args.paths) {
            // What is wrong from the start is wrong usage, not something to wait for.
            let listed = changed_files(&self.client, path).await?;
            note(&format!(
                "watching {given}: {} not registered as they are",
                show_number_of(listed.len() as u64, "file")
            ));
        }
        loop {
            for (at, path) in paths.iter().enumerate() {
                match self.look(at, path).await {
                    Ok(()) => self.recovered(at),
                    Err(Trouble::Passing(status)) => self.failed(at, status),
                    Err(Trouble::Fatal(failure)) => return Err(failure),
                }
            }
            tokio::time::sleep(self.args.pace.every()).await;
        }
    }

    /// Registers what is due below one path.
    async fn look(&mut self, at: usize, path: &str) -> Result<(), Trouble> {
        let listed = changed_files(&self.client, path).await?;
        for due in self.pending[at].look(&listed, Instant::now()) {
            let report = self.register(&due).await?;
            let outcome = match (&report.publication, report.reason.as_str()) {
                (Some(_), _) => Outcome::Registered,
                (None, "file_not_found") => Outcome::Gone,
                (None, reason) => Outcome::Refused(reason),
            };
            let tell = self.pending[at].tried(&due, outcome, Instant::now());
            self.tell(&report, tell).map_err(Trouble::Fatal)?;
        }
        Ok(())
    }

    async fn register(&self, path: &str) -> Result<RegisterReport, Status> {
        let request = RegisterRequest {
            path: path.to_owned(),
            animal: self.args.animal.clone().unwrap_or_default(),
            experiment: self.args.experiment.clone().unwrap_or_default(),
            replace: self.args.replace,
        };
        let asked = async {
            let mut reports = self.client.data.clone().register(request).await?.into_inner();
            reports.message().await
        };
        match asked.await {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(Status::unavailable("the server ended the registration")),
            Err(status) if status.code() == Code::NotFound => {
                let reason = h5flight_proto::reason::reason_of(&status).unwrap_or_default();
                Ok(RegisterReport { path: path.to_owned(), reason, ..RegisterReport::default() })
            }
            Err(status) => Err(status),
        }
    }

    fn tell(&mut self, report: &RegisterReport, tell: Tell) -> Result<(), Failure> {
        match tell {
            Tell::Nothing => return Ok(()),
            Tell::Waits => {}
            Tell::Report if report.publication.is_some() => self.tally.registered += 1,
            Tell::Report => self.tally.refused += 1,
        }
        match (self.form, tell) {
            (Form::Json, Tell::Waits) => {
                json(&json!({"path": report.path, "waits": {"reason": report.reason, "message": report.message}}))
            }
            (Form::Json, _) => json(&report_json(report)),
            (Form::People, Tell::Waits) => {
                line(&clean(&format!("{}  waits ({}): {}", report.path, report.reason, report.message)))
            }
            (Form::People, _) => line(&report_line(report)),
        }
    }

    /// Says once that looks fail, and that it goes on.
    fn failed(&mut self, at: usize, status: Status) {
        if !std::mem::replace(&mut self.troubled[at], true) {
            let told = Failure::from(status).text(Form::People).unwrap_or_default();
            let (told, every) = (told.trim_start_matches("error: "), self.args.pace.every());
            note(&format!("{}: {told}; trying again every {every:?}", self.args.paths[at]));
        }
    }

    fn recovered(&mut self, at: usize) {
        if std::mem::take(&mut self.troubled[at]) {
            note(&format!("{}: watched again", self.args.paths[at]));
        }
    }
}

/// Why a look failed.
enum Trouble {
    /// The server is away, or the folder; it may come back.
    Passing(Status),
    /// It will not get better by waiting.
    Fatal(Failure),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented => {
                Self::Fatal(status.into())
            }
            _ => Self::Passing(status),
        }
    }
}

async fn changed_files(client: &Client, path: &str) -> Result<Vec<ChangedFile>, Status> {
    let request = ListChangedFilesRequest { path: path.to_owned() };
    let mut files = client.data.clone().list_changed_files(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(file) = files.message().await? {
        all.push(file);
    }
    Ok(all)
}
