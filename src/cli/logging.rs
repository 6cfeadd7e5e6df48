//! The log of a mount or server: one line for each event, to standard error or a file.

use std::backtrace::Backtrace;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "fuse")]
use ckptfs::fuse::is_of_gone_request;
use ckptfs::shown::lines;
use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

struct Logger<W> {
    output: Mutex<W>,
}

/// Sends the log to `output`, and panics with their backtraces to the log. To be called once.
pub(crate) fn start(output: impl Write + Send + 'static) {
    let logger = Logger {
        output: Mutex::new(output),
    };
    if log::set_logger(Box::leak(Box::new(logger))).is_ok() {
        log::set_max_level(LevelFilter::Info);
        std::panic::set_hook(Box::new(|panic| log::error!("{}", with_backtrace(panic))));
    }
}

fn with_backtrace(panic: &PanicHookInfo) -> String {
    format!("{panic}\n{}", Backtrace::force_capture())
}

impl<W: Write + Send> Log for Logger<W> {
    fn enabled(&self, _metadata: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        #[cfg(feature = "fuse")]
        if is_of_gone_request(record) {
            return;
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let line = format!(
            "{} {:5} {}\n",
            timestamp(since_epoch.unwrap_or_default()),
            record.level(),
            lines(&record.args().to_string())
        );
        // In one write, so that lines of several mounts that share a file stay whole. There is
        // nobody to tell that the log cannot be written.
        let _ = self.output.lock().write_all(line.as_bytes());
    }

    fn flush(&self) {
        let _ = self.output.lock().flush();
    }
}

/// UTC as in RFC 3339, with milliseconds.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
///
/// Algorithm: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day is the last of its year, and in eras of
    // 400 years, all of which have the same number of days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::panic;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn timestamps_are_right_around_leap_days_and_year_ends() {
        // `date -u -d @SECONDS`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_panic_is_logged_with_what_led_to_it() {
        const BUG: &str = "a bug, on purpose";
        let logged = Arc::new(Mutex::new(String::new()));
        let (log, others) = (logged.clone(), panic::take_hook());
        // Stays, since other tests may be running: their panics go on to where they went.
        panic::set_hook(Box::new(move |panic| match panic.payload_as_str() {
            Some(BUG) => *log.lock() = with_backtrace(panic),
            _ => others(panic),
        }));
        assert!(panic::catch_unwind(|| panic!("{BUG}")).is_err());
        let logged = logged.lock();
        for part in [BUG, "logging.rs", "a_panic_is_logged_with_what_led_to_it"] {
            assert!(logged.contains(part), "{logged}");
        }
    }
}
