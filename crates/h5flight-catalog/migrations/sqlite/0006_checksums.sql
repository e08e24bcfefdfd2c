-- The checksum of each chunk (see PostgreSQL's for the reasons).
ALTER TABLE chunk_runs ADD COLUMN checksums BLOB
    CONSTRAINT chunk_runs_checksums_bytes CHECK (octet_length(checksums) = 8 * pointers);
