#!/usr/bin/env bash
# Starts docker-compose.yml for real, in a project of its own, and checks what docs/operations.md says of it: first start,
# tokens, confinement, restarts, TLS, monitoring, and that nothing stays behind. Takes minutes; not part of `make test`.
#
#   scripts/compose-test.sh                       builds the image from this repository first
#   H5FLIGHT_IMAGE=NAME scripts/compose-test.sh   takes an image that exists
#
# Needs Docker with Compose (v2 or 1.29), openssl, and the Python environment of `make setup` ($PYTHON names another).
set -euo pipefail
cd "$(dirname "$0")/.."

image=${H5FLIGHT_IMAGE:-}
python=${PYTHON:-.venv/bin/python}
project=h5flight-test-$$
token_file=/var/lib/h5flight/first-admin-token
if docker compose version >/dev/null 2>&1; then tool=(docker compose); else tool=(docker-compose); fi
# The settings of this test, not those of the caller or of an .env beside the compose file.
for name in "${!H5FLIGHT_@}" "${!REDIS_@}" "${!PROMETHEUS_@}"; do unset "$name"; done

work=$(mktemp -d)
files=(--file docker-compose.yml)
# Without standard input: some versions of Compose read it even for `exec -T`, which stops a job in the background.
compose() {
    "${tool[@]}" --env-file "$work/env" --project-name "$project" --profile monitoring "${files[@]}" "$@" </dev/null
}
cli() { compose exec -T -e "H5FLIGHT_TOKEN_FILE=$token_file" h5flight h5flight "$@"; }
container() { compose ps --quiet "$1"; }
inspect() { docker inspect --format "$2" "$(container "$1")"; }
ok() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
fail() {
    echo "compose-test: $*" >&2
    exit 1
}

finish() {
    local code=$?
    trap - EXIT
    if [ "$code" != 0 ]; then
        compose ps || true
        compose logs --tail=40 || true
    fi
    compose down --volumes --remove-orphans >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$code"
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "waited in vain: $what"
        sleep 1
    done
    ok "$what"
}

healthy() { [ "$(inspect "$1" '{{.State.Health.Status}}')" = healthy ]; }
# Output is taken whole before it is searched: a `grep -q` that ends early would make the writer fail.
says() { grep -qF -e "$1" <<<"$2"; }
redis_is() { says "\"redis\": \"$1\"" "$(cli info --json)"; }
exposed() { docker port "$(container "$1")"; }

# must_fail SENTENCE COMMAND...
must_fail() {
    local what=$1
    shift
    if "$@" >"$work/output" 2>&1; then fail "this must not work: $what"; fi
    ok "refused: $what ($(tail -n 1 "$work/output" | cut -c 1-120))"
}

free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

