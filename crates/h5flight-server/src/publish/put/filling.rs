//! Rows on their way into the file: taken, cut into chunks, encoded side by side, written by a worker in their order.
//!
//! Memory is bounded: one slab that fills, the slabs of one message, and [`TASKS_MAX`] pieces that are being encoded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_flight::FlightData;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use h5flight_array::Reason;
use h5flight_array::codec::encode::{Encoded, Encoder, Workspace};
use h5flight_array::inspect::{NewDataset, WriteStep};
use h5flight_array::write::{CHUNK_BYTES, Grid, RowForm, Slab, Slabs, default_chunk_shape};
use tokio_util::task::AbortOnDropHandle;

use super::super::partial::Partial;
use super::super::running::Slot;
use super::{PutAsked, Rows, make_room, messages};
use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::{Error, Result};
use crate::faults;
use crate::memory;
use crate::service::Service;
use crate::worker::Writer;

/// Room that is asked for at first, in bytes: a small file with its index.
pub const ROOM_BYTES_MIN: u64 = 1 << 20;
/// Room that is asked for at once, in bytes; it grows with the file up to this.
const ROOM_BYTES_MAX: u64 = 64 << 20;
/// Pieces that are being encoded or wait to be written at most: more than processors help nobody.
const TASKS_MAX: usize = 9;
/// How long a client may send nothing, as in an upload.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A file that is being filled.
pub struct Filling {
    service: Arc<Service>,
    form: RowForm,
    grid: Arc<Grid>,
    /// Whether the shape of the chunks is our choice.
    is_free: bool,
    encoder: Arc<Encoder>,
    dataset: NewDataset,
    slabs: Slabs,
    share: Arc<Share>,
    encoding: VecDeque<AbortOnDropHandle<Result<Vec<Chunk>>>>,
    /// Both are there between `begin` and the end.
    file: Option<std::os::fd::OwnedFd>,
    slot: Option<Slot>,
    writer: Option<Writer>,
    chunks: u64,
    written_bytes: u64,
    room_bytes: u64,
}

