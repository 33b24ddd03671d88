//! One file on its way in: what was read is published with a window, and told
//! of as it goes.

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
    body_pipe,
    body_pipe::BodyInterrupted,
    parser_thread,
    parser_thread::{ImportContext, ParseResult, ParsedItem, RejectedItem},
    summary::ImportCounts,
};
use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError},
    domain::{ImportPosition, ImportProgress, ImportState, RejectedRequest},
    file_formats::FileError,
    receiver::Receiver,
};

/// After so many items, or so long, it is told how far the import has come.
const PROGRESS_ITEMS: u64 = 5000;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// What an import that is under way may take once the process stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last note is kept while the broker is away, and how often it
/// is tried again.
const PROGRESS_RETRY_TIMEOUT: Duration = Duration::from_mins(10);
const PROGRESS_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// An admitted import.
pub(super) struct Upload {
    pub(super) receiver: Receiver,
    pub(super) context: ImportContext,
    /// What the sender calls the file.
    pub(super) file_name: Option<String>,
    /// The length that the head tells.
    pub(super) content_length: Option<u64>,
}

/// How an import ended.
#[derive(Debug)]
pub(super) enum UploadEnd {
    /// All of the file was read, and all of it is durable.
    Complete,
    /// The file cannot be read from there on.
    Unreadable(FileError),
    /// The body ended before its end.
    Interrupted(BodyInterrupted),
    /// The broker does not have everything.
    PublishFailed(PublishError),
    /// A mistake of ours.
    Panicked,
}

impl UploadEnd {
    /// Why the import broke off, if it did.
    pub(super) fn error(&self) -> Option<String> {
        match self {
            Self::Complete => None,
            Self::Unreadable(broken) => Some(broken.to_string()),
            Self::Interrupted(cut) => Some(cut.message()),
            Self::PublishFailed(error) => Some(error.to_string()),
            Self::Panicked => Some("the file could not be read: a mistake of ours".to_owned()),
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
    /// Takes the file in. The rest of the body may still come.
    pub(super) async fn run(&self, body: &mut Body) -> (ImportCounts, UploadEnd) {
        let mut tally = ImportCounts::default();
        if let Err(error) =
            self.publish_progress(&self.progress(&tally, ImportState::Receiving, None)).await
        {
            return (tally, UploadEnd::PublishFailed(error));
        }
        let (inlet, outlet) = body_pipe::pipe();
        let (pieces, thread) =
            parser_thread::start_parser(&self.receiver, self.context.clone(), outlet);
        let idle = Duration::from_millis(self.receiver.settings.body_timeout_ms);
        let stopping = async {
            self.receiver.stop.cancelled().await;
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        };
        let (passed, published) = tokio::join!(
            inlet.forward(body, self.content_length, idle, stopping),
            self.publish(pieces, &mut tally),
        );
        let end = match (published, passed, thread.await) {
            (Err(error), ..) => UploadEnd::PublishFailed(error),
            (Ok(()), Err(cut), _) => UploadEnd::Interrupted(cut),
            (Ok(()), Ok(()), Ok(Err(broken))) => UploadEnd::Unreadable(broken),
            (Ok(()), Ok(()), Ok(Ok(()))) => UploadEnd::Complete,
            (Ok(()), Ok(()), Err(_)) => UploadEnd::Panicked,
        };
        let end = self.finish(&tally, end).await;
        (tally, end)
    }

    /// Publishes what is read, many at once, until there is nothing more or
    /// the broker does not take one. What was under way by then is waited for:
    /// the tally knows what is durable.
    async fn publish(
        &self,
        mut pieces: mpsc::Receiver<ParsedItem>,
        tally: &mut ImportCounts,
    ) -> Result<(), PublishError> {
        let mut flying = PendingPublishes::new();
        let mut clock =
            tokio::time::interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut result = Ok(());
        let mut noted = 0;
        let mut goes_on = true;
        while goes_on || !flying.is_empty() {
            let is_due = tokio::select! {
                biased;
                Some(done) = flying.next() => {
                    match done {
                        Ok(PublishedKind::Event) => tally.published += 1,
                        Ok(PublishedKind::Rejected) => tally.rejected += 1,
                        Ok(PublishedKind::Progress) => {}
                        Err(error) => {
                            // The reader learns of it when it sends the next.
                            pieces.close();
                            result = result.and(Err(error));
                        }
                    }
                    tally.items() >= noted + PROGRESS_ITEMS
                }
                piece = pieces.recv(), if goes_on => {
                    goes_on = piece.is_some();
                    if let Some(piece) = piece.filter(|_| result.is_ok()) {
                        flying.push(self.publish_item(piece, tally));
                    }
                    false
                }
                _ = clock.tick() => tally.items() > noted,
            };
            if is_due && goes_on && result.is_ok() {
                noted = tally.items();
                let note = self.progress(tally, ImportState::Receiving, None);
                flying.push(
                    async move {
                        self.publish_progress(&note).await.map(|_durable| PublishedKind::Progress)
                    }
                    .boxed(),
                );
            }
        }
        result
    }

    /// One item's way to the broker; it keeps its places until it is there.
    fn publish_item<'a>(
        &'a self,
        piece: ParsedItem,
        tally: &mut ImportCounts,
    ) -> BoxFuture<'a, Result<PublishedKind, PublishError>> {
        let Receiver { topology, publisher, .. } = &self.receiver;
        let (message, done) = match &piece.result {
            ParseResult::Event(envelope) => {
                (OutgoingMessage::inbound(topology, envelope), PublishedKind::Event)
            }
            ParseResult::Rejected(rejected) => {
                tally.add_rejections(rejected.line, &rejected.failures);
                (
                    OutgoingMessage::rejected_request(topology, &self.rejected_request(rejected)),
                    PublishedKind::Rejected,
                )
            }
        };
        async move {
            let sent = publisher.publish(message).await.map(|_durable: Confirmed| done);
            drop(piece);
            sent
        }
        .boxed()
    }

