//! Apart from what is tested, which the model checker compiles too: its locks are for its own tests.

use std::sync::Arc;

use crate::read::buffers::{Buffer, Buffers};

/// Takes as many buffers of `len` bytes at once, gives them back, and returns where they were.
fn use_at_once(buffers: &Arc<Buffers>, count: usize, len: usize) -> Vec<*const u8> {
    let taken: Vec<Buffer> = (0..count).map(|_| buffers.take(len).unwrap()).collect();
    taken.iter().map(|bytes| bytes.as_ptr()).collect()
}

#[test]
fn memory_is_used_again_whatever_was_used_before() {
    let buffers = Arc::new(Buffers::default());
    // More than is kept, of a kind that is not wanted any more.
    use_at_once(&buffers, 20, 4 << 20);
    let first = use_at_once(&buffers, 4, 1 << 20);
    for _ in 0..10 {
        let again = use_at_once(&buffers, 4, 1 << 20);
        assert!(again.iter().all(|place| first.contains(place)));
    }
}

#[test]
fn idle_memory_is_bounded() {
    let buffers = Arc::new(Buffers::default());
    for (count, len) in [
        (20, 4 << 20),
        (100, 1 << 20),
        (3, 16 << 20),
        (1, 64 << 20),
        (1000, 100),
    ] {
        use_at_once(&buffers, count, len);
        assert!(buffers.idle_bytes() <= Buffers::MOST_IDLE_BYTES);
    }
}
