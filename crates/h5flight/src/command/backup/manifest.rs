//! What one backup consists of, as JSON with a checksum of its own. It names no database and holds no secret.

use std::io::{Read, Write};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::place::{Place, catalogue_name, content_name, manifest_name};
use crate::failure::Failure;

const FORMAT: u32 = 1;

/// One backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    pub name: String,
    pub created_at: DateTime<Utc>,
    /// Version of the program that made it.
    pub program: String,
    pub catalogue: Catalogue,
    /// Uploaded files, each content once.
    pub managed: Vec<Content>,
    pub registered: Vec<Registered>,
    /// Of this manifest with this field empty.
    blake3: String,
}

/// The dump of the catalogue, compressed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Which database it comes from; it fills either.
    pub backend: String,
    pub bytes: u64,
    pub blake3: String,
}

/// A file by its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Content {
    pub blake3: String,
    pub bytes: u64,
}

/// A registered file as it was indexed last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    pub root: String,
    pub path: String,
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    pub modified_ns: i64,
    /// Its copy, where one was asked for.
    pub copy: Option<Content>,
    /// Why there is no copy although one was asked for.
    pub problem: Option<String>,
}

impl Manifest {
    /// A manifest of now.
    pub fn new(name: String, catalogue: Catalogue, managed: Vec<Content>, registered: Vec<Registered>) -> Self {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        let created_at = Utc::now();
        let blake3 = String::new();
        let mut made = Self { format: FORMAT, name, created_at, program, catalogue, managed, registered, blake3 };
        made.blake3 = made.checksum();
        made
    }

    /// Reads and checks the manifest of a backup that is there.
    pub fn read(place: &Place, name: &str) -> Result<Self, Failure> {
        let damaged =
            |what: &str| Failure::local("damaged", format!("the manifest of backup {name} is damaged: {what}"));
        let mut text = Vec::new();
        place.read(&manifest_name(name))?.read_to_end(&mut text).map_err(|error| damaged(&error.to_string()))?;
        let read: Self = serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))?;
        if read.format != FORMAT {
            let message = format!("backup {name} has format {}, this program reads {FORMAT}", read.format);
            return Err(Failure::local("unsupported", message));
        }
        match read.blake3 == read.checksum() && read.name == name {
            true => Ok(read),
            false => Err(damaged("it is not what was written")),
        }
    }

    /// Writes it: from then on the backup is there.
    pub fn write(&self, place: &Place) -> Result<(), Failure> {
        let mut pending = place.begin(&manifest_name(&self.name))?;
        let text = serde_json::to_vec_pretty(self).expect("a manifest is always JSON");
        let name = pending.file.path().to_owned();
        pending.file.write_all(&text).map_err(|error| Failure::file(&name, &error))?;
        pending.keep()
    }

    /// All objects of the backup besides the manifest, with their sizes.
    pub fn objects(&self) -> Vec<(String, u64)> {
        let mut objects = vec![(catalogue_name(&self.name), self.catalogue.bytes)];
        // A content address that is none leads to nothing.
        objects.extend(
            self.contents().map(|content| {
                (content_name(&content.blake3).unwrap_or_else(|_| content.blake3.clone()), content.bytes)
            }),
        );
        objects
    }

    /// Everything that is named by its content.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        self.managed.iter().chain(self.registered.iter().filter_map(|file| file.copy.as_ref()))
    }

    /// How many registered files were copied.
    pub fn copies(&self) -> usize {
        self.registered.iter().filter(|file| file.copy.is_some()).count()
    }

    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.objects().iter().map(|(_, bytes)| bytes).sum()
    }

    fn checksum(&self) -> String {
        let bare = Self { blake3: String::new(), ..self.clone() };
        let text = serde_json::to_vec(&bare).expect("a manifest is always JSON");
        blake3::hash(&text).to_hex().to_string()
    }
}
