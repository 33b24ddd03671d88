//! The thread that reads a file: bytes to items, items to messages. No more of
//! them than the window has places for.

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
};
use uuid::Uuid;

use super::inlet::Outlet;
use crate::{
    adapter::{Adapter, Call},
    domain::{Envelope, Failure, ImportFormat, ImportItem, SourceName},
    import::{Broken, Item, Reader},
    metrics::{InFlight, Metrics},
    receiver::Receiver,
};

/// Items that were read and are not confirmed yet: at most so many, and fewer
/// if they are large.
const WINDOW: usize = 512;
/// A small item takes one place of the window; a large one a place for each
/// so many bytes. So an import holds 16 MiB, whatever its items are like.
const PLACE: usize = 32 * 1024;

/// What a message needs to know of the call that brought the file.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) import_id: Uuid,
    pub(super) source: SourceName,
    pub(super) format: ImportFormat,
    /// The label of the secret that let it in.
    pub(super) secret: String,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) begun_at: OffsetDateTime,
}

/// An item, and its places in the window as long as it is not confirmed.
pub(super) struct Piece {
    pub(super) found: Found,
    _places: OwnedSemaphorePermit,
    _in_flight: InFlight,
}

/// What an item comes to.
pub(super) enum Found {
    Event(Box<Envelope>),
    Rejected(Rejected),
}

/// A line that is no invoice.
pub(super) struct Rejected {
    pub(super) line: u32,
    pub(super) failures: Vec<Failure>,
    /// As it stands in the file, as far as it is kept.
    pub(super) raw: Bytes,
}

/// Begins to read. The thread ends with the file, or when nobody wants its
/// pieces any more.
pub(super) fn begin(
    receiver: &Receiver,
    origin: Origin,
    outlet: Outlet,
) -> (mpsc::Receiver<Piece>, JoinHandle<Result<(), Broken>>) {
    let (pieces, read) = mpsc::channel(WINDOW);
    let (sources, metrics) = (Arc::clone(&receiver.sources), receiver.metrics.clone());
    let limit = receiver.settings.body_limit_bytes;
    let runtime = Handle::current();
    let thread = tokio::task::spawn_blocking(move || {
        // Only a source that takes files gets here.
        let Some(adapter) = sources.get(&origin.source) else { return Ok(()) };
        let reading = Reading { adapter, origin: &origin, metrics: &metrics, runtime, pieces };
        reading.run(outlet, limit)
    });
    (read, thread)
}

struct Reading<'a> {
    adapter: &'a Adapter,
    origin: &'a Origin,
    metrics: &'a Metrics,
    runtime: Handle,
    pieces: mpsc::Sender<Piece>,
}

impl Reading<'_> {
    fn run(&self, outlet: Outlet, limit: usize) -> Result<(), Broken> {
        let Some(csv) = self.adapter.csv() else { return Ok(()) };
        let window = Arc::new(Semaphore::new(WINDOW));
        // Of two items the later has the greater position, also where an
        // array has several on one line.
        let mut position = 0_u32;
        for item in Reader::new(outlet, self.origin.format, csv, limit) {
            let item = item?;
            position = item.line.max(position.saturating_add(1));
            let places = places(item.body.as_ref().map_or(item.raw.len(), Bytes::len));
            let waiting = Arc::clone(&window).acquire_many_owned(places);
            // Nobody closes the semaphore.
            let Ok(places) = self.runtime.block_on(waiting) else { break };
            let in_flight = InFlight::begin(&self.metrics.import_items_in_flight);
            let found = self.found(item, position);
            let piece = Piece { found, _places: places, _in_flight: in_flight };
            if self.pieces.blocking_send(piece).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn found(&self, item: Item, position: u32) -> Found {
        let Item { line, raw, body } = item;
        let event = body
            .map_err(|failure| vec![failure])
            .and_then(|body| self.event(&body, line, position));
        match event {
            Ok(envelope) => Found::Event(Box::new(envelope)),
            Err(failures) => Found::Rejected(Rejected { line, failures, raw }),
        }
    }

    fn event(&self, body: &Bytes, line: u32, position: u32) -> Result<Envelope, Vec<Failure>> {
        let Origin { import_id, source, format, secret, headers, query, begun_at } = self.origin;
        let call = Call { headers, query, body, received_at: *begun_at };
        let event = self.adapter.item(&call, *format, position)?;
        let now = OffsetDateTime::now_utc();
        let envelope = event
            .envelope(source, Uuid::now_v7(), now, secret)
            .map_err(|rejection| vec![Failure::invalid("", rejection.to_string())])?;
        let import = Some(ImportItem { import_id: *import_id, line });
        Ok(Envelope { import, ..envelope })
    }
}

/// The places that an item of so many bytes takes: never more than there are.
fn places(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PLACE).clamp(1, WINDOW)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_item_takes_the_places_of_many_and_never_more_than_there_are() {
        for (bytes, expected) in [
            (0, 1),
            (200, 1),
            (PLACE, 1),
            (PLACE + 1, 2),
            (4 * 1024 * 1024, 128),
            (usize::MAX, 512),
        ] {
            assert_eq!(places(bytes), expected, "{bytes}");
        }
    }
}
