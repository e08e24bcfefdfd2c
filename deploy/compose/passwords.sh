#!/bin/sh
# Makes the passwords of the stack at its first start and leaves them alone ever after. Runs as a one-shot service.
# Each of PostgreSQL, Redis and h5flight mounts a volume of its own below /secrets and sees what it needs, no more.
set -eu

postgres_admin=/secrets/postgres/admin_password
postgres_role=/secrets/postgres/h5flight_password
redis_users=/secrets/redis/users.acl
database_url=/secrets/h5flight/database_url
redis_url=/secrets/h5flight/redis_url

there=0
for file in "$postgres_admin" "$postgres_role" "$redis_users" "$database_url" "$redis_url"; do
    if [ -s "$file" ]; then there=$((there + 1)); fi
done
case "$there" in
5)
    echo "passwords: they exist"
    exit 0
    ;;
0) ;;
*)
    echo "passwords: $there of 5 files exist below /secrets; the others were lost with their volume." >&2
    echo "passwords: see docs/operations.md, \"The passwords were lost\"" >&2
    exit 1
    ;;
esac

# 192 bits, in letters that need no quoting in a URL, in SQL or in an ACL file.
password() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# Readable for each user, because the three services run as three users: the volume is the wall, not the mode.
write() {
    cat >"$1.new"
    chmod 0444 "$1.new"
    mv "$1.new" "$1"
}

role_password=$(password)
redis_password=$(password)
password | write "$postgres_admin"
printf '%s' "$role_password" | write "$postgres_role"
# h5flight may read and write its own keys; nobody may do anything else. No administration, scripts or dangerous commands.
write "$redis_users" <<ACL
user default off
user h5flight on >$redis_password ~h5f:* +@all -@admin -@dangerous -@scripting
ACL
printf 'redis://h5flight:%s@redis:6379/0' "$redis_password" | write "$redis_url"
printf 'postgres://h5flight:%s@postgres:5432/h5flight' "$role_password" | write "$database_url"
echo "passwords: made"
