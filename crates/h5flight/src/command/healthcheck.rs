//! `h5flight healthcheck`: whether a server is ready, for container images that have no curl.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::json;

use crate::cli::Globals;
use crate::failure::Failure;
use crate::output::{Form, json as print_json, line, shorten};
use crate::settings::{Environment, process_environment};

/// How long connecting, asking and answering may each take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read at most.
const ANSWER_BYTES_MAX: u64 = 16 << 10;
/// Port of /readyz unless told otherwise.
const DEFAULT_PORT: u16 = 8816;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the server answers /readyz; without it the port of H5FLIGHT_HTTP_LISTEN on this machine
    /// [default: http://127.0.0.1:8816]
    #[arg(long, value_name = "URL")]
    http_url: Option<String>,
}

/// Asks, once.
pub fn run(args: &Args, globals: &Globals) -> Result<(), Failure> {
    let url = args.http_url.clone().unwrap_or_else(|| default_url(&process_environment));
    let address = host_and_port(&url)?;
    let answer = ask(&address).map_err(|error| Failure::Failed {
        reason: "unreachable".into(),
        code: "UNAVAILABLE",
        message: format!("no answer from http://{address}/readyz: {}", why(&error)),
    })?;
    let (status, body) = understand(&answer).ok_or_else(|| Failure::Failed {
        reason: "not_http".into(),
        code: "UNAVAILABLE",
        message: format!("what answers at {address} does not speak HTTP"),
    })?;
    match (status, globals.form) {
        (200, Form::People) => line("ready"),
        (200, Form::Json) => print_json(&json!({"ready": true})),
        (_, _) => Err(Failure::Failed {
            reason: "not_ready".into(),
            code: "UNAVAILABLE",
            message: format!("not ready: HTTP status {status}, {}", shorten(body.trim(), 200)),
        }),
    }
}

/// What kept the answer from coming; a timeout of a socket calls itself "temporarily unavailable".
fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => format!("none within {} s", TIMEOUT.as_secs()),
        _ => error.to_string(),
    }
}

/// The address that the server of this machine was told to use; one that means "all interfaces" is asked on loopback.
fn default_url(environment: Environment<'_>) -> String {
    let listen = environment("H5FLIGHT_HTTP_LISTEN").and_then(|text| text.parse::<std::net::SocketAddr>().ok());
    match listen {
        Some(address) if !address.ip().is_unspecified() => format!("http://{address}"),
        Some(address) => format!("http://127.0.0.1:{}", address.port()),
        None => format!("http://127.0.0.1:{DEFAULT_PORT}"),
    }
}

fn host_and_port(url: &str) -> Result<String, Failure> {
    let wrong = || Failure::usage(format!("--http-url: {url:?} is not a URL: expected http://HOST:PORT"));
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let authority = rest.split('/').next().filter(|text| !text.is_empty()).ok_or_else(wrong)?;
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let valid = !host.is_empty() && port.parse::<u16>().is_ok();
            valid.then(|| authority.to_owned()).ok_or_else(wrong)
        }
        Some(_) | None => Ok(format!("{authority}:80")),
    }
}

fn ask(address: &str) -> std::io::Result<Vec<u8>> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, TIMEOUT) {
            Ok(stream) => return exchange(stream, address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: TcpStream, host: &str) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status code and body.
fn understand(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|protocol| protocol.starts_with("HTTP/1."))?;
    Some((words.next()?.parse().ok()?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_addresses() {
        for (url, address) in [
            ("http://127.0.0.1:8816", "127.0.0.1:8816"),
            ("http://h:1/", "h:1"),
            ("http://h", "h:80"),
            ("http://[::1]:9", "[::1]:9"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert_eq!(host_and_port(url).unwrap(), address);
        }
        for url in ["https://h:1", "h:1", "http://", "http://h:port", "http://:1"] {
            assert!(matches!(host_and_port(url), Err(Failure::Usage(_))), "{url}");
        }
    }

    #[test]
    fn the_default_follows_the_servers_own_variable() {
        let listening_at = |text: &'static str| default_url(&move |_| Some(text.to_owned()));
        assert_eq!(listening_at("0.0.0.0:7"), "http://127.0.0.1:7");
        assert_eq!(listening_at("10.0.0.5:7"), "http://10.0.0.5:7");
        assert_eq!(default_url(&|_| None), "http://127.0.0.1:8816");
    }

    #[test]
    fn an_answer_is_understood_or_it_is_not_http() {
        assert_eq!(understand(b"HTTP/1.1 503 x\r\na: b\r\n\r\nredis").unwrap(), (503, "redis".to_owned()));
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 two\r\n\r\n"] {
            assert_eq!(understand(answer), None);
        }
    }
}
