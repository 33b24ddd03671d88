//! When a message is in the books, for who looks from outside: a few of them
//! are looked for by their receipt until they are there.
//!
//! The worker is another process, and `receipts.processed_at` is when its
//! transaction began, not when it was committed. What is told here is when
//! another session first saw the receipt, from when the message was due: too
//! long by one look at the most (some 3 ms), never too short.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{store::Store, tools::bench::baseline::books};

/// How many messages are probed in a second, about.
pub const A_SECOND: u32 = 10;
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(2);
/// Who is not there by then is told to have taken so long, and not looked for
/// any longer: whether it comes at all, the accounts tell in the end.
const LONGEST: Duration = Duration::from_mins(1);

/// A message that is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its receipt.
    pub receipt: Uuid,
    /// When it was due.
    pub due: Instant,
}

/// Looks for all that it is asked for, however many are under way at once,
/// until nobody asks any more and all were found; tells how long each took.
///
/// # Errors
/// The database fails.
pub async fn run(
    store: Store,
    mut asked: mpsc::UnboundedReceiver<Probe>,
    found: mpsc::UnboundedSender<Duration>,
) -> anyhow::Result<()> {
    let mut open: Vec<Probe> = Vec::new();
    loop {
        if open.is_empty() {
            match asked.recv().await {
                Some(probe) => open.push(probe),
                None => return Ok(()),
            }
        }
        while let Ok(probe) = asked.try_recv() {
            open.push(probe);
        }
        let receipts: Vec<Uuid> = open.iter().map(|probe| probe.receipt).collect();
        let there = books::on_record(&store, &receipts).await?;
        let (done, rest): (Vec<Probe>, Vec<Probe>) = open
            .into_iter()
            .partition(|probe| there.contains(&probe.receipt) || probe.due.elapsed() >= LONGEST);
        for probe in done {
            if found.send(probe.due.elapsed().min(LONGEST)).is_err() {
                // Nobody listens any more: the soak is over.
                return Ok(());
            }
        }
        open = rest;
        tokio::time::sleep(LOOK).await;
    }
}
