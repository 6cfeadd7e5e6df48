//! How fast the sources give their bytes: from memory, or from something slower.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A running average of the time that reading sources takes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    nanos_per_mib: AtomicU64,
}

impl Pace {
    /// From this time for a MiB on (4 GiB/s), sources are not read from memory.
    const SLOW_NANOS_PER_MIB: u64 = 244_000;
    /// The part that one read has in the average.
    const SHARE: u64 = 8;

    /// Notes that reading `bytes` bytes took `time`.
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

    /// Whether the last reads were slower than memory is.
    pub(super) fn is_slow(&self) -> bool {
        self.nanos_per_mib.load(Ordering::Relaxed) > Self::SLOW_NANOS_PER_MIB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_slow_and_memory_is_not() {
        let pace = Pace::default();
        assert!(!pace.is_slow());
        for _ in 0..30 {
            pace.note(1 << 20, Duration::from_millis(1));
        }
        assert!(pace.is_slow(), "1 GiB/s");
        for _ in 0..30 {
            pace.note(3 << 20, Duration::from_micros(300));
        }
        assert!(!pace.is_slow(), "10 GiB/s");
        pace.note(0, Duration::from_secs(1));
        assert!(!pace.is_slow(), "nothing was read");
    }
}
