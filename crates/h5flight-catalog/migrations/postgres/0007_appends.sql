-- Appends; and the columns that compaction and retention need, so that they come without another migration.
--
-- extents_of: a rig appends every second, and each append is a version. If each had its own list of extents, n appends
-- would write n^2 / 2 rows: a day of seconds would be 3.7 billion. So versions that grew out of one another share one list,
-- that of the version named here (its owner); NULL is a list of its own. A version is that list cut at its own rows, so
-- an append is one row here and one in extents, whatever there was. Rejected: extents that point to the extent before (a
-- read would walk them), ranges of version numbers on each extent (a rollback needs a set of them).
-- * The list of an owner only grows at its end, and only by an append to a version that reaches its end; else the append
--   begins a list of its own, a copy. Appends follow each other by the lock of the experiment; the key (version_id,
--   ordinal) makes it impossible that two of them have one place even without it.
-- * Compaction replaces neighbours in a list by one extent of the same rows. Ordinals keep their order and may have
--   gaps; 0 is always there. All versions of the list stay right, because each is cut at its rows when it is resolved:
--   an extent may be cut within.
-- * rows of a version are exact for ever; chunks and stored_bytes are those of when it was made, or was last compacted as
--   the current one.
-- * object_id and file_id of an appended version are those of the version before it: the object that describes the
--   dataset. The object of an appended array is never current: superseded_by is its own file.
--
-- expired_at: a version that retention dropped, of which only the list is still needed by others; nobody finds it.
--
-- unused_since: since when no list names an array of this file. Its rows are deleted, and then the file, when that was
-- longer ago than the grace period: who resolved a version before reads on until then.
--
-- Expand only: a program that does not know the columns finds no appended version (it has no extents of its own), and
-- appends nothing.
ALTER TABLE versions ADD COLUMN extents_of BIGINT CONSTRAINT versions_extents_of_fkey REFERENCES versions (id);
ALTER TABLE versions ADD COLUMN expired_at TIMESTAMPTZ;
CREATE INDEX versions_extents_of_idx ON versions (extents_of) WHERE extents_of IS NOT NULL;
CREATE INDEX extents_appended_idx ON extents (version_id) WHERE ordinal > 0;
ALTER TABLE files ADD COLUMN unused_since TIMESTAMPTZ;
CREATE INDEX files_unused_since_idx ON files (unused_since) WHERE unused_since IS NOT NULL;

-- What each put of a writer made, so that its retry is answered with just that. Numbers and texts instead of keys: the
-- answer stays when compaction or retention took the version or the file away.
CREATE TABLE puts (
    dataset_id BIGINT NOT NULL CONSTRAINT puts_dataset_fkey REFERENCES datasets (id),
    writer TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    version_id BIGINT NOT NULL,
    version BIGINT NOT NULL,
    first_row BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    total_rows BIGINT NOT NULL,
    content TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT puts_pkey PRIMARY KEY (dataset_id, writer, sequence),
    CONSTRAINT puts_writer_bytes CHECK (octet_length(writer) BETWEEN 1 AND 255),
    CONSTRAINT puts_content_bytes CHECK (octet_length(content) <= 2048),
    CONSTRAINT puts_numbers_positive CHECK (
        sequence >= 0 AND version >= 1 AND first_row >= 0 AND rows >= 0 AND total_rows >= 0
    )
);
CREATE INDEX puts_version_idx ON puts (version_id);
