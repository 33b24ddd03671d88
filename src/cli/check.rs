//! `tallyhook check`: checks configuration, database and broker.

mod retention;
mod secrets;

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{EXIT_DONE, EXIT_FAILED};
use crate::{
    app,
    app::Components,
    broker::BrokerConnection,
    config::Config,
    domain::SourceName,
    store::{Store, StoreError, deliveries},
};

/// PostgreSQL 15, as `server_version_num` writes it.
pub(super) const MIN_POSTGRES_VERSION: i32 = 150_000;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The result of one check.
struct Finding {
    subject: &'static str,
    status: CheckStatus,
    /// What was found; for an error also what to do.
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckStatus {
    Ok,
    /// Works, but needs attention.
    Warning,
    Error,
}

impl CheckStatus {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warn",
            Self::Error => "WRONG",
        }
    }
}

impl Finding {
    fn new(subject: &'static str, result: Result<String, String>) -> Self {
        let (status, message) = match result {
            Ok(message) => (CheckStatus::Ok, message),
            Err(message) => (CheckStatus::Error, message),
        };
        Self { subject, status, message }
    }
}

pub(super) async fn run(
    arguments: &CheckArgs,
    loaded: anyhow::Result<(Config, Components)>,
) -> anyhow::Result<ExitCode> {
    let findings = match loaded {
        Err(error) => vec![Finding::new("configuration", Err(format!("{error:#}")))],
        Ok((config, components)) => {
            let names: Vec<&str> = config.sources.keys().map(SourceName::as_str).collect();
            let message = format!("{} sources: {}", names.len(), names.join(", "));
            let mut findings = vec![Finding::new("configuration", Ok(message))];
            findings.push(retention::settings_finding(&components.retention));
            findings.extend(database_findings(&config, &components).await);
            findings.extend(broker_findings(&config).await);
            findings
        }
    };
    let is_ok = findings.iter().all(|finding| finding.status != CheckStatus::Error);
    if arguments.json {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| {
                let Finding { subject, status, message } = finding;
                let (ok, warning) =
                    (*status != CheckStatus::Error, *status == CheckStatus::Warning);
                json!({"subject": subject, "ok": ok, "warning": warning, "message": message})
            })
            .collect();
        outln!("{}", serde_json::to_string_pretty(&json!({"ok": is_ok, "findings": rows}))?);
    } else {
        for finding in &findings {
            outln!("{:<6} {:<15} {}", finding.status.label(), finding.subject, finding.message);
        }
    }
    Ok(ExitCode::from(if is_ok { EXIT_DONE } else { EXIT_FAILED }))
}

async fn database_findings(config: &Config, components: &Components) -> Vec<Finding> {
    let subject = "PostgreSQL";
    match Store::new(&config.database) {
        Err(error) => vec![Finding::new(subject, Err(format!("database.url: {error}")))],
        Ok(store) => {
            let mut findings = vec![Finding::new(subject, check_database(&store).await)];
            if findings.iter().all(|finding| finding.status == CheckStatus::Ok) {
                findings.extend(unknown_destinations(&store, config).await.unwrap_or_else(
                    |error| {
                        vec![Finding::new(
                            "destinations",
                            Err(format!("cannot be looked up: {error}")),
                        )]
                    },
                ));
                findings.extend(
                    retention::inbox_findings(&store, &components.retention).await.unwrap_or_else(
                        |error| {
                            vec![Finding::new(
                                "inbox",
                                Err(format!("cannot be looked up: {error}")),
                            )]
                        },
                    ),
                );
                findings.extend(
                    secrets::findings(&store, config, components).await.unwrap_or_else(|error| {
                        vec![Finding::new("secrets", Err(format!("cannot be looked up: {error}")))]
                    }),
                );
            }
            store.close().await;
            findings
        }
    }
}

/// Warns of waiting deliveries to destinations that are not configured.
async fn unknown_destinations(store: &Store, config: &Config) -> Result<Vec<Finding>, StoreError> {
    let mut connection = store.connection().await?;
    let waiting = deliveries::count_by_state(&mut connection, false).await?;
    let unconfigured =
        waiting.into_iter().filter(|count| !config.destinations.contains_key(&count.destination));
    let finding = |count: deliveries::DeliveryCount| {
        let deliveries::DeliveryCount { destination, state, count, .. } = count;
        let message = format!(
            "{count} {state} deliveries to {destination}, which is not configured: they are not \
             sent; void them, or configure it"
        );
        Finding { subject: "destinations", status: CheckStatus::Warning, message }
    };
    Ok(unconfigured.map(finding).collect())
}

async fn check_database(store: &Store) -> Result<String, String> {
    let version = store
        .server_version()
        .await
        .map_err(|error| format!("cannot be reached at database.url: {error}"))?;
    let major = version / 10_000;
    if version < MIN_POSTGRES_VERSION {
        return Err(format!("is version {major}; 15 or later is needed"));
    }
    let pending = store.pending_migrations().await.map_err(|error| error.to_string())?;
    if pending.is_empty() {
        store.check_writable().await.map_err(|error| format!("cannot be written to: {error}"))?;
        Ok(format!("version {major}, schema up to date"))
    } else {
        Err(format!(
            "the schema is not up to date; run `tallyhook migrate` ({})",
            pending.join(", ")
        ))
    }
}

async fn broker_findings(config: &Config) -> Vec<Finding> {
    let subject = "RabbitMQ";
    let connection = match BrokerConnection::open(&config.broker.url, "tallyhook check").await {
        Ok(connection) => connection,
        Err(error) => {
            let error = anyhow::Error::from(error);
            let message = format!("cannot be reached at broker.url: {error:#}");
            return vec![Finding::new(subject, Err(message))];
        }
    };
    let topology = app::topology(config);
    let mut findings = vec![Finding::new(subject, Ok("connected".to_owned()))];
    let result = match topology.depths(&connection).await {
        Err(error) => Err(error.to_string()),
        Ok(depths) if depths.iter().all(|depth| depth.ready.is_some()) => {
            // All queues exist: declaring them changes nothing and checks their
            // arguments.
            match topology.declare(&connection).await {
                Ok(()) => Ok(format!("{} queues, with the arguments they need", depths.len())),
                Err(error) => Err(error.to_string()),
            }
        }
        Ok(depths) => {
            let missing = depths.iter().filter(|depth| depth.ready.is_none()).count();
            Ok(format!(
                "{missing} of {} queues are missing; they are declared at start",
                depths.len()
            ))
        }
    };
    findings.push(Finding::new("queues", result));
    connection.close().await;
    findings
}
