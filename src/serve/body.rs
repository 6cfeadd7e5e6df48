//! The bytes of a range of a file, read piece by piece as the client takes them.
//!
//! A transfer holds one piece that is being sent and one that is being read, and no thread while it
//! waits for its client. An error ends it before its announced length, so that the client notices.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::error::{Code, Error, Result, Spelling};
use crate::memory;
use crate::read::{Ahead, ReadAhead, Reader};
use crate::view::EntryId;

/// Where bytes come from.
#[derive(Debug)]
pub(super) struct Source {
    reader: Arc<Reader>,
    /// `None` if there are no threads for it.
    ahead: Option<ReadAhead>,
    spelling: Spelling,
}

impl Source {
    pub(super) fn new(reader: Arc<Reader>, ahead: Option<ReadAhead>, spelling: Spelling) -> Self {
        Source {
            reader,
            ahead,
            spelling,
        }
    }

    fn read(&self, id: EntryId, range: Range<u64>, is_long: bool) -> Result<Bytes> {
        if let Some(ahead) = self.ahead.as_ref().filter(|_| is_long) {
            ahead.note(id, range.clone(), Ahead::Tiles);
        }
        let mut bytes = memory::zeros(range.end - range.start)?;
        let count = self.reader.read_at(id, range.start, &mut bytes)?;
        if count != bytes.len() {
            let problem = format!("{count} bytes were read of {}", bytes.len());
            return Err(Error::new(Code::Internal, problem));
        }
        Ok(bytes.into())
    }
}

/// A range of a file on its way to a client.
#[derive(Debug)]
pub(super) struct Transfer {
    source: Arc<Source>,
    id: EntryId,
    /// The file's path, for the log.
    name: String,
    /// What was not yet asked for.
    rest: Range<u64>,
    /// Bytes that were not yet handed on.
    left: u64,
    is_long: bool,
    /// A piece that was read before the answer began.
    first: Option<Bytes>,
    reading: Option<JoinHandle<Result<Bytes>>>,
}

/// A transfer was cut short. The log says why.
#[derive(Debug, thiserror::Error)]
#[error("the file cannot be read")]
pub(super) struct Unreadable;

impl Transfer {
    /// Bytes of a piece.
    const PIECE: u64 = 1 << 20;

    /// Begins to send `range` of the file `id`, called `name`.
    ///
    /// # Errors
    /// If the first piece cannot be read.
    pub(super) async fn begin(
        source: Arc<Source>,
        id: EntryId,
        name: String,
        range: Range<u64>,
    ) -> std::result::Result<Self, Unreadable> {
        let left = range.end - range.start;
        let mut this = Transfer {
            source,
            id,
            name,
            rest: range,
            left,
            is_long: left > Self::PIECE,
            first: None,
            reading: None,
        };
        this.read_next();
        if let Some(reading) = this.reading.take() {
            let read = reading.await;
            this.first = Some(this.checked(read)?);
            this.read_next();
        }
        Ok(this)
    }

    fn read_next(&mut self) {
        if self.rest.is_empty() {
            return;
        }
        // Pieces end at multiples of their size, as tiles mostly do.
        let end = (self.rest.start / Self::PIECE + 1) * Self::PIECE;
        let piece = self.rest.start..end.min(self.rest.end);
        self.rest.start = piece.end;
        let (source, id, is_long) = (self.source.clone(), self.id, self.is_long);
        self.reading = Some(tokio::task::spawn_blocking(move || {
            source.read(id, piece, is_long)
        }));
    }

    /// What was read; logs why there is nothing.
    fn checked(
        &self,
        read: std::result::Result<Result<Bytes>, tokio::task::JoinError>,
    ) -> std::result::Result<Bytes, Unreadable> {
        match read {
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(error)) => {
                let why = error.logged(self.source.spelling);
                log::error!("{}: cannot send it: {why}", self.name);
            }
            Err(error) if error.is_panic() => {
                log::error!("{}: panic while it was read", self.name);
            }
            // The server stops.
            Err(_) => {}
        }
        Err(Unreadable)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            // Unless it runs already.
            reading.abort();
        }
    }
}

impl Body for Transfer {
    type Data = Bytes;
    type Error = Unreadable;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Unreadable>>> {
        let this = self.get_mut();
        let bytes = match (this.first.take(), &mut this.reading) {
            (Some(first), _) => first,
            (None, None) => return Poll::Ready(None),
            (None, Some(reading)) => {
                let read = ready!(Pin::new(reading).poll(context));
                this.reading = None;
                match this.checked(read) {
                    Ok(bytes) => {
                        this.read_next();
                        bytes
                    }
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
        };
        this.left -= bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// What a response holds.
#[derive(Debug)]
pub(super) enum Content {
    /// These bytes, if they were not sent yet.
    Whole(Option<Bytes>),
    Transfer(Transfer),
}

impl Content {
    pub(super) fn none() -> Self {
        Content::Whole(None)
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Unreadable;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Unreadable>>> {
        match self.get_mut() {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Transfer(transfer) => Pin::new(transfer).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Transfer(transfer) => transfer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Transfer(transfer) => transfer.size_hint(),
        }
    }
}