    /// A rejected line as it stands in the call log.
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

    /// Tells how it ended. Without that on record the file was not taken, and
    /// the sender is told so; it is tried again all the same, so that the
    /// import does not come in for ever.
    async fn finish(&self, tally: &ImportCounts, end: UploadEnd) -> UploadEnd {
        let error = end.error();
        let state = if error.is_none() { ImportState::Received } else { ImportState::Interrupted };
        info!(
            import_id = %self.context.import_id,
            source = %self.context.source,
            state = state.as_str(),
            error,
            published = tally.published,
            rejected = tally.rejected,
            "the file was read"
        );
        let note = self.progress(tally, state, error);
        let Err(error) = self.publish_progress(&note).await else { return end };
        tokio::spawn(retry_publish_progress(self.receiver.clone(), note));
        match end {
            UploadEnd::Complete => UploadEnd::PublishFailed(error),
            broken => broken,
        }
    }

    fn progress(
        &self,
        tally: &ImportCounts,
        state: ImportState,
        error: Option<String>,
    ) -> ImportProgress {
        let has_ended = state != ImportState::Receiving;
        ImportProgress {
            import_id: self.context.import_id,
            source: self.context.source.clone(),
            name: self.file_name.clone(),
            state,
            items: tally.items(),
            error,
            started_at: self.context.started_at,
            received_at: has_ended.then(OffsetDateTime::now_utc),
        }
    }

    async fn publish_progress(&self, note: &ImportProgress) -> Result<Confirmed, PublishError> {
        let Receiver { topology, publisher, .. } = &self.receiver;
        publisher.publish(OutgoingMessage::import_progress(topology, note)).await
    }
}

/// Tries to tell how an import ended, for a while.
async fn retry_publish_progress(receiver: Receiver, note: ImportProgress) {
    let deadline = Instant::now() + PROGRESS_RETRY_TIMEOUT;
    while Instant::now() < deadline && !receiver.stop.is_cancelled() {
        tokio::time::sleep(PROGRESS_RETRY_INTERVAL).await;
        let message = OutgoingMessage::import_progress(&receiver.topology, &note);
        if receiver.publisher.publish(message).await.is_ok() {
            return;
        }
    }
    warn!(import_id = %note.import_id, "how the import ended is not on record");
}
