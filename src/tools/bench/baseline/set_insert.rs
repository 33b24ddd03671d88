//! The bare set insert: a backlog's rows from memory, with the worker's
//! statements and batch size. No broker, no parsing; only keys are checked.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    domain::{Change, InvoiceConflict, Outcome, SourceName},
    store::{Store, inbox, invoices, orders, receipts},
    tools::bench::{backlog::Backlog, environment::BenchEnvironment},
    worker::message::Message,
};

/// Inserts a backlog over as many connections as a source has consumers.
pub(crate) async fn run(
    environment: &BenchEnvironment,
    backlog: &Backlog,
) -> anyhow::Result<Duration> {
    let source = backlog.payload.source_name()?;
    let items = Arc::new(backlog.items());
    let worker = &environment.config.worker;
    let (size, next) = (worker.batch_size, Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    // Tasks, so that they can run on several cores, as the worker's consumers do.
    let mut tasks = JoinSet::new();
    for _ in 0..worker.consumers_per_source {
        let (store, source) = (environment.store.clone(), source.clone());
        let (items, next) = (Arc::clone(&items), Arc::clone(&next));
        tasks.spawn(async move {
            while let Some(batch) = items.chunks(size).nth(next.fetch_add(1, Ordering::Relaxed)) {
                insert(&store, &source, batch).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(started.elapsed())
}

async fn insert(store: &Store, source: &SourceName, items: &[Message]) -> anyhow::Result<()> {
    // Only the first message of a key claims it.
    let mut first: HashMap<Uuid, &Message> = HashMap::with_capacity(items.len());
    for item in items {
        first.entry(item.envelope.key.inbox_id()).or_insert(item);
    }
    let claims: Vec<inbox::Claim> = first
        .iter()
        .map(|(key, item)| inbox::Claim {
            key: *key,
            receipt_id: item.envelope.receipt_id,
            body_digest: item.digest(),
        })
        .collect();
    let mut tx = store.begin().await?;
    let inbox::ClaimResult { won: free, .. } = inbox::claim(&mut tx, &claims).await?;
    let is_new = |item: &&Message| {
        let key = item.envelope.key.inbox_id();
        free.contains(&key)
            && first
                .get(&key)
                .is_some_and(|first| first.envelope.receipt_id == item.envelope.receipt_id)
    };
    // A document that occurs twice in a batch is written once.
    let (mut order_rows, mut invoice_rows) = (BTreeMap::new(), BTreeMap::new());
    for item in items.iter().filter(is_new) {
        let (receipt_id, tenant) = (item.envelope.receipt_id, item.envelope.tenant.as_str());
        for change in &item.changes {
            match change {
                Change::Order(update) => {
                    let row = orders::OrderRow { receipt_id, tenant, update };
                    order_rows.entry((tenant, update.order_id())).or_insert(row);
                }
                Change::Invoice(invoice) => {
                    let row = invoices::InvoiceRow { receipt_id, tenant, generation: 0, invoice };
                    invoice_rows.entry(invoice.id(source, tenant, 0)).or_insert(row);
                }
                _ => {}
            }
        }
    }
    if !order_rows.is_empty() {
        orders::upsert(&mut tx, source, &order_rows.into_values().collect::<Vec<_>>()).await?;
    }
    if !invoice_rows.is_empty() {
        let rows: Vec<_> = invoice_rows.into_values().collect();
        invoices::upsert(&mut tx, source, InvoiceConflict::Update, &rows).await?;
    }
    let row = |item| {
        let new = is_new(&item);
        receipts::ReceiptRow {
            envelope: &item.envelope,
            business_key: item.business_key(),
            outcome: if new { Outcome::Applied } else { Outcome::Duplicate },
            write_kind: None,
            attempts: 0,
            error: None,
            keep_payload: new,
        }
    };
    let rows: Vec<receipts::ReceiptRow<'_>> = items.iter().map(row).collect();
    receipts::record(&mut tx, &rows).await?;
    tx.commit().await?;
    Ok(())
}
