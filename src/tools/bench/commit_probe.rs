//! Measures commit times from outside: polls for receipts until another
//! session can see them.
//!
//! `receipts.processed_at` is the start of the worker's transaction, so it
//! cannot be used. A measured time is at most one poll too long (about 3 ms).

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::baseline::table_stats;
use crate::store::Store;

const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// A probe ends with this time if its receipt has not appeared by then.
pub(super) const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) receipt_id: Uuid,
    /// When the message was due.
    pub(super) due: Instant,
}

/// Polls for all probes until the sender is dropped and all are found. Sends
/// the time from due to visible of each.
pub(super) async fn run(
    store: Store,
    mut probes: mpsc::UnboundedReceiver<Probe>,
    commits: mpsc::UnboundedSender<Duration>,
) -> anyhow::Result<()> {
    let mut open: Vec<Probe> = Vec::new();
    loop {
        if open.is_empty() {
            match probes.recv().await {
                Some(probe) => open.push(probe),
                None => return Ok(()),
            }
        }
        while let Ok(probe) = probes.try_recv() {
            open.push(probe);
        }
        let receipts: Vec<Uuid> = open.iter().map(|probe| probe.receipt_id).collect();
        let visible = table_stats::visible_receipts(&store, &receipts).await?;
        let (done, pending): (Vec<Probe>, Vec<Probe>) = open.into_iter().partition(|probe| {
            visible.contains(&probe.receipt_id) || probe.due.elapsed() >= TIMEOUT
        });
        for probe in done {
            if commits.send(probe.due.elapsed().min(TIMEOUT)).is_err() {
                return Ok(());
            }
        }
        open = pending;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
