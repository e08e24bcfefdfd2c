//! `h5flight register`: files are indexed where they are, below a root of the server.

use std::path::Path;

use h5flight_proto::client::Client;
use h5flight_proto::v1::{Publication, RegisterReport, RegisterRequest};
use serde_json::{Value, json};

use super::watch::{self, Pace};
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, JsonArray, clean, line, note};
use crate::quantity::{show_millis, show_number_of};

/// Experiments of one file that are named to people; one file may hold thousands.
const EXPERIMENTS_SHOWN_MAX: usize = 4;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Files, or folders whose HDF5 files are meant; "ROOT:RELATIVE/PATH" names a place below a root of the server
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
    /// Animal; without it the file decides
    #[arg(long)]
    pub animal: Option<String>,
    /// Experiment; without it the file decides
    #[arg(long)]
    pub experiment: Option<String>,
    /// Replace datasets that are served from another file
    #[arg(long)]
    pub replace: bool,
    /// Go on and register files as they appear and change, as `h5flight watch` does
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub pace: Pace,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Registers each path and reports file by file.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    if args.watch {
        return watch::run(&args.watched(), globals);
    }
    if args.pace.is_given() {
        return Err(Failure::usage("--settle and --every go with --watch"));
    }
    let paths = args.paths.iter().map(|path| server_path(path)).collect::<Result<Vec<_>, _>>()?;
    with_client(&args.connection, globals, async |client| {
        let mut reporter = Reporter { form: globals.form, array: JsonArray::default(), tally: Tally::default() };
        for (path, given) in paths.iter().zip(&args.paths) {
            register(&client, args, path, given, &mut reporter).await?;
        }
        reporter.finish()
    })
}

impl Args {
    fn watched(&self) -> watch::Args {
        let Self { paths, animal, experiment, replace, watch: _, pace, connection } = self.clone();
        watch::Args { paths, animal, experiment, replace, pace, connection }
    }
}

async fn register(
    client: &Client,
    args: &Args,
    path: &str,
    given: &str,
    reporter: &mut Reporter,
) -> Result<(), Failure> {
    let request = RegisterRequest {
        path: path.to_owned(),
        animal: args.animal.clone().unwrap_or_default(),
        experiment: args.experiment.clone().unwrap_or_default(),
        replace: args.replace,
    };
    let mut reports = match client.data.clone().register(request).await {
        Ok(answer) => answer.into_inner(),
        // One wrong path among many does not keep the others from being registered.
        Err(status) if concerns_path_only(&status) => {
            let reason = h5flight_proto::reason::reason_of(&status).unwrap_or_default();
            let message = status.message().to_owned();
            return reporter.add(&RegisterReport { path: given.to_owned(), reason, message, ..Default::default() });
        }
        Err(status) => return Err(status.into()),
    };
    while let Some(report) = reports.message().await? {
        reporter.add(&report)?;
    }
    Ok(())
}

fn concerns_path_only(status: &tonic::Status) -> bool {
    use tonic::Code;
    let known = h5flight_proto::reason::reason_of(status).is_some();
    known && matches!(status.code(), Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition | Code::DataLoss)
}

/// The path as the server knows it: absolute, or `root:relative` as it is.
pub fn server_path(given: &str) -> Result<String, Failure> {
    let names_root = given.split_once(':').is_some_and(|(root, rest)| {
        !root.is_empty() && !root.contains('/') && !rest.starts_with('/') && !Path::new(given).exists()
    });
    if names_root {
        return Ok(given.to_owned());
    }
    let absolute = std::path::absolute(given).map_err(|error| Failure::usage(format!("{given:?}: {error}")))?;
    absolute.into_os_string().into_string().map_err(|path| Failure::usage(format!("{path:?} is not UTF-8")))
}

/// What became of the files so far.
#[derive(Default)]
struct Tally {
    published: u64,
    already: u64,
    refused: u64,
    datasets: u64,
}

struct Reporter {
    form: Form,
    array: JsonArray,
    tally: Tally,
}

