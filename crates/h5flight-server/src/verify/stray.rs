//! Files among the managed ones that the catalogue does not name. They are reported; removing them is not done here.

use std::sync::Arc;

use h5flight_catalog::model::FilePlace;

use crate::blocking::Lane;
use crate::blocking::turns::Share;
use crate::error::Result;
use crate::files::ManagedEntry;
use crate::service::Service;

/// A file without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its path below the folder of managed files.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The folders of managed files.
///
/// # Errors
/// `io`.
pub(super) async fn folders(service: &Service) -> Result<Vec<String>> {
    let files = Arc::clone(&service.files);
    service.blocking.run(Lane::Decode(&Share::default(), 0), move || files.managed_folders()).await
}

/// What lies in one of them without a name. What is young may be an upload that gets its name in a moment.
///
/// # Errors
/// `io`; the catalogue's.
pub(super) async fn of_folder(service: &Service, folder: String) -> Result<Vec<Stray>> {
    let files = Arc::clone(&service.files);
    let list = move || files.managed_entries(&folder);
    let mut strays = Vec::new();
    for ManagedEntry { path, bytes, content } in service.blocking.run(Lane::Decode(&Share::default(), 0), list).await? {
        let named = match content {
            Some(content) => service.catalog.find_file(&FilePlace::Managed { content }).await?.is_some(),
            None => false,
        };
        if !named {
            strays.push(Stray { path, bytes });
        }
    }
    Ok(strays)
}
