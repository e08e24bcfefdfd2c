-- The first shape of the catalogue: what exists, where its bytes are, who may see it, who saw it.
--
-- The same tables as for PostgreSQL (see there for the reasons); what differs is what SQLite spells differently: text
-- is compared by bytes anyway, json and times are text, keys are AUTOINCREMENT so that an id never comes back (a ticket
-- may still name it), and every table is STRICT.

CREATE TABLE animals (
    id INTEGER CONSTRAINT animals_pkey PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL CONSTRAINT animals_name_key UNIQUE,
    species TEXT,
    created_at TEXT NOT NULL,
    CONSTRAINT animals_name_bytes CHECK (octet_length(name) BETWEEN 1 AND 255),
    CONSTRAINT animals_species_bytes CHECK (octet_length(species) <= 1024)
) STRICT;

CREATE TABLE experiments (
    id INTEGER CONSTRAINT experiments_pkey PRIMARY KEY AUTOINCREMENT,
    animal_id INTEGER NOT NULL CONSTRAINT experiments_animal_fkey REFERENCES animals (id),
    name TEXT NOT NULL,
    identifier TEXT,
    session_id TEXT,
    start_time TEXT,
    nwb_version TEXT,
    species TEXT,
    -- The facts in lower case, for search.
    search_text TEXT NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT experiments_animal_name_key UNIQUE (animal_id, name),
    CONSTRAINT experiments_name_bytes CHECK (octet_length(name) BETWEEN 1 AND 255),
    CONSTRAINT experiments_identifier_bytes CHECK (octet_length(identifier) <= 1024),
    CONSTRAINT experiments_session_id_bytes CHECK (octet_length(session_id) <= 1024),
    CONSTRAINT experiments_start_time_bytes CHECK (octet_length(start_time) <= 1024),
    CONSTRAINT experiments_nwb_version_bytes CHECK (octet_length(nwb_version) <= 1024),
    CONSTRAINT experiments_species_bytes CHECK (octet_length(species) <= 1024),
    CONSTRAINT experiments_search_text_bytes CHECK (octet_length(search_text) <= 65536)
) STRICT;

-- One row per indexed state of a file. The newest generation of a place is the current one. Moving a disk is
-- UPDATE files SET root = 'new' WHERE root = 'old'. For managed files root is empty and path is the content's blake3.
CREATE TABLE files (
    id INTEGER CONSTRAINT files_pkey PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    root TEXT NOT NULL,
    path TEXT NOT NULL,
    generation INTEGER NOT NULL,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    source_name TEXT NOT NULL,
    -- blake3 over all names of the publication: the same file under the same names is not published twice.
    names_digest BLOB NOT NULL,
    datasets INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    published_by TEXT NOT NULL,
    quarantine_reason TEXT,
    quarantine_message TEXT,
    created_at TEXT NOT NULL,
    CONSTRAINT files_place_generation_key UNIQUE (kind, root, path, generation),
    CONSTRAINT files_kind_known CHECK (kind IN ('registered', 'managed')),
    CONSTRAINT files_root_bytes CHECK (octet_length(root) <= 255),
    CONSTRAINT files_path_bytes CHECK (octet_length(path) BETWEEN 1 AND 2048),
    CONSTRAINT files_generation_positive CHECK (generation >= 1),
    CONSTRAINT files_bytes_positive CHECK (bytes >= 0),
    CONSTRAINT files_source_name_bytes CHECK (octet_length(source_name) <= 1024),
    CONSTRAINT files_names_digest_bytes CHECK (octet_length(names_digest) = 32),
    CONSTRAINT files_published_by_bytes CHECK (octet_length(published_by) <= 255),
    CONSTRAINT files_quarantine_whole CHECK ((quarantine_reason IS NULL) = (quarantine_message IS NULL)),
    CONSTRAINT files_quarantine_reason_bytes CHECK (octet_length(quarantine_reason) <= 255),
    CONSTRAINT files_quarantine_message_bytes CHECK (octet_length(quarantine_message) <= 4096)
) STRICT;
CREATE INDEX files_source_name_idx ON files (source_name) WHERE kind = 'managed';

