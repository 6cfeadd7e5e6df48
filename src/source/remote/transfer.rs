//! Ranges of objects, fetched with patience: a transfer that stalls or breaks is resumed where it was,
//! until nothing has come for long.

use std::future::Future;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;

use crate::error::{Code, Error, Result};
use crate::shown::Show;
use crate::source::remote::fault::{Attempt, Fault};
use crate::source::remote::store::{Body, Object, Store};

/// How long attempts go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Time without a byte after which a transfer is broken off.
    pub(super) stall: Duration,
    /// Time without progress after which no attempt is made.
    pub(super) give_up: Duration,
}

/// The attempts since the last progress.
struct Attempts {
    patience: Patience,
    since: Instant,
    /// What of that time the server asked for.
    asked: Duration,
    count: u32,
}

impl Attempts {
    fn new(patience: Patience) -> Self {
        Attempts {
            patience,
            since: Instant::now(),
            asked: Duration::ZERO,
            count: 0,
        }
    }

    fn progress(&mut self) {
        *self = Attempts::new(self.patience);
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// If there is none: `fault` lasts, or there was no progress for long.
    async fn again(&mut self, fault: Fault, url: &str) -> Result<()> {
        /// The first pause; each is twice as long as the one before.
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(10);
        let (what, after) = match fault {
            Fault::Lasting(error) => return Err(error),
            Fault::Passing { what, after } => (what, after),
        };
        self.count += 1;
        let tried = self.since.elapsed().saturating_sub(self.asked);
        if tried >= self.patience.give_up {
            let seconds = self.patience.give_up.as_secs_f64();
            let problem = format!("nothing came for {seconds} s: {what}");
            let error = Error::of_file(Code::Unreachable, url, problem);
            return Err(error.with_hint("check the connection, the name and the server"));
        }
        let pause = match after {
            Some(after) => {
                log::warn!(
                    "{}: {what}; the next request is made in {} s, as the server asks",
                    url.shown(),
                    after.as_secs()
                );
                self.asked += after;
                after
            }
            None => {
                log::info!("{}: {what}; trying again", url.shown());
                let pause = FIRST.saturating_mul(1 << (self.count - 1).min(10));
                pause.min(LONGEST).min(self.patience.give_up / 4)
            }
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// What `attempt` gives, made again for as long as it may work.
///
/// # Errors
/// If it never will, or did not for long.
pub(super) async fn persistently<T, F: Future<Output = Attempt<T>>>(
    patience: Patience,
    url: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let mut attempts = Attempts::new(patience);
    loop {
        match within(patience.give_up, attempt()).await {
            Ok(value) => return Ok(value),
            Err(fault) => attempts.again(fault, url).await?,
        }
    }
}

/// As [`persistently`], of attempts that send much: each takes as long as its bytes move, and sees to it
/// itself that they do.
pub(super) async fn persistently_sending<T, F: Future<Output = Attempt<T>>>(
    patience: Patience,
    url: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    /// Attempts in which bytes moved, and that failed all the same.
    const MOVING: u32 = 4;
    let mut attempts = Attempts::new(patience);
    loop {
        let begun = Instant::now();
        let fault = match attempt().await {
            Ok(value) => return Ok(value),
            Err(fault) => fault,
        };
        // Without bytes that moved it would have ended sooner.
        if begun.elapsed() > 2 * patience.stall && attempts.count < MOVING {
            attempts.since = Instant::now();
        }
        attempts.again(fault, url).await?;
    }
}

/// The bytes of a range of an object, in order and each once.
pub(super) struct Transfer<'a> {
    store: &'a dyn Store,
    object: &'a Object,
    /// What has not come.
    rest: Range<u64>,
    reply: Option<Body>,
    attempts: Attempts,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        store: &'a dyn Store,
        object: &'a Object,
        range: Range<u64>,
        patience: Patience,
    ) -> Self {
        Transfer {
            store,
            object,
            rest: range,
            reply: None,
            attempts: Attempts::new(patience),
        }
    }

    /// The next bytes, until all are there.
    ///
    /// # Errors
    /// If the object changed, cannot be read, or nothing came for long.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.rest.is_empty() {
            match self.attempt().await {
                Ok(bytes) => {
                    self.rest.start += bytes.len() as u64;
                    self.attempts.progress();
                    return Ok(Some(bytes));
                }
                Err(fault) => {
                    self.reply = None;
                    self.attempts.again(fault, self.object.url()).await?;
                }
            }
        }
        Ok(None)
    }

    async fn attempt(&mut self) -> Attempt<Bytes> {
        let stall = self.attempts.patience.stall;
        let reply = match &mut self.reply {
            Some(reply) => reply,
            None => {
                let range = self.rest.clone();
                let reply = within(stall, self.store.get(self.object, range)).await?;
                self.reply.insert(reply)
            }
        };
        let next = async { Ok(reply.next().await) };
        match within(stall, next).await? {
            Some(Ok(bytes)) if bytes.len() as u64 > self.rest.end - self.rest.start => {
                let problem = "the reply is longer than what was asked for";
                Err(Fault::bad_reply(self.object.url(), problem))
            }
            Some(bytes) => bytes,
            None => Err(Fault::passing("the reply was cut short")),
        }
    }
}

/// What `future` gives within `time`.
async fn within<T>(time: Duration, future: impl Future<Output = Attempt<T>>) -> Attempt<T> {
    let stalled = || {
        let seconds = time.as_secs_f64();
        Fault::passing(format!("nothing came for {seconds} s"))
    };
    let result = tokio::time::timeout(time, future).await;
    result.unwrap_or_else(|_| Err(stalled()))
}
