//! Real servers: one pair that most tests share, and pairs for tests that kill or restart one.
//!
//! A pair takes about 10 s to start, so a leased pair goes back to a pool and the next test gets
//! it, with what was killed started again. At most [`LEASES`] pairs exist beside the shared one.

use std::sync::{Mutex, OnceLock};

use sqlx::{Connection as _, Executor as _, PgConnection};
use tallyhook::{config, store::Store, tools::dev::servers::Servers};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Semaphore, SemaphorePermit},
};

/// Where servers are.
#[derive(Clone, Debug)]
pub(crate) struct ServerUrls {
    /// A database's URL without its name.
    pub(crate) postgres: String,
    pub(crate) rabbitmq: String,
}

/// A running PostgreSQL and RabbitMQ with the template database.
struct ServerPair {
    servers: Servers,
    urls: ServerUrls,
}

const TEMPLATE: &str = "tallyhook_template";
/// The test runner uses one thread per core; more pairs than two would only cost memory.
const LEASES: usize = 2;

static SHARED: OnceLock<ServerPair> = OnceLock::new();
static IDLE: Mutex<Vec<ServerPair>> = Mutex::new(Vec::new());
static PERMITS: Semaphore = Semaphore::const_new(LEASES);

/// Owns the servers' pipes. Each test has a runtime of its own, which ends with the test.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

impl ServerUrls {
    /// Creates a database; returns its URL.
    pub(crate) async fn create_database(&self, name: &str) -> String {
        self.execute(&format!("create database {name} template {TEMPLATE}")).await;
        format!("{}{name}", self.postgres)
    }

    /// Creates a database without tables; returns its URL.
    pub(crate) async fn create_empty_database(&self, name: &str) -> String {
        self.execute(&format!("create database {name}")).await;
        format!("{}{name}", self.postgres)
    }

    /// Drops a database if it exists.
    pub(crate) async fn drop_database(&self, name: &str) {
        self.execute(&format!("drop database if exists \"{name}\" with (force)")).await;
    }

    /// Makes a database read-only or writable, and ends its sessions.
    pub(crate) async fn set_read_only(&self, name: &str, is_read_only: bool) {
        let setting = "default_transaction_read_only";
        self.execute(&format!("alter database {name} set {setting} = {is_read_only}")).await;
        let sessions = format!("from pg_stat_activity where datname = '{name}'");
        self.execute(&format!("select pg_terminate_backend(pid) {sessions}")).await;
    }

    async fn execute(&self, sql: &str) {
        let mut session =
            PgConnection::connect(&format!("{}postgres", self.postgres)).await.unwrap();
        session.execute(sqlx::AssertSqlSafe(sql.to_owned())).await.unwrap();
        session.close().await.unwrap();
    }
}

impl ServerPair {
    async fn start() -> Self {
        let servers = Servers::start_temporary().await.unwrap();
        let urls =
            ServerUrls { postgres: servers.postgres.url(""), rabbitmq: servers.rabbitmq.url() };
        urls.create_empty_database(TEMPLATE).await;
        let store = Store::new(&config::DatabaseConfig {
            url: format!("{}{TEMPLATE}", urls.postgres),
            max_connections: 2,
            connect_timeout_ms: 10_000,
            statement_timeout_ms: 30_000,
        })
        .unwrap();
        store.migrate().await.unwrap();
        store.close().await;
        Self { servers, urls }
    }
}

/// The shared servers, which no test may stop. The first test that asks starts them; the watchdog
/// ends them with the process.
fn shared_pair() -> &'static ServerPair {
    SHARED.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime().spawn(async move { sender.send(ServerPair::start().await) });
        receiver.recv().expect("the shared servers did not start")
    })
}

/// Where the shared servers are.
pub(crate) fn shared() -> &'static ServerUrls {
    &shared_pair().urls
}

/// Limits the length of the shared broker's queues that match a pattern, which must begin with a
/// prefix of the test's own.
pub(crate) async fn limit_queues(pattern: &str, max_length: u32) {
    let policy = format!(r#"{{"max-length":{max_length},"overflow":"reject-publish"}}"#);
    rabbitmqctl(&["set_policy", pattern, pattern, &policy]).await;
}

/// Takes back [`limit_queues`].
pub(crate) async fn clear_queue_limit(pattern: &str) {
    rabbitmqctl(&["clear_policy", pattern]).await;
}

async fn rabbitmqctl(arguments: &[&str]) {
    shared_pair().servers.rabbitmq.rabbitmqctl(arguments).await.unwrap();
}

/// A pair of servers that only one test uses, and may kill.
pub(crate) struct LeasedServers {
    pair: Option<ServerPair>,
    permit: Option<SemaphorePermit<'static>>,
}

/// What a test does to a server of its lease.
#[derive(Clone, Copy)]
enum Change {
    StartAll,
    KillPostgres,
    RestartPostgres,
    KillRabbitMq,
    RestartRabbitMq,
}

impl LeasedServers {
    /// Waits for a pair in which both servers run.
    pub(crate) async fn lease() -> Self {
        let permit = PERMITS.acquire().await.unwrap();
        let idle = IDLE.lock().unwrap().pop();
        let pair = match idle {
            Some(pair) => pair,
            None => runtime().spawn(ServerPair::start()).await.unwrap(),
        };
        let mut lease = Self { pair: Some(pair), permit: Some(permit) };
        lease.apply(Change::StartAll).await;
        lease
    }

    pub(crate) fn urls(&self) -> &ServerUrls {
        &self.pair.as_ref().unwrap().urls
    }

    /// `kill -9`.
    pub(crate) async fn kill_postgres(&mut self) {
        self.apply(Change::KillPostgres).await;
    }

    pub(crate) async fn restart_postgres(&mut self) {
        self.apply(Change::RestartPostgres).await;
    }

    /// `kill -9`.
    pub(crate) async fn kill_rabbitmq(&mut self) {
        self.apply(Change::KillRabbitMq).await;
    }

    pub(crate) async fn restart_rabbitmq(&mut self) {
        self.apply(Change::RestartRabbitMq).await;
    }

    pub(crate) async fn rabbitmqctl(&self, arguments: &[&str]) {
        let rabbitmq = &self.pair.as_ref().unwrap().servers.rabbitmq;
        rabbitmq.rabbitmqctl(arguments).await.unwrap();
    }

    /// Runs on the servers' runtime, because a started server belongs to the runtime that started
    /// it. A pair that fails, or whose test ends meanwhile, is gone.
    async fn apply(&mut self, change: Change) {
        let mut pair = self.pair.take().unwrap();
        let changed = runtime().spawn(async move {
            let Servers { postgres, rabbitmq, .. } = &mut pair.servers;
            match change {
                Change::StartAll => {
                    if !postgres.is_running() {
                        postgres.restart().await.unwrap();
                    }
                    if !rabbitmq.is_running() {
                        rabbitmq.restart().await.unwrap();
                    }
                }
                Change::KillPostgres => postgres.kill().await.unwrap(),
                Change::RestartPostgres => postgres.restart().await.unwrap(),
                Change::KillRabbitMq => rabbitmq.kill().await.unwrap(),
                Change::RestartRabbitMq => rabbitmq.restart().await.unwrap(),
            }
            pair
        });
        self.pair = Some(changed.await.unwrap());
    }
}

impl Drop for LeasedServers {
    fn drop(&mut self) {
        // The next test must not get the state of a failed one.
        if let Some(pair) = self.pair.take()
            && !std::thread::panicking()
        {
            IDLE.lock().unwrap().push(pair);
        }
        drop(self.permit.take());
    }
}
