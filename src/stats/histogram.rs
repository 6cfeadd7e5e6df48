//! How long something took: how often, in steps of an eighth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets for each doubling, so that a bucket is at most an eighth wide.
const STEPS: u64 = 8;
const STEP_BITS: u32 = STEPS.ilog2();

/// Enough for all of u64.
const BUCKETS: usize = ((64 - STEP_BITS as usize) + 1) * STEPS as usize;

/// Durations in nanoseconds, counted in log-linear buckets.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    most: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            most: AtomicU64::new(0),
        }
    }
}

/// The bucket of `nanos`: the first eight values have one each.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let exponent = nanos.ilog2();
    let step = (nanos >> (exponent - STEP_BITS)) & (STEPS - 1);
    (u64::from(exponent - STEP_BITS + 1) * STEPS + step) as usize
}

/// The largest value in bucket `index`.
fn last_in(index: usize) -> u64 {
    let (doubling, step) = (index as u64 / STEPS, index as u64 % STEPS);
    match doubling.checked_sub(1) {
        None => step,
        Some(shift) => ((STEPS + step) << shift) + ((1 << shift) - 1),
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

impl Histogram {
    /// Counts one that took `time`.
    pub fn note(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
        self.most.fetch_max(nanos, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn latency(&self) -> Latency {
        let counts = self.counts.iter().enumerate();
        let buckets = counts.filter_map(|(index, count)| {
            let count = count.load(Ordering::Relaxed);
            let up_to_us = micros(last_in(index));
            (count > 0).then_some(Bucket { up_to_us, count })
        });
        let buckets: Vec<Bucket> = buckets.collect();
        let count: u64 = buckets.iter().map(|bucket| bucket.count).sum();
        let max_us = micros(self.most.load(Ordering::Relaxed));
        // Of a bucket that holds the longest, that one is known exactly.
        let quantile = |part| Latency::quantile(&buckets, part).map_or(0.0, |us| us.min(max_us));
        Latency {
            count,
            mean_us: match count {
                0 => 0.0,
                _ => micros(self.sum.load(Ordering::Relaxed)) / count as f64,
            },
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            max_us,
            buckets,
        }
    }
}

/// How long something took, in microseconds; quantiles are at most an eighth too high. All are 0
/// if nothing was counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// Those that hold any, the shortest first.
    pub buckets: Vec<Bucket>,
}

/// How many took so long, and longer than the bucket before allows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    pub up_to_us: f64,
    pub count: u64,
}

impl Latency {
    /// The time that `part` of all in `buckets` took at most; `None` if they are empty.
    pub fn quantile(buckets: &[Bucket], part: f64) -> Option<f64> {
        let all: u64 = buckets.iter().map(|bucket| bucket.count).sum();
        let wanted = ((all as f64 * part).ceil() as u64).max(1);
        let mut so_far = 0;
        buckets.iter().find_map(|bucket| {
            so_far += bucket.count;
            (so_far >= wanted).then_some(bucket.up_to_us)
        })
    }

    /// What was counted since `earlier`, by bucket.
    pub fn since(&self, earlier: &Latency) -> Vec<Bucket> {
        let before = |bucket: &Bucket| {
            let same = |other: &&Bucket| other.up_to_us == bucket.up_to_us;
            earlier.buckets.iter().find(same).map_or(0, |b| b.count)
        };
        let news = self.buckets.iter().map(|bucket| Bucket {
            count: bucket.count.saturating_sub(before(bucket)),
            ..*bucket
        });
        news.filter(|bucket| bucket.count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_at_most_an_eighth_wide() {
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(last_in(BUCKETS - 1), u64::MAX);
        for index in 1..BUCKETS {
            let (first, last) = (last_in(index - 1) + 1, last_in(index));
            assert_eq!((bucket(first), bucket(last)), (index, index));
            assert!((last - first) as f64 <= first as f64 / 8.0, "{index}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted_within_an_eighth() {
        let histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.note(Duration::from_millis(millis));
        }
        let latency = histogram.latency();
        assert_eq!(latency.count, 1000);
        assert_eq!(latency.max_us, 1_000_000.0);
        assert_eq!(latency.mean_us, 500_500.0);
        for (found, exact) in [(latency.p50_us, 500e3), (latency.p99_us, 990e3)] {
            assert!((exact..=exact * 1.125).contains(&found), "{found}");
        }
        let nothing = Histogram::default().latency();
        assert_eq!(nothing, Latency::default());
    }

    #[test]
    fn what_came_since_is_told_from_what_was_there() {
        let histogram = Histogram::default();
        histogram.note(Duration::from_micros(10));
        let earlier = histogram.latency();
        for _ in 0..3 {
            histogram.note(Duration::from_millis(10));
        }
        histogram.note(Duration::from_micros(10));
        let later = histogram.latency();
        let since = later.since(&earlier);
        assert_eq!(since.iter().map(|b| b.count).collect::<Vec<_>>(), [1, 3]);
        assert!(Latency::quantile(&since, 0.5).unwrap() > 9_000.0);
        assert!(later.since(&later).is_empty());
        assert_eq!(Latency::quantile(&[], 0.5), None);
    }
}
