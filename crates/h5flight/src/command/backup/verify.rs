//! `h5flight backup verify`: every byte is read, and everything that is wrong is named.

use std::collections::{BTreeMap, BTreeSet};

use h5flight_catalog::model::FilePlace;
use indicatif::ProgressBar;
use serde_json::json;

use super::copy::{copy_checked, copy_content, read_dump};
use super::manifest::{Content, Manifest};
use super::place::{Place, catalogue_name};
use crate::command::progress::bytes_bar;
use crate::failure::Failure;
use crate::output::{Form, json as print_json, line, note};
use crate::quantity::show_number_of;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with the backups
    dest: String,
    /// Which backup; without it all of them
    name: Option<String>,
}

/// Files that were read: what is wrong with each, if anything. Backups share them.
type Checked = BTreeMap<String, Option<String>>;

/// Checks backups.
pub async fn run(args: &Args, form: Form) -> Result<(), Failure> {
    let place = Place::open(&args.dest)?;
    let newest = place.find(args.name.as_deref())?;
    let names = if args.name.is_some() { vec![newest] } else { place.names()? };
    let (mut checked, mut reports) = (Checked::new(), Vec::new());
    for name in names {
        let problems = check(&place, &name, &mut checked, form).await?;
        for problem in &problems {
            if form == Form::People {
                note(&format!("backup {name}: {problem}"));
            }
        }
        reports.push((name, problems));
    }
    let wrong = reports.iter().filter(|(_, problems)| !problems.is_empty()).count();
    match form {
        Form::Json => {
            let backups: Vec<_> = reports
                .iter()
                .map(|(name, problems)| json!({"name": name, "ok": problems.is_empty(), "problems": problems}))
                .collect();
            print_json(&json!({"ok": wrong == 0, "files": checked.len(), "backups": backups}))?;
        }
        Form::People => {
            let (backups, files) =
                (show_number_of(reports.len() as u64, "backup"), show_number_of(checked.len() as u64, "file"));
            let state = if wrong == 0 { "all is well".to_owned() } else { format!("{wrong} damaged") };
            line(&format!("{backups} with {files} checked: {state}"))?;
        }
    }
    if wrong == 0 { Ok(()) } else { Err(Failure::Reported) }
}

async fn check(place: &Place, name: &str, checked: &mut Checked, form: Form) -> Result<Vec<String>, Failure> {
    let manifest = match Manifest::read(place, name) {
        Ok(manifest) => manifest,
        Err(failure) => return Ok(vec![sentence(failure)?]),
    };
    let mut problems = Vec::new();
    let bar = bytes_bar(form, name, manifest.bytes());
    match check_catalogue(place, &manifest, &bar).await {
        Ok(unnamed) => problems.extend(unnamed),
        Err(failure) => problems.push(sentence(failure)?),
    }
    for content in manifest.contents() {
        if !checked.contains_key(&content.blake3) {
            let problem =
                copy_content(place, content, &mut std::io::sink(), &bar).await.err().map(sentence).transpose()?;
            checked.insert(content.blake3.clone(), problem);
        }
        problems.extend(checked.get(&content.blake3).cloned().flatten());
    }
    problems.dedup();
    Ok(problems)
}

/// Checks the dump, and gives the files that it names and the manifest does not.
async fn check_catalogue(place: &Place, manifest: &Manifest, bar: &ProgressBar) -> Result<Vec<String>, Failure> {
    let expected = Content { blake3: manifest.catalogue.blake3.clone(), bytes: manifest.catalogue.bytes };
    copy_checked(place, &catalogue_name(&manifest.name), &expected, &mut std::io::sink(), bar).await?;
    let files = h5flight_catalog::files_of_dump(&mut read_dump(place, &manifest.name)?)?;
    let known: BTreeSet<&str> = manifest.managed.iter().map(|content| content.blake3.as_str()).collect();
    let named = files.iter().filter_map(|file| match &file.place {
        FilePlace::Managed { content } => Some(content.as_str()),
        FilePlace::Registered { .. } => None,
    });
    let unknown: BTreeSet<&str> = named.filter(|content| !known.contains(content)).collect();
    Ok(unknown.iter().map(|content| format!("the catalogue names {content}, which is not in the backup")).collect())
}

/// What a failure says; one that says nothing ends the command.
fn sentence(failure: Failure) -> Result<String, Failure> {
    match failure {
        Failure::Failed { message, .. } => Ok(message),
        other => Err(other),
    }
}
