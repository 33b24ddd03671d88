//! `soak`: a constant load for a long time, which shows whether latencies,
//! commits, memory and tables stay stable.
//!
//! | Module | Content |
//! |---|---|
//! | [`workload`] | what is sent |
//! | [`sample`] | figures of each interval |
//! | [`stability`], [`reconciliation`] | the result |

mod reconciliation;
mod sample;
mod stability;
mod workload;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::mpsc, time::sleep_until};

use super::{
    BenchOptions,
    commit_probe::{self, Probe},
    environment::BenchEnvironment,
    load::{self, Response},
    process::ServeProcess,
    report::{Measured, Row, milliseconds, rate, row},
    schedule::Schedule,
};
use crate::{app::Roles, broker::BrokerConnection};
use reconciliation::Reconciliation;
use sample::{Interval, Sample, Sampler};
use stability::{Trend, sample_median};
use workload::Workload;

/// Samples of a soak that is long enough.
const SAMPLES: u32 = 60;
/// PostgreSQL's statistics are updated once a second.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Soak {
    /// Arrivals a second.
    rate: u32,
    seconds: f64,
    /// Time between samples.
    interval_seconds: f64,
    /// Whether all trends are stable and every message was accepted and is
    /// accounted for.
    stable: bool,
    /// The last third relative to the first, by figure.
    trends: BTreeMap<&'static str, Trend>,
    reconciliation: Reconciliation,
    samples: Vec<Value>,
}

fn interval(length: Duration) -> Duration {
    (length / SAMPLES).max(MIN_INTERVAL)
}

impl Soak {
    /// The medians, the change of each figure, and the messages by outcome.
    fn rows(&self) -> Vec<Row> {
        let times = |what, rate, kind: &str| {
            let [p50, p99] = ["p50_ms", "p99_ms"]
                .map(|field| sample_median(&self.samples, &format!("/{kind}/{field}")))
                .map(|time| time.map_or_else(String::new, milliseconds));
            [what, rate, p50, p99, String::new()]
        };
        let minutes = self.seconds / 60.0;
        let what = format!("soak of {minutes:.1} min, all payloads, due until response");
        let mut rows = vec![
            times(what, rate(f64::from(self.rate)), "responses"),
            times("soak, due until committed".to_owned(), String::new(), "commits"),
        ];
        for (figure, Trend { first, last, stable, .. }) in &self.trends {
            let warning = if *stable { "" } else { " (NOT STABLE)" };
            let compared = format!("{first} → {last}{warning}");
            rows.push(row(format!("soak, {figure}"), String::new(), compared));
        }
        rows.push(row("soak, accounted for", String::new(), self.reconciliation.to_string()));
        rows
    }
}

/// Fails if a server fails, `serve` ends, or a status is neither 2xx, 429 nor
/// 503. Missing messages are no error here; see [`Reconciliation::complete`].
pub(super) async fn run(
    environment: &BenchEnvironment,
    options: &BenchOptions,
) -> anyhow::Result<Measured> {
    environment.progress("soak, starting");
    environment.clear().await?;
    let serve = ServeProcess::start(environment, &options.program, Roles::ALL).await?;
    serve.wait_until_ready().await?;
    let link = environment.link().await?;
    let samples = apply_load(environment, options, &serve, &link).await?;
    environment.progress("soak, accounting for every message");
    let sum = |of: fn(&Sample) -> usize| samples.iter().map(of).sum::<usize>();
    let (accepted, refused) = (sum(|sample| sample.accepted), sum(|sample| sample.refused));
    let reconciliation = reconciliation::reconcile(environment, &link, accepted, refused).await?;
    link.close().await;
    serve.stop().await?;
    environment.clear().await?;
    let samples = samples.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    let trends = stability::trends(&samples);
    let soak = Soak {
        rate: options.rate.get(),
        seconds: options.soak_duration.as_secs_f64(),
        interval_seconds: interval(options.soak_duration).as_secs_f64(),
        stable: reconciliation.complete
            && reconciliation.refused == 0
            && trends.len() == stability::FIGURES.len()
            && trends.values().all(|trend| trend.stable),
        trends,
        reconciliation,
        samples,
    };
    Ok(Measured { rows: soak.rows(), figures: serde_json::to_value(soak)? })
}

async fn apply_load(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    serve: &ServeProcess,
    link: &BrokerConnection,
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
        let interval = interval(length);
        let (mut next, end) = (schedule.start + interval, schedule.start + length);
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
                // The last interval is up to one and a half times as long.
                () = sleep_until(next.into()), if next + interval / 2 <= end => {
                    let sample = recorder.take(std::mem::take(&mut current)).await?;
                    environment.progress(&sample.progress(length));
                    samples.push(sample);
                    // A late sample is not followed by a very short interval.
                    next = (next + interval).max(Instant::now() + interval / 2);
                }
            }
        }
        drop(probes);
        let sample = recorder.take(current).await?;
        environment.progress(&sample.progress(length));
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
