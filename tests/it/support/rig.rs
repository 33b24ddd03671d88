//! The product's own parts, put together for one test.

use std::{sync::Arc, time::Duration};

use lapin::types::AMQPValue;
use sqlx::PgPool;
use tallyhook::{
    broker::{Confirmed, Link, Outgoing, PublishError, Publisher},
    config::Config,
    deliver,
    dev::servers::Servers,
    domain::{Envelope, SourceName},
    metrics::Metrics,
    service,
    store::{
        Store,
        audit::{self, Sums},
    },
    worker::{InHand, Outbox, SecretUses, Tools, Trouble, archive, enrich::enrichers, lane::Lane},
};
use time::OffsetDateTime;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::{
    Raw, seconds,
    shared::{self, Place},
};

/// Sources, each with a queue.
pub(crate) const SHOP: &str = "
[sources.shop]
kind = 'shopify'
secrets = ['env:SECRET']
";
pub(crate) const WOO: &str = "
[sources.woo]
kind = 'woocommerce'
secrets = ['env:SECRET']
";
pub(crate) const ERP: &str = "
[sources.erp]
kind = 'generic'
secrets = ['env:SECRET']
[sources.erp.signature]
header = 'X-Signature'
[sources.erp.event]
id = '/event_id'
topic = '/type'
tenant = '/company'
[sources.erp.order]
topics = ['order.*']
deleted_topics = ['order.deleted']
id = '/data/id'
status = '/data/status'
currency = '/data/currency'
total = '/data/total'
refunded = '/data/refunded'
version = '/data/updated_at'
[sources.erp.invoice]
topics = ['invoice.*']
vendor = '/data/vendor'
invoice_number = '/data/number'
currency = '/data/currency'
total = '/data/total'
version = '/data/updated_at'
";

/// A secret as Stripe and Standard Webhooks write theirs: `env:WHSEC`.
pub(crate) const WHSEC: &str = "whsec_VGFsbHlob29rIGtub3dzIHRoaXMgc2VjcmV0";

/// A database, a queue prefix, a publisher that is up, and tools.
pub(crate) struct Rig {
    pub(crate) config: Config,
    pub(crate) tools: Tools,
    pub(crate) link: Link,
    pub(crate) db: PgPool,
    _stop: DropGuard,
}

/// Deliveries that go out; stops when it is dropped.
pub(crate) struct Delivering {
    running: JoinHandle<()>,
    _stop: DropGuard,
}

impl Delivering {
    /// Ends as a killed process does: in the middle of whatever it does.
    pub(crate) async fn kill(self) {
        self.running.abort();
        drop(self.running.await);
    }
}

impl Rig {
    /// On the shared servers, with the source `shop`.
    pub(crate) async fn new() -> Self {
        Self::with(&[SHOP], |_| ()).await
    }

    /// On the shared servers.
    pub(crate) async fn with(sources: &[&str], tune: impl FnOnce(&mut Config)) -> Self {
        Self::at(shared::servers(), sources, tune).await
    }

    /// On servers of its own.
    pub(crate) async fn own(sources: &[&str], tune: impl FnOnce(&mut Config)) -> (Servers, Self) {
        let servers = Servers::start_temporary().await.unwrap();
        let place = Place::prepare(&servers).await;
        let rig = Self::at(&place, sources, tune).await;
        (servers, rig)
    }

