-- Run by the postgres image when it makes its database. h5flight owns one database and is no superuser: what can run
-- programs or read files of the database server is not within its reach.
\set password `cat /secrets/h5flight_password`
CREATE ROLE h5flight LOGIN PASSWORD :'password';
CREATE DATABASE h5flight OWNER h5flight;
REVOKE CONNECT ON DATABASE h5flight FROM PUBLIC;
