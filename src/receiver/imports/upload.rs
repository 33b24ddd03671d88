//! One file upload: publishes the parsed items, many at once, and records the progress.

use std::time::Duration;

use axum::body::Body;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    body_pipe::{self, BodyInterrupted},
    parser_thread::{ImportContext, ParseResult, ParsedItem, RejectedItem, start_parser},
    summary::ImportCounts,
};
use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError},
    domain::{ImportPosition, ImportProgress, ImportState, RejectedRequest},
    file_formats::FileError,
    receiver::Receiver,
};

/// The progress is published after this many items, or this much time.
const PROGRESS_ITEMS: u64 = 5000;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// How long an upload may go on once the process stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long, and how often, publishing the final progress is retried.
const PROGRESS_RETRY_TIMEOUT: Duration = Duration::from_mins(10);
const PROGRESS_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// An admitted upload.
pub(super) struct Upload {
    pub(super) receiver: Receiver,
    pub(super) context: ImportContext,
    /// The sender's name of the file.
    pub(super) file_name: Option<String>,
    pub(super) content_length: Option<u64>,
}

/// How an upload ended.
#[derive(Debug)]
pub(super) enum UploadEnd {
    /// The whole file was parsed, and every item is durable.
    Complete,
    /// The rest of the file cannot be parsed.
    Unreadable(FileError),
    /// The body is incomplete.
    Interrupted(BodyInterrupted),
    /// A publish was not confirmed.
    PublishFailed(PublishError),
    /// The parser thread panicked: a bug.
    Panicked,
}

impl UploadEnd {
    /// Why the import is interrupted, if it is.
    fn error(&self) -> Option<String> {
        match self {
            Self::Complete => None,
            Self::Unreadable(error) => Some(error.to_string()),
            Self::Interrupted(reason) => Some(reason.to_string()),
            Self::PublishFailed(error) => Some(error.to_string()),
            Self::Panicked => Some("the file could not be parsed: internal error".to_owned()),
        }
    }
}

/// What was confirmed.
enum PublishedKind {
    Event,
    Rejected,
    Progress,
}

type PendingPublishes<'a> = FuturesUnordered<BoxFuture<'a, Result<PublishedKind, PublishError>>>;

impl Upload {
    /// Receives, parses and publishes the file. Afterwards `body` may have unread data.
    pub(super) async fn run(&self, body: &mut Body) -> (ImportCounts, UploadEnd) {
        let mut counts = ImportCounts::default();
        let progress = self.progress(&counts, ImportState::Receiving, None);
        if let Err(error) = self.publish_progress(&progress).await {
            return (counts, UploadEnd::PublishFailed(error));
        }
        let (writer, reader) = body_pipe::pipe();
        let (parsed_items, parser) = start_parser(&self.receiver, self.context.clone(), reader);
        let idle_timeout = Duration::from_millis(self.receiver.settings.body_timeout_ms);
        let stopping = async {
            self.receiver.stop.cancelled().await;
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        };
        let (forwarded, published) = tokio::join!(
            writer.forward(body, self.content_length, idle_timeout, stopping),
            self.publish(parsed_items, &mut counts),
        );
        let end = match (published, forwarded, parser.await) {
            (Err(error), ..) => UploadEnd::PublishFailed(error),
            (Ok(()), Err(reason), _) => UploadEnd::Interrupted(reason),
            (Ok(()), Ok(()), Ok(Err(error))) => UploadEnd::Unreadable(error),
            (Ok(()), Ok(()), Ok(Ok(()))) => UploadEnd::Complete,
            (Ok(()), Ok(()), Err(_)) => UploadEnd::Panicked,
        };
        let end = self.finish(&counts, end).await;
        (counts, end)
    }

    /// Publishes the items, many at once, until there are no more or a publish fails. Publishes
    /// in progress are always awaited, so that `counts` has every durable item.
    async fn publish(
        &self,
        mut parsed_items: mpsc::Receiver<ParsedItem>,
        counts: &mut ImportCounts,
    ) -> Result<(), PublishError> {
        let mut pending = PendingPublishes::new();
        let mut clock =
            tokio::time::interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut result = Ok(());
        let mut reported_items = 0;
        let mut is_parsing = true;
        while is_parsing || !pending.is_empty() {
            let is_due = tokio::select! {
                biased;
                Some(published) = pending.next() => {
                    match published {
                        Ok(PublishedKind::Event) => counts.published += 1,
                        Ok(PublishedKind::Rejected) => counts.rejected += 1,
                        Ok(PublishedKind::Progress) => {}
                        Err(error) => {
                            // The parser stops when it sends the next item.
                            parsed_items.close();
                            result = result.and(Err(error));
                        }
                    }
                    counts.items() >= reported_items + PROGRESS_ITEMS
                }
                item = parsed_items.recv(), if is_parsing => {
                    is_parsing = item.is_some();
                    if let Some(item) = item.filter(|_| result.is_ok()) {
                        pending.push(self.publish_item(item, counts));
                    }
                    false
                }
                _ = clock.tick() => counts.items() > reported_items,
            };
            if is_due && is_parsing && result.is_ok() {
                reported_items = counts.items();
                let progress = self.progress(counts, ImportState::Receiving, None);
                let publish = async move {
                    let confirmed = self.publish_progress(&progress).await;
                    confirmed.map(|_confirmed| PublishedKind::Progress)
                };
                pending.push(publish.boxed());
            }
        }
        result
    }