/// A file that is whole; what it had promised of the disk is given back with it.
pub struct Filled(#[expect(dead_code, reason = "held for its drop")] Option<Slot>);

/// A chunk on its way to the worker.
struct Chunk {
    step: WriteStep,
    bytes: Bytes,
}

impl Filling {
    /// Of a checked request.
    ///
    /// # Errors
    /// `bad_request`, `chunk_too_large`.
    pub fn new(service: &Arc<Service>, asked: &PutAsked, form: RowForm, encoder: Encoder) -> Result<Self> {
        let is_free = asked.chunk_shape.is_empty();
        let chunk_shape = match is_free {
            true => default_chunk_shape(&form.row_shape, form.element_bytes() as u64, None),
            false => asked.chunk_shape.clone(),
        };
        let grid = Grid::new(&form, &chunk_shape, service.config.chunk_bytes_max)?;
        let most = memory::put_memory_bytes(service) / 2;
        if grid.slab_bytes().is_none_or(|bytes| bytes > most) {
            let message = format!(
                "rows of chunks of shape {chunk_shape:?} have more than {most} bytes (a sixteenth of memory_bytes), and one is \
                 kept in memory"
            );
            return Err(Error::new(Reason::ChunkTooLarge, message));
        }
        let mut attributes = form.attributes.clone();
        attributes.extend(asked.attributes.clone());
        let dataset = NewDataset {
            path: format!("/{}", asked.path.dataset),
            element: form.element.clone(),
            row_shape: form.row_shape.clone(),
            chunk_shape,
            filters: encoder.filters().to_vec(),
            attributes,
        };
        Ok(Self {
            service: Arc::clone(service),
            slabs: Slabs::new(form.clone(), grid.chunk_shape()[0]),
            form,
            grid: Arc::new(grid),
            is_free,
            encoder: Arc::new(encoder),
            dataset,
            share: Arc::default(),
            encoding: VecDeque::new(),
            file: None,
            slot: None,
            writer: None,
            chunks: 0,
            written_bytes: 0,
            room_bytes: ROOM_BYTES_MIN,
        })
    }

    /// What it takes while it fills, beside the message that comes.
    pub fn memory_bytes(&self) -> u64 {
        let piece = (self.grid.chunk_bytes() as u64).max(CHUNK_BYTES);
        2 * self.grid.slab_bytes().unwrap_or(0) + 2 * piece * self.tasks_max() as u64
    }

    fn tasks_max(&self) -> usize {
        (self.service.blocking.threads() + 1).min(TASKS_MAX)
    }

    /// Into this file; `slot` counts what it may still take of the disk.
    ///
    /// # Errors
    /// `io`.
    pub fn begin(&mut self, partial: &Partial, slot: Slot) -> Result<()> {
        self.file = Some(partial.descriptor()?);
        self.slot = Some(slot);
        Ok(())
    }

    /// Takes all rows and makes the file whole.
    ///
    /// # Errors
    /// As the whole put has them.
    pub async fn fill<S>(mut self, Rows { schema, mut messages, ended }: Rows<S>) -> Result<Filled>
    where
        S: Stream<Item = Result<FlightData>> + Unpin + Send,
    {
        loop {
            let arrival = tokio::time::timeout(IDLE_MAX, messages.next()).await;
            let Ok(message) = arrival else {
                let message = format!("nothing came for {} s; nothing of the put is kept", IDLE_MAX.as_secs());
                return Err(Error::new(Reason::UploadBroken, message));
            };
            let Some(message) = message else { break };
            let (message, schema) = (message?, schema.clone());
            let read = move || {
                faults::pass("put::batch")?;
                messages::batch(message, &schema)
            };
            let Some(batch) = self.service.blocking.run(Lane::Deliver, read).await? else { continue };
            let mut done = 0;
            while done < batch.num_rows() {
                let (mut slabs, rows) = (self.slabs, batch.clone());
                let take = move || slabs.take(&rows, done).map(|(done, full)| (slabs, done, full)).map_err(Error::from);
                let (slabs, taken, full) = self.service.blocking.run(Lane::Deliver, take).await?;
                (self.slabs, done) = (slabs, taken);
                if let Some(slab) = full {
                    self.encode(slab).await?;
                }
            }
        }
        if !ended.load(Ordering::Acquire) {
            let message = "the client went away before the end of its put; nothing of it is kept";
            return Err(Error::new(Reason::UploadBroken, message));
        }
        self.finish().await
    }

    async fn finish(mut self) -> Result<Filled> {
        if self.chunks == 0 && self.is_free {
            // All rows are fewer than a chunk of our choice has: it need not be larger than they are.
            self.dataset.chunk_shape[0] = self.slabs.rows().max(1);
            let grid = Grid::new(&self.form, &self.dataset.chunk_shape, self.service.config.chunk_bytes_max)?;
            self.grid = Arc::new(grid);
        }
        if let Some(slab) = self.slabs.finish(self.grid.chunk_shape()[0]) {
            self.encode(slab).await?;
        }
        while !self.encoding.is_empty() {
            self.write().await?;
        }
        self.open().await?;
        faults::pass("put::finish")?;
        let writer = self.writer.take().expect("it was just opened");
        writer.finish().await?;
        Ok(Filled(self.slot))
    }

    /// Begins to encode the chunks of a slab, several small ones in a piece; what is ready before is written meanwhile.
    async fn encode(&mut self, slab: Slab) -> Result<()> {
        let chunks = self.grid.slab_chunks();
        self.chunks = self.chunks.saturating_add(chunks);
        let most = self.service.config.inspect_limits.chunks_max;
        if self.chunks > most {
            let message = format!("{} chunks, a file has at most {most} (chunks_max): take larger ones", self.chunks);
            return Err(Error::new(Reason::FileTooComplex, message));
        }
        let piece = (CHUNK_BYTES / self.grid.chunk_bytes() as u64).max(1);
        let mut first = 0;
        while first < chunks {
            let numbers = first..(first + piece).min(chunks);
            first = numbers.end;
            while self.encoding.len() >= self.tasks_max() {
                self.write().await?;
            }
            let (grid, encoder, slab) = (Arc::clone(&self.grid), Arc::clone(&self.encoder), slab.clone());
            let (blocking, share) = (self.service.blocking.clone(), Arc::clone(&self.share));
            let bytes = (numbers.end - numbers.start) * self.grid.chunk_bytes() as u64;
            let work = move || {
                let mut workspace = Workspace::default();
                numbers.map(|number| encoded(&grid, &encoder, &slab, number, &mut workspace)).collect::<Result<_>>()
            };
            let task = async move { blocking.run(Lane::Decode(&share, bytes), work).await };
            self.encoding.push_back(AbortOnDropHandle::new(tokio::spawn(task)));
        }
        Ok(())
    }

    /// Waits for the piece that comes next in the file and hands it to the worker.
    async fn write(&mut self) -> Result<()> {
        let Some(piece) = self.encoding.pop_front() else { return Ok(()) };
        let failed = |_| Error::new(Reason::Internal, "encoding was cut off");
        let chunks = piece.await.map_err(failed)??;
        self.open().await?;
        for Chunk { step, bytes } in chunks {
            faults::pass("put::chunk")?;
            self.grow(bytes.len() as u64).await?;
            let writer = self.writer.as_mut().expect("it was just opened");
            writer.chunk(&step, &bytes).await?;
        }
        Ok(())
    }

    /// Counts bytes, and asks for room before what was promised is full.
    async fn grow(&mut self, bytes: u64) -> Result<()> {
        self.written_bytes += bytes;
        let most = self.service.config.upload_bytes_max;
        if self.written_bytes > most {
            let message = format!("a put of more than {most} bytes (upload_bytes_max), as it is stored");
            return Err(Error::new(Reason::UploadTooLarge, message));
        }
        let slot = self.slot.as_ref().expect("it was given at the beginning");
        if self.written_bytes > self.room_bytes {
            let more = self.written_bytes.clamp(ROOM_BYTES_MIN, ROOM_BYTES_MAX).max(bytes);
            make_room(&self.service, slot, more).await?;
            self.room_bytes = self.written_bytes + more;
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<()> {
        if self.writer.is_none() {
            let file = self.file.take().ok_or_else(|| Error::new(Reason::Internal, "a put without a file"))?;
            self.writer = Some(self.service.workers.write(&file, self.dataset.clone()).await?);
        }
        Ok(())
    }
}

fn encoded(grid: &Grid, encoder: &Encoder, slab: &Slab, number: u64, workspace: &mut Workspace) -> Result<Chunk> {
    let (origin, raw) = grid.chunk(slab, number);
    let Encoded { bytes, mask } = encoder.encode(&raw, workspace)?;
    Ok(Chunk { step: WriteStep::Chunk { origin, mask, rows: slab.first_row + slab.rows }, bytes })
}
