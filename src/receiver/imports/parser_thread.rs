//! The thread that parses a file: bytes to items, items to messages. A window bounds the items
//! that are parsed and not confirmed yet.

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

/// The permits of the window. A small item takes one.
const MAX_UNCONFIRMED_ITEMS: usize = 512;
/// A larger item takes a permit for each so many bytes, so that an import holds at most 16 MiB.
const BYTES_PER_PERMIT: usize = 32 * 1024;

/// The request that uploads a file.
#[derive(Clone)]
pub(super) struct ImportContext {
    pub(super) import_id: Uuid,
    pub(super) source: SourceName,
    pub(super) format: ImportFormat,
    /// The label of the secret that authenticated the upload.
    pub(super) secret_label: String,
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) started_at: OffsetDateTime,
}

/// A parsed item. It holds its permits until it is dropped, after the confirm.
pub(super) struct ParsedItem {
    pub(super) result: ParseResult,
    _permits: OwnedSemaphorePermit,
    _in_flight: GaugeGuard,
}

/// The message of an item, or why there is none.
pub(super) enum ParseResult {
    Event(Box<Envelope>),
    Rejected(RejectedItem),
}

/// An invalid line.
pub(super) struct RejectedItem {
    pub(super) line: u32,
    pub(super) failures: Vec<PermanentFailure>,
    /// The line as it is in the file, truncated if it is long.
    pub(super) raw: Bytes,
}

/// Starts the thread. It ends with the file, or when the receiver of the items is dropped.
pub(super) fn start_parser(
    receiver: &Receiver,
    context: ImportContext,
    reader: BodyReader,
) -> (mpsc::Receiver<ParsedItem>, JoinHandle<Result<(), FileError>>) {
    let (sender, parsed_items) = mpsc::channel(MAX_UNCONFIRMED_ITEMS);
    let (sources, metrics) = (Arc::clone(&receiver.sources), receiver.metrics.clone());
    let limit = receiver.settings.body_limit_bytes;
    let runtime = Handle::current();
    let thread = tokio::task::spawn_blocking(move || {
        // `admit_import` has found the source already.
        let Some(source) = sources.get(&context.source) else { return Ok(()) };
        let parser = ParserThread {
            source,
            context: &context,
            metrics: &metrics,
            runtime,
            parsed_items: sender,
        };
        parser.run(reader, limit)
    });
    (parsed_items, thread)
}

struct ParserThread<'a> {
    source: &'a Source,
    context: &'a ImportContext,
    metrics: &'a Metrics,
    runtime: Handle,
    parsed_items: mpsc::Sender<ParsedItem>,
}

impl ParserThread<'_> {
    fn run(&self, reader: BodyReader, limit: usize) -> Result<(), FileError> {
        let Some(dialect) = self.source.csv_dialect() else { return Ok(()) };
        let window = Arc::new(Semaphore::new(MAX_UNCONFIRMED_ITEMS));
        // Positions increase from item to item, also where several items of a JSON array begin on
        // one line.
        let mut position = 0_u32;
        for item in FileReader::new(reader, self.context.format, dialect, limit) {
            let item = item?;
            position = item.line.max(position.saturating_add(1));
            let size = item.body.as_ref().map_or(item.raw.len(), Bytes::len);
            let permits = Arc::clone(&window).acquire_many_owned(permits_for(size));
            // The semaphore is never closed.
            let Ok(permits) = self.runtime.block_on(permits) else { break };
            let in_flight = GaugeGuard::increment(&self.metrics.import_items_in_flight);
            let result = self.parse_item(item, position);
            let parsed = ParsedItem { result, _permits: permits, _in_flight: in_flight };
            if self.parsed_items.blocking_send(parsed).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn parse_item(&self, item: FileItem, position: u32) -> ParseResult {
        let FileItem { line, raw, body } = item;
        let envelope = body
            .map_err(|failure| vec![failure])
            .and_then(|body| self.build_envelope(&body, line, position));
        match envelope {
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
        let ImportContext { import_id, source, format, secret_label, headers, query, started_at } =
            self.context;
        let request = WebhookRequest { headers, query, body, received_at: *started_at };
        let event = self.source.import_event(&request, *format, position)?;
        let now = OffsetDateTime::now_utc();
        let envelope = event
            .envelope(source, Uuid::now_v7(), now, secret_label)
            .map_err(|rejection| vec![PermanentFailure::invalid("", rejection.to_string())])?;
        let import = Some(ImportPosition { import_id: *import_id, line });
        Ok(Envelope { import, ..envelope })
    }
}

/// The permits that an item of this size takes: at most all of them.
fn permits_for(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT).clamp(1, MAX_UNCONFIRMED_ITEMS)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_large_item_takes_many_permits_up_to_all() {
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
