#!/bin/sh
# Makes a backup at the start and then every BACKUP_HOURS hours. One that fails is told and tried again the next time;
# one that is cut off leaves the earlier ones whole.
set -u

# The shell answers a stop at once only while it waits for a child in the background.
trap 'exit 0' TERM INT
while :; do
    h5flight backup create /backups &
    wait $! || echo "the backup failed; the next try is in ${BACKUP_HOURS:-24} h" >&2
    sleep "$((${BACKUP_HOURS:-24} * 3600))" &
    wait $!
done
