//! Waits until every item of an import has its outcome.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{api::ImportStatus, client::ReceiverClient, report::EndReason};

/// How soon the receiver is asked first, and how seldom at the end.
const INITIAL_POLL: Duration = Duration::from_millis(100);
const MAX_POLL: Duration = Duration::from_secs(1);

/// What was seen last.
pub(super) struct WaitResult {
    pub(super) ended: EndReason,
    pub(super) status: Option<ImportStatus>,
    /// Why no more is known.
    pub(super) error: Option<String>,
}

/// Looks until the import of so many items is settled, the time is over, or
/// Ctrl-C is pressed.
pub(super) async fn wait_until_complete(
    receiver: &ReceiverClient,
    import_id: Uuid,
    items: u64,
    patience: Duration,
    bar: &ProgressBar,
) -> WaitResult {
    let mut seen = WaitResult { ended: EndReason::TimedOut, status: None, error: None };
    let looking = poll_until_complete(receiver, import_id, items, bar, &mut seen);
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => EndReason::Interrupted,
        settled = timeout_at(Instant::now() + patience, looking) => {
            if settled.is_ok() { EndReason::Completed } else { EndReason::TimedOut }
        }
    };
    WaitResult { ended, ..seen }
}

/// Looks until the import is settled; what was seen is in `seen` at any time.
async fn poll_until_complete(
    receiver: &ReceiverClient,
    import_id: Uuid,
    items: u64,
    bar: &ProgressBar,
    seen: &mut WaitResult,
) {
    let mut pause = INITIAL_POLL;
    loop {
        match receiver.status(import_id).await {
            Ok(Some(progress)) => {
                bar.set_position(progress.total.saturating_sub(progress.waiting));
                // An earlier note of the receiver's may be what is known.
                let is_settled = progress.is_complete() && progress.total >= items;
                (seen.status, seen.error) = (Some(progress), None);
                if is_settled {
                    return;
                }
            }
            Ok(None) => seen.error = Some("no worker has heard of it yet".to_owned()),
            Err(trouble) => seen.error = Some(trouble.to_string()),
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_POLL);
    }
}
