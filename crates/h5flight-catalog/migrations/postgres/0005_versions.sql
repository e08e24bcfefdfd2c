-- The history of datasets: names for versions, and versions that are an older one again.
--
-- published_by: who made a version that no file brought; NULL is whoever published its file. restored_number: the
-- version of the same dataset whose extents it has; NULL for those of a file.
--
-- Expand only: a program that does not know the columns leaves them NULL, and knows no tags.
ALTER TABLE versions ADD COLUMN published_by TEXT
    CONSTRAINT versions_published_by_bytes CHECK (octet_length(published_by) <= 255);
ALTER TABLE versions ADD COLUMN restored_number BIGINT
    CONSTRAINT versions_restored_number_positive CHECK (restored_number >= 1);

-- The version is one of the dataset's own. A tag moves only when that is asked for.
CREATE TABLE tags (
    id BIGINT GENERATED ALWAYS AS IDENTITY CONSTRAINT tags_pkey PRIMARY KEY,
    dataset_id BIGINT NOT NULL CONSTRAINT tags_dataset_fkey REFERENCES datasets (id),
    name TEXT COLLATE "C" NOT NULL,
    version_id BIGINT NOT NULL CONSTRAINT tags_version_fkey REFERENCES versions (id),
    tagged_by TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT tags_dataset_name_key UNIQUE (dataset_id, name),
    CONSTRAINT tags_name_bytes CHECK (octet_length(name) BETWEEN 1 AND 64),
    CONSTRAINT tags_tagged_by_bytes CHECK (octet_length(tagged_by) <= 255)
);
CREATE INDEX tags_version_idx ON tags (version_id);