-- Every group, dataset and named type of a file, with its attributes. superseded_by is the publication that took its
-- place; NULL is current.
CREATE TABLE objects (
    id INTEGER CONSTRAINT objects_pkey PRIMARY KEY AUTOINCREMENT,
    file_id INTEGER NOT NULL CONSTRAINT objects_file_fkey REFERENCES files (id),
    -- Place within the publication, by which its id is found again after a batch was sent.
    position INTEGER NOT NULL,
    experiment_id INTEGER NOT NULL CONSTRAINT objects_experiment_fkey REFERENCES experiments (id),
    name TEXT NOT NULL,
    -- Name of the group it is in; NULL for the experiment's root.
    parent TEXT,
    hdf5_path TEXT NOT NULL,
    kind TEXT NOT NULL,
    attributes TEXT NOT NULL,
    -- Names and attribute texts in lower case, for search.
    search_text TEXT NOT NULL,
    superseded_by INTEGER CONSTRAINT objects_superseded_by_fkey REFERENCES files (id),
    CONSTRAINT objects_file_position_key UNIQUE (file_id, position),
    CONSTRAINT objects_kind_known CHECK (kind IN ('group', 'dataset', 'named_type')),
    CONSTRAINT objects_name_bytes CHECK (octet_length(name) <= 2048),
    CONSTRAINT objects_hdf5_path_bytes CHECK (octet_length(hdf5_path) BETWEEN 1 AND 4096),
    CONSTRAINT objects_search_text_bytes CHECK (octet_length(search_text) <= 65536)
) STRICT;
CREATE INDEX objects_current_name_idx ON objects (experiment_id, name) WHERE superseded_by IS NULL;
CREATE INDEX objects_current_parent_idx ON objects (experiment_id, parent) WHERE superseded_by IS NULL;
CREATE INDEX objects_superseded_by_idx ON objects (superseded_by) WHERE superseded_by IS NOT NULL;

-- One HDF5 dataset object of one file. identity is part of every cache key: the same bytes have the same one.
CREATE TABLE arrays (
    id INTEGER CONSTRAINT arrays_pkey PRIMARY KEY AUTOINCREMENT,
    object_id INTEGER NOT NULL CONSTRAINT arrays_object_fkey REFERENCES objects (id),
    file_id INTEGER NOT NULL CONSTRAINT arrays_file_fkey REFERENCES files (id),
    identity BLOB NOT NULL,
    hdf5_path TEXT NOT NULL,
    meta TEXT NOT NULL,
    rows INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    inline_data BLOB,
    problem_reason TEXT,
    problem_message TEXT,
    CONSTRAINT arrays_object_key UNIQUE (object_id),
    CONSTRAINT arrays_identity_bytes CHECK (octet_length(identity) = 16),
    CONSTRAINT arrays_hdf5_path_bytes CHECK (octet_length(hdf5_path) BETWEEN 1 AND 4096),
    CONSTRAINT arrays_numbers_positive CHECK (rows >= 0 AND chunks >= 0 AND stored_bytes >= 0),
    CONSTRAINT arrays_problem_whole CHECK ((problem_reason IS NULL) = (problem_message IS NULL)),
    CONSTRAINT arrays_problem_reason_bytes CHECK (octet_length(problem_reason) <= 255),
    CONSTRAINT arrays_problem_message_bytes CHECK (octet_length(problem_message) <= 4096)
) STRICT;
CREATE INDEX arrays_identity_idx ON arrays (identity);
CREATE INDEX arrays_file_idx ON arrays (file_id);

-- Up to 4,096 chunk pointers a row, packed. A pointer is found by first_number <= n <= last_number; the service's
-- own code unpacks (ChunkRun::unpack_into), SQL does not.
CREATE TABLE chunk_runs (
    array_id INTEGER NOT NULL CONSTRAINT chunk_runs_array_fkey REFERENCES arrays (id),
    run INTEGER NOT NULL,
    first_number INTEGER NOT NULL,
    last_number INTEGER NOT NULL,
    pointers INTEGER NOT NULL,
    packed BLOB NOT NULL,
    CONSTRAINT chunk_runs_pkey PRIMARY KEY (array_id, run),
    CONSTRAINT chunk_runs_numbers_ordered CHECK (0 <= first_number AND first_number <= last_number),
    CONSTRAINT chunk_runs_pointers_bounded CHECK (pointers BETWEEN 1 AND 4096),
    CONSTRAINT chunk_runs_packed_bytes CHECK (octet_length(packed) <= 100000)
) STRICT;

