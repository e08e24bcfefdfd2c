//! Where settings come from, which source wins, and every refusal.

use std::collections::HashMap;

use clap::Parser;
use h5flight_server::config::{LogFormat, Root};

use super::*;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    flags: ServerFlags,
}

/// Settings from flags, variables and the text of a file.
fn load(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Loaded, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h5flight.toml");
    let mut arguments = vec!["serve".to_owned()];
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
        arguments.extend(["--config".to_owned(), path.display().to_string()]);
    }
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let environment =
        |name: &str| variables.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
    CommandLine::try_parse_from(arguments).unwrap().flags.load(&environment)
}

fn refusal(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> String {
    match load(flags, variables, file) {
        Err(Failure::Usage(message)) => message,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

#[test]
fn without_any_source_the_settings_are_the_defaults() {
    assert_eq!(load(&[], &[], None).unwrap(), Loaded { config: Config::default(), log: "info".into() });
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = Some("memory_bytes = \"1MiB\"\nredis_ttl_s = 7\nworkers_max = 9\nroot = [\"f=/f\", \"g=/g\"]");
    let variables = [
        ("H5FLIGHT_MEMORY_BYTES", "2MiB"),
        ("H5FLIGHT_REDIS_TTL_S", "8"),
        ("H5FLIGHT_ROOT", "a=/a, b=/b"),
        ("H5FLIGHT_WORKERS_MAX", ""),
    ];
    let loaded = load(&["--memory-bytes", "3MiB", "--root", "c=/c"], &variables, file).unwrap().config;
    assert_eq!((loaded.memory_bytes, loaded.redis_ttl_s, loaded.workers_max), (3 << 20, 8, 9));
    assert_eq!(loaded.roots, [Root { name: "c".into(), path: "/c".into() }]);
    let names = |loaded: Config| loaded.roots.into_iter().map(|root| root.name).collect::<Vec<_>>();
    assert_eq!(names(load(&[], &variables, file).unwrap().config), ["a", "b"]);
    assert_eq!(names(load(&[], &[], file).unwrap().config), ["f", "g"]);
}

#[test]
fn of_a_flag_given_twice_the_last_counts_and_roots_add_up() {
    let flags =
        ["--redis-ttl-s", "5", "--root", "a=/a", "--redis-ttl-s", "6", "--root", "b=/b", "--insecure-anonymous"];
    let loaded = load(&[&flags[..], &["--insecure-anonymous"]].concat(), &[], None).unwrap().config;
    assert_eq!((loaded.redis_ttl_s, loaded.roots.len(), loaded.insecure_anonymous), (6, 2, true));
}

#[test]
fn every_setting_is_read_from_each_source_alike() {
    for setting in TABLE {
        let text = if setting.default.is_empty() { setting.example } else { setting.default };
        let text = if setting.kind == Kind::Switch { "true" } else { text };
        let tls = |key: &str| match key {
            "tls_certificate" => Some("tls_key"),
            "tls_key" => Some("tls_certificate"),
            _ => None,
        };
        let flag = |key: &str| format!("--{}", key.replace('_', "-"));
        let mut flags = vec![flag(setting.key)];
        let mut variables = vec![(setting.variable(), text.to_owned())];
        let mut file = format!("{} = {}\n", setting.key, literal(setting, text));
        if setting.kind != Kind::Switch {
            flags.push(text.to_owned());
        }
        if let Some(other) = tls(setting.key) {
            flags.extend([flag(other), "/other".to_owned()]);
            variables.push((format!("H5FLIGHT_{}", other.to_uppercase()), "/other".to_owned()));
            file.push_str(&format!("{other} = \"/other\"\n"));
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let by_flag = load(&flags, &[], None).unwrap();
        assert_eq!(load(&[], &variables, None).unwrap(), by_flag, "{}", setting.key);
        assert_eq!(load(&[], &[], Some(&file)).unwrap(), by_flag, "{}", setting.key);
        let changes = setting.default.is_empty() || setting.kind == Kind::Switch;
        assert_eq!(by_flag.config != Config::default(), changes, "{}", setting.key);
    }
}

#[test]
fn secrets_are_read_from_files_and_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "postgres://u:p@h/d\n").unwrap();
    let path = path.to_str().unwrap();
    let loaded = load(&[], &[("H5FLIGHT_DATABASE_URL_FILE", path)], None).unwrap().config;
    assert_eq!(loaded.database_url.as_deref(), Some("postgres://u:p@h/d"));
    std::fs::write(path, "redis://h:1\n").unwrap();
    let loaded = load(&[], &[("H5FLIGHT_REDIS_URL_FILE", path)], None).unwrap().config;
    assert_eq!(loaded.redis_url.as_deref(), Some("redis://h:1"));
}

#[test]
fn the_log_filter_comes_from_the_flag_then_our_variable_then_rust_log() {
    let both = [("RUST_LOG", "warn"), ("H5FLIGHT_LOG", "debug")];
    assert_eq!(load(&["--log", "trace"], &both, None).unwrap().log, "trace");
    assert_eq!(load(&[], &both, None).unwrap().log, "debug");
    assert_eq!(load(&[], &both[..1], None).unwrap().log, "warn");
    assert_eq!(load(&["--log-format", "json"], &[], None).unwrap().config.log_format, LogFormat::Json);
}

#[test]
fn a_name_is_resolved_to_an_address() {
    assert!(load(&["--listen", "localhost:7000"], &[], None).unwrap().config.listen.ip().is_loopback());
}

#[test]
fn each_wrong_value_is_refused_with_its_origin_and_what_was_expected() {
    let cases: &[(&[&str], &str)] = &[
        (&["--listen", "8815"], "--listen: \"8815\" is not an address: expected HOST:PORT such as 127.0.0.1:8815"),
        (
            &["--http-listen", "h:99999"],
            "--http-listen: \"h:99999\" is not an address: expected HOST:PORT such as 127.0.0.1:8815",
        ),
        (
            &["--root", "/data"],
            "--root: \"/data\" is not a root: it has no \"=\"; expected NAME=PATH such as lab=/data",
        ),
        (
            &["--root", "a/b=/x"],
            "--root: \"a/b=/x\" is not a root: its name must be of letters, digits, \"-\", \"_\" and \".\"; expected NAME=PATH such as lab=/data",
        ),
        (&["--root", "a="], "--root: \"a=\" is not a root: its path is empty; expected NAME=PATH such as lab=/data"),
        (&["--root", "a=/x", "--root", "a=/y"], "root \"a\" is given twice; each name means one folder"),
        (
            &["--memory-bytes", "12XB"],
            "--memory-bytes: \"12XB\" is not a size: expected a number of bytes such as 1073741824, 512MiB or 2GB",
        ),
        (&["--memory-bytes", "10"], "--memory-bytes: \"10\" is too small: the least is 1048576"),
        (&["--inspect-depth-max", "99999999999"], "--inspect-depth-max: \"99999999999\" is too large"),
        (&["--workers-max", "0"], "--workers-max: \"0\" is too small: the least is 1"),
        (&["--decode-threads", "two"], "--decode-threads: \"two\" is not a whole number"),
        (&["--ticket-ttl-s", "1500ms"], "--ticket-ttl-s: \"1500ms\" is not a whole number of seconds, at least 1"),
        (&["--stall-timeout-ms", "0"], "--stall-timeout-ms: \"0\" is too small: the least is 1 ms"),
        (
            &["--stall-timeout-ms", "soon"],
            "--stall-timeout-ms: \"soon\" is not a duration: expected something like 250ms, 10s, 12h or 30d",
        ),
        (
            &["--database-url", "mysql://u:secret@h/d"],
            "--database-url: a URL of scheme \"mysql\": expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE",
        ),
        (
            &["--database-url", "catalog.db"],
            "--database-url: not a URL: expected sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE",
        ),
        (
            &["--redis-url", "localhost"],
            "--redis-url: not a URL: expected redis://HOST:PORT, rediss://HOST:PORT or redis+unix://PATH",
        ),
        (&["--log-format", "xml"], "--log-format: \"xml\" is not one of human, json"),
        (&["--tls-key", "k"], "tls_key is set but tls_certificate is not"),
        (&["--tls-certificate", "c"], "tls_certificate is set but tls_key is not"),
    ];
    for (flags, expected) in cases {
        assert_eq!(refusal(flags, &[], None), *expected);
    }
}

#[test]
fn a_wrong_variable_is_refused_by_its_name() {
    assert_eq!(
        refusal(&[], &[("H5FLIGHT_WORKERS_MAX", "x")], None),
        "H5FLIGHT_WORKERS_MAX: \"x\" is not a whole number"
    );
    let both = [("H5FLIGHT_REDIS_URL", "redis://a"), ("H5FLIGHT_REDIS_URL_FILE", "/b")];
    assert_eq!(
        refusal(&[], &both, None),
        "H5FLIGHT_REDIS_URL and H5FLIGHT_REDIS_URL_FILE are both set; keep one of them"
    );
    let missing = refusal(&[], &[("H5FLIGHT_DATABASE_URL_FILE", "/no/such/file")], None);
    assert_eq!(missing, "H5FLIGHT_DATABASE_URL_FILE: /no/such/file: No such file or directory (os error 2)");
    let switch = refusal(&[], &[("H5FLIGHT_INSECURE_ANONYMOUS", "perhaps")], None);
    assert!(switch.starts_with("H5FLIGHT_INSECURE_ANONYMOUS: \"perhaps\" is not one of true, 1,"), "{switch}");
}

#[test]
fn each_wrong_file_is_refused_by_its_key_or_line() {
    let cases = [
        (
            "lisen = \"x\"",
            "unknown setting \"lisen\"; the known ones are listen, http_listen, unix_socket, data_dir, root,",
        ),
        ("workers_max = 1.5", "expected one value, found float"),
        ("root = \"a=/a\"", "expected a list of strings, found string"),
        ("root = [[\"a=/a\"]]", "expected a list of strings, found array"),
        ("workers_max = \"many\"", "\"many\" is not a whole number"),
        ("listen = \"x:1\"\n\nworkers_max = [", "line 3: "),
    ];
    for (text, expected) in cases {
        let message = refusal(&[], &[], Some(text));
        assert!(message.contains("h5flight.toml") && message.contains(expected), "{text}: {message}");
    }
    let missing = refusal(&["--config", "/no/such.toml"], &[], None);
    assert_eq!(missing, "configuration file /no/such.toml: No such file or directory (os error 2)");
    assert!(refusal(&[], &[("H5FLIGHT_CONFIG", "/no/such.toml")], None).contains("/no/such.toml"));
}

/// A value as TOML.
fn literal(setting: &Setting, text: &str) -> String {
    let one = match text {
        "true" | "false" => text.to_owned(),
        number if number.parse::<u64>().is_ok() => text.to_owned(),
        _ => format!("{text:?}"),
    };
    if setting.kind == Kind::List { format!("[{one}]") } else { one }
}

/// The sample file as the table says it.
fn sample() -> String {
    let mut text = String::from(
        "# Settings of `h5flight serve --config FILE`, each with its default.\n\
         #\n\
         # The same names are flags (memory_bytes: --memory-bytes) and environment variables (H5FLIGHT_MEMORY_BYTES).\n\
         # Flags win, then the environment, then this file. Sizes take units (512MiB, 2GB), durations too (250ms, 10s).\n",
    );
    for setting in TABLE {
        text.push('\n');
        let mut line = String::from("#");
        for word in setting.help.split(' ') {
            if line.len() + 1 + word.len() > 118 {
                text.push_str(&line);
                text.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&format!("{line}.\n"));
        let (mark, value) = if setting.default.is_empty() { ("# ", setting.example) } else { ("", setting.default) };
        text.push_str(&format!("{mark}{} = {}\n", setting.key, literal(setting, value)));
    }
    text
}

#[test]
fn the_sample_file_has_every_setting_and_equals_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/h5flight.example.toml");
    if std::env::var_os("H5FLIGHT_WRITE_SAMPLE").is_some() {
        std::fs::write(&path, sample()).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, sample(), "run this test with H5FLIGHT_WRITE_SAMPLE=1 to write the file anew");
    assert_eq!(load(&[], &[], Some(&text)).unwrap(), Loaded { config: Config::default(), log: "info".into() });
    // What is commented out is an example that can be used as it stands.
    let whole: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(load(&[], &[], Some(&whole)).unwrap().config.tls.is_some());
}

#[test]
fn every_field_of_the_servers_config_has_a_setting() {
    // A new field makes this pattern fail to compile: give it a row in TABLE, then name it here.
    let Config {
        listen: _,
        http_listen: _,
        unix_socket: _,
        data_dir: _,
        roots: _,
        database_url: _,
        redis_url: _,
        redis_ttl_s: _,
        memory_bytes: _,
        touch_memory: _,
        decode_threads: _,
        workers_max: _,
        worker_memory_bytes: _,
        inspect_timeout_ms: _,
        worker_read_timeout_ms: _,
        inspect_limits,
        inspect_report_bytes_max: _,
        chunk_bytes_max: _,
        decode_ratio_max: _,
        verify_reads: _,
        result_bytes_max: _,
        upload_bytes_max: _,
        upload_quota_bytes: _,
        upload_expiry_hours: _,
        garbage_grace_hours: _,
        compact_interval_s: _,
        admission_timeout_ms: _,
        stall_timeout_ms: _,
        drain_timeout_ms: _,
        ticket_ttl_s: _,
        insecure_anonymous: _,
        tls: _,
        log_format: _,
    } = Config::default();
    let h5flight_array::inspect::InspectLimits {
        objects_max: _,
        links_max: _,
        depth_max: _,
        name_bytes_max: _,
        attributes_max: _,
        attribute_bytes_max: _,
        chunks_max: _,
    } = inspect_limits;
    // 31 plain fields, 7 bounds, two files of TLS, the filter of the log.
    assert_eq!(TABLE.len(), 31 + 7 + 2 + 1);
}
