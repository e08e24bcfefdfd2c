//! `h5flight backup restore`: files first, each checked on its way; the catalogue last, in one transaction.
//!
//! Until then a mark lies in the data folder: a server does not start on it, and the same restore may go on there.

use std::collections::HashSet;
use std::io::{BufReader, BufWriter, ErrorKind, Seek, Write};
use std::path::{Component, Path};
use std::time::{Duration, SystemTime};

use h5flight_catalog::Catalog;
use h5flight_server::config::Config;
use indicatif::ProgressBar;
use serde_json::json;

use super::copy::{copy_checked, copy_content, read_dump};
use super::manifest::{Content, Manifest, Registered};
use super::place::{self, Place, catalogue_name, content_name, is_empty, make_folder, sync_folder};
use crate::command::progress::bytes_bar;
use crate::command::token::{Missing, open_catalog};
use crate::failure::Failure;
use crate::output::{Form, json as print_json, line, note};
use crate::quantity::{show_bytes, show_number_of};
use crate::settings::{StorageFlags, process_environment};

/// Lies in a data folder whose restore did not end.
pub const UNFINISHED: &str = "restore-unfinished";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with the backups
    dest: String,
    /// Which backup; without it the newest
    name: Option<String>,
    /// Folder for copies of registered files: they go to DIR/ROOT/PATH, to be registered anew
    #[arg(long, value_name = "DIR")]
    registered_to: Option<std::path::PathBuf>,
    #[command(flatten)]
    storage: StorageFlags,
}

/// Restores a backup.
pub async fn run(args: &Args, form: Form) -> Result<(), Failure> {
    let config = args.storage.load(&process_environment)?.config;
    let place = Place::open(&args.dest)?;
    let manifest = Manifest::read(&place, &place.find(args.name.as_deref())?)?;
    let bar = bytes_bar(form, "restoring", manifest.bytes());
    check_catalogue(&place, &manifest, &bar).await?;
    let mark = Mark::set(&config, &manifest.name)?;
    // Makes the file of SQLite, in a folder that is ours now.
    let catalog = open_catalog(&config, Missing::Create).await?;
    match catalog.occupied().await? {
        None => fill(args, &config, &place, &manifest, &*catalog, &bar).await?,
        Some(table) if mark.is_new || !is_filled(&*catalog, &place, &manifest.name).await? => {
            return Err(mark.withdraw(&table));
        }
        // It was cut off at its very end.
        Some(_) => {}
    }
    mark.remove()?;
    drop(bar);
    show(&manifest, &config, args.registered_to.is_some(), form)
}

async fn fill(
    args: &Args,
    config: &Config,
    place: &Place,
    manifest: &Manifest,
    catalog: &dyn Catalog,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    for content in &manifest.managed {
        let target = config.data_dir.join(content_name(&content.blake3)?);
        restore_file(place, content, &config.data_dir.join("uploads"), &target, bar).await?;
    }
    if let Some(folder) = &args.registered_to {
        for file in &manifest.registered {
            restore_registered(place, file, folder, bar).await?;
        }
    }
    Ok(catalog.load(&mut read_dump(place, &manifest.name)?).await?)
}

/// Whether a database names the very files that the backup does.
async fn is_filled(catalog: &dyn Catalog, place: &Place, name: &str) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::local("io", format!("a temporary file: {error}"));
    let mut dump = tempfile::tempfile().map_err(failed)?;
    catalog.dump(&mut BufWriter::new(&mut dump)).await?;
    dump.rewind().map_err(failed)?;
    let found = h5flight_catalog::files_of_dump(&mut BufReader::new(dump))?;
    let expected = h5flight_catalog::files_of_dump(&mut read_dump(place, name)?)?;
    // A database gives rows in any order.
    Ok(found.into_iter().collect::<HashSet<_>>() == expected.into_iter().collect::<HashSet<_>>())
}