-- What people ask by. withdrawn_by is the publication after which it was no longer in its file; NULL is listed.
CREATE TABLE datasets (
    id INTEGER CONSTRAINT datasets_pkey PRIMARY KEY AUTOINCREMENT,
    experiment_id INTEGER NOT NULL CONSTRAINT datasets_experiment_fkey REFERENCES experiments (id),
    name TEXT NOT NULL,
    -- NULL only within the transaction that makes the dataset.
    current_version_id INTEGER CONSTRAINT datasets_current_version_fkey REFERENCES versions (id),
    withdrawn_by INTEGER CONSTRAINT datasets_withdrawn_by_fkey REFERENCES files (id),
    created_at TEXT NOT NULL,
    CONSTRAINT datasets_experiment_name_key UNIQUE (experiment_id, name),
    CONSTRAINT datasets_name_bytes CHECK (octet_length(name) BETWEEN 1 AND 2048)
) STRICT;
CREATE INDEX datasets_current_version_idx ON datasets (current_version_id);
CREATE INDEX datasets_withdrawn_by_idx ON datasets (withdrawn_by) WHERE withdrawn_by IS NOT NULL;

-- An immutable state of a dataset. rows, chunks and stored_bytes are the sums over its extents.
CREATE TABLE versions (
    id INTEGER CONSTRAINT versions_pkey PRIMARY KEY AUTOINCREMENT,
    dataset_id INTEGER NOT NULL CONSTRAINT versions_dataset_fkey REFERENCES datasets (id),
    number INTEGER NOT NULL,
    file_id INTEGER NOT NULL CONSTRAINT versions_file_fkey REFERENCES files (id),
    object_id INTEGER NOT NULL CONSTRAINT versions_object_fkey REFERENCES objects (id),
    rows INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT versions_dataset_number_key UNIQUE (dataset_id, number),
    CONSTRAINT versions_number_positive CHECK (number >= 1)
) STRICT;
CREATE INDEX versions_file_idx ON versions (file_id);
CREATE INDEX versions_object_idx ON versions (object_id);

-- A version is its extents in order: row ranges of arrays, one after the other.
CREATE TABLE extents (
    version_id INTEGER NOT NULL CONSTRAINT extents_version_fkey REFERENCES versions (id),
    ordinal INTEGER NOT NULL,
    array_id INTEGER NOT NULL CONSTRAINT extents_array_fkey REFERENCES arrays (id),
    first_row INTEGER NOT NULL,
    array_row INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    CONSTRAINT extents_pkey PRIMARY KEY (version_id, ordinal),
    CONSTRAINT extents_numbers_positive CHECK (ordinal >= 0 AND first_row >= 0 AND array_row >= 0 AND rows >= 0)
) STRICT;
CREATE INDEX extents_array_idx ON extents (array_id);

-- Other names of objects; external and user-defined ones are listed to be refused by name.
CREATE TABLE links (
    id INTEGER CONSTRAINT links_pkey PRIMARY KEY AUTOINCREMENT,
    file_id INTEGER NOT NULL CONSTRAINT links_file_fkey REFERENCES files (id),
    experiment_id INTEGER NOT NULL CONSTRAINT links_experiment_fkey REFERENCES experiments (id),
    path TEXT NOT NULL,
    parent TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    superseded_by INTEGER CONSTRAINT links_superseded_by_fkey REFERENCES files (id),
    CONSTRAINT links_file_experiment_path_key UNIQUE (file_id, experiment_id, path),
    CONSTRAINT links_kind_known CHECK (kind IN ('hard', 'soft', 'external', 'user')),
    CONSTRAINT links_path_bytes CHECK (octet_length(path) BETWEEN 1 AND 2048),
    CONSTRAINT links_target_bytes CHECK (octet_length(target) <= 2048)
) STRICT;
CREATE INDEX links_current_path_idx ON links (experiment_id, path) WHERE superseded_by IS NULL;
CREATE INDEX links_current_parent_idx ON links (experiment_id, parent) WHERE superseded_by IS NULL;
CREATE INDEX links_current_target_idx ON links (experiment_id, target) WHERE superseded_by IS NULL;
CREATE INDEX links_superseded_by_idx ON links (superseded_by) WHERE superseded_by IS NOT NULL;

