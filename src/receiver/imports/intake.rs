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
    inlet::{self, Cut},
    reading::{self, Found, Origin, Piece, Rejected},
    report::Tally,
};
use crate::{
    broker::{Confirmed, Outgoing, PublishError},
    domain::{ImportItem, ImportNote, ImportState, RefusedCall},
    import::Broken,
    receiver::Receiver,
};

/// After so many items, or so long, it is told how far the import has come.
const NOTED_ITEMS: u64 = 5000;
const NOTED_AFTER: Duration = Duration::from_secs(2);

/// What an import that is under way may take once the process stops.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long the last note is kept while the broker is away, and how often it
/// is tried again.
const KEPT: Duration = Duration::from_mins(10);
const PAUSE: Duration = Duration::from_secs(2);

/// An admitted import.
pub(super) struct Intake {
    pub(super) receiver: Receiver,
    pub(super) origin: Origin,
    /// What the sender calls the file.
    pub(super) name: Option<String>,
    /// The length that the head tells.
    pub(super) length: Option<u64>,
}

/// How an import ended.
#[derive(Debug)]
pub(super) enum End {
    /// All of the file was read, and all of it is durable.
    Whole,
    /// The file cannot be read from there on.
    Broken(Broken),
    /// The body ended before its end.
    Cut(Cut),
    /// The broker does not have everything.
    Broker(PublishError),
    /// A mistake of ours.
    Panicked,
}

impl End {
    /// Why the import broke off, if it did.
    pub(super) fn error(&self) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Broken(broken) => Some(broken.to_string()),
            Self::Cut(cut) => Some(cut.told()),
            Self::Broker(error) => Some(error.to_string()),
            Self::Panicked => Some("the file could not be read: a mistake of ours".to_owned()),
        }
    }
}

/// What was confirmed.
enum Done {
    Published,
    Rejected,
    Noted,
}

type Flying<'a> = FuturesUnordered<BoxFuture<'a, Result<Done, PublishError>>>;

