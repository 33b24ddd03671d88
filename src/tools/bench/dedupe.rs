//! `dedupe-at-scale`: claims in an inbox full of keys, alternately with claims
//! in an empty one; alone, and as part of the worker's whole transaction.
//!
//! The keys are where a long-running worker would have them: two parts in each
//! closed partition of the dedupe window, and one part in the open partition.

use std::time::Instant;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use uuid::Uuid;

use super::{
    BenchOptions,
    backlog::{Backlog, Mix},
    baseline::database,
    environment::BenchEnvironment,
    measure::{from_i64, per_second, ratio, round, rounded_median},
    payload::Payload,
    report::{Measured, rate, row},
};
use crate::{
    store::{
        Store,
        inbox::{self, partitions::PARTITIONS_PER_WINDOW},
    },
    worker::{Outbox, apply},
};

/// Keys inserted by one statement.
const CHUNK: u64 = 1_000_000;
/// Claims in one transaction.
const BATCH: usize = 500;
/// Claims among them that repeat an existing key.
const REPEATED: usize = BATCH / 3;

/// Claims and messages a second in one inbox.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    claims: f64,
    messages: f64,
}

pub(super) async fn run(
    environment: &mut BenchEnvironment,
    options: &BenchOptions,
) -> anyhow::Result<Measured> {
    let keys = i64::try_from(options.keys)?;
    let empty = environment.create_database("empty").await?;
    let full = environment.create_database("full").await?;
    fill(environment, &full, options.keys).await?;
    let bytes = database::inbox_bytes(&full).await?;

    let mut rng = StdRng::seed_from_u64(1);
    let (mut full_rates, mut empty_rates) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        environment.progress(&format!("dedupe at scale, run {run}"));
        let repeated = (options.messages / 3).max(1);
        let numbers: Vec<i64> = (0..repeated).map(|_| rng.random_range(1..=keys.max(1))).collect();
        let known = database::inbox_keys(&full, &numbers).await?;
        empty.execute("truncate inbox").await?;
        insert_keys(&empty, &known).await?;
        // The same new messages for both.
        let backlog =
            Backlog::generate(environment, Payload::Generic, options.messages, Mix::default())?;
        let order = if run % 2 == 1 { [&empty, &full] } else { [&full, &empty] };
        let mut rates = Vec::new();
        for store in order {
            database::checkpoint(store).await;
            let claims = claim(store, &known).await?;
            database::checkpoint(store).await;
            rates.push(Rates { claims, messages: apply(environment, store, &backlog).await? });
        }
        if run % 2 == 0 {
            rates.reverse();
        }
        empty_rates.push(rates[0]);
        full_rates.push(rates[1]);
    }
    empty.close().await;
    full.close().await;
    let ratio_to_empty = |of: fn(&Rates) -> f64| {
        let pairs = full_rates.iter().zip(&empty_rates);
        rounded_median(pairs.map(|(full, empty)| ratio(of(full), of(empty))), 3)
    };
    let median = |rates: &[Rates], of: fn(&Rates) -> f64| rounded_median(rates.iter().map(of), 0);
    let bytes_per_key = round(ratio(from_i64(bytes), from_i64(keys)), 1);
    let per_second = median(&full_rates, |rates| rates.claims);
    let ratio_of_claims = ratio_to_empty(|rates| rates.claims);
    let ratio_of_messages = ratio_to_empty(|rates| rates.messages);
    let compared = format!(
        "{ratio_of_claims:.2} of an empty one, {ratio_of_messages:.2} for whole transactions; \
         {bytes_per_key} bytes a key"
    );
    Ok(Measured {
        figures: json!({
            "keys": keys,
            "bytes_per_key": bytes_per_key,
            "ratio_to_empty": ratio_of_claims,
            "per_second": per_second,
            "empty_per_second": median(&empty_rates, |rates| rates.claims),
            "drain_ratio_to_empty": ratio_of_messages,
            "drain_per_second": median(&full_rates, |rates| rates.messages),
            "empty_drain_per_second": median(&empty_rates, |rates| rates.messages),
        }),
        rows: vec![row(
            format!("claims with {keys} keys in the inbox"),
            rate(per_second),
            compared,
        )],
    })
}

/// Fills an inbox: two parts in each closed partition, one in the open one.
async fn fill(environment: &BenchEnvironment, store: &Store, keys: u64) -> anyhow::Result<()> {
    let open = database::open_partition(store).await?;
    let closed = i32::try_from(PARTITIONS_PER_WINDOW)?;
    let part = keys / u64::from(2 * PARTITIONS_PER_WINDOW + 1);
    let mut filled = 0;
    for partition in open - closed..=open {
        let is_open = partition == open;
        let end = if is_open { keys } else { filled + 2 * part };
        database::begin_filling(store, partition, is_open).await?;
        while filled < end {
            environment.progress(&format!("dedupe at scale, {filled} of {keys} keys"));
            let to = end.min(filled + CHUNK);
            database::fill(store, partition, filled + 1, to).await?;
            filled = to;
        }
        database::end_filling(store, partition, is_open).await?;
    }
    Ok(())
}

/// The worker's whole transactions, one after another; messages a second.
async fn apply(
    environment: &BenchEnvironment,
    store: &Store,
    backlog: &Backlog,
) -> anyhow::Result<f64> {
    let source = backlog.payload.source_name()?;
    let rules = environment.source(&source)?.conflict_policy();
    let (items, outbox) = (backlog.items(), Outbox::default());
    let started = Instant::now();
    for batch in items.chunks(BATCH) {
        apply::apply_batch(store, &source, rules, &outbox, batch).await?;
    }
    Ok(per_second(items.len(), started.elapsed()))
}

async fn insert_keys(store: &Store, keys: &[Uuid]) -> anyhow::Result<()> {
    for keys in keys.chunks(BATCH) {
        let mut tx = store.begin().await?;
        inbox::claim(&mut tx, &distinct_claims(keys.iter().copied())).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Claims as the worker makes them, a third of them for existing keys; claims
/// a second.
async fn claim(store: &Store, known: &[Uuid]) -> anyhow::Result<f64> {
    let batches: Vec<Vec<inbox::Claim>> = known
        .chunks(REPEATED)
        .map(|known| {
            // As random as the digests of real keys.
            let new = (0..BATCH - known.len()).map(|_| Uuid::from_u128(rand::random()));
            distinct_claims(known.iter().copied().chain(new))
        })
        .collect();
    let started = Instant::now();
    let mut count = 0;
    for batch in &batches {
        let mut tx = store.begin().await?;
        inbox::claim(&mut tx, batch).await?;
        tx.commit().await?;
        count += batch.len();
    }
    Ok(per_second(count, started.elapsed()))
}

/// Sorted claims without repetition, as one statement needs them.
fn distinct_claims(keys: impl Iterator<Item = Uuid>) -> Vec<inbox::Claim> {
    let mut keys: Vec<Uuid> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    let claim = |key| inbox::Claim { key, receipt_id: key, body_digest: key };
    keys.into_iter().map(claim).collect()
}
