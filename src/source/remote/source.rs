//! An object that is read: what is in memory or on disk, and the rest fetched in useful pieces.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Code, Error, Result};
use crate::source::remote::blocks::{BLOCK, Flight, Found, Key, Landing};
use crate::source::remote::cache;
use crate::source::remote::network::Network;
use crate::source::remote::store::{Object, Store};
use crate::source::remote::streams::{Ahead, SPAN, Streams};
use crate::source::remote::transfer::Transfer;

/// What is fetched of an object first: most headers are shorter.
const HEAD_BYTES: u64 = 64 << 10;

/// The number that the head has as a block.
const HEAD: u64 = u64::MAX;

/// Blocks that are asked for before the first of them is waited for.
const AT_ONCE: u64 = 64;

/// An object and everything that reads it.
#[derive(Debug)]
pub(super) struct Source {
    network: Arc<Network>,
    store: Arc<dyn Store>,
    pub(super) object: Object,
    /// What it is called in pin files.
    content: String,
    /// In the memory of this process.
    id: u64,
    disk: Option<cache::File>,
    streams: Mutex<Streams>,
}

/// A part of a read: a block, what of it is wanted, and where in the buffer.
struct Piece {
    block: u64,
    within: Range<usize>,
    at: usize,
}

impl Source {
    pub(super) fn new(network: Arc<Network>, store: Arc<dyn Store>, object: Object) -> Self {
        let disk = network.cache().and_then(|cache| cache.file(&object));
        Source {
            id: network.next_id(),
            network,
            store,
            content: object.content(),
            object,
            disk,
            streams: Mutex::default(),
        }
    }

    fn key(&self, block: u64) -> Key {
        Key {
            object: self.id,
            block,
        }
    }

    fn block_len(&self, block: u64) -> u64 {
        BLOCK.min(self.object.len - block * BLOCK)
    }

