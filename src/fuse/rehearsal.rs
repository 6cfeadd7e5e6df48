//! Whether this process may start the threads that a mount needs, found out before there is a mount.

use std::collections::TryReserveError;
use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};
use memmap2::MmapOptions;

/// What the FUSE session sets aside for the largest request, for each of its threads.
const REQUEST_BYTES: usize = 17 << 20;

/// What a thread needs beside: its stack, and what it allocates while it starts, which ends the
/// process if there is no memory for it.
const STARTING_BYTES: usize = 8 << 20;

/// What is left to all of them to work with: tiles, and what kernels hold while they compute them.
const WORKING_BYTES: usize = 64 << 20;

const PANICKED: &str = "a thread panicked";

/// Starts and ends `serving` threads that hold as much memory as those of a session, and `others`, all
/// at once. The session starts its own when it could only leave a dead mount behind.
pub(super) fn threads(serving: usize, others: usize) -> io::Result<()> {
    let (end, ended) = crossbeam_channel::bounded(0);
    let mut threads = Vec::new();
    let result = (0..serving + others).try_for_each(|number| {
        let bytes = if number < serving { REQUEST_BYTES } else { 0 };
        room_for(bytes + STARTING_BYTES)?;
        // One after the other: none takes what another needs to start.
        let (tell, told) = crossbeam_channel::bounded(1);
        threads.push(start(bytes, tell, ended.clone())?);
        let held = told.recv().map_err(|_| io::Error::other(PANICKED))?;
        Ok(held?)
    });
    let result = result.and_then(|()| room_for(WORKING_BYTES));
    drop(end);
    for thread in threads {
        thread.join().map_err(|_| io::Error::other(PANICKED))?;
    }
    result
}

/// Whether there is room for `bytes` bytes now.
fn room_for(bytes: usize) -> io::Result<()> {
    MmapOptions::new().len(bytes).map_anon().map(drop)
}

/// Starts a thread that sets `bytes` bytes aside, tells how that went, and keeps them until `ended`
/// is closed.
fn start(
    bytes: usize,
    tell: Sender<Result<(), TryReserveError>>,
    ended: Receiver<()>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().spawn(move || {
        let mut request = Vec::<u8>::new();
        // Both channels fail once nobody holds their other ends.
        let _ = tell.send(request.try_reserve_exact(bytes));
        let _ = ended.recv();
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_few_threads_can_be_had() {
        super::threads(3, 2).unwrap();
    }
}
