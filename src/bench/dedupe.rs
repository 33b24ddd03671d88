//! `dedupe-at-scale`: claims in an inbox that is full of keys, against claims
//! in an empty one, in turns.

use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

use super::{
    Settings,
    baseline::database,
    measure::{per_second, ratio, round, whole},
    progress::Progress,
    report::{Dedupe, settled},
    stage::Stage,
};
use crate::store::{Store, inbox};

/// Keys in one statement while the inbox is filled.
const CHUNK: i64 = 100_000;
/// Claims in one transaction.
const BATCH: usize = 500;
/// Of these, how many repeat a key that is there.
const REPEATED: usize = BATCH / 3;

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
    let mut there = 0;
    while there < keys {
        if there % (10 * CHUNK) == 0 {
            progress.step(&format!("dedupe at scale, {there} of {keys} keys"));
        }
        let to = keys.min(there + CHUNK);
        database::fill_inbox(&full, there + 1, to).await?;
        there = to;
    }
    database::vacuum_inbox(&full).await?;
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
        for store in [&empty, &full] {
            database::settle(store).await;
        }
        let order = if nth % 2 == 0 { [&empty, &full] } else { [&full, &empty] };
        let mut rates = Vec::new();
        for store in order {
            rates.push(claims(store, &known).await?);
        }
        if nth % 2 == 1 {
            rates.reverse();
        }
        free.push(rates[0]);
        crowded.push(rates[1]);
    }
    empty.close().await;
    full.close().await;
    let ratios = crowded.iter().zip(&free).map(|(crowded, free)| ratio(*crowded, *free));
    Ok(Dedupe {
        keys: settings.keys,
        bytes_per_key: round(ratio(whole(bytes), whole(keys)), 1),
        ratio_to_empty: settled(ratios, 3),
        per_second: settled(crowded.iter().copied(), 0),
        empty_per_second: settled(free, 0),
    })
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
        let free = inbox::claim(&mut tx, batch).await?;
        let taken: Vec<Uuid> =
            batch.iter().map(|claim| claim.key).filter(|key| !free.contains(key)).collect();
        inbox::settled(&mut tx, &taken).await?;
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