impl Intake {
    /// Takes the file in. The rest of the body may still come.
    pub(super) async fn run(&self, body: &mut Body) -> (Tally, End) {
        let mut tally = Tally::default();
        if let Err(error) = self.tell(&self.note(&tally, ImportState::Receiving, None)).await {
            return (tally, End::Broker(error));
        }
        let (inlet, outlet) = inlet::pipe();
        let (pieces, thread) = reading::begin(&self.receiver, self.origin.clone(), outlet);
        let idle = Duration::from_millis(self.receiver.settings.body_timeout_ms);
        let stopping = async {
            self.receiver.stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let (passed, published) = tokio::join!(
            inlet.pass(body, self.length, idle, stopping),
            self.publish(pieces, &mut tally),
        );
        let end = match (published, passed, thread.await) {
            (Err(error), ..) => End::Broker(error),
            (Ok(()), Err(cut), _) => End::Cut(cut),
            (Ok(()), Ok(()), Ok(Err(broken))) => End::Broken(broken),
            (Ok(()), Ok(()), Ok(Ok(()))) => End::Whole,
            (Ok(()), Ok(()), Err(_)) => End::Panicked,
        };
        let end = self.close(&tally, end).await;
        (tally, end)
    }

    /// Publishes what is read, many at once, until there is nothing more or
    /// the broker does not take one. What was under way by then is waited for:
    /// the tally knows what is durable.
    async fn publish(
        &self,
        mut pieces: mpsc::Receiver<Piece>,
        tally: &mut Tally,
    ) -> Result<(), PublishError> {
        let mut flying = Flying::new();
        let mut clock = tokio::time::interval_at(Instant::now() + NOTED_AFTER, NOTED_AFTER);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut result = Ok(());
        let mut noted = 0;
        let mut goes_on = true;
        while goes_on || !flying.is_empty() {
            let is_due = tokio::select! {
                biased;
                Some(done) = flying.next() => {
                    match done {
                        Ok(Done::Published) => tally.published += 1,
                        Ok(Done::Rejected) => tally.rejected += 1,
                        Ok(Done::Noted) => {}
                        Err(error) => {
                            // The reader learns of it when it sends the next.
                            pieces.close();
                            result = result.and(Err(error));
                        }
                    }
                    tally.items() >= noted + NOTED_ITEMS
                }
                piece = pieces.recv(), if goes_on => {
                    goes_on = piece.is_some();
                    if let Some(piece) = piece.filter(|_| result.is_ok()) {
                        flying.push(self.send(piece, tally));
                    }
                    false
                }
                _ = clock.tick() => tally.items() > noted,
            };
            if is_due && goes_on && result.is_ok() {
                noted = tally.items();
                let note = self.note(tally, ImportState::Receiving, None);
                flying.push(
                    async move { self.tell(&note).await.map(|_durable| Done::Noted) }.boxed(),
                );
            }
        }
        result
    }

    /// One item's way to the broker; it keeps its places until it is there.
    fn send<'a>(
        &'a self,
        piece: Piece,
        tally: &mut Tally,
    ) -> BoxFuture<'a, Result<Done, PublishError>> {
        let Receiver { topology, publisher, .. } = &self.receiver;
        let (message, done) = match &piece.found {
            Found::Event(envelope) => (Outgoing::inbound(topology, envelope), Done::Published),
            Found::Rejected(rejected) => {
                tally.reject(rejected.line, &rejected.failures);
                (Outgoing::call(topology, &self.refused(rejected)), Done::Rejected)
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
    fn refused(&self, rejected: &Rejected) -> RefusedCall {
        let Rejected { line, failures, raw } = rejected;
        let Origin { import_id, source, .. } = &self.origin;
        RefusedCall {
            receipt_id: Uuid::now_v7(),
            source: source.clone(),
            tenant: String::new(),
            received_at: OffsetDateTime::now_utc(),
            status: Some(202),
            error: failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            body: raw.clone(),
            import: Some(ImportItem { import_id: *import_id, line: *line }),
            head: None,
        }
    }

    /// Tells how it ended. Without that on record the file was not taken, and
    /// the sender is told so; it is tried again all the same, so that the
    /// import does not come in for ever.
    async fn close(&self, tally: &Tally, end: End) -> End {
        let error = end.error();
        let state = if error.is_none() { ImportState::Received } else { ImportState::BrokenOff };
        info!(
            import_id = %self.origin.import_id,
            source = %self.origin.source,
            state = state.as_str(),
            error,
            published = tally.published,
            rejected = tally.rejected,
            "the file was read"
        );
        let note = self.note(tally, state, error);
        let Err(error) = self.tell(&note).await else { return end };
        tokio::spawn(keep_telling(self.receiver.clone(), note));
        match end {
            End::Whole => End::Broker(error),
            broken => broken,
        }
    }

    fn note(&self, tally: &Tally, state: ImportState, error: Option<String>) -> ImportNote {
        let has_ended = state != ImportState::Receiving;
        ImportNote {
            import_id: self.origin.import_id,
            source: self.origin.source.clone(),
            name: self.name.clone(),
            state,
            items: tally.items(),
            error,
            begun_at: self.origin.begun_at,
            read_at: has_ended.then(OffsetDateTime::now_utc),
        }
    }

    async fn tell(&self, note: &ImportNote) -> Result<Confirmed, PublishError> {
        let Receiver { topology, publisher, .. } = &self.receiver;
        publisher.publish(Outgoing::import_note(topology, note)).await
    }
}

/// Tries to tell how an import ended, for a while.
async fn keep_telling(receiver: Receiver, note: ImportNote) {
    let deadline = Instant::now() + KEPT;
    while Instant::now() < deadline && !receiver.stop.is_cancelled() {
        tokio::time::sleep(PAUSE).await;
        let message = Outgoing::import_note(&receiver.topology, &note);
        if receiver.publisher.publish(message).await.is_ok() {
            return;
        }
    }
    warn!(import_id = %note.import_id, "how the import ended is not on record");
}
