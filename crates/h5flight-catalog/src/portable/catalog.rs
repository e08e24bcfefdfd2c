//! [`Catalog`] of this backend: which function answers which call.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{
    BACKEND, IS_SHARED, Store, access, append, browse, compact, dump, find, history, publish, puts, resolve, search,
    tags, verify,
};
use crate::Catalog;
use crate::error::Result;
use crate::model::*;

#[async_trait]
impl Catalog for Store {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn is_shared(&self) -> bool {
        IS_SHARED
    }

    async fn ping(&self) -> Result<()> {
        access::ping(self).await
    }

    async fn secret(&self, name: &str) -> Result<[u8; 32]> {
        access::secret(self, name).await
    }

    async fn resolve(&self, path: &DatasetPath, version: VersionSelector) -> Result<ResolvedVersion> {
        resolve::resolve(self, path, version).await
    }

    async fn resolve_version(&self, version_id: i64) -> Result<ResolvedVersion> {
        resolve::resolve_version(self, version_id).await
    }

    async fn find_version(&self, path: &DatasetPath, version: &VersionSelector) -> Result<(i64, u64)> {
        find::find_version(self, path, version).await
    }

    async fn find_file(&self, place: &FilePlace) -> Result<Option<FileRecord>> {
        publish::find_file(self, place).await
    }

    async fn published(&self, file_id: i64) -> Result<Published> {
        publish::find_published(self, file_id).await
    }

    async fn find_ingest(&self, key: &str) -> Result<Option<Published>> {
        publish::find_ingest(self, key).await
    }

    async fn publish(&self, publication: &Publication) -> Result<Published> {
        publish::publish(self, publication).await
    }

    async fn append(&self, append: &Append) -> Result<Appended> {
        append::append(self, append).await
    }

    async fn find_append(&self, path: &DatasetPath, writer: &str, sequence: u64) -> Result<Option<Appended>> {
        puts::find_append(self, path, writer, sequence).await
    }

    async fn long_lists(&self, extents_min: u64, after: i64) -> Result<Vec<LongList>> {
        compact::long_lists(self, extents_min, after).await
    }

    async fn compact(&self, compaction: &Compaction) -> Result<()> {
        compact::compact(self, compaction).await
    }

    async fn drop_unused(&self, before: DateTime<Utc>) -> Result<Vec<i64>> {
        compact::drop_unused(self, before).await
    }

    async fn quarantine(&self, file_id: i64, reason: &str, message: &str) -> Result<()> {
        publish::quarantine(self, file_id, reason, message).await
    }

    async fn list_versions(&self, path: &DatasetPath, page: &Page) -> Result<Paged<VersionSummary>> {
        history::list_versions(self, path, page).await
    }

    async fn roll_back(&self, rollback: &Rollback) -> Result<RolledBack> {
        history::roll_back(self, rollback).await
    }

    async fn set_tag(&self, tag: &NewTag) -> Result<Tagged> {
        tags::set_tag(self, tag).await
    }

    async fn delete_tag(&self, of: &TagScope, name: &str) -> Result<Tagged> {
        tags::delete_tag(self, of, name).await
    }

    async fn release(&self, file_id: i64) -> Result<()> {
        verify::release(self, file_id).await
    }

    async fn list_files_of(&self, animal: &str, experiment: &str, page: &Page) -> Result<Paged<FileRecord>> {
        verify::list_files_of(self, animal, experiment, page).await
    }

    async fn fingerprints_below(&self, root: &str, path: &str) -> Result<HashMap<String, Fingerprint>> {
        verify::fingerprints_below(self, root, path).await
    }

    async fn arrays_of(&self, file_id: i64, after: i64) -> Result<Vec<Arc<ArrayRecord>>> {
        verify::arrays_of(self, file_id, after).await
    }

    async fn keep_checksums(&self, array_id: i64, checksums: &[u64]) -> Result<()> {
        verify::keep_checksums(self, array_id, checksums).await
    }

    async fn list_animals(&self, page: &Page) -> Result<Paged<AnimalSummary>> {
        browse::list_animals(self, page).await
    }

    async fn list_experiments(&self, animal: &str, page: &Page) -> Result<Paged<ExperimentSummary>> {
        browse::list_experiments(self, animal, page).await
    }

    async fn list_datasets(&self, animal: &str, experiment: &str, page: &Page) -> Result<Paged<DatasetSummary>> {
        browse::list_datasets(self, animal, experiment, page).await
    }

    async fn describe(&self, path: &DatasetPath) -> Result<Description> {
        browse::describe(self, path).await
    }

    async fn describe_version(&self, version_id: i64) -> Result<Description> {
        browse::describe_version(self, version_id).await
    }

    async fn search(&self, query: &str, page: &Page) -> Result<Paged<DatasetSummary>> {
        search::search(self, query, page).await
    }

    async fn search_experiments(&self, query: &str, page: &Page) -> Result<Paged<ExperimentSummary>> {
        search::search_experiments(self, query, page).await
    }

    async fn list_files(&self, page: &Page) -> Result<Paged<FileRecord>> {
        browse::list_files(self, page).await
    }

    async fn counts(&self) -> Result<Counts> {
        browse::counts(self).await
    }

    async fn create_token(&self, new: &NewToken) -> Result<CreatedToken> {
        access::create_token(self, new).await
    }

    async fn authenticate(&self, token: &str) -> Result<Option<Principal>> {
        access::authenticate(self, token).await
    }

    async fn list_tokens(&self) -> Result<Vec<TokenSummary>> {
        access::list_tokens(self).await
    }

    async fn revoke_token(&self, prefix: &str) -> Result<bool> {
        access::revoke_token(self, prefix).await
    }

    async fn has_tokens(&self) -> Result<bool> {
        access::has_tokens(self).await
    }

    async fn log_accesses(&self, entries: &[AccessEntry]) -> Result<()> {
        access::log_accesses(self, entries).await
    }

    async fn list_accesses(&self, limit: u32) -> Result<Vec<AccessEntry>> {
        access::list_accesses(self, limit).await
    }

    async fn dump(&self, out: &mut (dyn std::io::Write + Send)) -> Result<()> {
        dump::dump(self, out).await
    }

    async fn occupied(&self) -> Result<Option<String>> {
        dump::occupied(self).await
    }

    async fn load(&self, from: &mut (dyn std::io::BufRead + Send)) -> Result<()> {
        dump::load(self, from).await
    }
}
