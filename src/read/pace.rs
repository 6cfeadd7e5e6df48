//! How fast bytes come: those of sources from memory or from something slower, those of tiles from a quick computation or
//! a long one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A running average of the time that bytes take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    nanos_per_mib: AtomicU64,
}

impl Pace {
    /// From this time for a MiB on (4 GiB/s), sources are not read from memory.
    const SLOW_SOURCES: u64 = 244_000;
    /// From this one on (256 MiB/s), a processor computes more slowly than a reader takes it, so that several are wanted.
    const SLOW_COMPUTING: u64 = 4_000_000;
    /// The part that one note has in the average.
    const SHARE: u64 = 8;

    /// Notes that `bytes` bytes took `time`.
    pub(super) fn note(&self, bytes: usize, time: Duration) {
        if bytes == 0 {
            return;
        }
        let nanos = (time.as_nanos() << 20) / bytes as u128;
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX) / Self::SHARE;
        // Two at once may lose one of their notes.
        let average = self.nanos_per_mib.load(Ordering::Relaxed);
        let rest = average - average / Self::SHARE;
        let average = rest.saturating_add(nanos);
        self.nanos_per_mib.store(average, Ordering::Relaxed);
    }

    /// Whether the last reads of sources were slower than memory is.
    pub(super) fn is_of_slow_sources(&self) -> bool {
        self.nanos_per_mib.load(Ordering::Relaxed) > Self::SLOW_SOURCES
    }

    /// Whether the last tiles took so long that one processor does not keep up with a reader.
    pub(super) fn is_of_slow_computing(&self) -> bool {
        self.nanos_per_mib.load(Ordering::Relaxed) > Self::SLOW_COMPUTING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_slow_and_memory_is_not() {
        let pace = Pace::default();
        assert!(!pace.is_of_slow_sources());
        for _ in 0..30 {
            pace.note(1 << 20, Duration::from_millis(1));
        }
        assert!(pace.is_of_slow_sources(), "1 GiB/s");
        assert!(!pace.is_of_slow_computing());
        for _ in 0..30 {
            pace.note(3 << 20, Duration::from_micros(300));
        }
        assert!(!pace.is_of_slow_sources(), "10 GiB/s");
        for _ in 0..30 {
            pace.note(128 << 10, Duration::from_millis(2));
        }
        assert!(pace.is_of_slow_computing(), "64 MiB/s");
        for _ in 0..60 {
            pace.note(3 << 20, Duration::from_micros(300));
        }
        pace.note(0, Duration::from_secs(1));
        assert!(!pace.is_of_slow_sources(), "nothing was read");
    }
}
