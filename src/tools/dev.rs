//! `tallyhook dev`: the service on private servers, for trying it out and for
//! development.

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

const DATABASE: &str = "tallyhook";

/// Faults of the mock accounting server: it accepts duplicates, and one creation
/// in ten gets no response.
const ACCOUNTING_FAULTS: &str = r#"{"duplicates_pass": true, "timeout_after_create_every": 10}"#;

/// Its token, as the built-in destination refers to it.
const ACCOUNTING_TOKEN: &str = "env:TALLYHOOK_DEV_ACCOUNTING";

/// The environment variable with the URL of the mock accounting server. Operator
/// commands read it to know the built-in destination.
pub const ACCOUNTING_URL: &str = "TALLYHOOK_DEV_ACCOUNTING_URL";

/// Interval of the check that the servers are running.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The options of `tallyhook dev`.
#[derive(Clone, Debug, Default)]
pub struct DevOptions {
    /// A configuration file over the built-in development configuration.
    pub config: Option<PathBuf>,
    /// The data directory of the servers; `None` uses a temporary one.
    pub dir: Option<PathBuf>,
    /// A file for the addresses, written when all servers are ready.
    pub ready_file: Option<PathBuf>,
    /// Whether to start a mock accounting server and to mirror imported invoices
    /// to it.
    pub with_mock_accounting: bool,
}

/// Runs until Ctrl-C, then stops everything.
///
/// # Errors
/// A missing server, a server that does not start, an invalid configuration.
pub async fn run(options: DevOptions) -> anyhow::Result<()> {
    let file = options.config.as_deref();
    let load = |mock_accounting: Option<&str>| {
        Components::load(LoadOptions { file, development: true, mock_accounting })
    };
    // Loaded before any server starts, so that an invalid configuration fails
    // at once. The mock accounting server has no address yet; any will do.
    let (mut config, _) = load(options.with_mock_accounting.then_some("http://127.0.0.1:1"))?;
    telemetry::init(&config.log)?;
    if let Some(path) = &options.ready_file {
        // Scripts would take a file of an earlier run for this one's.
        remove(path)?;
    }
    let mock_accounting = options.with_mock_accounting.then(mock_accounting).transpose()?;
    let server_options = Options { mock_accounting, ..Options::default() };
    eprintln!("starting a private PostgreSQL and a private RabbitMQ (about 10 seconds)...");
    let mut servers = tokio::select! {
        servers = start(options.dir.as_deref(), server_options) => servers?,
        stopped = stop_signal() => return stopped,
    };
    if let Some(accounting) = &servers.mock_accounting {
        (config, _) = load(Some(&accounting.url()))?;
    }
    let served = serve(&mut config, &mut servers, &options).await;
    let stopped = servers.stop().await;
    if let Some(path) = &options.ready_file {
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
    options: &DevOptions,
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

    let app = App::start(config, Roles::ALL).await?;
    tokio::select! {
        () = app.wait_until_ready() => {}
        stopped = stop_signal() => {
            app.stop().await;
            return stopped;
        }
    }
    print_addresses(config, servers, &app, options)?;
    let stopped = tokio::select! {
        stopped = stop_signal() => stopped,
        failure = keep_servers_running(config, servers, &app, options) => failure,
    };
    eprintln!("stopping...");
    app.stop().await;
    stopped
}

/// Restarts servers that died, so that users can kill one to see the effect.
async fn keep_servers_running(
    config: &Config,
    servers: &mut Servers,
    app: &App,
    options: &DevOptions,
) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
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
            eprintln!("PostgreSQL died; restarting it...");
            servers.postgres.restart().await?;
        }
        if !rabbitmq {
            eprintln!("RabbitMQ died; restarting it (about 8 seconds)...");
            servers.rabbitmq.restart().await?;
        }
        write_ready_file(config, servers, app, options)?;
        eprintln!("all servers are running again");
    }
}

/// Prints the addresses and writes the ready file.
fn print_addresses(
    config: &Config,
    servers: &Servers,
    app: &App,
    options: &DevOptions,
) -> anyhow::Result<()> {
    let (receiver, operations) = (receiver_url(app), operations_url(app));
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
    // Shopify's events contain whole orders.
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
    write_ready_file(config, servers, app, options)
}

fn receiver_url(app: &App) -> String {
    app.receiver_address.map(|address| format!("http://{address}")).unwrap_or_default()
}

fn operations_url(app: &App) -> String {
    format!("http://{}", app.operations_address)
}

/// Writes addresses and process ids for scripts.
fn write_ready_file(
    config: &Config,
    servers: &Servers,
    app: &App,
    options: &DevOptions,
) -> anyhow::Result<()> {
    if let Some(path) = &options.ready_file {
        let mut ready = json!({
            "receiver": receiver_url(app),
            "operations": operations_url(app),
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
        // Written aside and renamed, so readers never see a partial file.
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
