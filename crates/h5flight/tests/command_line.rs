//! The binary as scripts see it: exit codes, what is on standard output and what on standard error.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A command with an empty environment, so that the settings of whoever runs the tests do not matter.
fn h5flight(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h5flight"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    h5flight(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A port of this machine on which nobody listens: it was just given back.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn help_and_version_are_answers_and_a_wrong_word_is_wrong_usage() {
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"], &["token", "create", "--help"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!stdout(&output).is_empty() && stderr(&output).is_empty(), "{arguments:?}");
    }
    for arguments in [&[][..], &["lss"], &["ls", "--jsn"], &["get", "m1"], &["register"], &["token", "create"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stdout(&output).is_empty(), "{arguments:?}");
    }
    let output = run(&["ls", "--json", "--jsn"]);
    assert_eq!(output.status.code(), Some(2));
    let expected =
        r#"{"error":{"code":"INVALID_ARGUMENT","message":"unexpected argument '--jsn' found","reason":"usage"}}"#;
    assert_eq!(stderr(&output).trim(), expected);
    assert!(!stdout(&run(&["--help"])).contains("worker"), "the worker is not for people");
}

#[test]
fn wrong_values_are_wrong_usage_before_anything_is_asked() {
    let cases: &[(&[&str], &str)] = &[
        (&["get", "m", "e", "d", "-o", "a.txt"], "error: a.txt: its name must end in .arrow, .parquet, .csv or .npy"),
        (&["get", "m", "e", "d", "-o", "a.npy", "--layout", "tidy"], "error: a .npy file holds one array"),
        (&["serve", "--memory-bytes", "12XB"], "error: --memory-bytes: \"12XB\" is not a size"),
        (&["serve", "--log", "a=b=c"], "error: --log: \"a=b=c\" is not a log filter"),
        (&["ls", "--url", "ftp://x"], "error: \"ftp://x\" is not a server URL"),
        (&["--url", "grpc://h:1", "token", "list"], "error: --url and tokens mean nothing to `h5flight token`"),
        (&["ls", "--token-file", "/no/such/file"], "error: token file /no/such/file: No such file"),
        (&["healthcheck", "--http-url", "h:1"], "error: --http-url: \"h:1\" is not a URL"),
        (
            &["token", "create", "--principal", "a", "--role", "read", "--expires", "30"],
            "error: --expires: \"30\" is not a duration",
        ),
        (&["ingest", "--key", "k", "a.h5", "b.h5"], "error: --key names one upload, but 2 files are given"),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr(&output).starts_with(expected), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1, "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_server_that_is_not_there_is_told_in_one_sentence() {
    let url = format!("grpc://127.0.0.1:{}", closed_port());
    let output = run(&["ls", "--url", &url]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "error: no h5flight server answers at {url}; start one with `h5flight serve` or name another with --url\n"
    );
    assert_eq!(stderr(&output), expected);
    let output = h5flight(&["ls", "--json"]).env("H5FLIGHT_URL", &url).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
    assert_eq!((&error["error"]["reason"], &error["error"]["code"]), (&"unreachable".into(), &"UNAVAILABLE".into()));
    let http = format!("http://127.0.0.1:{}", closed_port());
    assert_eq!(run(&["healthcheck", "--http-url", &http]).status.code(), Some(1));
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a.npy");
    let output = run(&["get", "m", "e", "d", "-o", target.to_str().unwrap(), "--url", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half-written is left");
}

#[test]
fn what_keeps_a_server_from_starting_is_told_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["--root", "lab=/no/such/folder"], "root \"lab\": /no/such/folder does not exist"),
        (&["--data-dir", "/proc/h5flight"], "data_dir: /proc/h5flight cannot be made"),
        (&["--tls-certificate", "/no/c", "--tls-key", "/no/k"], "tls_certificate: /no/c does not exist"),
        (&["--listen", &taken], &taken),
        (&["--http-listen", &taken], &taken),
    ];
    for (arguments, expected) in cases {
        let mut all = vec!["serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
        all.extend_from_slice(arguments);
        let output = run(&all);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.starts_with("error: ") && said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    grpc: String,
    http: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let data = folder.join("data");
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"];
        let mut command = h5flight(&arguments);
        command.arg(data).arg("--root").arg(format!("lab={}", folder.display())).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let places = line.trim().strip_prefix("h5flight is listening on ").unwrap_or_else(|| panic!("{line:?}"));
        let (grpc, http) = places.split_once(", ").unwrap();
        Self { child, grpc: grpc.to_owned(), http: http.to_owned() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        h5flight(arguments).env("H5FLIGHT_URL", &self.grpc).output().unwrap()
    }

    fn stop(mut self) -> Option<i32> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended where `stop` was called.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_starts_answers_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    // Connections wait in the socket's queue until the server serves, so this needs no retry.
    let output = server.run(&["info", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let info: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&info["roots"], &info["datasets"]), (&serde_json::json!(["lab"]), &0.into()));
    let output = run(&["healthcheck", "--http-url", &server.http]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "ready\n"), "{}", stderr(&output));
    assert_eq!(stdout(&server.run(&["ls", "--json"])), "[]\n");
    let output = server.run(&["ls"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), ""));
    assert!(stderr(&output).starts_with("nothing here yet"));
    let output = server.run(&["get", "m9", "day1", "imaging"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: ") && stderr(&output).contains("m9"), "{}", stderr(&output));
    let output = server.run(&["register", "/no/such/file.h5", "lab:none.h5"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output).lines().count(), 2, "{}", stdout(&output));
    assert!(stderr(&output).ends_with("2 refused\n"), "{}", stderr(&output));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_token_is_alone_on_standard_output_and_worthless_when_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let token = |arguments: &[&str]| {
        h5flight(&[&["token"], arguments].concat()).env("H5FLIGHT_DATA_DIR", &data).output().unwrap()
    };
    let output = token(&["list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: no catalogue at "), "{}", stderr(&output));
    let output = token(&["create", "--principal", "ann", "--role", "read", "--expires", "30d"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let secret = stdout(&output);
    assert!(secret.starts_with("h5f_") && secret.lines().count() == 1, "{secret}");
    assert!(stderr(&output).contains("for ann, role read, valid until 20"), "{}", stderr(&output));
    let listed = stdout(&token(&["list"]));
    assert!(listed.contains("ann") && !listed.contains(secret.trim()), "{listed}");
    assert_eq!(token(&["revoke", secret.trim()]).status.code(), Some(0));
    assert!(stdout(&token(&["list"])).contains("revoked 20"));
    assert_eq!(token(&["revoke", "nosuch"]).status.code(), Some(1));
    let log = h5flight(&["access-log", "--json", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert_eq!((log.status.code(), stdout(&log).as_str()), (Some(0), "[]\n"), "{}", stderr(&log));
}
