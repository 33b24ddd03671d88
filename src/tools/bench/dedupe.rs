//! `dedupe-at-scale`: claims in an inbox that is full of keys, against claims
//! in an empty one, in turns; alone, and as a part of the worker's whole
//! transaction.
//!
//! The keys are where a worker that has been running for long would have them:
//! spread over as many closed generations as a horizon has, and half of one
//! more in the open one.

use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

use super::{
    Settings,
    backlog::{Backlog, Mix},
    baseline::database,
    measure::{per_second, ratio, round, whole},
    payload::Payload,
    progress::Progress,
    report::{Dedupe, settled},
    stage::Stage,
};
use crate::{
    store::{Store, inbox, inbox::partitions::PARTITIONS_PER_WINDOW},
    worker::{Outbox, apply},
};

/// Keys in one statement while the inbox is filled.
const CHUNK: u64 = 1_000_000;
/// Claims in one transaction.
const BATCH: usize = 500;
/// Of these, how many repeat a key that is there.
const REPEATED: usize = BATCH / 3;

/// What one round measured, in an empty inbox and in a full one, a second.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    claims: f64,
    messages: f64,
}

/// Runs the scenario.
///
/// # Errors
/// The database fails.
pub async fn run(
    stage: &mut Stage,
    settings: &Settings,
    progress: &Progress,
) -> anyhow::Result<Dedupe> {
    let keys = i64::try_from(settings.keys)?;
    let empty = stage.another("empty").await?;
    let full = stage.another("full").await?;
    fill(&full, settings.keys, progress).await?;
    let bytes = database::inbox_bytes(&full).await?;

    let mut rng = StdRng::seed_from_u64(1);
    let (mut crowded, mut free) = (Vec::new(), Vec::new());
    for nth in 0..settings.runs {
        progress.step(&format!("dedupe at scale, run {}", nth + 1));
        // As many of the keys as are repeated, from anywhere among them.
        let some: Vec<i64> =
            (0..settings.claims()).map(|_| rng.random_range(1..=keys.max(1))).collect();
        let known = database::inbox_keys(&full, &some).await?;
        empty.execute("truncate inbox").await?;
        put(&empty, &known).await?;
        // The same messages for both, none of which was there before.
        let backlog = Backlog::make(stage, Payload::Generic, settings.messages, Mix::default())?;
        let order = if nth % 2 == 0 { [&empty, &full] } else { [&full, &empty] };
        let mut rates = Vec::new();
        for store in order {
            database::settle(store).await;
            let claims = claims(store, &known).await?;
            database::settle(store).await;
            rates.push(Rates { claims, messages: transactions(stage, store, &backlog).await? });
        }
        if nth % 2 == 1 {
            rates.reverse();
        }
        free.push(rates[0]);
        crowded.push(rates[1]);
    }
    empty.close().await;
    full.close().await;
    let ratios = |of: fn(&Rates) -> f64| {
        let pairs = crowded.iter().zip(&free);
        settled(pairs.map(|(crowded, free)| ratio(of(crowded), of(free))), 3)
    };
    let median = |rates: &[Rates], of: fn(&Rates) -> f64| settled(rates.iter().map(of), 0);
    Ok(Dedupe {
        keys: settings.keys,
        bytes_per_key: round(ratio(whole(bytes), whole(keys)), 1),
        ratio_to_empty: ratios(|rates| rates.claims),
        per_second: median(&crowded, |rates| rates.claims),
        empty_per_second: median(&free, |rates| rates.claims),
        drain_ratio_to_empty: ratios(|rates| rates.messages),
        drain_per_second: median(&crowded, |rates| rates.messages),
        empty_drain_per_second: median(&free, |rates| rates.messages),
    })
}

/// Fills an inbox: two parts in each closed generation, one in the open one.
async fn fill(store: &Store, keys: u64, progress: &Progress) -> anyhow::Result<()> {
    let open = database::open_generation(store).await?;
    let closed = i32::try_from(PARTITIONS_PER_WINDOW)?;
    let part = keys / u64::from(2 * PARTITIONS_PER_WINDOW + 1);
    let mut there = 0;
    for generation in open - closed..=open {
        let is_open = generation == open;
        let end = if is_open { keys } else { there + 2 * part };
        database::begin_filling(store, generation, is_open).await?;
        while there < end {
            progress.step(&format!("dedupe at scale, {there} of {keys} keys"));
            let to = end.min(there + CHUNK);
            database::fill(store, generation, there + 1, to).await?;
            there = to;
        }
        database::end_filling(store, generation, is_open).await?;
    }
    Ok(())
}

/// The worker's whole transactions, one after the other; messages a second.
async fn transactions(stage: &Stage, store: &Store, backlog: &Backlog) -> anyhow::Result<f64> {
    let source = backlog.payload.source()?;
    let rules = stage.adapter(&source)?.conflict_policy();
    let (items, outbox) = (backlog.items(), Outbox::default());
    let begun = Instant::now();
    for batch in items.chunks(BATCH) {
        apply::apply_batch(store, &source, rules, &outbox, batch).await?;
    }
    Ok(per_second(items.len(), begun.elapsed()))
}

/// The empty inbox knows what is repeated there, and nothing else.
async fn put(store: &Store, keys: &[Uuid]) -> anyhow::Result<()> {
    for keys in keys.chunks(BATCH) {
        let mut tx = store.begin().await?;
        inbox::claim(&mut tx, &distinct(keys.iter().copied())).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Claims as the worker makes them, a third of them of keys that are there;
/// claims a second.
async fn claims(store: &Store, known: &[Uuid]) -> anyhow::Result<f64> {
    let batches: Vec<Vec<inbox::Claim>> = known
        .chunks(REPEATED)
        .map(|known| {
            // As random as the digests that real keys are.
            let new = (0..BATCH - known.len()).map(|_| Uuid::from_u128(rand::random()));
            distinct(known.iter().copied().chain(new))
        })
        .collect();
    let begun = Instant::now();
    let mut count = 0;
    for batch in &batches {
        let mut tx = store.begin().await?;
        inbox::claim(&mut tx, batch).await?;
        tx.commit().await?;
        count += batch.len();
    }
    let took: Duration = begun.elapsed();
    Ok(per_second(count, took))
}

fn distinct(keys: impl Iterator<Item = Uuid>) -> Vec<inbox::Claim> {
    let mut keys: Vec<Uuid> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    let claim = |key| inbox::Claim { key, receipt_id: key, body_digest: key };
    keys.into_iter().map(claim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_claimed_twice_in_a_batch() {
        let keys = [3, 1, 3, 2, 1].map(Uuid::from_u128);
        let claims = distinct(keys.into_iter());
        let found: Vec<u128> = claims.iter().map(|claim| claim.key.as_u128()).collect();
        assert_eq!(found, [1, 2, 3]);
    }
}
