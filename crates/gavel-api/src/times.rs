//! Times as the API writes them: RFC 3339 with microseconds, durations as milliseconds.

use gavel_core::Timestamp;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::{Duration, SystemTime};

pub fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// Milliseconds with three decimals: `1.204`.
pub fn ms(duration: Duration) -> f64 {
    let micros = duration.as_micros() + u128::from(duration.subsec_nanos() % 1000 >= 500);
    micros as f64 / 1000.0
}

/// Writes `2026-02-03T04:05:06.000007Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339(pub Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only a damaged row can hold a time that no calendar has; it shows as the nearest one.
        let time = jiff::Timestamp::from_microsecond(self.0.0).unwrap_or(match self.0.0 {
            ..0 => jiff::Timestamp::MIN,
            0.. => jiff::Timestamp::MAX,
        });
        write!(f, "{time:.6}")
    }
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads RFC 3339. A `+` that arrives as a space was not percent-encoded in a URL, and is meant as one.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is no RFC 3339 time: write one as in \"2026-02-03T04:05:06Z\"");
    let time: jiff::Timestamp =
        text.parse().or_else(|_| text.replace(' ', "+").parse()).map_err(|_: jiff::Error| wrong())?;
    Ok(Timestamp(time.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_three_decimals() {
        for (micros, text) in [(1204, "1.204"), (0, "0.0"), (2_310_000, "2310.0"), (1, "0.001")] {
            assert_eq!(format!("{:?}", ms(Duration::from_micros(micros))), text);
        }
        assert_eq!(ms(Duration::from_nanos(1_999_500)), 2.0);
    }

    #[test]
    fn times_are_written_with_microseconds_in_utc() {
        assert_eq!(Rfc3339(Timestamp(1_770_091_506_000_007)).to_string(), "2026-02-03T04:05:06.000007Z");
        assert_eq!(Rfc3339(Timestamp(0)).to_string(), "1970-01-01T00:00:00.000000Z");
        assert!(Rfc3339(Timestamp(i64::MAX)).to_string().starts_with("9999-12-3"));
    }

    #[test]
    fn times_are_read_with_any_offset() {
        for text in ["2026-02-03T04:05:06Z", "2026-02-03T05:05:06+01:00", "2026-02-03T05:05:06 01:00"] {
            assert_eq!(parse(text), Ok(Timestamp(1_770_091_506_000_000)), "{text}");
        }
        for text in ["", "yesterday", "2026-02-03", "2026-02-03T04:05:06", "1770091506"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
