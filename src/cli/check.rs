//! `tallyhook check`: says in plain words what is wrong, and where.

mod retention;
mod secrets;

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{DONE, FAILED};
use crate::{
    broker::Link,
    config::Config,
    domain::SourceName,
    service,
    store::{Store, StoreError, deliveries},
};

/// PostgreSQL 15, as `server_version_num` writes it.
pub(super) const OLDEST_POSTGRES: i32 = 150_000;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    verdict: Verdict,
    /// What was found, or what is wrong and what to do.
    told: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Works, and should be looked at.
    Warn,
    Wrong,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Wrong => "WRONG",
        }
    }
}

impl Finding {
    fn new(what: &'static str, told: Result<String, String>) -> Self {
        match told {
            Ok(told) => Self { what, verdict: Verdict::Ok, told },
            Err(told) => Self { what, verdict: Verdict::Wrong, told },
        }
    }
}

pub(super) async fn run(
    arguments: &CheckArgs,
    config: anyhow::Result<Config>,
) -> anyhow::Result<ExitCode> {
    let findings = match config {
        Err(error) => vec![Finding::new("configuration", Err(format!("{error:#}")))],
        Ok(config) => {
            let names: Vec<&str> = config.sources.keys().map(SourceName::as_str).collect();
            let told = format!("{} sources: {}", names.len(), names.join(", "));
            let mut findings = vec![Finding::new("configuration", Ok(told))];
            findings.push(retention::settings(&config));
            findings.extend(database(&config).await);
            findings.extend(broker(&config).await);
            findings
        }
    };
    let well = findings.iter().all(|finding| finding.verdict != Verdict::Wrong);
    if arguments.json {
        let told: Vec<_> = findings
            .iter()
            .map(|finding| {
                let Finding { what, verdict, told } = finding;
                let (ok, warning) = (*verdict != Verdict::Wrong, *verdict == Verdict::Warn);
                json!({"what": what, "ok": ok, "warning": warning, "told": told})
            })
            .collect();
        say!("{}", serde_json::to_string_pretty(&json!({"ok": well, "findings": told}))?);
    } else {
        for finding in &findings {
            say!("{:<6} {:<15} {}", finding.verdict.word(), finding.what, finding.told);
        }
    }
    Ok(ExitCode::from(if well { DONE } else { FAILED }))
}

async fn database(config: &Config) -> Vec<Finding> {
    let what = "PostgreSQL";
    match Store::new(&config.database) {
        Err(error) => vec![Finding::new(what, Err(format!("database.url: {error}")))],
        Ok(store) => {
            let mut findings = vec![Finding::new(what, look_at_database(&store).await)];
            if findings.iter().all(|finding| finding.verdict == Verdict::Ok) {
                findings.extend(targets(&store, config).await.unwrap_or_else(|error| {
                    vec![Finding::new("targets", Err(format!("cannot be looked up: {error}")))]
                }));
                findings.extend(retention::inbox(&store, config).await.unwrap_or_else(|error| {
                    vec![Finding::new("inbox", Err(format!("cannot be looked up: {error}")))]
                }));
                findings.extend(secrets::look(&store, config).await.unwrap_or_else(|error| {
                    vec![Finding::new("secrets", Err(format!("cannot be looked up: {error}")))]
                }));
            }
            store.close().await;
            findings
        }
    }
}

/// Warns of deliveries to targets that nobody delivers to any more.
async fn targets(store: &Store, config: &Config) -> Result<Vec<Finding>, StoreError> {
    let mut connection = store.connection().await?;
    let waiting = deliveries::count(&mut connection, false).await?;
    let lost = waiting.into_iter().filter(|count| !config.targets.contains_key(&count.target));
    let finding = |count: deliveries::Count| {
        let deliveries::Count { target, state, deliveries, .. } = count;
        let told = format!(
            "{deliveries} {state} deliveries to {target}, which is not configured here: nobody \
             sends them; void them, or configure it again"
        );
        Finding { what: "targets", verdict: Verdict::Warn, told }
    };
    Ok(lost.map(finding).collect())
}

async fn look_at_database(store: &Store) -> Result<String, String> {
    let version = store
        .server_version()
        .await
        .map_err(|error| format!("cannot be reached at database.url: {error}"))?;
    let major = version / 10_000;
    if version < OLDEST_POSTGRES {
        return Err(format!("is version {major}; 15 or later is needed"));
    }
    let pending = store.pending_migrations().await.map_err(|error| error.to_string())?;
    if pending.is_empty() {
        store.probe().await.map_err(|error| format!("cannot be written to: {error}"))?;
        Ok(format!("version {major}, schema up to date"))
    } else {
        Err(format!(
            "the schema is not up to date; run `tallyhook migrate` ({})",
            pending.join(", ")
        ))
    }
}

async fn broker(config: &Config) -> Vec<Finding> {
    let what = "RabbitMQ";
    let link = match Link::open(&config.broker.url, "tallyhook check").await {
        Ok(link) => link,
        Err(error) => {
            let error = anyhow::Error::from(error);
            let told = Err(format!("cannot be reached at broker.url: {error:#}"));
            return vec![Finding::new(what, told)];
        }
    };
    let topology = service::topology(config);
    let mut findings = vec![Finding::new(what, Ok("answers".to_owned()))];
    let told = match topology.depths(&link).await {
        Err(error) => Err(error.to_string()),
        Ok(depths) if depths.iter().all(|depth| depth.ready.is_some()) => {
            // Everything is there: declaring it changes nothing, and tells
            // whether the arguments are ours.
            match topology.declare(&link).await {
                Ok(()) => Ok(format!("{} queues, with the arguments they need", depths.len())),
                Err(error) => Err(error.to_string()),
            }
        }
        Ok(depths) => {
            let missing = depths.iter().filter(|depth| depth.ready.is_none()).count();
            Ok(format!("{missing} of {} queues are missing; they are made at start", depths.len()))
        }
    };
    findings.push(Finding::new("queues", told));
    link.close().await;
    findings
}