    /// Fills `buffer` from `offset`.
    pub(super) fn read(self: &Arc<Self>, buffer: &mut [u8], offset: u64) -> Result<()> {
        let len = buffer.len() as u64;
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= self.object.len);
        let Some(end) = end else {
            let problem = format!(
                "{len} bytes at offset {offset} are wanted, and it has {}",
                self.object.len
            );
            return Err(Error::of_file(
                Code::Truncated,
                &self.object.location,
                problem,
            ));
        };
        if buffer.is_empty() {
            return Ok(());
        }
        let known = self.network.pins();
        match known.and_then(|pins| pins.bytes(&self.content, &(offset..end))) {
            Some(known) => buffer.copy_from_slice(known),
            None => self.read_fetched(buffer, offset)?,
        }
        self.network.recorder().bytes(&self.content, offset, buffer);
        Ok(())
    }

    /// The same of what no pin file has; `buffer` is not empty, and within the object.
    fn read_fetched(self: &Arc<Self>, buffer: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buffer.len() as u64;
        let head = HEAD_BYTES.min(self.object.len);
        if end <= head && !self.has(0) {
            let from = offset as usize;
            buffer.copy_from_slice(&self.head()?[from..from + buffer.len()]);
            return Ok(());
        }
        // A header that is longer than most. Who wants all of a block has it fetched as one, which is kept.
        if (offset..end).contains(&head)
            && end < self.block_len(0)
            && let Found::Kept(first) = self.network.blocks().find(self.key(HEAD))
            && !self.has(0)
        {
            let (start, rest) = buffer.split_at_mut((head - offset) as usize);
            start.copy_from_slice(&first[offset as usize..]);
            let flight = Arc::new(Flight::default());
            self.launch(head, vec![(None, flight.clone(), end - head)], false);
            rest.copy_from_slice(&flight.wait(self.network.stopped())?);
            return Ok(());
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let most = ((at / BLOCK + AT_ONCE) * BLOCK - at) as usize;
            let count = most.min(buffer.len() - done);
            self.read_blocks(&mut buffer[done..done + count], at)?;
            done += count;
        }
        Ok(())
    }

    /// Whether reading `range` does not wait for the network.
    pub(super) fn is_near(&self, range: &Range<u64>) -> bool {
        let pins = self.network.pins();
        if pins.is_some_and(|pins| pins.bytes(&self.content, range).is_some()) {
            return true;
        }
        let head = HEAD_BYTES.min(self.object.len);
        if range.end <= head && matches!(self.network.blocks().find(self.key(HEAD)), Found::Kept(_))
        {
            return true;
        }
        let mut blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        blocks.all(|block| self.has(block))
    }

    /// Whether `block` is in memory or on disk.
    fn has(&self, block: u64) -> bool {
        matches!(self.network.blocks().find(self.key(block)), Found::Kept(_))
            || self.disk.as_ref().is_some_and(|disk| disk.has(block))
    }

    /// The first bytes.
    fn head(self: &Arc<Self>) -> Result<Bytes> {
        let len = HEAD_BYTES.min(self.object.len);
        let (found, flight) = self.network.blocks().find_or_board(self.key(HEAD));
        if let Some(flight) = flight {
            self.launch(0, vec![(Some(self.key(HEAD)), flight, len)], false);
        }
        match found {
            Found::Kept(bytes) => Ok(bytes),
            Found::Coming(flight) => flight.wait(self.network.stopped()),
            Found::Unknown => unreachable!("it was boarded"),
        }
    }

    fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
        let end = offset + len as u64;
        (offset / BLOCK..end.div_ceil(BLOCK)).map(move |block| {
            let start = block * BLOCK;
            let (from, to) = (offset.max(start), end.min(start + BLOCK));
            Piece {
                block,
                within: (from - start) as usize..(to - start) as usize,
                at: (from - offset) as usize,
            }
        })
    }

    fn read_blocks(self: &Arc<Self>, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut missing = Vec::new();
        let mut coming = Vec::new();
        for piece in Self::pieces(offset, buffer.len()) {
            let part = &mut buffer[piece.at..piece.at + piece.within.len()];
            match self.network.blocks().find(self.key(piece.block)) {
                Found::Kept(bytes) => part.copy_from_slice(&bytes[piece.within.clone()]),
                Found::Coming(flight) => coming.push((piece, flight)),
                Found::Unknown if self.read_from_disk(&piece, part) => {}
                Found::Unknown => missing.push(piece),
            }
        }
        self.note_asked(offset, buffer.len(), &missing);
        let wanted: Vec<u64> = missing.iter().map(|piece| piece.block).collect();
        for (piece, found) in missing.into_iter().zip(self.fetch(&wanted, SPAN, false)) {
            match found {
                Found::Kept(bytes) => {
                    let part = &mut buffer[piece.at..piece.at + piece.within.len()];
                    part.copy_from_slice(&bytes[piece.within]);
                }
                Found::Coming(flight) => coming.push((piece, flight)),
                Found::Unknown => unreachable!("it was boarded"),
            }
        }
        self.fetch_ahead(&(offset..offset + buffer.len() as u64));
        for (piece, flight) in coming {
            let bytes = flight.wait(self.network.stopped())?;
            let part = &mut buffer[piece.at..piece.at + piece.within.len()];
            part.copy_from_slice(&bytes[piece.within]);
        }
        Ok(())
    }

    fn read_from_disk(&self, piece: &Piece, part: &mut [u8]) -> bool {
        let disk = self.disk.as_ref();
        disk.is_some_and(|disk| disk.read(piece.block, piece.within.start, part))
    }

    /// Notes which blocks of a read were fetched for it.
    fn note_asked(&self, offset: u64, len: usize, missing: &[Piece]) {
        let credit = self.network.credit();
        let mut streams = self.streams.lock();
        for piece in Self::pieces(offset, len) {
            let fetched = missing.iter().any(|missing| missing.block == piece.block);
            streams.asked(piece.block, fetched, credit);
        }
    }

    /// Has `wanted` blocks, in order, fetched by requests that end at multiples of `span`; gives what is known of each.
    fn fetch(self: &Arc<Self>, wanted: &[u64], span: u64, ahead: bool) -> Vec<Found> {
        let mut found = Vec::with_capacity(wanted.len());
        let mut run: Vec<(Option<Key>, Arc<Flight>, u64)> = Vec::new();
        let mut start = 0;
        for &block in wanted {
            let key = self.key(block);
            let (known, flight) = self.network.blocks().find_or_board(key);
            found.push(known);
            let Some(flight) = flight else { continue };
            if ahead {
                let mut streams = self.streams.lock();
                streams.fetched_ahead(block, self.network.credit());
            }
            let is_next = block == start + run.len() as u64;
            // Stores have parts of their own, of a size like this.
            let crosses = (block * BLOCK).is_multiple_of(span);
            if !run.is_empty() && (!is_next || crosses) {
                self.launch(start * BLOCK, std::mem::take(&mut run), ahead);
            }
            if run.is_empty() {
                start = block;
            }
            run.push((Some(key), flight, self.block_len(block)));
        }
        if !run.is_empty() {
            self.launch(start * BLOCK, run, ahead);
        }
        found
    }

    /// Starts to fetch what a reader of `range` will want next.
    fn fetch_ahead(self: &Arc<Self>, range: &Range<u64>) {
        let most = self.network.most_ahead(self.disk.is_some());
        let ahead = {
            let mut streams = self.streams.lock();
            streams.advance(range, self.object.len, most, self.network.credit())
        };
        let Some(Ahead { range, span }) = ahead else {
            return;
        };
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let is_on_disk = |block: u64| self.disk.as_ref().is_some_and(|disk| disk.has(block));
        let blocks = blocks.filter(|block| {
            self.network.blocks().is_unknown(self.key(*block)) && !is_on_disk(*block)
        });
        let blocks: Vec<u64> = blocks.collect();
        drop(self.fetch(&blocks, span, true));
    }

    /// Has a range fetched that is `flights`, which begin at `start`.
    fn launch(
        self: &Arc<Self>,
        start: u64,
        flights: Vec<(Option<Key>, Arc<Flight>, u64)>,
        ahead: bool,
    ) {
        let source = self.clone();
        self.network.spawn(async move {
            let end = start + flights.iter().map(|(_, _, len)| len).sum::<u64>();
            let network = &source.network;
            let mut landing = Landing::new(network.blocks(), flights);
            let _permit = network.permit(ahead).await;
            if let Err(error) = source.fetch_to(&mut landing, start..end, ahead).await {
                landing.fail(&error);
            }
        });
    }

    /// Has the bytes of `range` land.
    async fn fetch_to(
        self: &Arc<Self>,
        landing: &mut Landing<'_>,
        range: Range<u64>,
        ahead: bool,
    ) -> Result<()> {
        let patience = self.network.patience();
        let mut transfer = Transfer::new(&*self.store, &self.object, range, patience);
        let mut landed = Vec::new();
        while let Some(bytes) = transfer.next().await? {
            landing.take(bytes, |key, block| {
                if self.keeps(key.block) {
                    landed.push((key.block, block.clone(), self.network.try_room_to_write()));
                }
            });
            for (block, bytes, room) in landed.drain(..) {
                let room = match room {
                    // Nobody waits for what comes next, and no more is read until this can be written.
                    None if ahead => self.network.room_to_write().await,
                    room => room,
                };
                if let Some(room) = room {
                    self.keep(block, bytes, room);
                }
            }
        }
        Ok(())
    }

    /// Whether `block` is for the disk.
    fn keeps(&self, block: u64) -> bool {
        let is_whole = block != HEAD || self.object.len <= HEAD_BYTES;
        self.disk.is_some() && is_whole
    }

    /// Has a block written to disk, for which there is `room` among what waits to be written.
    fn keep(self: &Arc<Self>, block: u64, bytes: Bytes, room: OwnedSemaphorePermit) {
        let block = if block == HEAD { 0 } else { block };
        let source = self.clone();
        self.network.spawn_blocking(move || {
            if let Some(disk) = &source.disk {
                disk.keep(block, &bytes);
            }
            drop(room);
        });
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.network.blocks().forget(self.id);
    }
}
