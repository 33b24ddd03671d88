//! Waits until every item of an import has a final outcome.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{api::ImportStatus, client::ReceiverClient, report::EndReason};

/// The first and the longest interval between two status requests.
const INITIAL_POLL: Duration = Duration::from_millis(100);
const MAX_POLL: Duration = Duration::from_secs(1);

/// The last known status.
pub(super) struct WaitResult {
    pub(super) ended: EndReason,
    pub(super) status: Option<ImportStatus>,
    /// Why the status is unknown.
    pub(super) error: Option<String>,
}

/// Polls until all items have an outcome, the timeout has passed, or Ctrl-C is
/// pressed.
pub(super) async fn wait_until_complete(
    receiver: &ReceiverClient,
    import_id: Uuid,
    items: u64,
    timeout: Duration,
    bar: &ProgressBar,
) -> WaitResult {
    let mut result = WaitResult { ended: EndReason::TimedOut, status: None, error: None };
    let poll = poll_until_complete(receiver, import_id, items, bar, &mut result);
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => EndReason::Interrupted,
        completed = timeout_at(Instant::now() + timeout, poll) => {
            if completed.is_ok() { EndReason::Completed } else { EndReason::TimedOut }
        }
    };
    WaitResult { ended, ..result }
}

/// Polls until all items have an outcome. `result` always has the last status.
async fn poll_until_complete(
    receiver: &ReceiverClient,
    import_id: Uuid,
    items: u64,
    bar: &ProgressBar,
    result: &mut WaitResult,
) {
    let mut delay = INITIAL_POLL;
    loop {
        match receiver.status(import_id).await {
            Ok(Some(status)) => {
                bar.set_position(status.total.saturating_sub(status.waiting));
                // The database may not have the end of the file yet.
                let is_complete = status.is_complete() && status.total >= items;
                (result.status, result.error) = (Some(status), None);
                if is_complete {
                    return;
                }
            }
            Ok(None) => result.error = Some("no worker has recorded it yet".to_owned()),
            Err(error) => result.error = Some(error.to_string()),
        }
        sleep(delay).await;
        delay = (delay * 2).min(MAX_POLL);
    }
}
