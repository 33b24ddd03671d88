//! A typical hand-written consumer: one transaction and one acknowledgement a
//! message, sixteen at a time. It writes the same rows and is as safe.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::{
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use sqlx::{PgPool, Postgres, Transaction, postgres::PgPoolOptions};
use time::OffsetDateTime;

use super::broker::{Broker, short};
use crate::{
    broker::IncomingMessage,
    domain::{Change, Invoice, OrderUpdate, SourceName},
    sources::Source,
    tools::bench::{backlog::Backlog, environment::BenchEnvironment},
    worker::message::Message,
};

/// Messages in progress at a time.
const CONCURRENCY: u16 = 16;

/// Consumes a published backlog.
pub(crate) async fn run(
    environment: &BenchEnvironment,
    backlog: &Backlog,
) -> anyhow::Result<Duration> {
    let source = backlog.payload.source_name()?;
    let sources = Arc::clone(&environment.components.sources);
    let broker = Broker::open(&environment.config.broker.url).await?;
    let channel = broker.channel().await?;
    let pool = PgPoolOptions::new()
        .max_connections(CONCURRENCY.into())
        .min_connections(CONCURRENCY.into())
        .test_before_acquire(false)
        .connect(&environment.config.database.url)
        .await?;
    let started = Instant::now();
    // Twice the concurrency, so that none waits for the network.
    channel.basic_qos(2 * CONCURRENCY, BasicQosOptions::default()).await?;
    let queue = environment.topology.inbound_queue(&source);
    let consuming = channel.basic_consume(
        short(&queue)?,
        short("")?,
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let deliveries = consuming.await?.take(backlog.messages.len());
    let mut processed = deliveries
        .map(|delivery| {
            let (pool, sources, source) = (pool.clone(), Arc::clone(&sources), source.clone());
            // A task each, to use several cores.
            let processing = async move {
                let configured_source =
                    sources.get(&source).context("the bench has no such source")?;
                process(&pool, configured_source, &source, delivery?).await
            };
            async { tokio::spawn(processing).await? }
        })
        .buffer_unordered(CONCURRENCY.into());
    let mut count = 0;
    while let Some(done) = processed.next().await {
        done?;
        count += 1;
    }
    let took = started.elapsed();
    drop(processed);
    anyhow::ensure!(count == backlog.messages.len(), "the consumer ended after {count} messages");
    pool.close().await;
    broker.close().await;
    Ok(took)
}

async fn process(
    pool: &PgPool,
    configured_source: &Source,
    source: &SourceName,
    delivery: Delivery,
) -> anyhow::Result<()> {
    let acker = delivery.acker;
    let incoming =
        IncomingMessage::new(delivery.routing_key.into(), delivery.properties, delivery.data);
    let decoded = incoming
        .envelope(source, OffsetDateTime::now_utc())
        .and_then(|envelope| Ok((configured_source.map(&envelope)?, envelope)));
    let Ok((mapped, envelope)) = decoded else {
        // The queue's dead-letter exchange takes it.
        acker.nack(BasicNackOptions { multiple: false, requeue: false }).await?;
        return Ok(());
    };
    let message = Message::new(incoming, envelope, mapped);
    let mut tx = pool.begin().await?;
    let outcome = apply(&mut tx, source, &message).await?;
    record(&mut tx, source, &message, outcome).await?;
    tx.commit().await?;
    acker.ack(BasicAckOptions::default()).await?;
    Ok(())
}

async fn apply(
    tx: &mut Transaction<'_, Postgres>,
    source: &SourceName,
    message: &Message,
) -> anyhow::Result<&'static str> {
    let claimed = sqlx::query(
        "insert into inbox (key, receipt_id, body_digest) values ($1, $2, $3)
         on conflict do nothing",
    )
    .bind(message.envelope.key.inbox_id())
    .bind(message.envelope.receipt_id)
    .bind(message.digest())
    .execute(&mut **tx)
    .await?;
    if claimed.rows_affected() == 0 {
        return Ok("duplicate");
    }
    let mut written = 0;
    for change in &message.changes {
        written += match change {
            Change::Order(update) => order(tx, source, message, update).await?,
            Change::Invoice(update) => invoice(tx, source, message, update).await?,
            _ => 0,
        };
    }
    Ok(if written > 0 { "applied" } else { "stale" })
}

