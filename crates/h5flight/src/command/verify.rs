//! `h5flight verify`: whether the catalogue and the files agree.

use h5flight_proto::v1::{Finding, StrayFile, VerifiedFile, VerifyReport, VerifyRequest};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::progress::files_bar;
use crate::cli::Globals;
use crate::connection::{ConnectionFlags, with_client};
use crate::failure::Failure;
use crate::output::{Form, JsonArray, clean, line, note};
use crate::quantity::{show_bytes, show_number_of, show_shape};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 all is well, 1 something is wrong or out of use, 2 wrong usage.")]
pub struct Args {
    /// Animal; without it everything
    pub animal: Option<String>,
    /// Experiment; without it all of the animal
    pub experiment: Option<String>,
    /// Read and decode every chunk, and the hash of uploaded files
    #[arg(long)]
    pub deep: bool,
    /// Register changed files again, take missing and damaged ones out of use, put back those that are whole again; needs
    /// the role admin, deletes nothing
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// Verifies and reports what is wrong.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    with_client(&args.connection, globals, async |client| {
        let request = VerifyRequest {
            animal: args.animal.clone().unwrap_or_default(),
            experiment: args.experiment.clone().unwrap_or_default(),
            deep: args.deep,
            repair: args.repair,
        };
        let mut reports = client.data.clone().verify(request).await?.into_inner();
        let bar = files_bar(globals.form, "verifying");
        let mut reporter = Reporter { form: globals.form, bar, array: JsonArray::default(), tally: Tally::default() };
        while let Some(report) = reports.message().await? {
            reporter.add(&report)?;
        }
        reporter.finish()
    })
}

/// What was found so far.
#[derive(Default)]
struct Tally {
    files: u64,
    /// Files with something wrong that is still wrong.
    wrong: u64,
    repaired: u64,
    quarantined: u64,
    unchecked: u64,
    strays: u64,
    bytes_read: u64,
}

impl Tally {
    fn add(&mut self, file: &VerifiedFile) {
        self.files += 1;
        self.unchecked += u64::from(!file.unchecked.is_empty());
        self.quarantined += u64::from(!file.quarantine_reason.is_empty());
        match file.repaired.as_str() {
            "registered" | "released" => self.repaired += 1,
            _ => self.wrong += u64::from(!file.findings.is_empty() && file.quarantine_reason.is_empty()),
        }
    }

    /// Whether all is well now.
    const fn is_well(&self) -> bool {
        self.wrong + self.quarantined + self.strays == 0
    }

    fn text(&self) -> String {
        let files = show_number_of(self.files, "file");
        let mut parts = vec![format!("{files} verified, {} read", show_bytes(self.bytes_read))];
        parts.extend((self.wrong > 0).then(|| format!("{} wrong", self.wrong)));
        parts.extend((self.repaired > 0).then(|| format!("{} repaired", self.repaired)));
        parts.extend((self.quarantined > 0).then(|| format!("{} out of use", self.quarantined)));
        parts.extend((self.unchecked > 0).then(|| format!("{} not checked completely", self.unchecked)));
        parts.extend((self.strays > 0).then(|| format!("{} without a name", show_number_of(self.strays, "file"))));
        parts.extend(self.is_well().then(|| "all is well".to_owned()));
        parts.join(", ")
    }
}

struct Reporter {
    form: Form,
    bar: ProgressBar,
    array: JsonArray,
    tally: Tally,
}

impl Reporter {
    fn add(&mut self, report: &VerifyReport) -> Result<(), Failure> {
        if report.files_total > 0 {
            self.bar.set_length(report.files_total);
        }
        self.bar.set_position(report.files_done);
        self.bar.set_message(format!("verifying, {} read", show_bytes(report.bytes_read)));
        self.tally.bytes_read = report.bytes_read;
        if let Some(file) = &report.file {
            self.tally.add(file);
            self.show(&file_lines(file), || file_json(file))?;
        }
        if let Some(stray) = &report.stray {
            self.tally.strays += 1;
            self.show(&[stray_line(stray)], || json!({"stray": {"path": stray.path, "bytes": stray.bytes}}))?;
        }
        Ok(())
    }

