//! Names of links as text that can be shown and asked for.
//!
//! A link name is any bytes without NUL. In a path the bytes that are not UTF-8, control characters, `%` and `/` are
//! written as `%` and two hexadecimal digits, so that every name has one path and every path one name. Two names, which
//! only a damaged file has, would be no component at all: the empty one is `%00`, and `.` is `%2E`.

use std::fmt::Write;

use h5flight_array::{Error, Reason, Result};

/// A link's name as one component of a path.
pub fn escape(name: &[u8]) -> String {
    match name {
        b"" => return "%00".into(),
        b"." => return "%2E".into(),
        _ => {}
    }
    let mut escaped = String::with_capacity(name.len());
    for part in name.utf8_chunks() {
        for char in part.valid().chars() {
            if char.is_control() || char == '%' || char == '/' {
                push_hex(&mut escaped, char.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                escaped.push(char);
            }
        }
        push_hex(&mut escaped, part.invalid());
    }
    escaped
}

/// The name that [`escape`] made this component of.
///
/// # Errors
/// `bad_request` where `%` is not followed by two hexadecimal digits.
pub fn unescape(component: &str) -> Result<Vec<u8>> {
    if component == "%00" {
        return Ok(Vec::new());
    }
    let bad = || Error::new(Reason::BadRequest, format!("path component {component:?} has a broken % escape"));
    let mut name = Vec::with_capacity(component.len());
    let mut bytes = component.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(bad);
        let (high, low) = (digit()?, digit()?);
        name.push((high << 4 | low) as u8);
    }
    Ok(name)
}

/// A name that is not part of a path (of an attribute, a member, a filter): as it is where it is UTF-8.
pub(crate) fn shown(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => text.to_owned(),
        Err(_) => escape(name),
    }
}

/// The path of a child.
pub(crate) fn joined(parent: &str, component: &str) -> String {
    let parent = parent.trim_end_matches('/');
    format!("{parent}/{component}")
}

/// A soft link's target as an absolute path. HDF5 knows `.`, an empty component means nothing, and `..` is a name.
pub(crate) fn absolute(parent: &str, target: &[u8]) -> String {
    let mut path = if target.starts_with(b"/") { "" } else { parent.trim_end_matches('/') }.to_owned();
    for component in target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        path.push('/');
        path.push_str(&escape(component));
    }
    if path.is_empty() { "/".into() } else { path }
}

fn push_hex(escaped: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(escaped, "%{byte:02X}").expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_from_its_escaped_form() {
        let cases: [(&[u8], &str); 10] = [
            (b"plain name", "plain name"),
            ("stra\u{df}e \u{202e}x".as_bytes(), "stra\u{df}e \u{202e}x"),
            (b"100%", "100%25"),
            (b"a/b", "a%2Fb"),
            (b"tab\tnul\0end\x7f", "tab%09nul%00end%7F"),
            (b"\xff\xfeutf16", "%FF%FEutf16"),
            (b"cut \xe2\x82", "cut %E2%82"),
            (b"..", ".."),
            (b".", "%2E"),
            (b"", "%00"),
        ];
        for (name, path) in cases {
            assert_eq!(escape(name), path);
            assert_eq!(unescape(path).unwrap(), name);
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)).unwrap(), all);
    }

    #[test]
    fn a_broken_escape_is_refused() {
        for path in ["%", "%4", "%zz", "a%+1"] {
            assert_eq!(unescape(path).unwrap_err().reason, Reason::BadRequest, "{path}");
        }
    }

    #[test]
    fn soft_link_targets_become_absolute() {
        let cases: [(&str, &[u8], &str); 6] = [
            ("/", b"x", "/x"),
            ("/a/b", b"c", "/a/b/c"),
            ("/a/b", b"/c//d/", "/c/d"),
            ("/a", b"./x/.", "/a/x"),
            ("/a", b"/", "/"),
            ("/a", b"..", "/a/.."),
        ];
        for (parent, target, expected) in cases {
            assert_eq!(absolute(parent, target), expected);
        }
    }
}
