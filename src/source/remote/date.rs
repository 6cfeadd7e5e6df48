//! The dates of HTTP headers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time that `text` is, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7); no server writes the
/// two older forms.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(str::parse::<u64>);
    let mut unit = || clock.next()?.ok();
    let (hour, minute, second) = (unit()?, unit()?, unit()?);
    let is_date = (1..=31).contains(&day) && (1970..10_000).contains(&year);
    if !is_date || hour > 23 || minute > 59 || second > 60 || parts.next()? != "GMT" {
        return None;
    }
    // Years that begin with March end with the day that some of them have more.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    /// Days of 1970-01-01, counted so.
    const EPOCH: u64 = 719_468;
    let seconds = (days.checked_sub(EPOCH)? * 24 + hour) * 3600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_that_date_1_prints() {
        let seconds = |text| {
            parse(text)?
                .duration_since(UNIX_EPOCH)
                .ok()
                .map(|it| it.as_secs())
        };
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(
            seconds("Thu, 29 Feb 2024 12:00:00 GMT"),
            Some(1_709_208_000)
        );
        for wrong in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "x, 99 Nov 1994 08:49:37 GMT",
            "x, 01 Jan 1 00:00:00 GMT",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