    /// Lines for people, above the bar; JSON of everything for programs.
    fn show(&mut self, lines: &[String], json: impl FnOnce() -> Value) -> Result<(), Failure> {
        match self.form {
            Form::Json => self.array.push(&json()),
            Form::People => self.bar.suspend(|| lines.iter().try_for_each(|text| line(&clean(text)))),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        match self.form {
            Form::Json => self.array.finish()?,
            Form::People => note(&self.tally.text()),
        }
        if self.tally.is_well() { Ok(()) } else { Err(Failure::Reported) }
    }
}

/// A line for each thing that is wrong, and one for what was done about it; none for a file that is well.
fn file_lines(file: &VerifiedFile) -> Vec<String> {
    let name = match file.path.starts_with("managed:") {
        true => format!("{} ({})", file.path, file.source_name),
        false => file.path.clone(),
    };
    let mut lines: Vec<String> =
        file.findings.iter().map(|finding| format!("{name}  {}", finding_text(finding))).collect();
    if file.findings_left_out > 0 {
        lines.push(format!("{name}  and {} more", file.findings_left_out));
    }
    lines.extend(file.unchecked.iter().map(|finding| format!("{name}  not checked: {}", finding_text(finding))));
    match (file.repaired.as_str(), file.quarantine_reason.as_str()) {
        ("", "") => {}
        ("", reason) => lines.push(format!("{name}  out of use ({reason})")),
        (repaired, _) => lines.push(format!("{name}  {repaired}")),
    }
    if !file.repair_error.is_empty() {
        lines.push(format!("{name}  not repaired: {}", file.repair_error));
    }
    lines
}

fn finding_text(finding: &Finding) -> String {
    let Finding { reason, message, array, chunk } = finding;
    match (array.is_empty(), chunk.is_empty()) {
        (true, _) => format!("{reason}: {message}"),
        (false, true) => format!("{reason}: {array}: {message}"),
        (false, false) => format!("{reason}: {array} chunk {}: {message}", show_shape(chunk)),
    }
}

fn stray_line(stray: &StrayFile) -> String {
    format!("{}  {} without a name in the catalogue", stray.path, show_bytes(stray.bytes))
}

fn file_json(file: &VerifiedFile) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "reason": finding.reason, "message": finding.message, "array": finding.array, "chunk": finding.chunk,
        })
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "path": file.path,
        "source_name": file.source_name,
        "findings": file.findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_left_out": file.findings_left_out,
        "unchecked": file.unchecked.iter().map(finding).collect::<Vec<_>>(),
        "quarantine_reason": text(&file.quarantine_reason),
        "repaired": text(&file.repaired),
        "repair_error": text(&file.repair_error),
        "chunks": file.chunks,
        "bytes_read": file.bytes_read,
        "millis": file.millis,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(array: &str, chunk: &[u64]) -> Finding {
        let message = "of 7 bytes".to_owned();
        Finding { reason: "truncated".into(), message, array: array.into(), chunk: chunk.to_vec() }
    }

    #[test]
    fn each_finding_is_a_line_and_a_file_that_is_well_is_none() {
        let well = VerifiedFile { path: "lab:a.h5".into(), ..VerifiedFile::default() };
        assert!(file_lines(&well).is_empty());
        let wrong = VerifiedFile {
            findings: vec![finding("", &[]), finding("/x", &[]), finding("/x", &[3, 0])],
            findings_left_out: 7,
            quarantine_reason: "truncated".into(),
            repaired: "quarantined".into(),
            ..well.clone()
        };
        let expected = [
            "lab:a.h5  truncated: of 7 bytes",
            "lab:a.h5  truncated: /x: of 7 bytes",
            "lab:a.h5  truncated: /x chunk (3, 0): of 7 bytes",
            "lab:a.h5  and 7 more",
            "lab:a.h5  quarantined",
        ];
        assert_eq!(file_lines(&wrong), expected);
    }

    #[test]
    fn what_was_repaired_is_well_and_what_is_out_of_use_is_not() {
        let file = |findings: usize, repaired: &str, quarantine: &str| VerifiedFile {
            findings: vec![finding("", &[]); findings],
            repaired: repaired.into(),
            quarantine_reason: quarantine.into(),
            ..VerifiedFile::default()
        };
        for (file, well) in [
            (file(0, "", ""), true),
            (file(1, "", ""), false),
            (file(1, "registered", ""), true),
            (file(0, "released", ""), true),
            (file(1, "quarantined", "truncated"), false),
            (file(0, "", "truncated"), false),
        ] {
            let mut tally = Tally::default();
            tally.add(&file);
            assert_eq!(tally.is_well(), well, "{file:?}");
        }
    }
}
