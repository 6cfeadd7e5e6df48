//! Whether this process may start the threads that a mount needs, found out before there is a mount.

use std::io;
use std::thread;

/// What the FUSE session sets aside for the largest request, for each of its threads.
const REQUEST_BYTES: usize = 17 << 20;

/// Starts and ends `serving` threads that hold as much memory as those of a session, and `others`, all
/// at once. The session starts its own when it could only leave a dead mount behind.
pub(super) fn threads(serving: usize, others: usize) -> io::Result<()> {
    let count = serving + others;
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let (tell, told) = crossbeam_channel::unbounded();
    let started = (0..count).map(|number| {
        let (tell, ended) = (tell.clone(), ended.clone());
        thread::Builder::new().spawn(move || {
            let mut request = Vec::<u8>::new();
            let bytes = if number < serving { REQUEST_BYTES } else { 0 };
            // Both channels fail once nobody holds their other ends.
            let _ = tell.send(request.try_reserve_exact(bytes));
            let _ = ended.recv();
        })
    });
    let started: io::Result<Vec<_>> = started.collect();
    let result = match &started {
        Ok(_) => told.iter().take(count).collect::<Result<(), _>>(),
        Err(_) => Ok(()),
    };
    drop(end);
    for thread in started? {
        thread
            .join()
            .map_err(|_| io::Error::other("a thread panicked"))?;
    }
    Ok(result?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_few_threads_can_be_had() {
        super::threads(3, 2).unwrap();
    }
}
