//! `h5flight backup`: the catalogue and the uploaded files out of harm's way, and back. Works on the database and the
//! data folder themselves, beside a running server or without one.
//!
//! What makes a backup consistent: the catalogue is dumped first, in one transaction; then come the files it names,
//! which never change. What makes it safe: every file is written under a temporary name, made durable and renamed, and
//! the manifest, by which a backup is seen, comes last. A file that is there already is not copied again.
//!
//! - `place`: the folder with the backups, and the only module that knows its layout;
//! - `manifest`: what one backup consists of;
//! - `copy`: bytes on their way, hashed;
//! - `create`, `verify`, `restore`: the commands.

mod copy;
mod create;
mod manifest;
mod place;
mod restore;
mod verify;

use serde_json::json;

use crate::cli::Globals;
use crate::connection::until_interrupted;
use crate::failure::Failure;
use crate::output::{Form, JsonArray, note};
use crate::quantity::{show_bytes, show_count};
use crate::table::{Align, Table};
use manifest::Manifest;
use place::Place;
pub use restore::UNFINISHED;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Back up the catalogue and the uploaded files that are not in DEST yet; the server may run
    Create(create::Args),
    /// List the backups
    List(Dest),
    /// Read every byte of the backups and compare it with its checksum
    Verify(verify::Args),
    /// Bring a backup back, into an empty data folder and an empty database; the server must not run
    Restore(restore::Args),
}

#[derive(Debug, clap::Args)]
struct Dest {
    /// Folder with the backups
    dest: String,
}

/// Makes, lists, checks or restores.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    match &args.command {
        Command::Create(args) => until_interrupted(create::run(args, globals.form)),
        Command::List(Dest { dest }) => list(&Place::open(dest)?, globals.form),
        Command::Verify(args) => until_interrupted(verify::run(args, globals.form)),
        Command::Restore(args) => until_interrupted(restore::run(args, globals.form)),
    }
}

/// What `list` says of one backup.
struct Entry {
    name: String,
    /// Without it the manifest is damaged.
    manifest: Option<Manifest>,
    missing: u64,
}

impl Entry {
    fn read(place: &Place, name: String) -> Result<Self, Failure> {
        let Ok(manifest) = Manifest::read(place, &name) else { return Ok(Self { name, manifest: None, missing: 0 }) };
        let mut missing = 0;
        for (object, bytes) in manifest.objects() {
            if place.bytes_of(&object)? != Some(bytes) {
                missing += 1;
            }
        }
        Ok(Self { name, manifest: Some(manifest), missing })
    }

    fn state(&self) -> String {
        match (&self.manifest, self.missing) {
            (None, _) => "manifest damaged".to_owned(),
            (Some(_), 0) => "complete".to_owned(),
            (Some(_), missing) => format!("{} missing", show_count(missing)),
        }
    }

    fn json(&self) -> serde_json::Value {
        let complete = self.manifest.is_some() && self.missing == 0;
        match &self.manifest {
            Some(manifest) => json!({
                "name": self.name, "created_at": manifest.created_at, "bytes": manifest.bytes(),
                "files": manifest.managed.len(), "registered": manifest.registered.len(),
                "registered_copied": manifest.copies(), "catalogue": manifest.catalogue.backend,
                "complete": complete, "missing": self.missing,
            }),
            None => json!({"name": self.name, "complete": complete}),
        }
    }

    fn row(&self) -> Vec<String> {
        let facts = |show: fn(&Manifest) -> String| self.manifest.as_ref().map(show).unwrap_or_default();
        vec![
            self.name.clone(),
            facts(|manifest| show_bytes(manifest.bytes())),
            facts(|manifest| show_count(manifest.managed.len() as u64)),
            facts(|manifest| format!("{} of {}", manifest.copies(), manifest.registered.len())),
            facts(|manifest| manifest.catalogue.backend.clone()),
            self.state(),
        ]
    }
}

fn list(place: &Place, form: Form) -> Result<(), Failure> {
    let entries = place.names()?.into_iter().map(|name| Entry::read(place, name)).collect::<Result<Vec<_>, _>>()?;
    if form == Form::Json {
        let mut array = JsonArray::default();
        for entry in &entries {
            array.push(&entry.json())?;
        }
        return array.finish();
    }
    if entries.is_empty() {
        note("no backups; make one with `h5flight backup create`");
    }
    let (left, right) = (Align::Left, Align::Right);
    let columns = [
        ("NAME", left),
        ("SIZE", right),
        ("FILES", right),
        ("REGISTERED COPIED", right),
        ("CATALOGUE", left),
        ("STATE", left),
    ];
    Table::new(columns).print(&entries.iter().map(Entry::row).collect::<Vec<_>>())
}
