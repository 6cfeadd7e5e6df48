//! The progress bar of long jobs, on standard error if that is a terminal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use ckptfs::jobs::Progress;

/// Bytes done, rate and remaining time.
pub(crate) struct Bar {
    bar: ProgressBar,
    begun: Instant,
    cancelled: Arc<AtomicBool>,
}

impl Bar {
    /// A bar that appears once the job starts.
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template(
            "{bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {wide_msg}",
        );
        let bar = ProgressBar::new(0).with_style(style.expect("a valid template"));
        Bar {
            bar,
            begun: Instant::now(),
            cancelled: Arc::default(),
        }
    }

    /// Has the first signal to end the process cancel the job, so that it stops at once
    /// and can be gone on with; the second
    /// ends the process.
    pub(crate) fn cancel_on_signal(&self) -> std::io::Result<()> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let exit_code = 128 + signal;
            signal_hook::flag::register_conditional_shutdown(
                signal,
                exit_code,
                self.cancelled.clone(),
            )?;
            signal_hook::flag::register(signal, self.cancelled.clone())?;
        }
        Ok(())
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// "3.2s, 1.2 GiB/s" for `bytes` since the bar was made.
    pub(crate) fn rate(&self, bytes: u64) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = BinaryBytes((bytes as f64 / seconds.max(1e-9)) as u64);
        format!("{seconds:.1} s, {rate}/s")
    }
}

impl Progress for Bar {
    fn start(&self, bytes: u64) {
        self.bar.set_length(bytes);
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn file(&self, path: &Path) {
        self.bar.set_message(path.display().to_string());
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("note: {text}"));
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
