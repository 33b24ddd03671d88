//! `tallyhook dev`: everything on this machine, on private servers of its
//! own, for trying out and for developing.

pub mod servers;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::json;

use crate::{
    app::{App, Components, Roles, stop_signal},
    config::{Config, LoadOptions, SecretLookup},
    observability::telemetry,
    store::Store,
};
use servers::{MockAccountingOptions, MockAccountingServer, Options, Servers};

/// The database that dev makes on its private server.
const DATABASE: &str = "tallyhook";

/// Faults of the mock accounting server: it accepts duplicates, and one creation
/// in ten gets no response.
const ACCOUNTING_FAULTS: &str = r#"{"duplicates_pass": true, "timeout_after_create_every": 10}"#;

/// Its token, as the built-in destination refers to it.
const ACCOUNTING_TOKEN: &str = "env:TALLYHOOK_DEV_ACCOUNTING";

/// The environment variable with the URL of the mock accounting server. Operator
/// commands read it to know the built-in destination.
pub const ACCOUNTING_URL: &str = "TALLYHOOK_DEV_ACCOUNTING_URL";

/// How often dev looks whether its servers live.
const LOOK: Duration = Duration::from_millis(500);

/// How dev is to run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A configuration over the built-in development one.
    pub config: Option<PathBuf>,
    /// Where the servers keep their data; default a temporary folder that
    /// goes when dev ends.
    pub dir: Option<PathBuf>,
    /// A file to hold the addresses, once everything serves.
    pub ready_file: Option<PathBuf>,
    /// Whether to start a mock accounting server and to mirror imported invoices
    /// to it.
    pub with_mock_accounting: bool,
}

/// Runs until Ctrl-C, then stops everything.
///
/// # Errors
/// A server that is missing or does not start; a configuration that is refused.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let file = settings.config.as_deref();
    let load = |mock_accounting: Option<&str>| {
        Components::load(LoadOptions { file, development: true, mock_accounting })
    };
    // Before anything is started: a mistake in the configuration costs
    // nothing. The mock accounting server has no address yet; any will do.
    let (mut config, _) = load(settings.with_mock_accounting.then_some("http://127.0.0.1:1"))?;
    telemetry::init(&config.log)?;
    if let Some(path) = &settings.ready_file {
        // A file left over from another run would be believed too early.
        remove(path)?;
    }
    let options = Options {
        mock_accounting: if settings.with_mock_accounting {
            Some(mock_accounting()?)
        } else {
            None
        },
        ..Options::default()
    };
    eprintln!("starting a private PostgreSQL and a private RabbitMQ (about 10 seconds)...");
    let mut servers = tokio::select! {
        servers = start(settings.dir.as_deref(), options) => servers?,
        stopped = stop_signal() => return stopped,
    };
    if let Some(accounting) = &servers.mock_accounting {
        (config, _) = load(Some(&accounting.url()))?;
    }
    let served = serve(&mut config, &mut servers, &settings).await;
    let stopped = servers.stop().await;
    if let Some(path) = &settings.ready_file {
        remove(path)?;
    }
    served.and(stopped)
}

async fn start(dir: Option<&Path>, options: Options) -> anyhow::Result<Servers> {
    match dir {
        Some(dir) => Servers::start_with(dir, &options).await,
        None => Servers::start_temporary_with(options).await,
    }
}

fn mock_accounting() -> anyhow::Result<MockAccountingOptions> {
    Ok(MockAccountingOptions {
        program: MockAccountingServer::program()?,
        token: SecretLookup::from_environment(true).resolve(ACCOUNTING_TOKEN)?,
        faults: ACCOUNTING_FAULTS.to_owned(),
    })
}

async fn serve(
    config: &mut Config,
    servers: &mut Servers,
    settings: &Settings,
) -> anyhow::Result<()> {
    config.broker.url = servers.rabbitmq.url();
    config.database.url = servers.postgres.url(DATABASE);
    let admin = Store::without_timeout(&crate::config::DatabaseConfig {
        url: servers.postgres.url("postgres"),
        ..config.database.clone()
    })?;
    admin.create_database(DATABASE).await.context("cannot create the database")?;
    admin.close().await;
    let store = Store::without_timeout(&config.database)?;
    store.migrate().await.context("the migrations failed")?;
    store.close().await;

    let service = App::start(config, Roles::ALL).await?;
    tokio::select! {
        () = service.wait_until_ready() => {}
        stopped = stop_signal() => {
            service.stop().await;
            return stopped;
        }
    }
    announce(config, servers, &service, settings)?;
    let stopped = tokio::select! {
        stopped = stop_signal() => stopped,
        failed = keep_up(config, servers, &service, settings) => failed,
    };
    eprintln!("stopping...");
    service.stop().await;
    stopped
}

