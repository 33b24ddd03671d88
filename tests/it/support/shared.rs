//! One pair of servers for the whole process, and a migrated database to copy.

use std::{sync::OnceLock, thread};

use sqlx::{Connection as _, Executor as _, PgConnection};
use tallyhook::{config, dev::servers::Servers, store::Store};

/// Where servers are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// A database's URL without its name.
    pub(crate) postgres: String,
    pub(crate) rabbitmq: String,
}

const TEMPLATE: &str = "tallyhook_template";

impl Place {
    /// Where these servers are, with the template database made.
    pub(crate) async fn prepare(servers: &Servers) -> Self {
        let place = Self { postgres: servers.postgres.url(""), rabbitmq: servers.rabbitmq.url() };
        place.execute(&format!("create database {TEMPLATE}")).await;
        let store = Store::new(&config::Database {
            url: format!("{}{TEMPLATE}", place.postgres),
            connections: 2,
            connect_timeout_ms: 10_000,
            statement_timeout_ms: 30_000,
        })
        .unwrap();
        store.migrate().await.unwrap();
        store.close().await;
        place
    }

    /// Makes a database; gives its URL.
    pub(crate) async fn database(&self, name: &str) -> String {
        self.execute(&format!("create database {name} template {TEMPLATE}")).await;
        format!("{}{name}", self.postgres)
    }

    /// Drops a database that somebody left behind, if it is there.
    pub(crate) async fn drop_database(&self, name: &str) {
        self.execute(&format!("drop database if exists \"{name}\" with (force)")).await;
    }

    async fn execute(&self, sql: &str) {
        let mut session =
            PgConnection::connect(&format!("{}postgres", self.postgres)).await.unwrap();
        session.execute(sqlx::AssertSqlSafe(sql.to_owned())).await.unwrap();
        session.close().await.unwrap();
    }
}

/// The shared servers, started by whoever needs them first. Each test has a
/// runtime of its own, so a thread of their own keeps them; the watchdog ends
/// them with the process.
pub(crate) fn servers() -> &'static Place {
    static SHARED: OnceLock<Place> = OnceLock::new();
    SHARED.get_or_init(|| {
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let servers = Servers::start_temporary().await.unwrap();
                tell.send(Place::prepare(&servers).await).unwrap();
                std::future::pending::<()>().await;
                drop(servers);
            });
        });
        told.recv().expect("the shared servers did not start")
    })
}
