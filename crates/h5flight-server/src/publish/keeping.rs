//! A partial file that is whole and sealed moves to its content address.

use std::path::PathBuf;
use std::time::Instant;

use super::held::{Held, Kept, There};
use super::partial::Partial;
use super::upload::{contended, is_whole, run};
use crate::error::Result;
use crate::service::Service;

/// Moves it, or finds its bytes there already; the address is held until the row that names it is committed.
///
/// # Errors
/// `disk_full`, `io`, `upload_in_progress`; the partial file is left as it is.
pub async fn keep(service: &Service, partial: Box<Partial>, address: PathBuf, content: &str) -> Result<Held> {
    let (waiting, mut there, mut partial) = (Instant::now(), There::Stays, *partial);
    loop {
        let to = address.clone();
        match run(service, move || partial.keep(&to, there)).await? {
            Kept::Held(held) => return Ok(held),
            Kept::Found(held, found) => {
                partial = found;
                if is_whole(service, &held, partial.written_bytes(), content).await? {
                    run(service, move || {
                        partial.remove();
                        Ok(())
                    })
                    .await?;
                    return Ok(held);
                }
                there = There::IsReplaced;
            }
            Kept::Contended(contended_for) => {
                partial = contended_for;
                contended(service, waiting).await?;
            }
        }
    }
}
