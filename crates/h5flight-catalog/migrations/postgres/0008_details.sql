-- What else a recording says of its session, subject and devices, by the names of a search: texts, lists of texts, and
-- numbers of rows. One value and no column each: there are dozens, files that are not NWB have none of them, and an
-- experiment is looked at as a whole.
--
-- Expand only: a program that does not know the column leaves it as it is.
ALTER TABLE experiments ADD COLUMN details JSON NOT NULL DEFAULT '{}';