impl Reporter {
    fn add(&mut self, report: &RegisterReport) -> Result<(), Failure> {
        match &report.publication {
            None => self.tally.refused += 1,
            Some(publication) if publication.already => self.tally.already += 1,
            Some(publication) => {
                self.tally.published += 1;
                self.tally.datasets += publication.datasets;
            }
        }
        match self.form {
            Form::Json => self.array.push(&report_json(report)),
            Form::People => line(&report_line(report)),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let Tally { published, already, refused, datasets } = self.tally;
        match self.form {
            Form::Json => self.array.finish()?,
            Form::People if published + already + refused == 0 => note("no HDF5 files there"),
            Form::People => {
                let (files, with) = (show_number_of(published, "file"), show_number_of(datasets, "dataset"));
                let mut parts = Vec::new();
                parts.extend((published > 0).then(|| format!("{files} registered with {with}")));
                parts.extend((already > 0).then(|| format!("{already} unchanged")));
                parts.extend((refused > 0).then(|| format!("{refused} refused")));
                note(&parts.join(", "));
            }
        }
        if refused > 0 { Err(Failure::Reported) } else { Ok(()) }
    }
}

/// A report for people.
pub fn report_line(report: &RegisterReport) -> String {
    let said = match &report.publication {
        Some(publication) => {
            let left_out = noted(&report.message);
            format!("{}  {}{left_out}", publication_text(publication), show_millis(report.millis))
        }
        None => format!("refused ({}): {}", report.reason, report.message),
    };
    clean(&format!("{}  {said}", report.path))
}

/// A report for programs.
pub fn report_json(report: &RegisterReport) -> Value {
    let error = report.publication.is_none().then(|| json!({"reason": report.reason, "message": report.message}));
    json!({
        "path": report.path,
        "publication": report.publication.as_ref().map(publication_json),
        "error": error,
        "note": report.publication.as_ref().map(|_| report.message.as_str()).filter(|note| !note.is_empty()),
        "millis": report.millis,
    })
}

/// A message behind other facts on a line.
pub fn noted(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!("  ({message})") }
}

/// What became visible, for people.
pub fn publication_text(publication: &Publication) -> String {
    let names: Vec<String> = publication.experiments.iter().map(|e| format!("{}/{}", e.animal, e.experiment)).collect();
    let shown = names.iter().take(EXPERIMENTS_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(EXPERIMENTS_SHOWN_MAX) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    match publication.already {
        true => format!("already there: {shown}{more}"),
        false => format!(
            "{}, {} in {shown}{more}",
            show_number_of(publication.datasets, "dataset"),
            show_number_of(publication.chunks, "chunk")
        ),
    }
}

/// What became visible, for programs.
pub fn publication_json(publication: &Publication) -> Value {
    let experiments: Vec<Value> = publication
        .experiments
        .iter()
        .map(|name| json!({"animal": name.animal, "experiment": name.experiment}))
        .collect();
    json!({
        "experiments": experiments,
        "datasets": publication.datasets,
        "chunks": publication.chunks,
        "already": publication.already,
        "left_out": publication.left_out,
    })
}

#[cfg(test)]
mod tests {
    use h5flight_proto::v1::ExperimentName;

    use super::*;

    #[test]
    fn paths_become_absolute_and_root_names_pass_through() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(server_path("a/b.h5").unwrap(), here.join("a/b.h5").to_str().unwrap());
        assert_eq!(server_path("/data/b.h5").unwrap(), "/data/b.h5");
        assert_eq!(server_path("lab:day1/b.h5").unwrap(), "lab:day1/b.h5");
        assert_eq!(server_path("lab:").unwrap(), "lab:");
        assert_eq!(server_path("./lab:b.h5").unwrap(), here.join("lab:b.h5").to_str().unwrap());
    }

    #[test]
    fn a_report_is_one_line() {
        let experiments =
            (0..6).map(|day| ExperimentName { animal: "m1".into(), experiment: format!("day{day}") }).collect();
        let publication = Publication { experiments, datasets: 1, chunks: 3_400, already: false, left_out: 0 };
        let report = RegisterReport {
            path: "lab:a.h5".into(),
            publication: Some(publication),
            millis: 3.25,
            ..RegisterReport::default()
        };
        let expected = "lab:a.h5  1 dataset, 3,400 chunks in m1/day0, m1/day1, m1/day2, m1/day3 and 2 more  3.2 ms";
        assert_eq!(report_line(&report), expected);
        let refused = RegisterReport {
            path: "lab:b\n.h5".into(),
            reason: "not_hdf5".into(),
            message: "no signature".into(),
            ..RegisterReport::default()
        };
        assert_eq!(report_line(&refused), "lab:b\\u{a}.h5  refused (not_hdf5): no signature");
    }
}
