//! Texts become values; what does not fit is told in one sentence that says what was expected.

use std::net::{SocketAddr, ToSocketAddrs};

use h5flight_server::config::Root;

use crate::quantity::{BareNumber, parse_bytes, parse_millis};

/// Stores a parsed value.
pub fn set<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    *slot = value?;
    Ok(())
}

/// `127.0.0.1:8815`, `[::1]:8815`, `localhost:8815`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = || format!("{text:?} is not an address: expected HOST:PORT such as 127.0.0.1:8815");
    let (_, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    text.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(wrong)
}

/// `lab=/data/lab`.
pub fn root(text: &str) -> Result<Root, String> {
    let wrong = |why: &str| format!("{text:?} is not a root: {why}; expected NAME=PATH such as lab=/data");
    let (name, path) = text.split_once('=').ok_or_else(|| wrong("it has no \"=\""))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(wrong("its name must be of letters, digits, \"-\", \"_\" and \".\""));
    }
    if path.is_empty() {
        return Err(wrong("its path is empty"));
    }
    Ok(Root { name: name.to_owned(), path: path.into() })
}

/// A URL of a database that the catalogue knows. The text is not repeated: it may hold a password.
pub fn database_url(text: &str) -> Result<String, String> {
    url_of(text, &["sqlite", "postgres", "postgresql"], "sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE")
}

/// A URL of a Redis server.
pub fn redis_url(text: &str) -> Result<String, String> {
    url_of(
        text,
        &["redis", "rediss", "redis+unix", "unix"],
        "redis://HOST:PORT, rediss://HOST:PORT or redis+unix://PATH",
    )
}

fn url_of(text: &str, schemes: &[&str], expected: &str) -> Result<String, String> {
    match text.split_once("://") {
        Some((scheme, rest)) if schemes.contains(&scheme) && !rest.is_empty() => Ok(text.to_owned()),
        Some((scheme, _)) if !schemes.contains(&scheme) => {
            Err(format!("a URL of scheme {scheme:?}: expected {expected}"))
        }
        Some(_) | None => Err(format!("not a URL: expected {expected}")),
    }
}

/// A size of at least `bytes_min`.
pub fn bytes<T: TryFrom<u64>>(text: &str, bytes_min: u64) -> Result<T, String> {
    fits(text, parse_bytes(text)?, bytes_min)
}

/// A whole number of at least `min`.
pub fn count<T: TryFrom<u64>>(text: &str, min: u64) -> Result<T, String> {
    let number = text.replace('_', "").parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    fits(text, number, min)
}

fn fits<T: TryFrom<u64>>(text: &str, number: u64, min: u64) -> Result<T, String> {
    if number < min {
        return Err(format!("{text:?} is too small: the least is {min}"));
    }
    T::try_from(number).map_err(|_| format!("{text:?} is too large"))
}

/// Milliseconds, or a duration with its unit.
pub fn millis(text: &str) -> Result<u64, String> {
    match parse_millis(text, BareNumber::Millis)? {
        0 => Err(format!("{text:?} is too small: the least is 1 ms")),
        millis => Ok(millis),
    }
}

/// Seconds, or a duration with its unit.
pub fn seconds(text: &str) -> Result<u64, String> {
    match parse_millis(text, BareNumber::Seconds)? {
        millis if millis >= 1_000 && millis % 1_000 == 0 => Ok(millis / 1_000),
        _ => Err(format!("{text:?} is not a whole number of seconds, at least 1")),
    }
}

/// On or off.
pub fn switch(text: &str) -> Result<bool, String> {
    choice(
        text,
        &[
            ("true", true),
            ("1", true),
            ("yes", true),
            ("on", true),
            ("false", false),
            ("0", false),
            ("no", false),
            ("off", false),
        ],
    )
}

/// One of a few words.
pub fn choice<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("{text:?} is not one of {}", words.join(", "))
    })
}