    async fn at(place: &Place, sources: &[&str], tune: impl FnOnce(&mut Config)) -> Self {
        let config = configure(place, sources, tune).await;
        let stop = CancellationToken::new();
        let metrics = Metrics::new().unwrap();
        let topology = Arc::new(service::topology(&config));
        let publisher =
            Publisher::start(&config.broker, Arc::clone(&topology), metrics.clone(), stop.clone());
        timeout(seconds(60), publisher.ready()).await.expect("the publisher did not connect");
        let tools = Tools {
            sources: Arc::clone(&config.sources),
            enrichers: Arc::new(enrichers(&config.enrichments, &metrics).unwrap()),
            outbox: Arc::new(Outbox::new(config.sources.keys(), &config.targets)),
            store: Store::new(&config.database).unwrap(),
            publisher,
            topology,
            schedule: config.retry.schedule(),
            settings: config.worker.clone(),
            in_hand: InHand::default(),
            secret_uses: SecretUses::default(),
            metrics,
            committed: None,
        };
        let link = Link::open(&config.broker.url, "test").await.unwrap();
        let db = PgPool::connect_lazy(&config.database.url).unwrap();
        Self { config, tools, link, db, _stop: stop.drop_guard() }
    }

    /// A lane of a source.
    pub(crate) async fn lane(&self, source: &str) -> Stepper {
        let source: SourceName = source.parse().unwrap();
        Stepper(Lane::open(self.tools.clone(), source, &self.link).await.unwrap())
    }

    /// A lane with a connection of its own, so that it can be cut off.
    pub(crate) async fn lane_apart(&self, source: &str) -> (Link, Stepper) {
        let link = Link::open(&self.config.broker.url, "test lane").await.unwrap();
        let source: SourceName = source.parse().unwrap();
        let lane = Lane::open(self.tools.clone(), source, &link).await.unwrap();
        (link, Stepper(lane))
    }

    /// Delivers what the outbox holds, until what this gives back is dropped.
    pub(crate) fn deliver(&self) -> Delivering {
        let stop = CancellationToken::new();
        let tools = deliver::Tools {
            store: self.tools.store.clone(),
            broker_url: self.config.broker.url.clone(),
            confirm_timeout: Duration::from_millis(self.config.broker.confirm_timeout_ms),
            written: self.tools.outbox.written(),
            metrics: self.tools.metrics.clone(),
        };
        let targets = Arc::clone(&self.config.targets);
        let running = tokio::spawn(deliver::run(tools, targets, stop.clone()));
        Delivering { running, _stop: stop.drop_guard() }
    }

    /// The broker as somebody else sees it.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::open(&self.config.broker.url).await
    }

    pub(crate) async fn publish(&self, envelope: &Envelope) -> Result<Confirmed, PublishError> {
        let message = Outgoing::inbound(&self.tools.topology, envelope);
        self.tools.publisher.publish(message).await
    }

    /// Publishes events; every one must be confirmed.
    pub(crate) async fn send(&self, envelopes: &[Envelope]) {
        for envelope in envelopes {
            let _durable: Confirmed = self.publish(envelope).await.unwrap();
        }
    }

    /// Publishes one message as any AMQP producer would.
    pub(crate) async fn publish_foreign(
        &self,
        routing_key: &str,
        message_id: Option<&str>,
        headers: &[(&str, AMQPValue)],
        body: &[u8],
    ) {
        let exchange = self.tools.topology.inbound_exchange();
        self.raw().await.publish(&exchange, routing_key, message_id, headers, body).await;
    }

    /// Archives what the dead-letter queue holds, once there are `expected`.
    pub(crate) async fn archive(&self, expected: usize) {
        let queue = self.tools.topology.dead();
        let mut archived = 0;
        for _ in 0..40 {
            let quiet = Duration::from_millis(if archived < expected { 500 } else { 60 });
            archived += archive::drain(&queue, &self.link, &self.tools.store, quiet).await.unwrap();
            if archived >= expected {
                break;
            }
        }
        assert_eq!(archived, expected, "letters in the dead-letter queue");
    }

    pub(crate) async fn sums(&self) -> Sums {
        audit::sums(&mut self.tools.store.connection().await.unwrap()).await.unwrap()
    }

    /// Every accepted message has exactly one receipt, and tables agree (P3).
    pub(crate) async fn assert_conserved(&self, accepted: i64) {
        let sums = self.sums().await;
        let Sums { applied, duplicate, stale, ignored, retried, dead, .. } = sums;
        assert_eq!(applied + duplicate + stale + ignored + retried + dead, accepted, "{sums:?}");
        assert_eq!(retried, 0, "something still waits: {sums:?}");
        assert_eq!(sums.dead_without_letter, 0, "{sums:?}");
        assert_eq!(sums.letters_without_dead, 0, "{sums:?}");
        assert_eq!(sums.settled_without_key, 0, "{sums:?}");
        assert_eq!(sums.keys_without_receipt, 0, "{sums:?}");
        assert_eq!(sums.books_without_receipt, 0, "{sums:?}");
        assert_eq!(sums.ticked_off_without_mirror, 0, "{sums:?}");
        assert_eq!(sums.mirrored_without_tick, 0, "{sums:?}");
        assert_eq!(sums.letters_against_delivery, 0, "{sums:?}");
        assert_eq!(sums.failed_without_letter, 0, "{sums:?}");
    }

    /// One number from a query.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&self.db).await.unwrap()
    }

    /// One text from a query; empty for null.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let text: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.db)
            .await
            .unwrap();
        text.unwrap_or_default()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.tools.store.execute(sql).await.unwrap();
    }

    /// What became of a message: outcome and failed attempts.
    pub(crate) async fn fate(&self, envelope: &Envelope) -> Option<(String, i32)> {
        sqlx::query_as("select outcome, attempts from receipts where receipt_id = $1")
            .bind(envelope.receipt_id)
            .fetch_optional(&self.db)
            .await
            .unwrap()
    }

    /// Asserts what became of messages, none of which failed an attempt.
    pub(crate) async fn assert_fates(&self, envelopes: &[Envelope], outcomes: &[&str]) {
        let mut fates = Vec::new();
        for envelope in envelopes {
            fates.push(self.fate(envelope).await.map(|(outcome, _)| outcome).unwrap_or_default());
        }
        assert_eq!(fates, outcomes);
    }
}

