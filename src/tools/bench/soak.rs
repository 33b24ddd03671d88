//! `soak`: a constant load for a long time, which shows whether latencies,
//! commits, memory and tables stay stable.
//!
//! | Module | Content |
//! |---|---|
//! | [`workload`] | what is sent |
//! | [`sample`] | figures of each interval |
//! | [`stability`], [`reconciliation`] | the result |
//! | [`table_rows`] | its rows in the table |

pub(super) mod reconciliation;
mod sample;
mod stability;
pub(super) mod table_rows;
mod workload;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use serde::Serialize;
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    BenchOptions,
    commit_probe::{self, Probe},
    environment::BenchEnvironment,
    load::{self, Response},
    process::ServeProcess,
    progress::Progress,
    schedule::Schedule,
};
use crate::{app::Roles, broker::BrokerConnection};
use reconciliation::Reconciliation;
use sample::{Interval, Sample, Sampler};
use stability::Trend;
use workload::Workload;

/// Samples of a soak that is long enough.
const SAMPLES: u32 = 60;
/// PostgreSQL's statistics are updated once a second.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Soak {
    /// Arrivals a second.
    pub(super) rate: u32,
    pub(super) seconds: f64,
    /// Time between samples.
    pub(super) interval_seconds: f64,
    /// Whether all trends are stable and every message was accepted and is
    /// accounted for.
    pub(super) stable: bool,
    /// The last third relative to the first, by figure.
    pub(super) trends: BTreeMap<String, Trend>,
    pub(super) reconciliation: Reconciliation,
    pub(super) samples: Vec<Sample>,
}

fn interval(length: Duration) -> Duration {
    (length / SAMPLES).max(MIN_INTERVAL)
}

/// The number of samples of a soak of this length.
pub(super) fn samples(length: Duration) -> u64 {
    let interval = interval(length).as_nanos();
    // A remainder of less than half an interval belongs to the last sample.
    let count = (length.as_nanos() + interval / 2) / interval;
    u64::try_from(count).unwrap_or(u64::MAX).max(1)
}

/// Fails if a server fails, `serve` ends, or a status is neither 2xx, 429 nor
/// 503. Missing messages are no error here; see [`Reconciliation::complete`].
pub(super) async fn run(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    progress: &Progress,
) -> anyhow::Result<Soak> {
    progress.step("soak, starting");
    environment.clear().await?;
    let serve = ServeProcess::start(environment, &options.program, Roles::ALL).await?;
    serve.wait_until_ready().await?;
    let link = BrokerConnection::open(&environment.config.broker.url, "tallyhook bench").await?;
    let samples = apply_load(environment, options, &serve, &link, progress).await?;
    progress.step("soak, accounting for every message");
    let sum = |of: fn(&Sample) -> usize| samples.iter().map(of).sum::<usize>();
    let (accepted, refused) = (sum(|sample| sample.accepted), sum(|sample| sample.refused));
    let reconciliation = reconciliation::reconcile(environment, &link, accepted, refused).await?;
    link.close().await;
    serve.stop().await?;
    environment.clear().await?;
    let trends = stability::trends(&samples);
    Ok(Soak {
        rate: options.rate.get(),
        seconds: options.soak_duration.as_secs_f64(),
        interval_seconds: interval(options.soak_duration).as_secs_f64(),
        stable: reconciliation.complete
            && reconciliation.refused == 0
            && trends.len() == stability::FIGURES
            && trends.values().all(|trend| trend.stable),
        trends,
        reconciliation,
        samples,
    })
}

