//! Every metric's name, unit and meaning, and nothing else. The help texts are what /metrics prints.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// From half a millisecond to half a minute.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// A recorder of its own, so that several servers may run in one process; installed globally for the first of them.
pub fn install() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .expect("the buckets are not empty")
        .build_recorder();
    let handle = recorder.handle();
    // A second server in the same process keeps the first one's recorder: its own page then stays empty.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    handle
}

fn describe() {
    describe_counter!("h5flight_calls_total", "Calls by method and outcome (ok or the stable reason).");
    describe_histogram!("h5flight_call_seconds", Unit::Seconds, "Duration of calls, to the last byte of a stream.");
    describe_counter!("h5flight_sent_bytes_total", Unit::Bytes, "Bytes of batches as they were sent.");
    describe_counter!("h5flight_sent_rows_total", "Rows sent in batches.");
    describe_counter!(
        "h5flight_blocks_total",
        "Blocks by where they came from: memory, redis, file, worker, inline, fill."
    );
    describe_counter!("h5flight_decoded_bytes_total", Unit::Bytes, "Bytes that decoding produced.");
    describe_counter!("h5flight_stored_bytes_total", Unit::Bytes, "Bytes read from files.");
    describe_counter!("h5flight_cache_requests_total", "Cache look-ups by tier and result: hit, miss, error, corrupt.");
    describe_counter!("h5flight_cache_bytes_total", Unit::Bytes, "Bytes moved to and from a cache tier.");
    describe_gauge!("h5flight_cache_size_bytes", Unit::Bytes, "Bytes held by a cache tier.");
    describe_gauge!("h5flight_redis_up", "1 when Redis answers, 0 when its breaker is open.");
    describe_gauge!("h5flight_reads", "Reads under way.");
    describe_gauge!("h5flight_read_memory_bytes", Unit::Bytes, "Memory that reads under way have reserved.");
    describe_gauge!("h5flight_blocking_queue", "Pieces of work that wait for a blocking thread.");
    describe_counter!("h5flight_worker_runs_total", "Worker processes by outcome: ok or failed.");
    describe_histogram!("h5flight_worker_seconds", Unit::Seconds, "Duration of worker processes.");
    describe_counter!(
        "h5flight_access_log_dropped_total",
        "Access log entries dropped because the catalogue was away."
    );
}

/// A call ended.
pub fn call(method: &'static str, outcome: &'static str, took: Duration) {
    counter!("h5flight_calls_total", "method" => method, "outcome" => outcome).increment(1);
    histogram!("h5flight_call_seconds", "method" => method).record(took.as_secs_f64());
}

/// A batch was handed to its stream.
pub fn sent(rows: u64, bytes: u64) {
    counter!("h5flight_sent_rows_total").increment(rows);
    counter!("h5flight_sent_bytes_total").increment(bytes);
}

/// Blocks came from this tier.
pub fn blocks(tier: &'static str, count: u64) {
    counter!("h5flight_blocks_total", "tier" => tier).increment(count);
}

/// A file was read and decoded.
pub fn decoded(stored_bytes: u64, decoded_bytes: u64) {
    counter!("h5flight_stored_bytes_total").increment(stored_bytes);
    counter!("h5flight_decoded_bytes_total").increment(decoded_bytes);
}

/// A cache tier was asked.
pub fn cache(tier: &'static str, result: &'static str, bytes: u64) {
    counter!("h5flight_cache_requests_total", "tier" => tier, "result" => result).increment(1);
    counter!("h5flight_cache_bytes_total", "tier" => tier).increment(bytes);
}

/// What a cache tier holds.
pub fn cache_size(tier: &'static str, bytes: u64) {
    gauge!("h5flight_cache_size_bytes", "tier" => tier).set(bytes as f64);
}

/// Whether Redis answers.
pub fn redis_up(up: bool) {
    gauge!("h5flight_redis_up").set(f64::from(u8::from(up)));
}

/// A read began (1) or ended (-1).
pub fn reads(change: i32) {
    gauge!("h5flight_reads").increment(f64::from(change));
}

/// Memory reserved by reads.
pub fn read_memory(bytes: u64) {
    gauge!("h5flight_read_memory_bytes").set(bytes as f64);
}

/// Work began (1) or ceased (-1) to wait for a blocking thread.
pub fn blocking_queue(change: i32) {
    gauge!("h5flight_blocking_queue").increment(f64::from(change));
}

/// A worker process ended.
pub fn worker_run(ok: bool, took: Duration) {
    counter!("h5flight_worker_runs_total", "outcome" => if ok { "ok" } else { "failed" }).increment(1);
    histogram!("h5flight_worker_seconds").record(took.as_secs_f64());
}

/// Access log entries were lost.
pub fn access_log_dropped(entries: u64) {
    counter!("h5flight_access_log_dropped_total").increment(entries);
}
