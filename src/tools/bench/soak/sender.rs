//! Sends a story at a constant rate of arrivals, and keeps nothing of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{probe::Probe, story::Story};
use crate::tools::bench::{load::Connection, schedule::Schedule};

/// What is sent where and when, and who hears of it.
pub struct Sender {
    /// The receiver.
    pub address: SocketAddr,
    /// How many connections send.
    pub connections: usize,
    /// When each message is due.
    pub schedule: Schedule,
    /// The messages.
    pub story: Story,
    /// Every so many-th message is probed.
    pub stride: usize,
    /// Hears of every answer.
    pub answers: mpsc::UnboundedSender<Answered>,
    /// Hears of what is probed.
    pub probes: mpsc::UnboundedSender<Probe>,
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub enum Answered {
    /// It is durable: so long after it was due.
    Accepted(Duration),
    /// It is not, as far as anybody knows: 429 or 503.
    Refused,
}

/// What the connections share.
struct Shared {
    sender: Sender,
    /// Takes each message when it is due.
    turns: Arc<Semaphore>,
    /// How many messages were made.
    made: AtomicUsize,
    /// How many turns were taken.
    taken: AtomicUsize,
}

/// Sends everything.
///
/// # Errors
/// An answer that is neither 2xx, 429 nor 503; a connection that broke in the
/// middle.
pub async fn run(sender: Sender) -> anyhow::Result<()> {
    let pacing = sender.schedule.pace();
    let connections = sender.connections;
    let shared = Arc::new(Shared {
        turns: pacing.turns(),
        sender,
        made: AtomicUsize::new(0),
        taken: AtomicUsize::new(0),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(send(Arc::clone(&shared)));
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a connection's task ended")??;
    }
    Ok(())
}

async fn send(shared: Arc<Shared>) -> anyhow::Result<()> {
    let Sender { address, schedule, story, stride, answers, probes, .. } = &shared.sender;
    let mut connection = Connection::open(*address).await?;
    loop {
        let nth = shared.made.fetch_add(1, Ordering::Relaxed);
        if nth >= schedule.total {
            return Ok(());
        }
        // Made before it is due, so that making it delays nothing.
        let message = story.message(nth)?;
        shared.turns.acquire().await?.forget();
        // Whoever made the earlier message need not be here first: what is due
        // is the next arrival, whichever message it is.
        let due = schedule.due(shared.taken.fetch_add(1, Ordering::Relaxed));
        if connection.is_closed() {
            connection = Connection::open(*address).await?;
        }
        let answer = connection.ask(&message.request).await?;
        let took = due.elapsed();
        let heard = if answer.status.is_success() {
            let probed = if message.settles && nth.is_multiple_of(*stride) {
                let receipt = answer.receipt.context("an answer named no receipt")?;
                probes.send(Probe { receipt, due }).is_ok()
            } else {
                true
            };
            probed && answers.send(Answered::Accepted(took)).is_ok()
        } else {
            let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
            ensure!(
                busy.contains(&answer.status),
                "a request was answered {}: this is a bug of tallyhook or of its bench",
                answer.status
            );
            answers.send(Answered::Refused).is_ok()
        };
        if !heard {
            // Whoever listened is gone, and tells why.
            return Ok(());
        }
    }
}
