-- Appends; and the columns that compaction and retention need (see PostgreSQL's for the reasons).
ALTER TABLE versions ADD COLUMN extents_of INTEGER CONSTRAINT versions_extents_of_fkey REFERENCES versions (id);
ALTER TABLE versions ADD COLUMN expired_at TEXT;
CREATE INDEX versions_extents_of_idx ON versions (extents_of) WHERE extents_of IS NOT NULL;
CREATE INDEX extents_appended_idx ON extents (version_id) WHERE ordinal > 0;
ALTER TABLE files ADD COLUMN unused_since TEXT;
CREATE INDEX files_unused_since_idx ON files (unused_since) WHERE unused_since IS NOT NULL;

CREATE TABLE puts (
    dataset_id INTEGER NOT NULL CONSTRAINT puts_dataset_fkey REFERENCES datasets (id),
    writer TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    version_id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    first_row INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    total_rows INTEGER NOT NULL,
    content TEXT NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT puts_pkey PRIMARY KEY (dataset_id, writer, sequence),
    CONSTRAINT puts_writer_bytes CHECK (octet_length(writer) BETWEEN 1 AND 255),
    CONSTRAINT puts_content_bytes CHECK (octet_length(content) <= 2048),
    CONSTRAINT puts_numbers_positive CHECK (
        sequence >= 0 AND version >= 1 AND first_row >= 0 AND rows >= 0 AND total_rows >= 0
    )
) STRICT;
CREATE INDEX puts_version_idx ON puts (version_id);