/// Starts a server again whenever it dies: kill one and watch what happens.
async fn keep_up(
    config: &Config,
    servers: &mut Servers,
    service: &App,
    settings: &Settings,
) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(LOOK).await;
        let postgres = servers.postgres.is_running();
        let rabbitmq = servers.rabbitmq.is_running();
        let accounting =
            servers.mock_accounting.as_mut().is_none_or(MockAccountingServer::is_running);
        if postgres && rabbitmq && accounting {
            continue;
        }
        if let Some(server) = servers.mock_accounting.as_mut().filter(|_| !accounting) {
            eprintln!("the mock accounting server died; restarting it...");
            server.restart().await?;
        }
        if !postgres {
            eprintln!("PostgreSQL died; starting it again...");
            servers.postgres.restart().await?;
        }
        if !rabbitmq {
            eprintln!("RabbitMQ died; starting it again (about 8 seconds)...");
            servers.rabbitmq.restart().await?;
        }
        write_ready_file(config, servers, service, settings)?;
        eprintln!("it is up again");
    }
}

/// Prints the addresses, then writes them to the ready file.
fn announce(
    config: &Config,
    servers: &Servers,
    service: &App,
    settings: &Settings,
) -> anyhow::Result<()> {
    let (receiver, operations) = (receiver_url(service), operations_url(service));
    let mut out = std::io::stdout().lock();
    writeln!(out, "receiver     {receiver}/hooks/{{source}}")?;
    for name in config.sources.keys() {
        writeln!(out, "             {receiver}/hooks/{name}")?;
    }
    writeln!(out, "operations   {operations}/metrics")?;
    writeln!(out, "database     {}", config.database.url)?;
    writeln!(out, "broker       {}", config.broker.url)?;
    if let Some(accounting) = &servers.mock_accounting {
        writeln!(out, "accounting   {}/invoices", accounting.url())?;
    }
    writeln!(out)?;
    writeln!(out, "In another terminal, for the other commands:")?;
    writeln!(out, "  export TALLYHOOK__DATABASE__URL='{}'", config.database.url)?;
    writeln!(out, "  export TALLYHOOK__BROKER__URL='{}'", config.broker.url)?;
    if let Some(accounting) = &servers.mock_accounting {
        writeln!(out, "  export {ACCOUNTING_URL}='{}'", accounting.url())?;
    }
    // Whole orders tell more than events that only name something.
    let example = config.sources.iter().find(|(_, source)| source.kind == "shopify");
    if let Some((name, _)) = example.or_else(|| config.sources.iter().next()) {
        writeln!(out, "  tallyhook send {name} --url {receiver} --count 100 --duplicates 10%")?;
    }
    if servers.mock_accounting.is_some() {
        writeln!(out, "  tallyhook import invoices.csv --url {receiver}")?;
        writeln!(out, "  tallyhook deliveries list")?;
    }
    writeln!(out)?;
    writeln!(out, "Ctrl-C stops everything.")?;
    out.flush()?;
    write_ready_file(config, servers, service, settings)
}

fn receiver_url(service: &App) -> String {
    service.receiver_address.map(|address| format!("http://{address}")).unwrap_or_default()
}

fn operations_url(service: &App) -> String {
    format!("http://{}", service.operations_address)
}

/// Tells scripts where everything is, and what they may kill.
fn write_ready_file(
    config: &Config,
    servers: &Servers,
    service: &App,
    settings: &Settings,
) -> anyhow::Result<()> {
    if let Some(path) = &settings.ready_file {
        let mut ready = json!({
            "receiver": receiver_url(service),
            "operations": operations_url(service),
            "database_url": config.database.url,
            "amqp_url": config.broker.url,
            "pids": {
                "postgres": servers.postgres.pid(),
                "rabbitmq": servers.rabbitmq.pid(),
            },
        });
        if let Some(accounting) = &servers.mock_accounting {
            ready["accounting"] = accounting.url().into();
            ready["pids"]["accounting"] = accounting.pid().into();
        }
        // Renamed into place: whoever sees the file sees all of it.
        let partial = path.with_extension("partial");
        std::fs::write(&partial, format!("{ready}\n"))
            .and_then(|()| std::fs::rename(&partial, path))
            .with_context(|| format!("cannot write the ready file {}", path.display()))?;
    }
    Ok(())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
