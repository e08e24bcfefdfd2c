//! Bytes on their way, hashed. Between two pieces Ctrl-C is noticed.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use indicatif::ProgressBar;

use super::manifest::Content;
use super::place::{Place, catalogue_name, content_name};
use crate::failure::Failure;

const PIECE_BYTES: usize = 1 << 20;

/// Copies everything and says what it was.
pub async fn copy(from: &mut File, to: &mut (impl Write + ?Sized), bar: &ProgressBar) -> io::Result<Content> {
    let mut piece = vec![0; PIECE_BYTES];
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&piece[..read]);
        to.write_all(&piece[..read])?;
        bytes += read as u64;
        bar.inc(read as u64);
        tokio::task::yield_now().await;
    }
    Ok(Content { blake3: hasher.finalize().to_hex().to_string(), bytes })
}

/// Reads an object of a backup to its end, writes it to `to`, and checks that it is what it should be.
pub async fn copy_checked(
    place: &Place,
    name: &str,
    expected: &Content,
    to: &mut (impl Write + ?Sized),
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let damaged = |what: String| Failure::local("damaged", format!("{name} in the backup {what}"));
    let Some(_) = place.bytes_of(name)? else { return Err(damaged("is missing".to_owned())) };
    let found = copy(&mut place.read(name)?, to, bar).await;
    let found = found.map_err(|error| damaged(format!("cannot be copied: {error}")))?;
    if found.bytes != expected.bytes {
        return Err(damaged(format!("has {} bytes instead of {}", found.bytes, expected.bytes)));
    }
    match found.blake3 == expected.blake3 {
        true => Ok(()),
        false => Err(damaged(format!("is damaged: its blake3 is {}, not {}", found.blake3, expected.blake3))),
    }
}

/// The same for a file that is named by its content.
pub async fn copy_content(
    place: &Place,
    content: &Content,
    to: &mut (impl Write + ?Sized),
    bar: &ProgressBar,
) -> Result<(), Failure> {
    copy_checked(place, &content_name(&content.blake3)?, content, to, bar).await
}

/// The dump of a catalogue, decompressed.
pub fn read_dump(place: &Place, name: &str) -> Result<impl io::BufRead + Send + use<>, Failure> {
    let object = catalogue_name(name);
    let decoder = zstd::stream::read::Decoder::new(place.read(&object)?);
    Ok(BufReader::new(decoder.map_err(|error| Failure::local("io", format!("{object}: {error}")))?))
}

/// Hashes and counts what passes.
pub struct Hashed<W> {
    out: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    /// Nothing passed yet.
    pub fn new(out: W) -> Self {
        Self { out, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    /// What passed.
    pub fn content(&self) -> Content {
        Content { blake3: self.hasher.finalize().to_hex().to_string(), bytes: self.bytes }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.out.write(data)?;
        self.hasher.update(&data[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
