//! How far a long job is, on standard error: a line that is redrawn on a terminal, and a line now
//! and then elsewhere. And how it ends when a signal comes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use ckptfs::jobs::Progress;
use ckptfs::shown::Show;

#[cfg(feature = "remote")]
use crate::cli::network;
use crate::cli::signals::is_ignored;
use crate::cli::ticker::Ticker;

/// Between two changes of the line on a terminal.
const REDRAW: Duration = Duration::from_millis(100);

/// Between two looks at whether a line is to be printed where there is no terminal.
const LOOK: Duration = Duration::from_secs(1);

/// The progress of one job.
pub(crate) struct Bar {
    shared: Arc<Shared>,
    cancelled: Arc<AtomicBool>,
    /// The first signal, or 0.
    signal: Arc<AtomicUsize>,
    /// Whether it was said that the job stops.
    said: AtomicBool,
    /// Prints lines also while nothing is done.
    ticker: Mutex<Option<Ticker>>,
}

/// What is shown, and how far the job is.
struct Shared {
    bar: ProgressBar,
    quiet: bool,
    /// Whether lines are printed where there is no terminal.
    prints_lines: bool,
    done: AtomicU64,
    skipped: AtomicU64,
    shown: Mutex<Shown>,
}

/// The part of the job that is being done, and what was shown last.
struct Shown {
    begun: Instant,
    total: u64,
    file: String,
    redrawn: Option<Instant>,
    lines: Lines,
}

/// When lines are printed.
#[derive(Debug, Default)]
struct Lines {
    /// Time and percent of the last one.
    last: (Duration, u64),
}

/// A job that a signal stopped.
#[derive(Debug)]
pub(crate) struct Stopped {
    signal: u8,
    text: String,
}

impl Stopped {
    /// What shells say of a process that a signal ended.
    pub(crate) fn exit_code(&self) -> u8 {
        128 + self.signal
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text)
    }
}

impl std::error::Error for Stopped {}

impl Bar {
    /// A job that begins now, and is shown unless `quiet`. The first signal to end the process has
    /// the job give up, so that it stops at once and cleanly; the second ends the process.
    pub(crate) fn new(quiet: bool) -> std::io::Result<Self> {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner()
        };
        let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("a valid template");
        let cancelled: Arc<AtomicBool> = Arc::default();
        let signal: Arc<AtomicUsize> = Arc::default();
        let signals = [SIGINT, SIGTERM, SIGHUP].into_iter();
        for number in signals.filter(|number| !is_ignored(*number)) {
            use signal_hook::flag;
            flag::register_conditional_shutdown(number, 128 + number, cancelled.clone())?;
            flag::register_usize(number, signal.clone(), number.unsigned_abs() as usize)?;
            flag::register(number, cancelled.clone())?;
            #[cfg(feature = "remote")]
            flag::register(number, network::STOP.clone())?;
        }
        Ok(Bar {
            shared: Arc::new(Shared {
                quiet,
                prints_lines: !quiet && bar.is_hidden(),
                bar: bar.with_style(style),
                done: AtomicU64::new(0),
                skipped: AtomicU64::new(0),
                shown: Mutex::new(Shown::new(0)),
            }),
            cancelled,
            signal,
            said: AtomicBool::new(false),
            ticker: Mutex::default(),
        })
    }

    /// Takes the line away and gives the result of the job. If a signal stopped it, `left` says
    /// what there is and what to do.
    pub(crate) fn finish<T>(
        &self,
        result: ckptfs::Result<T>,
        left: impl FnOnce(ckptfs::Error) -> anyhow::Error,
    ) -> anyhow::Result<T> {
        self.ticker.lock().take();
        self.shared.bar.finish_and_clear();
        let signal = self.signal.load(Ordering::Relaxed);
        result.map_err(|error| match u8::try_from(signal) {
            Ok(signal @ 1..) => {
                let text = left(error).to_string();
                Stopped { signal, text }.into()
            }
            _ => left(error),
        })
    }

    /// "3.2 s, 1.2 GiB/s" for `bytes` since the last part of the job began.
    pub(crate) fn rate(&self, bytes: u64) -> String {
        let elapsed = self.shared.shown.lock().begun.elapsed();
        format!(
            "{:.1} s, {}/s",
            elapsed.as_secs_f64(),
            BinaryBytes(rate(bytes, elapsed))
        )
    }
}

impl Shown {
    /// At the beginning of a part of `total` bytes.
    fn new(total: u64) -> Self {
        Shown {
            begun: Instant::now(),
            total,
            file: String::new(),
            redrawn: None,
            lines: Lines::default(),
        }
    }
}

impl Shared {
    /// A part of the job begins.
    fn start(&self, total: u64) {
        let mut shown = self.shown.lock();
        self.done.store(0, Ordering::Relaxed);
        self.skipped.store(0, Ordering::Relaxed);
        *shown = Shown::new(total);
        self.bar.enable_steady_tick(2 * REDRAW);
    }

    /// How far the job is.
    fn state(&self, shown: &Shown) -> State {
        State {
            total: shown.total,
            done: self.done.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            elapsed: shown.begun.elapsed(),
        }
    }

    /// Shows how far the job is, if it is time to.
    fn show(&self) {
        // Another thread is showing it.
        let Some(mut shown) = self.shown.try_lock() else {
            return;
        };
        if self.prints_lines {
            let state = self.state(&shown);
            if shown.lines.is_due(state.elapsed, state.percent()) {
                eprintln!("{state}  {}", shown.file);
            }
        } else if shown.redrawn.is_none_or(|last| last.elapsed() >= REDRAW) {
            shown.redrawn = Some(Instant::now());
            let message = format!("{}  {}", self.state(&shown), shown.file);
            self.bar.set_message(message);
        }
    }
}

