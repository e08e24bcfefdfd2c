#!/bin/sh
# Starts h5flight in the stack. Before the very first start it makes a token for an administrator, so that the server
# never runs open. A catalogue in which a token was ever made is left alone, revoked ones included.
set -eu

file=/var/lib/h5flight/first-admin-token
if [ "${1:-}" = serve ]; then
    tokens=$(h5flight token list --json)
    if [ "$tokens" = "[]" ]; then
        umask 077
        h5flight token create --principal admin --role admin >"$file.new"
        mv "$file.new" "$file"
        umask 022
        echo "the first administrator's token was made; read it with: docker compose exec h5flight cat $file" >&2
    fi
fi
# In place of the shell: signals reach the server itself.
exec h5flight "$@"
