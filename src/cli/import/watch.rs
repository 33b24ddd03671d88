//! Waits until every item of an import has its outcome.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{answer::Progress, client::Receiver, report::End};

/// How soon the receiver is asked first, and how seldom at the end.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What was seen last.
pub(super) struct Seen {
    pub(super) ended: End,
    pub(super) known: Option<Progress>,
    /// Why no more is known.
    pub(super) trouble: Option<String>,
}

/// Looks until the import of so many items is settled, the time is over, or
/// Ctrl-C is pressed.
pub(super) async fn until_settled(
    receiver: &Receiver,
    import_id: Uuid,
    items: u64,
    patience: Duration,
    bar: &ProgressBar,
) -> Seen {
    let mut seen = Seen { ended: End::TimedOut, known: None, trouble: None };
    let looking = look(receiver, import_id, items, bar, &mut seen);
    let ended = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => End::Interrupted,
        settled = timeout_at(Instant::now() + patience, looking) => {
            if settled.is_ok() { End::Settled } else { End::TimedOut }
        }
    };
    Seen { ended, ..seen }
}

/// Looks until the import is settled; what was seen is in `seen` at any time.
async fn look(
    receiver: &Receiver,
    import_id: Uuid,
    items: u64,
    bar: &ProgressBar,
    seen: &mut Seen,
) {
    let mut pause = FIRST_LOOK;
    loop {
        match receiver.progress(import_id).await {
            Ok(Some(progress)) => {
                bar.set_position(progress.total.saturating_sub(progress.waiting));
                // An earlier note of the receiver's may be what is known.
                let is_settled = progress.is_settled() && progress.total >= items;
                (seen.known, seen.trouble) = (Some(progress), None);
                if is_settled {
                    return;
                }
            }
            Ok(None) => seen.trouble = Some("no worker has heard of it yet".to_owned()),
            Err(trouble) => seen.trouble = Some(trouble.to_string()),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}