impl Progress for Bar {
    fn start(&self, bytes: u64) {
        self.shared.start(bytes);
        if self.shared.prints_lines {
            let shared = self.shared.clone();
            let mut ticker = self.ticker.lock();
            // Without a thread, lines come while something is done.
            *ticker = ticker
                .take()
                .or_else(|| Ticker::start(LOOK, move || shared.show()).ok());
        }
    }

    fn start_reading(&self, what: &str, bytes: u64) {
        if !self.shared.quiet {
            let bytes = BinaryBytes(bytes);
            self.shared
                .bar
                .suspend(|| eprintln!("reading {bytes}: {what}"));
        }
        self.start(bytes);
    }

    fn file(&self, path: &Path) {
        self.shared.shown.lock().file = path.shown().to_string();
        self.shared.show();
    }

    fn note(&self, text: &str) {
        self.shared
            .bar
            .suspend(|| eprintln!("note: {}", text.shown()));
    }

    fn advance(&self, bytes: u64) {
        self.shared.done.fetch_add(bytes, Ordering::Relaxed);
        self.shared.show();
    }

    fn skip(&self, bytes: u64) {
        self.shared.skipped.fetch_add(bytes, Ordering::Relaxed);
        self.shared.show();
    }

    fn cancelled(&self) -> bool {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        let bar = &self.shared.bar;
        if cancelled && !bar.is_hidden() && !self.said.swap(true, Ordering::Relaxed) {
            bar.suspend(|| eprintln!("stopping; a second signal ends it at once"));
        }
        cancelled
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy)]
struct State {
    total: u64,
    /// Bytes that this run has done.
    done: u64,
    /// Bytes that needed no work.
    skipped: u64,
    elapsed: Duration,
}

impl State {
    fn percent(&self) -> u64 {
        let behind = u128::from(self.done) + u128::from(self.skipped);
        match self.total {
            0 => 0,
            total => (100 * behind / u128::from(total)).min(100) as u64,
        }
    }

    /// Time for the rest, at the rate of what was done.
    fn left(&self) -> Option<Duration> {
        let rest = self.total.saturating_sub(self.done + self.skipped);
        let seconds = self.elapsed.as_secs_f64() * rest as f64 / self.done as f64;
        // Not before there is something to go by.
        let is_known = self.done > 0 && self.elapsed >= Duration::from_secs(1);
        is_known.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = BinaryBytes(self.done + self.skipped);
        let (percent, total) = (self.percent(), BinaryBytes(self.total));
        write!(f, "{percent} %  {behind} of {total}")?;
        write!(f, "  {}/s", BinaryBytes(rate(self.done, self.elapsed)))?;
        match self.left() {
            Some(left) => write!(f, "  {} left", rough(left)),
            None => Ok(()),
        }
    }
}

impl Lines {
    /// Whether a line is to be printed: 10 s after the last if 10 % more are done, 60 s after it
    /// in any case. Short jobs print none.
    fn is_due(&mut self, elapsed: Duration, percent: u64) -> bool {
        let since = elapsed.saturating_sub(self.last.0).as_secs();
        let is_due = since >= 60 || since >= 10 && percent >= self.last.1 + 10;
        if is_due {
            self.last = (elapsed, percent);
        }
        is_due
    }
}

/// Bytes for each second.
fn rate(bytes: u64, elapsed: Duration) -> u64 {
    (bytes as f64 / elapsed.as_secs_f64().max(1e-9)) as u64
}

/// "8 s", "3 min", "2 h 5 min".
fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..100 => format!("{seconds} s"),
        seconds @ ..6000 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needed_no_work_counts_as_done_and_not_toward_the_rate() {
        let state = State {
            total: 1000 << 20,
            done: 100 << 20,
            skipped: 500 << 20,
            elapsed: Duration::from_secs(10),
        };
        let shown = "60 %  600.00 MiB of 1000.00 MiB  10.00 MiB/s  40 s left";
        assert_eq!(state.to_string(), shown);
        let nothing_yet = State { done: 0, ..state };
        assert_eq!(nothing_yet.left(), None);
        let empty = State {
            total: 0,
            ..nothing_yet
        };
        assert_eq!(empty.percent(), 0);
    }

    #[test]
    fn lines_come_every_ten_percent_but_never_closer_than_ten_seconds() {
        let mut lines = Lines::default();
        let mut due = |seconds, percent| lines.is_due(Duration::from_secs(seconds), percent);
        assert!(!due(9, 90), "a short job prints none");
        assert!(due(10, 10));
        assert!(!due(19, 50));
        assert!(!due(25, 19));
        assert!(due(26, 20));
        assert!(!due(85, 21));
        assert!(due(86, 21), "a slow job is alive");
    }

    #[test]
    fn a_new_part_of_a_job_begins_with_nothing_done() {
        let bar = Bar::new(true).unwrap();
        bar.start(100);
        bar.advance(100);
        bar.start(200);
        bar.advance(50);
        let shown = bar.shared.shown.lock();
        assert_eq!(bar.shared.state(&shown).percent(), 25);
    }

    #[test]
    fn times_are_rough() {
        for (seconds, text) in [
            (0, "0 s"),
            (99, "99 s"),
            (100, "2 min"),
            (5999, "100 min"),
            (6000, "1 h 40 min"),
            (90_000, "25 h 0 min"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), text);
        }
    }
}