async fn check_catalogue(place: &Place, manifest: &Manifest, bar: &ProgressBar) -> Result<(), Failure> {
    let expected = Content { blake3: manifest.catalogue.blake3.clone(), bytes: manifest.catalogue.bytes };
    copy_checked(place, &catalogue_name(&manifest.name), &expected, &mut std::io::sink(), bar).await
}

/// The mark of a restore under way.
struct Mark {
    path: std::path::PathBuf,
    /// Whether this restore set it, in a folder that was empty.
    is_new: bool,
}

impl Mark {
    /// Claims the data folder: empty, or left by a restore of the same backup.
    fn set(config: &Config, name: &str) -> Result<Self, Failure> {
        let folder = &config.data_dir;
        make_folder(folder)?;
        let path = folder.join(UNFINISHED);
        match std::fs::read_to_string(&path) {
            Ok(found) if found == name => return Ok(Self { path, is_new: false }),
            // Cut off before the name was written, and before anything else was.
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                let message = format!("{} holds an unfinished restore of backup {found}", folder.display());
                return Err(Failure::local("not_empty", message));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !is_empty(folder)? {
                    let message = format!("{} is not empty; a backup is restored into a new folder", folder.display());
                    return Err(Failure::local("not_empty", message));
                }
            }
            Err(error) => return Err(Failure::file(&path, &error)),
        }
        let written = std::fs::File::create(&path).and_then(|mut file| {
            file.write_all(name.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| Failure::file(&path, &error))?;
        sync_folder(folder)?;
        Ok(Self { path, is_new: true })
    }

    /// Gives the folder back as it was, for the database has rows.
    fn withdraw(self, table: &str) -> Failure {
        if self.is_new {
            // What cannot be removed says itself what it is.
            let _ = std::fs::remove_file(&self.path);
        }
        let message = format!("the database is not empty: it has rows in {table}; a backup is restored into a new one");
        Failure::local("database_not_empty", message)
    }

    fn remove(self) -> Result<(), Failure> {
        std::fs::remove_file(&self.path).map_err(|error| Failure::file(&self.path, &error))?;
        self.path.parent().map_or(Ok(()), sync_folder)
    }
}

async fn restore_file(
    place: &Place,
    content: &Content,
    beside: &Path,
    target: &Path,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut pending = place::begin(beside, target.to_owned())?;
    copy_content(place, content, pending.file.as_file_mut(), bar).await?;
    pending.keep()
}

async fn restore_registered(place: &Place, file: &Registered, folder: &Path, bar: &ProgressBar) -> Result<(), Failure> {
    let Registered { root, path, modified_ns, .. } = file;
    let Some(content) = &file.copy else {
        note(&format!("{root}:{path} is not in the backup"));
        return Ok(());
    };
    let relative = Path::new(root).join(path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(Failure::local("damaged", format!("{root}:{path} leads out of its root")));
    }
    let target = folder.join(relative);
    let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(*modified_ns).unwrap_or(0));
    if let Ok(found) = target.metadata() {
        // A restore that goes on meets its own files.
        return match found.len() == content.bytes && found.modified().is_ok_and(|at| at == modified) {
            true => Ok(()),
            false => Err(Failure::local("not_empty", format!("{} is there already", target.display()))),
        };
    }
    let mut pending = place::begin(folder, target)?;
    copy_content(place, content, pending.file.as_file_mut(), bar).await?;
    let dated = pending.file.as_file().set_modified(modified);
    dated.map_err(|error| Failure::file(pending.file.path(), &error))?;
    pending.keep()
}

fn show(manifest: &Manifest, config: &Config, with_registered: bool, form: Form) -> Result<(), Failure> {
    let registered = if with_registered { manifest.copies() } else { 0 };
    if form == Form::Json {
        return print_json(&json!({
            "name": manifest.name, "files": manifest.managed.len(), "registered_copied": registered,
            "bytes": manifest.bytes(),
        }));
    }
    let files = show_number_of(manifest.managed.len() as u64, "file");
    line(&format!(
        "backup {} restored into {}: {files}, {}",
        manifest.name,
        config.data_dir.display(),
        show_bytes(manifest.bytes())
    ))
}
