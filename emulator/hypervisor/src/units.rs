//! Sizes and times as people write them.

use std::time::Duration;

/// Why a size or a time could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No digits at the start.
    #[error("'{0}' is not a size: write a number and a unit, like 512M or 2G")]
    NotASize(String),
    /// A number alone: bytes and megabytes are both a plausible reading.
    #[error("'{0}' has no unit: write {0}M for mebibytes or {0}G for gibibytes")]
    NoUnit(String),
    /// A unit nobody knows.
    #[error("'{text}' has the unknown unit '{unit}': use K, M, G or T")]
    Unit {
        /// The whole text.
        text: String,
        /// The part after the number.
        unit: String,
    },
    /// Zero, or more than 2^63 bytes.
    #[error("'{0}' is out of range")]
    Range(String),
    /// Not a positive number of seconds.
    #[error("'{0}' is not a time: write a positive number of seconds, like 30 or 2.5")]
    NotATime(String),
}

/// Reads a size in bytes from text such as `512M`, `2G`, `64KiB` (units are powers of 1024, case does not matter).
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let trimmed = text.trim();
    let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = trimmed.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NotASize(text.to_owned()));
    }
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" => return Err(UnitError::NoUnit(text.to_owned())),
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(UnitError::Unit { text: text.to_owned(), unit: unit.to_owned() }),
    };
    let value: u64 = number.parse().map_err(|_| UnitError::Range(text.to_owned()))?;
    if value == 0 || value > (i64::MAX as u64) >> shift {
        return Err(UnitError::Range(text.to_owned()));
    }
    Ok(value << shift)
}

/// Writes a size in the largest unit that divides it: what [`parse_size`] reads back.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let (shift, unit) = [(40, "T"), (30, "G"), (20, "M")]
        .into_iter()
        .find(|&(shift, _)| bytes != 0 && bytes.trailing_zeros() >= shift)
        .unwrap_or((10, "K"));
    format!("{}{unit}", bytes >> shift)
}

/// Reads a positive number of seconds, such as `30` or `2.5`.
pub fn parse_seconds(text: &str) -> Result<Duration, UnitError> {
    let bad = || UnitError::NotATime(text.to_owned());
    let seconds: f64 = text.trim().parse().map_err(|_| bad())?;
    // A hundred years: more overflows deadlines on some hosts.
    if seconds > 0.0 && seconds < 3.2e9 { Duration::try_from_secs_f64(seconds).map_err(|_| bad()) } else { Err(bad()) }
}

/// A number of CPUs.
pub fn parse_cpus(text: &str) -> Result<u8, String> {
    let most = crate::options::MachineOptions::MOST_CPUS;
    let n = text.parse().ok().filter(|n| (1..=most).contains(n));
    n.ok_or_else(|| format!("'{text}' is not a number of CPUs from 1 to {most}"))
}

/// How often something runs before it is compiled.
pub fn parse_threshold(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("'{text}' is not a count from 1 to {}", u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("512M", 512 << 20), ("2G", 2 << 30), ("64k", 64 << 10), ("1 GiB", 1 << 30), ("3mb", 3 << 20), ("1T", 1 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes), "{text}");
        }
        for (text, part) in [
            ("", "not a size"),
            ("M", "not a size"),
            ("-5M", "not a size"),
            ("lots", "not a size"),
            ("512", "512M"),
            ("512Q", "unknown unit 'Q'"),
            ("1.5G", "unknown unit '.5G'"),
            ("0M", "out of range"),
            ("99999999999999999999G", "out of range"),
            ("9999999999G", "out of range"),
        ] {
            let error = parse_size(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn seconds() {
        assert_eq!(parse_seconds("2.5"), Ok(Duration::from_millis(2500)));
        for bad in ["", "0", "-1", "inf", "NaN", "1e300", "soon"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
