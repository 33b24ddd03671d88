//! The bare set insert: the rows of a backlog, from memory, by the same
//! statements and in batches of the same size as the worker's. No broker, no
//! body to be read, nothing looked at but which keys were free.

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
    tools::bench::{backlog::Backlog, stage::Stage},
    worker::message::Message,
};

/// Inserts a backlog over as many connections as the source has consumers;
/// how long it took.
///
/// # Errors
/// What the database says.
pub async fn run(stage: &Stage, backlog: &Backlog) -> anyhow::Result<Duration> {
    let source = backlog.payload.source()?;
    let items = Arc::new(backlog.items());
    let worker = &stage.config.worker;
    let (size, next) = (worker.batch_size, Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    // Tasks, so that they may have a core each, as the worker's lanes may.
    let mut lanes = JoinSet::new();
    for _ in 0..worker.consumers_per_source {
        let (store, source) = (stage.store.clone(), source.clone());
        let (items, next) = (Arc::clone(&items), Arc::clone(&next));
        lanes.spawn(async move {
            while let Some(batch) = items.chunks(size).nth(next.fetch_add(1, Ordering::Relaxed)) {
                insert(&store, &source, batch).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = lanes.join_next().await {
        done??;
    }
    Ok(begun.elapsed())
}

async fn insert(store: &Store, source: &SourceName, items: &[Message]) -> anyhow::Result<()> {
    // What repeats a key within the batch waits behind the first.
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
    let ours = |item: &&Message| {
        let key = item.envelope.key.inbox_id();
        free.contains(&key)
            && first
                .get(&key)
                .is_some_and(|one| one.envelope.receipt_id == item.envelope.receipt_id)
    };
    // A document that is told twice in one batch is written once.
    let (mut told, mut billed) = (BTreeMap::new(), BTreeMap::new());
    for item in items.iter().filter(ours) {
        let (receipt_id, tenant) = (item.envelope.receipt_id, item.envelope.tenant.as_str());
        for change in &item.changes {
            match change {
                Change::Order(update) => {
                    let row = orders::OrderRow { receipt_id, tenant, update };
                    told.entry((tenant, update.order_id())).or_insert(row);
                }
                Change::Invoice(invoice) => {
                    let row = invoices::InvoiceRow { receipt_id, tenant, generation: 0, invoice };
                    billed.entry(invoice.id(source, tenant, 0)).or_insert(row);
                }
                _ => {}
            }
        }
    }
    if !told.is_empty() {
        orders::upsert(&mut tx, source, &told.into_values().collect::<Vec<_>>()).await?;
    }
    if !billed.is_empty() {
        let rows: Vec<_> = billed.into_values().collect();
        invoices::upsert(&mut tx, source, InvoiceConflict::Update, &rows).await?;
    }
    let row = |item| {
        let new = ours(&item);
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