async fn order(
    tx: &mut Transaction<'_, Postgres>,
    source: &SourceName,
    message: &Message,
    update: &OrderUpdate,
) -> anyhow::Result<u64> {
    let OrderUpdate::State { order_id, version, order, .. } = update else { return Ok(0) };
    let lines = serde_json::to_string(&order.lines).context("lines")?;
    let written = sqlx::query(
        "insert into orders as known (
            source, tenant, order_id, number, status, platform_status, currency, total,
            refunded_reported, customer_ref, placed_at, version, lines, first_receipt, last_receipt)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::jsonb, $14, $14)
         on conflict (source, tenant, order_id) do update set
            number = excluded.number, status = excluded.status,
            platform_status = excluded.platform_status, currency = excluded.currency,
            total = excluded.total, refunded_reported = excluded.refunded_reported,
            customer_ref = excluded.customer_ref, placed_at = excluded.placed_at,
            version = excluded.version, lines = excluded.lines,
            last_receipt = excluded.last_receipt, updated_at = now()
         where known.version <= excluded.version",
    )
    .bind(source.as_str())
    .bind(&message.envelope.tenant)
    .bind(order_id)
    .bind(&order.number)
    .bind(order.status.as_str())
    .bind(&order.platform_status)
    .bind(order.total.currency.as_str())
    .bind(order.total.amount)
    .bind(order.refunded)
    .bind(&order.customer_ref)
    .bind(order.placed_at)
    .bind(version)
    .bind(lines)
    .bind(message.envelope.receipt_id)
    .execute(&mut **tx)
    .await?;
    Ok(written.rows_affected())
}

async fn invoice(
    tx: &mut Transaction<'_, Postgres>,
    source: &SourceName,
    message: &Message,
    invoice: &Invoice,
) -> anyhow::Result<u64> {
    let tenant = &message.envelope.tenant;
    let written = sqlx::query(
        "insert into invoices as known (
            invoice_id, source, tenant, vendor, invoice_number, transaction_id, status,
            platform_status, currency, total, due_on, version, first_receipt, last_receipt)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
         on conflict (invoice_id) do update set
            transaction_id = excluded.transaction_id, status = excluded.status,
            platform_status = excluded.platform_status, currency = excluded.currency,
            total = excluded.total, due_on = excluded.due_on, version = excluded.version,
            last_receipt = excluded.last_receipt, updated_at = now()
         where known.version <= excluded.version",
    )
    .bind(invoice.id(source, tenant, 0))
    .bind(source.as_str())
    .bind(tenant)
    .bind(&invoice.vendor)
    .bind(&invoice.invoice_number)
    .bind(&invoice.transaction_id)
    .bind(invoice.status.as_str())
    .bind(&invoice.platform_status)
    .bind(invoice.total.currency.as_str())
    .bind(invoice.total.amount)
    .bind(invoice.due_on)
    .bind(invoice.version)
    .bind(message.envelope.receipt_id)
    .execute(&mut **tx)
    .await?;
    Ok(written.rows_affected())
}

async fn record(
    tx: &mut Transaction<'_, Postgres>,
    source: &SourceName,
    message: &Message,
    outcome: &str,
) -> anyhow::Result<()> {
    let envelope = &message.envelope;
    let payload = (outcome != "duplicate").then_some(envelope.body.as_ref());
    sqlx::query(
        "insert into receipts (
            receipt_id, source, tenant, event_key, topic, business_key, received_at,
            response_status, outcome, attempts, payload)
         values ($1, $2, $3, $4, $5, $6, $7, 200, $8, 0, $9)
         on conflict (receipt_id) do nothing",
    )
    .bind(envelope.receipt_id)
    .bind(source.as_str())
    .bind(&envelope.tenant)
    .bind(envelope.key.as_str())
    .bind(&envelope.topic)
    .bind(message.business_key())
    .bind(envelope.received_at)
    .bind(outcome)
    .bind(payload)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
