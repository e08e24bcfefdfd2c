-- What JSON loses of attributes, and what the axes of a dataset mean.
--
-- attribute_types: name -> numpy type and shape, so that a client gives back an int8 where the file has one; nothing for
-- a text, which JSON has. dimensions: per axis a label and the datasets that are its scales, found when the file is
-- published, because references are paths in the file and the scales of an axis may be named by number.
--
-- Expand only: rows from before have neither, and a program that does not know the columns writes neither.
ALTER TABLE objects ADD COLUMN attribute_types JSON NOT NULL DEFAULT '{}';
ALTER TABLE objects ADD COLUMN dimensions JSON NOT NULL DEFAULT '[]';
