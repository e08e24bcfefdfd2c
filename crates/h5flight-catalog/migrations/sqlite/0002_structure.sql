-- What JSON loses of attributes, and what the axes of a dataset mean (see PostgreSQL's for the reasons).
ALTER TABLE objects ADD COLUMN attribute_types TEXT NOT NULL DEFAULT '{}';
ALTER TABLE objects ADD COLUMN dimensions TEXT NOT NULL DEFAULT '[]';
