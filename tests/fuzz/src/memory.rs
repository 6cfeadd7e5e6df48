//! A bound on memory: what a target allocates must be a small multiple of its input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, which counts the bytes that are in use.
pub struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// More than this at once is refused, which ends the process: a finding, and not a full machine.
const MOST_AT_ONCE: usize = 1 << 30;

// SAFETY: every call is handed on to `System` as it came, or refused by a null pointer.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST_AT_ONCE {
            return std::ptr::null_mut();
        }
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        if now > PEAK.load(Relaxed) {
            PEAK.fetch_max(now, Relaxed);
        }
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `work`, which has `input` bytes to work on and may have `fixed` bytes and `per_byte` more
/// for each of them in use at once.
///
/// # Panics
/// If it takes more.
pub fn bounded<R>(input: usize, fixed: usize, per_byte: usize, work: impl FnOnce() -> R) -> R {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = work();
    let taken = PEAK.load(Relaxed).saturating_sub(before);
    let most = fixed + per_byte * input;
    assert!(
        taken <= most,
        "{taken} bytes of memory for {input} bytes of input; at most {most} are allowed"
    );
    result
}