async fn apply_load(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    serve: &ServeProcess,
    link: &BrokerConnection,
    progress: &Progress,
) -> anyhow::Result<Vec<Sample>> {
    let (rate, length) = (options.rate, options.soak_duration);
    let (responses, mut received) = mpsc::unbounded_channel();
    let (probes, requested) = mpsc::unbounded_channel();
    let (commits, mut committed) = mpsc::unbounded_channel();
    let mut recorder = Sampler::new(environment, serve, link).await?;
    let schedule = Schedule::starting_now(rate, length);
    let workload = Workload::new(environment, schedule.total)?;
    // The receiver closes idle connections: each must send about once a second.
    let connections = options.connections.min(usize::try_from(rate.get()).unwrap_or(usize::MAX));
    let address = serve.receiver.context("serve has no receiver")?;
    let request = move |number| workload.request(number);
    let sending = load::open_loop(address, connections, schedule, request, responses);
    let probing = commit_probe::run(environment.store.clone(), requested, commits);
    let stride = workload::probe_stride(rate);

    let collecting = async {
        let mut samples = Vec::new();
        let mut current = Interval::default();
        let mut times = SampleTimes::new(schedule.start, length);
        let mut probes = Some(probes);
        loop {
            tokio::select! {
                response = received.recv() => {
                    let Some(response) = response else {
                        // All responses are here; the last probes may be pending.
                        probes = None;
                        while let Some(time) = committed.recv().await {
                            current.commits.push(time);
                        }
                        break;
                    };
                    current.add(response)?;
                    if let Some(probe) = probe(response, stride)?
                        && let Some(probes) = &probes
                    {
                        probes.send(probe)?;
                    }
                }
                Some(time) = committed.recv() => current.commits.push(time),
                () = sleep_until(times.next.into()), if !times.is_last() => {
                    let sample = recorder.take(std::mem::take(&mut current)).await?;
                    progress.step(&sample.progress(length));
                    samples.push(sample);
                    times.advance(Instant::now());
                }
            }
        }
        drop(probes);
        let sample = recorder.take(current).await?;
        progress.step(&sample.progress(length));
        samples.push(sample);
        anyhow::Ok(samples)
    };
    let ((), (), samples) = tokio::try_join!(sending, probing, collecting)?;
    Ok(samples)
}

/// A probe for every `stride`th accepted message that is not poison: dead
/// letters are recorded later.
fn probe(response: Response, stride: usize) -> anyhow::Result<Option<Probe>> {
    let wanted = response.status.is_success()
        && response.number.is_multiple_of(stride)
        && !workload::is_poison(response.number);
    if !wanted {
        return Ok(None);
    }
    let receipt_id = response.receipt_id.context("a response has no receipt id")?;
    Ok(Some(Probe { receipt_id, due: response.due }))
}

impl Interval {
    fn add(&mut self, response: Response) -> anyhow::Result<()> {
        let status = response.status;
        if status.is_success() {
            self.responses.push(response.latency);
            return Ok(());
        }
        let overloaded = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        ensure!(
            overloaded.contains(&status),
            "a request got status {status}: this is a bug of tallyhook or of its bench"
        );
        self.refused += 1;
        Ok(())
    }
}

/// When samples are due.
#[derive(Clone, Copy, Debug)]
struct SampleTimes {
    next: Instant,
    interval: Duration,
    end: Instant,
}

impl SampleTimes {
    fn new(start: Instant, length: Duration) -> Self {
        let interval = interval(length);
        Self { next: start + interval, interval, end: start + length }
    }

    /// Whether the rest of the soak is one interval.
    fn is_last(&self) -> bool {
        self.next + self.interval / 2 > self.end
    }

    /// Moves to the next time that is at least half an interval from now, so
    /// that a late sample is not followed by a short interval.
    fn advance(&mut self, now: Instant) {
        self.next += self.interval;
        while self.next < now + self.interval / 2 {
            self.next += self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_sixty_or_one_a_second() {
        for (millis, expected_interval, expected) in [
            (1_800_000, 30_000, 60),
            (60_000, 1_000, 60),
            (5_700, 1_000, 6),
            (5_300, 1_000, 5),
            (200, 1_000, 1),
            (100_000, 1_666, 60),
        ] {
            let length = Duration::from_millis(millis);
            assert_eq!(interval(length).as_millis(), expected_interval, "{millis}");
            assert_eq!(samples(length), expected, "{millis}");
        }
    }

    #[test]
    fn late_sample_skips_the_next_time() {
        let start = Instant::now();
        let mut times = SampleTimes::new(start, Duration::from_secs(10));
        let after = |millis| start + Duration::from_millis(millis);
        for (now, next) in [(1_020, 2_000), (3_400, 4_000), (5_600, 7_000), (7_000, 8_000)] {
            times.advance(after(now));
            assert_eq!(times.next, after(next), "at {now}");
        }
        assert!(!times.is_last());
        times.advance(after(9_400));
        assert!(times.is_last());
    }
}