    /// Publishes one item. It keeps its permits until the confirm.
    fn publish_item<'a>(
        &'a self,
        item: ParsedItem,
        counts: &mut ImportCounts,
    ) -> BoxFuture<'a, Result<PublishedKind, PublishError>> {
        let Receiver { topology, publisher, .. } = &self.receiver;
        let (message, kind) = match &item.result {
            ParseResult::Event(envelope) => {
                (OutgoingMessage::inbound(topology, envelope), PublishedKind::Event)
            }
            ParseResult::Rejected(rejected) => {
                counts.add_rejections(rejected.line, &rejected.failures);
                let rejected = self.rejected_request(rejected);
                let message = OutgoingMessage::rejected_request(topology, &rejected);
                (message, PublishedKind::Rejected)
            }
        };
        async move {
            let published = publisher.publish(message).await.map(|_confirmed: Confirmed| kind);
            drop(item);
            published
        }
        .boxed()
    }

    /// A rejected line, as a record of the call log.
    fn rejected_request(&self, rejected: &RejectedItem) -> RejectedRequest {
        let RejectedItem { line, failures, raw } = rejected;
        let ImportContext { import_id, source, .. } = &self.context;
        RejectedRequest {
            receipt_id: Uuid::now_v7(),
            source: source.clone(),
            tenant: String::new(),
            received_at: OffsetDateTime::now_utc(),
            status: Some(202),
            error: failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            body: raw.clone(),
            import: Some(ImportPosition { import_id: *import_id, line: *line }),
            request_head: None,
        }
    }

    /// Publishes how the upload ended. Without a confirm the upload has failed, and the publish is
    /// retried in the background so that the import does not stay in the state `receiving`.
    async fn finish(&self, counts: &ImportCounts, end: UploadEnd) -> UploadEnd {
        let error = end.error();
        let state = if error.is_none() { ImportState::Received } else { ImportState::Interrupted };
        info!(
            import_id = %self.context.import_id,
            source = %self.context.source,
            state = state.as_str(),
            error,
            published = counts.published,
            rejected = counts.rejected,
            "file parsed"
        );
        let progress = self.progress(counts, state, error);
        let Err(error) = self.publish_progress(&progress).await else { return end };
        tokio::spawn(retry_publish_progress(self.receiver.clone(), progress));
        match end {
            UploadEnd::Complete => UploadEnd::PublishFailed(error),
            failed => failed,
        }
    }

    fn progress(
        &self,
        counts: &ImportCounts,
        state: ImportState,
        error: Option<String>,
    ) -> ImportProgress {
        let has_ended = state != ImportState::Receiving;
        ImportProgress {
            import_id: self.context.import_id,
            source: self.context.source.clone(),
            name: self.file_name.clone(),
            state,
            items: counts.items(),
            error,
            started_at: self.context.started_at,
            received_at: has_ended.then(OffsetDateTime::now_utc),
        }
    }

    async fn publish_progress(&self, progress: &ImportProgress) -> Result<Confirmed, PublishError> {
        let Receiver { topology, publisher, .. } = &self.receiver;
        publisher.publish(OutgoingMessage::import_progress(topology, progress)).await
    }
}

async fn retry_publish_progress(receiver: Receiver, progress: ImportProgress) {
    let deadline = Instant::now() + PROGRESS_RETRY_TIMEOUT;
    while Instant::now() < deadline && !receiver.stop.is_cancelled() {
        tokio::time::sleep(PROGRESS_RETRY_INTERVAL).await;
        let message = OutgoingMessage::import_progress(&receiver.topology, &progress);
        if receiver.publisher.publish(message).await.is_ok() {
            return;
        }
    }
    warn!(import_id = %progress.import_id, "the end of the import is not recorded");
}
