//! Sizes and durations as people write and read them.

/// A number of bytes: `1073741824`, `512MiB`, `2GB`, `1.5 GiB`.
///
/// A bare `M` is refused: it means 1,000,000 to some programs and 1,048,576 to others.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 10] = [
        ("", 1),
        ("b", 1),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    scaled(text, &UNITS)
        .ok_or_else(|| format!("{text:?} is not a size: expected a number of bytes such as 1073741824, 512MiB or 2GB"))
}

/// What a duration without a unit is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNumber {
    /// It is milliseconds.
    Millis,
    /// It is seconds.
    Seconds,
    /// It is refused.
    Refused,
}

/// A duration in milliseconds: `250ms`, `10s`, `5min`, `12h`, `30d`, `2w`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_millis(text: &str, bare: BareNumber) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("min", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
    ];
    let bare_unit = match bare {
        BareNumber::Millis => Some(1),
        BareNumber::Seconds => Some(1_000),
        BareNumber::Refused => None,
    };
    let units: Vec<(&str, u64)> = UNITS.into_iter().chain(bare_unit.map(|unit| ("", unit))).collect();
    scaled(text, &units)
        .ok_or_else(|| format!("{text:?} is not a duration: expected something like 250ms, 10s, 12h or 30d"))
}

/// `number unit` as a whole number of the smallest unit; `None` where it is none or passes 64 bits.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || fraction.len() > 9 || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let divisor = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled_fraction = match fraction {
        "" => 0,
        digits => digits.parse::<u64>().ok()?.checked_mul(scale)?,
    };
    if scaled_fraction % divisor != 0 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(scaled_fraction / divisor)
}

/// A size for people: `512 B`, `1.5 MiB`.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    // 1,023.95 and more would be shown as 1024.0 of the smaller unit.
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count for people: `1,234,567`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count with its noun: `1 dataset`, `2 datasets`.
pub fn show_number_of(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", show_count(count), if count == 1 { "" } else { "s" })
}

/// A duration for people: `3.2 ms`, `1.50 s`, `12 min 5 s`, `3 d 4 h`.
pub fn show_millis(millis: f64) -> String {
    let seconds = (millis / 1_000.0).max(0.0);
    match seconds {
        s if s < 1.0 => format!("{millis:.1} ms"),
        s if s < 60.0 => format!("{s:.2} s"),
        s if s < 3_600.0 => format!("{} min {} s", (s / 60.0) as u64, (s % 60.0) as u64),
        s if s < 86_400.0 => format!("{} h {} min", (s / 3_600.0) as u64, (s % 3_600.0 / 60.0) as u64),
        s => format!("{} d {} h", (s / 86_400.0) as u64, (s % 86_400.0 / 3_600.0) as u64),
    }
}

/// A shape as Python writes it: `()`, `(5,)`, `(1000, 64)`.
pub fn show_shape(shape: &[u64]) -> String {
    let sizes: Vec<String> = shape.iter().map(u64::to_string).collect();
    match sizes.as_slice() {
        [only] => format!("({only},)"),
        many => format!("({})", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1073741824", 1 << 30),
            ("1_000", 1_000),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("2GB", 2_000_000_000),
            ("1.5GiB", 3 << 29),
            ("0.1kB", 100),
            ("7B", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "MiB", "12XB", "512M", "-1", "1.5", "1.", ".5GB", "1.2.3GB", "99999999999999TiB", "1e9", "0.3KiB"]
        {
            assert!(parse_bytes(text).unwrap_err().contains("is not a size"), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, bare, millis) in [
            ("250", BareNumber::Millis, 250),
            ("250", BareNumber::Seconds, 250_000),
            ("250ms", BareNumber::Seconds, 250),
            ("10s", BareNumber::Millis, 10_000),
            ("1.5s", BareNumber::Refused, 1_500),
            ("5min", BareNumber::Refused, 300_000),
            ("12 h", BareNumber::Refused, 43_200_000),
            ("30d", BareNumber::Refused, 2_592_000_000),
            ("2w", BareNumber::Refused, 1_209_600_000),
        ] {
            assert_eq!(parse_millis(text, bare), Ok(millis), "{text}");
        }
        for text in ["", "30", "s", "-5s", "3 fortnights", "0.5ms"] {
            assert!(parse_millis(text, BareNumber::Refused).unwrap_err().contains("is not a duration"), "{text}");
        }
    }

    #[test]
    fn quantities_are_shown_in_units_that_fit() {
        assert_eq!(
            [0, 1_023, 1_024, (1 << 20) - 1, 3 << 29].map(show_bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.5 GiB"]
        );
        assert_eq!(show_bytes(u64::MAX), "16.0 EiB");
        assert_eq!([0, 999, 1_000, 1_234_567].map(show_count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [3.25, 1_500.0, 725_000.0, 3_660_000.0].map(show_millis),
            ["3.2 ms", "1.50 s", "12 min 5 s", "1 h 1 min"]
        );
        assert_eq!([&[][..], &[5], &[1_000, 64]].map(show_shape), ["()", "(5,)", "(1000, 64)"]);
    }
}
