-- The checksum (XXH3-64) of the stored bytes of each chunk of a run, 8 bytes each, little-endian, in the order of its
-- pointers: by it a read, or a verification, tells a bit that a disk lost. NULL is not known: rows from before, and
-- registered files until their first deep verification.
--
-- Expand only: a program that does not know the column writes NULL.
ALTER TABLE chunk_runs ADD COLUMN checksums BYTEA
    CONSTRAINT chunk_runs_checksums_bytes CHECK (octet_length(checksums) = 8 * pointers);
