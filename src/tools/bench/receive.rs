//! `receive`: how many webhooks a second are verified, confirmed by the
//! broker and answered, and how long an answer takes.
//!
//! First as many as N connections send, each when the one before was answered:
//! that is the maximum. Then half of it at a constant rate, each request timed
//! from when it was due. Against the same load on the bare confirmed publish,
//! in turns.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Instant};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Settings,
    baseline::{broker::Broker, receiver as bare},
    load::{self, Sample, Target},
    measure::{Percentiles, per_second, ratio},
    payload::Payload,
    progress::Progress,
    report::{Mixed, Receive, Received, settled},
    stage::{Publishing, Stage},
};
use crate::{observability::health::Health, receiver::Receiver};

/// Requests that are made beforehand, and sent again and again: the receiver
/// does not know one from another.
pub const PREPARED: u32 = 256;

/// A receiver on a port of its own, gone when this is dropped.
pub struct Serving {
    /// Where it listens.
    pub address: SocketAddr,
    _stop: DropGuard,
    _task: JoinSet<()>,
}

impl Serving {
    /// The product's, as `serve` runs it.
    ///
    /// # Errors
    /// No port is free.
    pub async fn product(stage: &Stage, publishing: &Publishing) -> anyhow::Result<Self> {
        let receiver = Receiver::new(
            stage.config.receiver.clone(),
            Arc::clone(&stage.config.sources),
            Arc::clone(&stage.topology),
            publishing.publisher.clone(),
            // Only asked what became of imports, which nobody does here.
            stage.store.clone(),
            publishing.metrics.clone(),
        );
        let (listener, address) = listen().await?;
        let stop = CancellationToken::new();
        let serve = receiver.run(listener, Health::default(), stop.clone());
        Ok(Self::spawn(address, stop, serve))
    }

    /// The bare confirmed publish.
    ///
    /// # Errors
    /// No port is free, or what the broker says.
    pub async fn bare(stage: &Stage, broker: &Broker) -> anyhow::Result<Self> {
        let (listener, address) = listen().await?;
        let stop = CancellationToken::new();
        let serve = bare::serve(stage, broker, listener, stop.clone()).await?;
        Ok(Self::spawn(address, stop, serve))
    }

    fn spawn(
        address: SocketAddr,
        stop: CancellationToken,
        serve: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let mut task = JoinSet::new();
        task.spawn(serve);
        Self { address, _stop: stop.drop_guard(), _task: task }
    }
}

async fn listen() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// One run's figures of one payload.
struct Round {
    ours: f64,
    bare: f64,
    at_maximum: Percentiles,
    at_half: Percentiles,
}

/// Runs the scenario.
///
/// # Errors
/// A server that fails, or a request that is refused.
pub async fn run(
    stage: &Stage,
    settings: &Settings,
    progress: &Progress,
) -> anyhow::Result<Receive> {
    let publishing = stage.publishing().await?;
    let ours = Serving::product(stage, &publishing).await?;
    let broker = Broker::open(&stage.config.broker.url).await?;
    let theirs = Serving::bare(stage, &broker).await?;
    let mut receive = Receive::default();
    for payload in Payload::ALL {
        let target = |address| -> anyhow::Result<Target> {
            let requests = Arc::new(load::prepare(stage, payload, PREPARED)?);
            Ok(Target { address, requests, connections: settings.connections })
        };
        let (ours, theirs) = (target(ours.address)?, target(theirs.address)?);
        let mut rounds = Vec::new();
        for nth in 0..settings.runs {
            progress.step(&format!("receive, {}, run {}", payload.title(), nth + 1));
            rounds.push(round(stage, settings, &ours, &theirs, nth % 2 == 0).await?);
        }
        let received = Received {
            per_second: settled(rounds.iter().map(|round| round.ours), 0),
            bare_per_second: settled(rounds.iter().map(|round| round.bare), 0),
            ratio_to_bare_publish: settled(
                rounds.iter().map(|round| ratio(round.ours, round.bare)),
                3,
            ),
            at_maximum: Percentiles::median(&each(&rounds, |round| round.at_maximum)),
            at_half: Percentiles::median(&each(&rounds, |round| round.at_half)),
            ..Received::default()
        };
        let Percentiles { p50_ms, p99_ms, .. } = received.at_half;
        receive.payloads.insert(payload.key(), Received { p50_ms, p99_ms, ..received });
    }
    receive.mixed = mixed(stage, settings, progress, ours.address, theirs.address).await?;
    broker.close().await;
    receive.headline = receive.payloads.get(Payload::Generic.key()).copied().unwrap_or_default();
    Ok(receive)
}

