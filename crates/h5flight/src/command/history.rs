//! What the commands about versions share: how a version is named, and how times are shown.

use chrono::{DateTime, SecondsFormat, Utc};
use h5flight_proto::v1::{VersionSelector, version_selector::Kind};

/// A version as people name it: its number, a time in RFC 3339, or a tag, which begins with a letter.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_version(text: &str) -> Result<VersionSelector, String> {
    let kind = match text.parse::<u64>() {
        Ok(0) => return Err("versions count from 1".to_owned()),
        Ok(number) => Kind::Version(number),
        Err(_) if text.starts_with(|first: char| first.is_ascii_alphabetic()) => Kind::Tag(text.to_owned()),
        Err(_) => Kind::AsOfUs(parse_time(text)?),
    };
    Ok(VersionSelector { kind: Some(kind) })
}

/// A time in RFC 3339 as microseconds since 1970; parts of a microsecond are left out.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let expected = || format!("{text:?} is not a time: expected something like 2026-05-01T12:00:00Z");
    DateTime::parse_from_rfc3339(text).map(|at| at.timestamp_micros()).map_err(|_| expected())
}

/// A time as it can be asked for again.
pub fn show_time(micros: i64) -> String {
    DateTime::<Utc>::from_timestamp_micros(micros)
        .map_or_else(|| micros.to_string(), |at| at.to_rfc3339_opts(SecondsFormat::Micros, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_times_and_tags_are_told_apart() {
        let kind = |text: &str| parse_version(text).unwrap().kind.unwrap();
        assert_eq!(kind("3"), Kind::Version(3));
        assert_eq!(kind("paper-2026"), Kind::Tag("paper-2026".into()));
        assert_eq!(kind("1970-01-01T01:00:00.0000029+01:00"), Kind::AsOfUs(2));
        assert_eq!(show_time(2), "1970-01-01T00:00:00.000002Z");
        for bad in ["0", "-1", "", "2026-05-01", "2026-13-01T00:00:00Z", "1.5"] {
            assert!(parse_version(bad).is_err(), "{bad:?}");
        }
    }
}
