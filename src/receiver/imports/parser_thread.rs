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

use super::body_pipe::BodyReader;
use crate::{
    domain::{Envelope, ImportFormat, ImportPosition, PermanentFailure, SourceName},
    file_formats::{FileError, FileItem, FileReader},
    observability::metrics::{GaugeGuard, Metrics},
    receiver::Receiver,
    sources::{Source, WebhookRequest},
};

/// Items that were read and are not confirmed yet: at most so many, and fewer
/// if they are large.
const MAX_UNCONFIRMED_ITEMS: usize = 512;
/// A small item takes one place of the window; a large one a place for each
/// so many bytes. So an import holds 16 MiB, whatever its items are like.
const BYTES_PER_PERMIT: usize = 32 * 1024;

/// What a message needs to know of the call that brought the file.
#[derive(Clone)]
pub(super) struct ImportContext {
    pub(super) import_id: Uuid,
    pub(super) source: SourceName,
    pub(super) format: ImportFormat,
    /// The label of the secret that let it in.
    pub(super) secret: String,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) started_at: OffsetDateTime,
}

/// An item, and its places in the window as long as it is not confirmed.
pub(super) struct ParsedItem {
    pub(super) result: ParseResult,
    _permits: OwnedSemaphorePermit,
    _in_flight: GaugeGuard,
}

/// What an item comes to.
pub(super) enum ParseResult {
    Event(Box<Envelope>),
    Rejected(RejectedItem),
}

/// A line that is no invoice.
pub(super) struct RejectedItem {
    pub(super) line: u32,
    pub(super) failures: Vec<PermanentFailure>,
    /// As it stands in the file, as far as it is kept.
    pub(super) raw: Bytes,
}

/// Begins to read. The thread ends with the file, or when nobody wants its
/// pieces any more.
pub(super) fn start_parser(
    receiver: &Receiver,
    origin: ImportContext,
    outlet: BodyReader,
) -> (mpsc::Receiver<ParsedItem>, JoinHandle<Result<(), FileError>>) {
    let (pieces, read) = mpsc::channel(MAX_UNCONFIRMED_ITEMS);
    let (sources, metrics) = (Arc::clone(&receiver.sources), receiver.metrics.clone());
    let limit = receiver.settings.body_limit_bytes;
    let runtime = Handle::current();
    let thread = tokio::task::spawn_blocking(move || {
        // Only a source that takes files gets here.
        let Some(adapter) = sources.get(&origin.source) else { return Ok(()) };
        let reading = ParserThread {
            adapter,
            origin: &origin,
            metrics: &metrics,
            runtime,
            parsed_items: pieces,
        };
        reading.run(outlet, limit)
    });
    (read, thread)
}

struct ParserThread<'a> {
    adapter: &'a Source,
    origin: &'a ImportContext,
    metrics: &'a Metrics,
    runtime: Handle,
    parsed_items: mpsc::Sender<ParsedItem>,
}

impl ParserThread<'_> {
    fn run(&self, outlet: BodyReader, limit: usize) -> Result<(), FileError> {
        let Some(csv) = self.adapter.csv_dialect() else { return Ok(()) };
        let window = Arc::new(Semaphore::new(MAX_UNCONFIRMED_ITEMS));
        // Of two items the later has the greater position, also where an
        // array has several on one line.
        let mut position = 0_u32;
        for item in FileReader::new(outlet, self.origin.format, csv, limit) {
            let item = item?;
            position = item.line.max(position.saturating_add(1));
            let places = permits_for(item.body.as_ref().map_or(item.raw.len(), Bytes::len));
            let waiting = Arc::clone(&window).acquire_many_owned(places);
            // Nobody closes the semaphore.
            let Ok(places) = self.runtime.block_on(waiting) else { break };
            let in_flight = GaugeGuard::increment(&self.metrics.import_items_in_flight);
            let found = self.parse_item(item, position);
            let piece = ParsedItem { result: found, _permits: places, _in_flight: in_flight };
            if self.parsed_items.blocking_send(piece).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn parse_item(&self, item: FileItem, position: u32) -> ParseResult {
        let FileItem { line, raw, body } = item;
        let event = body
            .map_err(|failure| vec![failure])
            .and_then(|body| self.build_envelope(&body, line, position));
        match event {
            Ok(envelope) => ParseResult::Event(Box::new(envelope)),
            Err(failures) => ParseResult::Rejected(RejectedItem { line, failures, raw }),
        }
    }

    fn build_envelope(
        &self,
        body: &Bytes,
        line: u32,
        position: u32,
    ) -> Result<Envelope, Vec<PermanentFailure>> {
        let ImportContext { import_id, source, format, secret, headers, query, started_at } =
            self.origin;
        let call = WebhookRequest { headers, query, body, received_at: *started_at };
        let event = self.adapter.import_event(&call, *format, position)?;
        let now = OffsetDateTime::now_utc();
        let envelope = event
            .envelope(source, Uuid::now_v7(), now, secret)
            .map_err(|rejection| vec![PermanentFailure::invalid("", rejection.to_string())])?;
        let import = Some(ImportPosition { import_id: *import_id, line });
        Ok(Envelope { import, ..envelope })
    }
}

/// The places that an item of so many bytes takes: never more than there are.
fn permits_for(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT).clamp(1, MAX_UNCONFIRMED_ITEMS)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_item_takes_the_places_of_many_and_never_more_than_there_are() {
        for (bytes, expected) in [
            (0, 1),
            (200, 1),
            (BYTES_PER_PERMIT, 1),
            (BYTES_PER_PERMIT + 1, 2),
            (4 * 1024 * 1024, 128),
            (usize::MAX, 512),
        ] {
            assert_eq!(permits_for(bytes), expected, "{bytes}");
        }
    }
}
