//! The product's own parts, put together for one test.

use std::{sync::Arc, time::Duration};

use lapin::types::AMQPValue;
use sqlx::PgPool;
use tallyhook::{
    app::{self, Components, Shared},
    broker::{BrokerConnection, Confirmed, OutgoingMessage, PublishError, Publisher},
    config::Config,
    delivery,
    domain::{Envelope, SourceName},
    observability::metrics::Metrics,
    review::dead_letter_queue,
    store::{Store, reconciliation, reconciliation::Totals},
    worker::{ConsumerError, WorkerContext, source_consumer::SourceConsumer},
};
use time::OffsetDateTime;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::{
    RawAmqpClient, seconds,
    servers::{self, LeasedServers, ServerUrls},
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

/// The product's parts on a database and a queue prefix of their own, with a connected publisher.
pub(crate) struct TestApp {
    pub(crate) config: Config,
    pub(crate) components: Components,
    shared: Shared,
    pub(crate) context: WorkerContext,
    pub(crate) link: BrokerConnection,
    pub(crate) db: PgPool,
    _stop: DropGuard,
}

/// A running delivery worker; stops when it is dropped.
pub(crate) struct RunningDelivery {
    running: JoinHandle<()>,
    _stop: DropGuard,
}

impl RunningDelivery {
    /// Ends as a killed process does, in the middle of its work.
    pub(crate) async fn kill(self) {
        self.running.abort();
        drop(self.running.await);
    }
}

impl TestApp {
    /// On the shared servers, with the source `shop`.
    pub(crate) async fn new() -> Self {
        Self::with(&[SHOP], |_| ()).await
    }

    /// On the shared servers.
    pub(crate) async fn with(sources: &[&str], tune: impl FnOnce(&mut Config)) -> Self {
        Self::at(servers::shared(), sources, tune).await
    }

    /// On servers that only this test uses, and may kill.
    pub(crate) async fn on_leased_servers(
        sources: &[&str],
        tune: impl FnOnce(&mut Config),
    ) -> (LeasedServers, Self) {
        let servers = LeasedServers::lease().await;
        let app = Self::at(servers.urls(), sources, tune).await;
        (servers, app)
    }

    async fn at(urls: &ServerUrls, sources: &[&str], tune: impl FnOnce(&mut Config)) -> Self {
        let config = configure(urls, sources, tune).await;
        let stop = CancellationToken::new();
        let metrics = Metrics::new().unwrap();
        let topology = Arc::new(app::topology(&config));
        let publisher =
            Publisher::start(&config.broker, Arc::clone(&topology), metrics.clone(), stop.clone());
        timeout(seconds(60), publisher.wait_until_ready())
            .await
            .expect("the publisher did not connect");
        let components = Components::build(&config).unwrap();
        let shared = Shared { topology, publisher, metrics };
        let store = Store::new(&config.database).unwrap();
        let context = shared.worker_context(&config, &components, store).unwrap();
        let link = BrokerConnection::open(&config.broker.url, "test").await.unwrap();
        let db = PgPool::connect_lazy(&config.database.url).unwrap();
        Self { config, components, shared, context, link, db, _stop: stop.drop_guard() }
    }

    /// A consumer of a source's queue.
    pub(crate) async fn consumer(&self, source: &str) -> SteppedConsumer {
        let source: SourceName = source.parse().unwrap();
        SteppedConsumer(
            SourceConsumer::open(self.context.clone(), source, &self.link).await.unwrap(),
        )
    }

    /// A consumer with a connection of its own, so that the test can close it.
    pub(crate) async fn consumer_on_own_connection(
        &self,
        source: &str,
    ) -> (BrokerConnection, SteppedConsumer) {
        let link = BrokerConnection::open(&self.config.broker.url, "test consumer").await.unwrap();
        let source: SourceName = source.parse().unwrap();
        let consumer = SourceConsumer::open(self.context.clone(), source, &link).await.unwrap();
        (link, SteppedConsumer(consumer))
    }

    /// Delivers what the outbox holds, until the returned value is dropped.
    pub(crate) fn start_delivery(&self) -> RunningDelivery {
        let stop = CancellationToken::new();
        let context = self.shared.delivery_context(&self.config, &self.context);
        let destinations = Arc::clone(&self.components.destinations);
        let running = tokio::spawn(delivery::run(context, destinations, stop.clone()));
        RunningDelivery { running, _stop: stop.drop_guard() }
    }

    /// An AMQP client that does not go through the product.
    pub(crate) async fn amqp(&self) -> RawAmqpClient {
        RawAmqpClient::open(&self.config.broker.url).await
    }

    pub(crate) async fn publish(&self, envelope: &Envelope) -> Result<Confirmed, PublishError> {
        let message = OutgoingMessage::inbound(&self.context.topology, envelope);
        self.context.publisher.publish(message).await
    }

    /// Publishes events; every one must be confirmed.
    pub(crate) async fn publish_all(&self, envelopes: &[Envelope]) {
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
        let exchange = self.context.topology.inbound_exchange();
        self.amqp().await.publish(&exchange, routing_key, message_id, headers, body).await;
    }

    /// Archives the dead-letter queue, once it holds `expected` messages.
    pub(crate) async fn archive_dead_letters(&self, expected: usize) {
        let queue = self.context.topology.dead_letter_queue();
        let mut archived = 0;
        let quiet = Duration::from_millis(60);
        for _ in 0..330 {
            archived +=
                dead_letter_queue::drain_queue(&self.link, &queue, &self.context.store, quiet)
                    .await
                    .unwrap();
            if archived >= expected {
                break;
            }
        }
        assert_eq!(archived, expected, "messages in the dead-letter queue");
    }

    pub(crate) async fn totals(&self) -> Totals {
        reconciliation::totals(&mut self.context.store.connection().await.unwrap()).await.unwrap()
    }

    /// Every accepted message has exactly one receipt, and the tables agree (P3).
    pub(crate) async fn assert_conserved(&self, accepted: i64) {
        let totals = self.totals().await;
        let Totals { applied, duplicate, stale, ignored, retried, dead, .. } = totals;
        assert_eq!(applied + duplicate + stale + ignored + retried + dead, accepted, "{totals:?}");
        assert_eq!(retried, 0, "something still waits: {totals:?}");
        assert_eq!(totals.dead_receipts_without_dead_letter, 0, "{totals:?}");
        assert_eq!(totals.dead_letters_without_dead_receipt, 0, "{totals:?}");
        assert_eq!(totals.processed_without_key, 0, "{totals:?}");
        assert_eq!(totals.keys_without_receipt, 0, "{totals:?}");
        assert_eq!(totals.documents_without_receipt, 0, "{totals:?}");
        assert_eq!(totals.mirrored_without_delivery, 0, "{totals:?}");
        assert_eq!(totals.delivered_not_marked_mirrored, 0, "{totals:?}");
        assert_eq!(totals.dead_letters_contradicting_delivery, 0, "{totals:?}");
        assert_eq!(totals.failed_deliveries_without_dead_letter, 0, "{totals:?}");
    }

    /// A query's only number.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&self.db).await.unwrap()
    }

    /// A query's only text; empty for null.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let text: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.db)
            .await
            .unwrap();
        text.unwrap_or_default()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.context.store.execute(sql).await.unwrap();
    }

    /// A message's outcome and failed attempts; `None` before it was processed.
    pub(crate) async fn outcome_of(&self, envelope: &Envelope) -> Option<(String, i32)> {
        sqlx::query_as("select outcome, attempts from receipts where receipt_id = $1")
            .bind(envelope.receipt_id)
            .fetch_optional(&self.db)
            .await
            .unwrap()
    }

    /// Asserts the outcomes of messages, in this order; empty for none yet.
    pub(crate) async fn assert_outcomes(&self, envelopes: &[Envelope], outcomes: &[&str]) {
        let mut found = Vec::new();
        for envelope in envelopes {
            let outcome = self.outcome_of(envelope).await;
            found.push(outcome.map(|(outcome, _)| outcome).unwrap_or_default());
        }
        assert_eq!(found, outcomes);
    }
}