-- Idempotency keys of uploads, and what they made.
CREATE TABLE ingests (
    key TEXT NOT NULL CONSTRAINT ingests_pkey PRIMARY KEY,
    file_id INTEGER NOT NULL CONSTRAINT ingests_file_fkey REFERENCES files (id),
    created_at TEXT NOT NULL,
    CONSTRAINT ingests_key_bytes CHECK (octet_length(key) BETWEEN 1 AND 255)
) STRICT;

CREATE TABLE principals (
    id INTEGER CONSTRAINT principals_pkey PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL CONSTRAINT principals_name_key UNIQUE,
    created_at TEXT NOT NULL,
    CONSTRAINT principals_name_bytes CHECK (octet_length(name) BETWEEN 1 AND 255)
) STRICT;

-- hash is blake3 of the whole token text: 256 random bits need no slow hash.
CREATE TABLE tokens (
    id INTEGER CONSTRAINT tokens_pkey PRIMARY KEY AUTOINCREMENT,
    principal_id INTEGER NOT NULL CONSTRAINT tokens_principal_fkey REFERENCES principals (id),
    prefix TEXT NOT NULL CONSTRAINT tokens_prefix_key UNIQUE,
    hash BLOB NOT NULL,
    role TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT,
    revoked_at TEXT,
    CONSTRAINT tokens_prefix_bytes CHECK (octet_length(prefix) = 8),
    CONSTRAINT tokens_hash_bytes CHECK (octet_length(hash) = 32),
    CONSTRAINT tokens_role_known CHECK (role IN ('read', 'ingest', 'admin'))
) STRICT;

CREATE TABLE access_log (
    id INTEGER CONSTRAINT access_log_pkey PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    principal TEXT NOT NULL,
    call TEXT NOT NULL,
    path TEXT NOT NULL,
    selection TEXT NOT NULL,
    outcome TEXT NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    tier TEXT NOT NULL,
    millis REAL NOT NULL,
    CONSTRAINT access_log_texts_bytes CHECK (
        octet_length(principal) <= 255 AND octet_length(call) <= 255 AND octet_length(path) <= 4096
        AND octet_length(selection) <= 4096 AND octet_length(outcome) <= 255 AND octet_length(tier) <= 255
    )
) STRICT;

-- Secrets that all servers of this catalogue share, made by whichever comes first.
CREATE TABLE secrets (
    name TEXT NOT NULL CONSTRAINT secrets_pkey PRIMARY KEY,
    value BLOB NOT NULL,
    created_at TEXT NOT NULL,
    CONSTRAINT secrets_name_bytes CHECK (octet_length(name) BETWEEN 1 AND 255),
    CONSTRAINT secrets_value_bytes CHECK (octet_length(value) = 32)
) STRICT;

-- For the person at the sqlite3 prompt: how the chunks of each array are stored. The pointers themselves are packed.
CREATE VIEW chunk_runs_summary AS
SELECT f.root, f.path, f.generation, a.hdf5_path, a.id AS array_id, count(*) AS runs, sum(r.pointers) AS pointers,
       min(r.first_number) AS first_number, max(r.last_number) AS last_number,
       sum(octet_length(r.packed)) AS packed_bytes, a.stored_bytes
FROM chunk_runs r
JOIN arrays a ON a.id = r.array_id
JOIN files f ON f.id = a.file_id
GROUP BY f.root, f.path, f.generation, a.hdf5_path, a.id, a.stored_bytes;
