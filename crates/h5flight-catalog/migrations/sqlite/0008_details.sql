-- What else a recording says of its session, subject and devices (see PostgreSQL's for the reasons).
ALTER TABLE experiments ADD COLUMN details TEXT NOT NULL DEFAULT '{}';