/// All payloads in turns, over their sources and queues: as many as go.
async fn mixed(
    stage: &Stage,
    settings: &Settings,
    progress: &Progress,
    ours: SocketAddr,
    theirs: SocketAddr,
) -> anyhow::Result<Mixed> {
    let total = Payload::ALL.len() * usize::try_from(PREPARED)?;
    let requests = Arc::new(load::mixed(stage, total)?);
    let target = |address| Target {
        address,
        requests: Arc::clone(&requests),
        connections: settings.connections,
    };
    let (ours, theirs) = (target(ours), target(theirs));
    let (mut mine, mut bare, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..settings.runs {
        progress.step(&format!("receive, all payloads in turns, run {}", nth + 1));
        let (our, their) = both(stage, settings, &ours, &theirs, nth % 2 == 0).await?;
        mine.push(per_second(our.len(), settings.length));
        bare.push(per_second(their.len(), settings.length));
        answers.push(times(&our));
    }
    let Percentiles { p50_ms, p99_ms, .. } = Percentiles::median(&answers);
    Ok(Mixed {
        p50_ms,
        p99_ms,
        ratio_to_bare_publish: settled(
            mine.iter().zip(&bare).map(|(our, bare)| ratio(*our, *bare)),
            3,
        ),
        per_second: settled(mine, 0),
        bare_per_second: settled(bare, 0),
    })
}

/// Both as fast as they go: in turns, so that neither always meets the warmer
/// server.
async fn both(
    stage: &Stage,
    settings: &Settings,
    ours: &Target,
    theirs: &Target,
    ours_first: bool,
) -> anyhow::Result<(Vec<Sample>, Vec<Sample>)> {
    if ours_first {
        let mine = maximum(stage, settings, ours).await?;
        Ok((mine, maximum(stage, settings, theirs).await?))
    } else {
        let bare = maximum(stage, settings, theirs).await?;
        Ok((maximum(stage, settings, ours).await?, bare))
    }
}

fn each(rounds: &[Round], of: fn(&Round) -> Percentiles) -> Vec<Percentiles> {
    rounds.iter().map(of).collect()
}

async fn round(
    stage: &Stage,
    settings: &Settings,
    ours: &Target,
    theirs: &Target,
    ours_first: bool,
) -> anyhow::Result<Round> {
    let (mine, bare) = both(stage, settings, ours, theirs, ours_first).await?;
    let rate = per_second(mine.len(), settings.length);
    let half = at_half(settings, ours, rate).await?;
    stage.purge().await?;
    Ok(Round {
        ours: rate,
        bare: per_second(bare.len(), settings.length),
        at_maximum: times(&mine),
        at_half: times(&half),
    })
}

/// As fast as it goes; what lies in the queue then is taken out, so that none
/// pays for another's.
pub async fn maximum(
    stage: &Stage,
    settings: &Settings,
    target: &Target,
) -> anyhow::Result<Vec<Sample>> {
    let samples = load::closed(target, settings.length).await?;
    stage.purge().await?;
    Ok(samples)
}

async fn at_half(settings: &Settings, target: &Target, rate: f64) -> anyhow::Result<Vec<Sample>> {
    let rate = half(rate);
    let total = settings.arrivals(rate);
    let schedule = super::schedule::Schedule { begun: Instant::now(), rate, total };
    load::open(target, schedule).await
}

/// Half of a rate, and at least one a second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate of requests is positive and far below 2^32; the cast saturates"
)]
fn half(rate: f64) -> NonZeroU32 {
    NonZeroU32::new((rate / 2.0) as u32).unwrap_or(NonZeroU32::MIN)
}

fn times(samples: &[Sample]) -> Percentiles {
    Percentiles::of(samples.iter().map(|sample| sample.took).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_rate_is_a_rate() {
        for (rate, expected) in [(0.0, 1), (1.9, 1), (4001.0, 2000)] {
            assert_eq!(half(rate).get(), expected, "{rate}");
        }
    }
}
