-- The history of datasets: names for versions, and versions that are an older one again (see PostgreSQL's for the reasons).
ALTER TABLE versions ADD COLUMN published_by TEXT
    CONSTRAINT versions_published_by_bytes CHECK (octet_length(published_by) <= 255);
ALTER TABLE versions ADD COLUMN restored_number INTEGER
    CONSTRAINT versions_restored_number_positive CHECK (restored_number >= 1);

CREATE TABLE tags (
    id INTEGER CONSTRAINT tags_pkey PRIMARY KEY AUTOINCREMENT,
    dataset_id INTEGER NOT NULL CONSTRAINT tags_dataset_fkey REFERENCES datasets (id),
    name TEXT NOT NULL,
    version_id INTEGER NOT NULL CONSTRAINT tags_version_fkey REFERENCES versions (id),
    tagged_by TEXT NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT tags_dataset_name_key UNIQUE (dataset_id, name),
    CONSTRAINT tags_name_bytes CHECK (octet_length(name) BETWEEN 1 AND 64),
    CONSTRAINT tags_tagged_by_bytes CHECK (octet_length(tagged_by) <= 255)
) STRICT;
CREATE INDEX tags_version_idx ON tags (version_id);