/// Reads and checks a configuration of a test's own.
async fn configure(place: &Place, sources: &[&str], tune: impl FnOnce(&mut Config)) -> Config {
    let name = format!("t{}", Uuid::now_v7().simple());
    let url = place.database(&name).await;
    let text = format!(
        "
        [receiver]
        listen = '127.0.0.1:0'
        [operations]
        listen = '127.0.0.1:0'
        [broker]
        url = '{}'
        prefix = '{name}'
        publish_channels = 2
        [database]
        url = '{url}'
        [worker]
        batch_wait_ms = 200
        [retry]
        first_ms = 50
        multiplier = 2.0
        longest_ms = 1000
        retries = 3
        {}",
        place.rabbitmq,
        sources.concat()
    );
    let secrets = [
        ("SECRET", "a secret of the tests"),
        ("ECONOMY_TOKEN", super::economy::ECONOMY_TOKEN),
        ("OLD_SECRET", "an older secret of the tests"),
        ("TOKEN", "a-token-of-the-tests"),
        ("WHSEC", WHSEC),
    ];
    let secrets: std::collections::BTreeMap<_, _> =
        secrets.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    let mut config = Config::from_toml(&text, &secrets).unwrap();
    tune(&mut config);
    config
}

/// A lane that is stepped, and never waited for without a limit.
pub(crate) struct Stepper(pub(crate) Lane);

impl Stepper {
    /// One batch; its size.
    pub(crate) async fn step(&mut self) -> usize {
        self.try_step().await.unwrap()
    }

    pub(crate) async fn try_step(&mut self) -> Result<usize, Trouble> {
        timeout(seconds(30), self.0.step()).await.expect("no message came")
    }

    /// Steps until so many messages were settled.
    pub(crate) async fn settle(&mut self, messages: usize) {
        let mut settled = 0;
        while settled < messages {
            settled += self.step().await;
        }
        assert_eq!(settled, messages);
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(300), self.0.collect()).await.is_err()
    }
}

/// Now, at AMQP's and PostgreSQL's precision.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
