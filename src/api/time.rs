//! Points in time as the API writes them.

use std::time::SystemTime;

/// How the API writes that something never happened.
pub const NEVER: &str = "0001-01-01T00:00:00.000Z";

/// The time in UTC to the second, as in RFC 3339: `2026-11-22T12:04:46Z`.
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The time in UTC to the millisecond, as in RFC 3339; [`NEVER`] for `None`.
pub fn timestamp_millis(time: Option<SystemTime>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| humantime::format_rfc3339_millis(time).to_string())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn as_rfc_3339_has_it() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_349_086_042);
        assert_eq!(timestamp(time), "2026-11-22T12:04:46Z");
        assert_eq!(timestamp_millis(Some(time)), "2026-11-22T12:04:46.042Z");
        assert_eq!(timestamp_millis(None), NEVER);
    }
}