/// A configuration with a database and a queue prefix of the test's own.
async fn configure(urls: &ServerUrls, sources: &[&str], tune: impl FnOnce(&mut Config)) -> Config {
    let name = format!("t{}", Uuid::now_v7().simple());
    let url = urls.create_database(&name).await;
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
        batch_wait_ms = 100
        [retry]
        initial_delay_ms = 50
        multiplier = 2.0
        max_delay_ms = 1000
        max_retries = 3
        {}",
        urls.rabbitmq,
        sources.concat()
    );
    let secrets = [
        ("SECRET", "a secret of the tests"),
        ("ACCOUNTING_TOKEN", super::mock_accounting::ACCOUNTING_TOKEN),
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

/// A consumer that is stepped batch by batch, with a time limit.
pub(crate) struct SteppedConsumer(pub(crate) SourceConsumer);

impl SteppedConsumer {
    /// Processes one batch; returns its size.
    pub(crate) async fn step(&mut self) -> usize {
        self.try_step().await.unwrap()
    }

    pub(crate) async fn try_step(&mut self) -> Result<usize, ConsumerError> {
        timeout(seconds(30), self.0.step()).await.expect("no message came")
    }

    /// Steps until so many messages were processed.
    pub(crate) async fn drain(&mut self, messages: usize) {
        let mut processed = 0;
        while processed < messages {
            processed += self.step().await;
        }
        assert_eq!(processed, messages);
    }

    /// Proves that no message is in the source's queue or on its way there: the retry queues are
    /// empty, and the next message to come is the one that is published now. Costs one receipt.
    pub(crate) async fn assert_idle(&mut self, app: &TestApp, next: Envelope) {
        let depths = app.context.topology.depths(&app.link).await.unwrap();
        let retrying = depths.iter().filter(|depth| depth.role == "retry");
        assert!(retrying.clone().all(|depth| depth.ready == Some(0)), "a retry waits: {depths:?}");
        app.publish_all(std::slice::from_ref(&next)).await;
        assert_eq!(self.step().await, 1, "another message came first");
        let outcome = app.outcome_of(&next).await;
        assert!(outcome.is_some(), "another message came first");
    }
}

/// Now, at AMQP's and PostgreSQL's precision.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
