//! Threads for requests that wait for another machine, so that those of the mount never do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

type Work = Box<dyn FnOnce() + Send>;

/// Threads that are started as they are wanted, and end when they are not.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: Sender<Work>,
    work: Receiver<Work>,
    /// Threads that there are, and work that waits or is being done.
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    threads: AtomicUsize,
    work: AtomicUsize,
}

impl Default for Waiting {
    fn default() -> Self {
        let (queue, work) = unbounded();
        Waiting {
            queue,
            work,
            counts: Arc::default(),
        }
    }
}

impl Waiting {
    /// As many requests as a kernel has in flight for several programs.
    const MOST: usize = 128;
    /// Time without work after which a thread ends.
    const IDLE: Duration = Duration::from_secs(10);

    /// Has `work` done by some thread.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let counts = &self.counts;
        let wanted = counts.work.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = self.queue.send(Box::new(work));
        let add = |threads: usize| (threads < wanted.min(Self::MOST)).then_some(threads + 1);
        let added = counts
            .threads
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        if added.is_err() {
            return;
        }
        let (queue, here) = (self.work.clone(), counts.clone());
        let spawned = thread::Builder::new()
            .name("waiting".to_owned())
            .spawn(move || run(&queue, &here));
        if spawned.is_err() {
            counts.threads.fetch_sub(1, Ordering::SeqCst);
            // Here, then: late is better than never.
            while let Ok(work) = self.work.try_recv() {
                work();
                counts.work.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

fn run(queue: &Receiver<Work>, counts: &Counts) {
    loop {
        match queue.recv_timeout(Waiting::IDLE) {
            Ok(work) => {
                work();
                counts.work.fetch_sub(1, Ordering::SeqCst);
            }
            Err(_) => {
                counts.threads.fetch_sub(1, Ordering::SeqCst);
                // Work that came at this moment counted on this thread.
                let Ok(work) = queue.try_recv() else { return };
                counts.threads.fetch_add(1, Ordering::SeqCst);
                work();
                counts.work.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_waits_for_other_work_is_done_beside_it() {
        let waiting = Waiting::default();
        let (done, others) = unbounded();
        let (answer, answers) = unbounded();
        for _ in 0..20 {
            let (done, others, answer) = (done.clone(), others.clone(), answer.clone());
            waiting.spawn(move || {
                done.send(()).unwrap();
                // All of them are being done before one of them ends.
                while others.len() < 20 {
                    thread::yield_now();
                }
                answer.send(()).unwrap();
            });
        }
        for _ in 0..20 {
            answers.recv().unwrap();
        }
    }
}
