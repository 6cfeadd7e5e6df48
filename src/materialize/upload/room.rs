//! A bound on the memory of parts that are computed and on their way.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;

/// Bytes that there is room for.
#[derive(Debug)]
pub(super) struct Room {
    size: u64,
    taken: Mutex<u64>,
    left: Condvar,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Room {
    pub(super) fn new(size: u64) -> Self {
        Room {
            size,
            taken: Mutex::default(),
            left: Condvar::new(),
        }
    }

    /// Takes `bytes`, once there are as many, and as often as it waits sees whether to `go_on`. What is
    /// larger than all of the room is let in alone.
    pub(super) fn take(&self, bytes: u64, go_on: impl Fn() -> Result<()>) -> Result<Taken<'_>> {
        const LOOK: Duration = Duration::from_millis(100);
        let mut taken = self.taken.lock();
        loop {
            go_on()?;
            if *taken == 0 || *taken + bytes <= self.size {
                *taken += bytes;
                return Ok(Taken { room: self, bytes });
            }
            self.left.wait_for(&mut taken, LOOK);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.taken.lock() -= self.bytes;
        self.room.left.notify_all();
    }
}