write_recordings() {
    "$python" - "$work/recordings" <<'PY'
import sys, h5py, numpy
rng = numpy.random.default_rng(7)
for day in ("day1", "day2"):
    with h5py.File(f"{sys.argv[1]}/sub-001_ses-{day}.h5", "w") as file:
        traces = rng.normal(size=(20_000, 32)).astype("f4")
        file.create_dataset("ecephys/traces", data=traces, chunks=(2_000, 8), compression="gzip", shuffle=True)
        file["ecephys/labels"] = numpy.array([f"channel {n}" for n in range(32)], dtype=h5py.string_dtype())
PY
    # Readable for the group of H5FLIGHT_DATA_GID only, as a careful laboratory has it.
    chgrp -R "$1" "$work/recordings"
    chmod 0750 "$work/recordings"
    chmod 0640 "$work/recordings"/*
}

# read_slice URL TOKEN DAY: through the published port with nothing but pyarrow; the values must be h5py's.
read_slice() {
    "$python" - "$1" "$2" "$3" "$work" <<'PY'
import sys, h5py, numpy, pyarrow.flight as flight
url, token, day, work = sys.argv[1:]
tls = {"tls_root_certs": open(f"{work}/tls/server.crt", "rb").read()} if url.startswith("grpc+tls") else {}
headers = [(b"authorization", b"Bearer " + token.encode())] if token else []
client, options = flight.connect(url, **tls), flight.FlightCallOptions(timeout=20, headers=headers)
path = flight.FlightDescriptor.for_path("001", day, "ecephys", "traces")
info = client.get_flight_info(path, options)
table = client.do_get(info.endpoints[0].ticket, options).read_all()
with h5py.File(f"{work}/recordings/sub-001_ses-{day}.h5") as file:
    expected = file["ecephys/traces"][:]
got = numpy.stack([column.to_numpy() for column in table.columns], axis=1)
assert got.dtype == expected.dtype and (got == expected).all(), "the values differ from h5py's"
PY
}

start() {
    mkdir -p "$work/recordings" "$work/tls"
    # Any group but our own, so that it is the supplementary group of the container that makes the files readable.
    local group=54321
    write_recordings "$group"
    port=$(free_port)
    prometheus_port=$(free_port)
    url=grpc://127.0.0.1:$port
    cat >"$work/env" <<ENV
H5FLIGHT_IMAGE=${image:-h5flight:compose-test}
H5FLIGHT_DATA=$work/recordings
H5FLIGHT_DATA_GID=$group
H5FLIGHT_PORT=$port
PROMETHEUS_PORT=$prometheus_port
ENV
    compose config --quiet
    if [ -z "$image" ]; then compose build; fi
    compose up --detach
    wait_for 180 'h5flight is healthy' healthy h5flight
    healthy postgres || fail 'PostgreSQL is not healthy'
    healthy redis || fail 'Redis is not healthy'
    token=$(compose exec -T h5flight cat "$token_file" | tr -d '\r\n')
    [ -n "$token" ] || fail "there is no token in $token_file"
    ok "first token: ${token:0:8}..."
}

check_reading() {
    must_fail 'a read without a token' read_slice "$url" '' day1
    must_fail 'a read with a wrong token' read_slice "$url" h5f_00000000_wrong day1
    cli register lab:sub-001_ses-day1.h5
    read_slice "$url" "$token" day1
    ok 'registered below the read-only root; a read through the published port is what h5py reads'
    cli ingest /data/sub-001_ses-day2.h5
    read_slice "$url" "$token" day2
    ok 'uploaded into the data folder; a read of it too'
    wait_for 10 'h5flight uses Redis' redis_is up
}

check_confinement() {
    local status
    status=$(compose exec -T h5flight cat /proc/1/status)
    for line in 'Uid:.10001' 'CapEff:.0000000000000000' 'CapBnd:.0000000000000000' 'NoNewPrivs:.1' 'Seccomp:.2'; do
        grep -q "^$line" <<<"$status" || fail "the server's process is not as it should be: $line"
    done
    ok 'the server is user 10001, without capabilities, cannot gain rights, under seccomp'
    for service in h5flight postgres redis prometheus; do
        must_fail "$service writes to its root" compose exec -T "$service" touch /etc/written
    done
    must_fail 'h5flight writes to the recordings' compose exec -T h5flight touch /data/written
    must_fail 'Redis without a password' compose exec -T redis redis-cli -e get h5f:x
    [ "$(inspect h5flight '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}')" = '4294967296 512' ] || fail 'limits'
    [ -z "$(exposed postgres)$(exposed redis)" ] || fail 'PostgreSQL or Redis is published'
    [ "$(exposed h5flight)" = "8815/tcp -> 127.0.0.1:$port" ] || fail "published: $(exposed h5flight)"
    ok 'only gRPC is published, on 127.0.0.1'
    local secret settings log
    secret=$(compose exec -T postgres cat /secrets/h5flight_password)
    settings=$(docker inspect $(compose ps --all --quiet))
    log=$(compose logs 2>&1)
    if says "$secret" "$settings"; then fail 'a password is in the settings of a container'; fi
    if says "$secret" "$log" || says "$token" "$log"; then fail 'a secret is in a log'; fi
    ok 'no secret in settings or logs'
    log=$(grep -o 'worker_sandbox=.*' <<<"$log")
    ok "workers: ${log%%$'\n'*}"
}

check_restarts() {
    compose restart postgres >/dev/null 2>&1
    wait_for 90 'PostgreSQL restarted: reads work' read_slice "$url" "$token" day1
    wait_for 60 'and h5flight is healthy' healthy h5flight
    compose kill redis >/dev/null 2>&1
    read_slice "$url" "$token" day1
    ok 'Redis killed: reads work'
    wait_for 30 'Redis is noticed to be away' redis_is down
    compose restart h5flight >/dev/null 2>&1
    wait_for 60 'h5flight starts without Redis' healthy h5flight
    read_slice "$url" "$token" day1
    ok 'and reads, with nothing in memory'
    compose start redis >/dev/null 2>&1
    wait_for 60 'Redis is back' redis_is up
    compose stop h5flight >/dev/null 2>&1
    local code
    code=$(docker inspect --format '{{.State.ExitCode}}' "$stopped")
    [ "$code" = 0 ] || fail "a stopped server ends with exit code $code"
    compose start h5flight >/dev/null 2>&1
    wait_for 60 'h5flight stopped with exit code 0, started again' healthy h5flight
    [ "$(cli token list --json | grep -o '"prefix"' | wc -l)" = 1 ] || fail 'a second first token was made'
    read_slice "$url" "$token" day1
    compose restart h5flight >/dev/null 2>&1
    wait_for 60 'restarted once more' healthy h5flight
    read_slice "$url" "$token" day1
    [[ $(compose logs h5flight 2>&1 | grep 'call="DoGet"' | tail -n 1) == *'tier="redis"'* ]] || fail 'a read did not come from Redis'
    ok 'a read came out of Redis'
}

check_monitoring() {
    local query="http://127.0.0.1:$prometheus_port/api/v1/query?query=h5flight_calls_total"
    local script='import sys, urllib.request; sys.exit("h5flight_calls_total" not in urllib.request.urlopen(sys.argv[1]).read().decode())'
    read_slice "$url" "$token" day1
    wait_for 90 'Prometheus is healthy' healthy prometheus
    wait_for 60 'Prometheus has the metrics' "$python" -c "$script" "$query"
}

check_down_and_up() {
    compose down >/dev/null 2>&1
    compose up --detach >/dev/null 2>&1
    wait_for 120 'down and up again' healthy h5flight
    read_slice "$url" "$token" day1
    read_slice "$url" "$token" day2
    ok 'catalogue, uploads and token are still there'
}

# The override of docs/operations.md, "TLS".
check_tls() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=h5flight \
        -addext subjectAltName=IP:127.0.0.1,DNS:localhost -addext basicConstraints=critical,CA:FALSE \
        -keyout "$work/tls/server.key" -out "$work/tls/server.crt" 2>/dev/null
    chmod 0644 "$work/tls/server.key"
    cat >"$work/tls.yml" <<YAML
services:
  h5flight:
    environment:
      H5FLIGHT_TLS_CERTIFICATE: /tls/server.crt
      H5FLIGHT_TLS_KEY: /tls/server.key
    volumes:
      - $work/tls:/tls:ro
YAML
    files+=(--file "$work/tls.yml")
    compose up --detach >/dev/null 2>&1
    wait_for 120 'with TLS: healthy' healthy h5flight
    read_slice "grpc+tls://127.0.0.1:$port" "$token" day1
    ok 'a read over TLS'
    must_fail 'a read without TLS' read_slice "$url" "$token" day1
}

check_nothing_stays() {
    compose down >/dev/null 2>&1
    [ -z "$(left ps --all)" ] || fail 'containers stay after down'
    [ -z "$(left network ls)" ] || fail 'networks stay after down'
    [ "$(left volume ls | wc -l)" = 6 ] || fail 'the named volumes must stay after down'
    compose down --volumes >/dev/null 2>&1
    [ -z "$(left volume ls)" ] || fail 'volumes stay after down --volumes'
    [ "$(docker volume ls --quiet | sort)" = "$volumes_before" ] || fail 'nameless volumes stay'
    ok 'down keeps the six volumes and nothing else; down --volumes keeps nothing'
}
left() { docker "$@" --quiet --filter "label=com.docker.compose.project=$project"; }

volumes_before=$(docker volume ls --quiet | sort)
trap finish EXIT
start
stopped=$(container h5flight)
check_reading
check_confinement
check_restarts
check_monitoring
check_down_and_up
check_tls
check_nothing_stays
ok 'done'
