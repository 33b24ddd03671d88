//! The call log: reads refused calls, rejected lines and notes about imports,
//! and writes them down: calls to be kept for a mended secret into
//! `quarantine`, all others into `receipts`, notes into `imports`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::{Tools, Trouble, collect, patience::patiently};
use crate::{
    adapter::Adapter,
    broker::{Link, Parcel, Subscription},
    domain::{ImportNote, ImportState, Outcome, RefusedCall, SourceName},
    store::{Conn, StoreError, imports, quarantine, receipts},
};

/// Entries in one transaction.
const BATCH: usize = 100;
/// How long a batch may wait to fill.
const WAIT: Duration = Duration::from_millis(20);

/// What a message of the queue says.
#[derive(Clone, Debug)]
enum Entry {
    /// A call, or a line of an import, was refused.
    Refused(RefusedCall),
    /// How far an import has come.
    Note(ImportNote),
}

impl Entry {
    /// Whatever a message says: one that cannot be read as a note is on
    /// record as a call, with its bytes.
    fn read(parcel: &Parcel, now: OffsetDateTime) -> Self {
        parcel.import_note().map_or_else(|| Self::Refused(parcel.call(now)), Self::Note)
    }

    /// What it is about, for the log.
    fn id(&self) -> Uuid {
        match self {
            Self::Refused(call) => call.receipt_id,
            Self::Note(note) => note.import_id,
        }
    }

    /// The same with nothing but what we wrote ourselves.
    fn plain(&self, refused: &StoreError) -> Self {
        match self {
            Self::Refused(call) => Self::Refused(plain_call(call, refused)),
            Self::Note(note) => Self::Note(plain_note(note, refused)),
        }
    }
}

/// Reads the queue of refused calls.
pub(super) struct CallLog {
    tools: Tools,
    subscription: Subscription,
}

impl CallLog {
    pub(super) async fn open(tools: Tools, link: &Link) -> Result<Self, Trouble> {
        let prefetch = u16::try_from(2 * BATCH).unwrap_or(u16::MAX);
        let subscription = Subscription::open(link, &tools.topology.calls(), prefetch).await?;
        Ok(Self { tools, subscription })
    }

    /// Works until stopped; the batch in hand is finished first.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Trouble> {
        let result = self.work(&stop).await;
        self.subscription.close().await;
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), Trouble> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = collect::batch(&mut self.subscription, BATCH, WAIT) => batch?,
            };
            let now = OffsetDateTime::now_utc();
            let entries: Vec<Entry> = batch
                .deliveries
                .iter()
                .map(|delivery| Entry::read(&delivery.parcel, now))
                .collect();
            self.log(&entries).await?;
            self.subscription.ack_through(batch.last).await?;
        }
    }

    /// Writes entries down, in halves where one is refused. One that is
    /// refused alone is written without what strangers wrote into it: nothing
    /// may keep the others from being recorded.
    async fn log(&self, entries: &[Entry]) -> Result<(), Trouble> {
        let hold = Duration::from_millis(self.tools.settings.hold_ms);
        let mut parts = vec![entries];
        while let Some(part) = parts.pop() {
            match (patiently(hold, || self.write(part)).await?, part) {
                (Ok(()), _) => self.count(part),
                (Err(error), [entry]) => {
                    warn!(receipt_id = %entry.id(), %error, "a call is logged in part");
                    let plain = [entry.plain(&error)];
                    match (patiently(hold, || self.write(&plain)).await?, entry) {
                        (Ok(()), _) => self.count(&plain),
                        (Err(error), Entry::Refused(_)) => return Err(Trouble::Database(error)),
                        // Its import shows less than it could, and every item
                        // has its own receipt all the same.
                        (Err(error), Entry::Note(note)) => {
                            error!(import_id = %note.import_id, %error, "a note is dropped");
                        }
                    }
                }
                (Err(_), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    async fn write(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let store = &self.tools.store;
        let written = store.in_time(async {
            let mut tx = store.begin().await?;
            write(&mut tx, &self.tools.sources, entries).await?;
            tx.commit().await
        });
        written.await
    }

    fn count(&self, entries: &[Entry]) {
        for call in entries.iter().filter_map(refused).filter(|call| call.head.is_none()) {
            debug!(receipt_id = %call.receipt_id, source = %call.source, "refused; on record");
            // A stranger's routing key must not become a label.
            let known = self.tools.sources.contains_key(&call.source);
            let source = if known { call.source.clone() } else { SourceName::unknown() };
            self.tools.metrics.count_outcomes(&source, std::iter::once(Outcome::Rejected));
        }
    }
}

/// The refused call, if the entry is one.
fn refused(entry: &Entry) -> Option<&RefusedCall> {
    match entry {
        Entry::Refused(call) => Some(call),
        Entry::Note(_) => None,
    }
}

async fn write(
    conn: &mut Conn,
    sources: &BTreeMap<SourceName, Adapter>,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let calls = || entries.iter().filter_map(refused);
    let rejected: Vec<&RefusedCall> = calls().filter(|call| call.head.is_none()).collect();
    if !rejected.is_empty() {
        receipts::reject(conn, &rejected).await?;
    }
    // A source that was told to keep none since then keeps none of these; what
    // it kept before is for a person to release or to discard.
    let limit = |source: &SourceName| sources.get(source).map_or(0, Adapter::quarantine);
    let forged: Vec<_> = calls()
        .filter_map(|call| Some((call, call.head.as_ref()?)))
        .filter(|(call, _)| limit(&call.source) > 0)
        .collect();
    if !forged.is_empty() {
        let limits: BTreeMap<&SourceName, u32> =
            forged.iter().map(|(call, _)| (&call.source, limit(&call.source))).collect();
        let limits: Vec<_> =
            limits.into_iter().map(|(source, most)| (source.clone(), most)).collect();
        quarantine::keep(conn, &forged, &limits).await?;
    }
    let notes: Vec<&ImportNote> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Note(note) => Some(note),
            Entry::Refused(_) => None,
        })
        .collect();
    if !notes.is_empty() {
        imports::note(conn, &notes).await?;
    }
    Ok(())
}

fn plain_call(call: &RefusedCall, refused: &StoreError) -> RefusedCall {
    let mut call = call.clone();
    call.tenant.clear();
    call.error = format!("not all of the call could be stored ({refused})");
    if let Some(head) = &mut call.head {
        head.headers = json!([]);
        head.query.clear();
    }
    call
}

fn plain_note(note: &ImportNote, refused: &StoreError) -> ImportNote {
    let broke_off = note.state == ImportState::BrokenOff;
    ImportNote {
        name: None,
        error: broke_off.then(|| format!("why it broke off could not be stored ({refused})")),
        ..note.clone()
    }
}
