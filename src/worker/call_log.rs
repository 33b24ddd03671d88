//! The call log: reads refused calls and writes them down, those to be kept
//! for a mended secret into `quarantine`, all others into `receipts`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Tools, Trouble, collect, patience::patiently};
use crate::{
    adapter::Adapter,
    broker::{Link, Subscription},
    domain::{Outcome, RefusedCall, SourceName},
    store::{Conn, StoreError, quarantine, receipts},
};

/// Calls in one transaction.
const BATCH: usize = 100;
/// How long a batch may wait to fill.
const WAIT: Duration = Duration::from_millis(20);

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
            let calls = batch.deliveries.iter().map(|delivery| delivery.parcel.call(now));
            self.log(&calls.collect::<Vec<_>>()).await?;
            self.subscription.ack_through(batch.last).await?;
        }
    }

    /// Writes calls down, in halves where one is refused. One that is refused
    /// alone is written without what strangers wrote into it: nothing may keep
    /// the others from being recorded.
    async fn log(&self, calls: &[RefusedCall]) -> Result<(), Trouble> {
        let hold = Duration::from_millis(self.tools.settings.hold_ms);
        let mut parts = vec![calls];
        while let Some(part) = parts.pop() {
            match (patiently(hold, || self.write(part)).await?, part) {
                (Ok(()), _) => self.count(part),
                (Err(error), [call]) => {
                    warn!(receipt_id = %call.receipt_id, %error, "a call is logged in part");
                    let plain = [plain(call, &error)];
                    patiently(hold, || self.write(&plain)).await?.map_err(Trouble::Database)?;
                    self.count(&plain);
                }
                (Err(_), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    async fn write(&self, calls: &[RefusedCall]) -> Result<(), StoreError> {
        let store = &self.tools.store;
        let written = store.in_time(async {
            let mut tx = store.begin().await?;
            write(&mut tx, &self.tools.sources, calls).await?;
            tx.commit().await
        });
        written.await
    }

    fn count(&self, calls: &[RefusedCall]) {
        for call in calls.iter().filter(|call| call.head.is_none()) {
            debug!(receipt_id = %call.receipt_id, source = %call.source, "refused; on record");
            // A stranger's routing key must not become a label.
            let known = self.tools.sources.contains_key(&call.source);
            let source = if known { call.source.clone() } else { SourceName::unknown() };
            self.tools.metrics.count_outcomes(&source, std::iter::once(Outcome::Rejected));
        }
    }
}

async fn write(
    conn: &mut Conn,
    sources: &BTreeMap<SourceName, Adapter>,
    calls: &[RefusedCall],
) -> Result<(), StoreError> {
    let refused: Vec<&RefusedCall> = calls.iter().filter(|call| call.head.is_none()).collect();
    if !refused.is_empty() {
        receipts::reject(conn, &refused).await?;
    }
    // A source that was told to keep none since then keeps none of these; what
    // it kept before is for a person to release or to discard.
    let limit = |source: &SourceName| sources.get(source).map_or(0, Adapter::quarantine);
    let forged: Vec<_> = calls
        .iter()
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
    Ok(())
}

/// The same with nothing but what we wrote ourselves.
fn plain(call: &RefusedCall, refused: &StoreError) -> RefusedCall {
    let mut call = call.clone();
    call.tenant.clear();
    call.error = format!("not all of the call could be stored ({refused})");
    if let Some(head) = &mut call.head {
        head.headers = json!([]);
        head.query.clear();
    }
    call
}
