//! No key of the inbox is won twice, whenever the next partition is created, and retained partitions
//! are searched too (P2).

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tallyhook::store::{
    Conn, Store, inbox,
    inbox::{Claim, ClaimResult, ProcessedKey, partitions, partitions::LockOutcome},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{TestApp, app::now, events::again, random::seeded_rng, shop_order};

const ACTIVE_HOUR: &str = "select pg_get_expr(adbin, adrelid)::bigint from pg_attrdef
                    where adrelid = 'inbox'::regclass";

/// Creates the next partition, which becomes active, and returns its hour.
async fn create_next_partition(app: &TestApp) -> i32 {
    let next = i32::try_from(app.count(ACTIVE_HOUR).await).unwrap() + 1;
    assert_eq!(
        partitions::create_partition(&app.context.store, next).await.unwrap(),
        LockOutcome::Done
    );
    next
}

fn claim_of(key: Uuid) -> Claim {
    Claim { key, receipt_id: Uuid::now_v7(), body_digest: Uuid::from_u128(7) }
}

async fn claim(store: &Store, claims: &[Claim]) -> ClaimResult {
    let mut tx = store.begin().await.unwrap();
    let claimed = inbox::claim(&mut tx, claims).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inbox_key_is_claimed_once_while_partitions_are_created() {
    const TASKS: u32 = 6;
    const ROUNDS: usize = 150;
    const STEP: usize = 4;
    let app =
        TestApp::with(&[crate::support::SHOP], |config| config.database.max_connections = 9).await;
    // All tasks claim the same keys at about the same time, so that claims of one key meet within a
    // partition and across its end.
    let mut rng = seeded_rng();
    let keys: Vec<Uuid> = (0..STEP * (ROUNDS + 8)).map(|_| Uuid::from_u128(rng.random())).collect();
    let is_over = AtomicBool::new(false);
    let workers = async {
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (store, keys) = (app.context.store.clone(), keys.clone());
            let mut rng = StdRng::seed_from_u64(rng.random());
            tasks.spawn(async move {
                let mut ours = Vec::new();
                for round in 0..ROUNDS {
                    let mut some = keys[round * STEP..][..8 * STEP].to_vec();
                    some.shuffle(&mut rng);
                    let claims: Vec<Claim> = some.into_iter().map(claim_of).collect();
                    let mut tx = store.begin().await.unwrap();
                    let claimed = inbox::claim(&mut tx, &claims).await.unwrap();
                    assert_eq!(claimed.won.len() + claimed.existing.len(), claims.len());
                    tokio::time::sleep(Duration::from_micros(rng.random_range(0..2000))).await;
                    if rng.random_ratio(1, 5) {
                        tx.rollback().await.unwrap();
                    } else {
                        tx.commit().await.unwrap();
                        let won = claims.iter().filter(|claim| claimed.won.contains(&claim.key));
                        ours.extend(won.copied());
                    }
                }
                ours
            });
        }
        let ours = tasks.join_all().await;
        is_over.store(true, Ordering::Relaxed);
        ours
    };
    let switches = async {
        let mut switches = 0;
        while !is_over.load(Ordering::Relaxed) {
            let next = i32::try_from(app.count(ACTIVE_HOUR).await).unwrap() + 1;
            let outcome = partitions::create_partition(&app.context.store, next).await.unwrap();
            switches += i32::from(outcome == LockOutcome::Done);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        switches
    };
    let (ours, switches) = tokio::join!(workers, switches);
    assert!(switches >= 5, "only {switches} partitions were created");

    let mut winners: HashMap<Uuid, Claim> = HashMap::new();
    for claim in ours.into_iter().flatten() {
        let before = winners.insert(claim.key, claim);
        assert_eq!(before, None, "a key was won twice");
    }
    let total = i64::try_from(winners.len()).unwrap();
    assert_eq!(app.count("select count(*) from inbox").await, total);
    assert_eq!(app.count("select count(distinct key) from inbox").await, total);
    assert!(app.count("select count(distinct partition_hour) from inbox").await >= 4);
    // A later claim learns which message won.
    let known: Vec<Claim> = winners.keys().copied().map(claim_of).collect();
    let claimed = claim(&app.context.store, &known).await;
    assert_eq!(claimed.won, HashSet::new());
    for (key, winner) in &winners {
        assert_eq!(claimed.existing[key].receipt_id, winner.receipt_id);
    }
}

#[tokio::test]
async fn inbox_lookup_in_old_partition_returns_receipt_and_digest() {
    let app = TestApp::new().await;
    let store = &app.context.store;
    let mut processed = Vec::new();
    for _ in 0..6 {
        let new =
            Claim { body_digest: Uuid::from_u128(rand::random()), ..claim_of(Uuid::now_v7()) };
        assert_eq!(claim(store, &[new]).await.won, HashSet::from([new.key]));
        processed.push(new);
        create_next_partition(&app).await;
    }
    let fresh = claim_of(Uuid::now_v7());
    let claims: Vec<Claim> =
        processed.iter().map(|claim| claim_of(claim.key)).chain([fresh]).collect();
    let claimed = claim(store, &claims).await;
    assert_eq!(claimed.won, HashSet::from([fresh.key]));
    let expected: HashMap<Uuid, ProcessedKey> = processed
        .iter()
        .map(|claim| {
            let (receipt_id, body_digest) = (claim.receipt_id, claim.body_digest);
            (claim.key, ProcessedKey { receipt_id, body_digest })
        })
        .collect();
    assert_eq!(claimed.existing, expected);
    assert_eq!(app.count("select count(distinct partition_hour) from inbox").await, 7);
}

#[tokio::test]
async fn inbox_redelivery_across_partitions_is_a_duplicate() {
    let app = TestApp::new().await;
    let first = shop_order(1, 1, "10.00");
    app.publish_all(&[first.clone(), again(&first)]).await;
    let (link, mut consumer) = app.consumer_on_own_connection("shop").await;
    let batch = consumer.0.collect_batch().await.unwrap();
    consumer.0.handle_batch(batch).await.unwrap();
    let state = "select string_agg(receipts::text, ';' order by receipt_id) from receipts";
    let before = app.text(state).await;
    drop(consumer);
    link.close().await;
    create_next_partition(&app).await;

    let mut consumer = app.consumer("shop").await;
    assert_eq!(consumer.step().await, 2, "it is delivered again");
    assert_eq!(app.text(state).await, before);
    // Another copy is still a duplicate.
    let copy = again(&first);
    app.publish_all(std::slice::from_ref(&copy)).await;
    consumer.step().await;
    app.assert_outcomes(&[copy], &["duplicate"]).await;
    app.assert_conserved(3).await;
}

/// Rows that this session has read by sequential scans and by indexes since its last report.
async fn read(conn: &mut Conn) -> (i64, i64) {
    sqlx::query_as(
        "select sum(seq_tup_read)::bigint, sum(idx_tup_fetch)::bigint
         from pg_stat_xact_user_tables where relname like 'inbox_p%'",
    )
    .fetch_one(conn)
    .await
    .unwrap()
}

#[tokio::test]
async fn inbox_claim_reads_only_the_requested_keys() {
    let app =
        TestApp::with(&[crate::support::SHOP], |config| config.database.max_connections = 2).await;
    let store = &app.context.store;
    for nth in 0..8 {
        app.execute(&format!(
            "insert into inbox (key, receipt_id, body_digest)
             select md5('{nth} ' || n)::uuid, gen_random_uuid(), gen_random_uuid()
             from generate_series(1, 3000) as n"
        ))
        .await;
        if nth % 3 != 0 {
            app.execute("analyze").await;
        }
        create_next_partition(&app).await;
    }
    let known: Vec<Uuid> = sqlx::query_scalar(
        "select md5((n % 8) || ' ' || n)::uuid
                                               from generate_series(1, 160) as n",
    )
    .fetch_all(&app.db)
    .await
    .unwrap();
    let batch = || -> Vec<Claim> {
        let new = (0..340).map(|_| Uuid::from_u128(rand::random()));
        known.iter().copied().chain(new).map(claim_of).collect()
    };
    // A few rounds while the active partition is empty or small, and analyzed like that:
    // plans are made and kept.
    app.execute("analyze").await;
    for _ in 0..8 {
        claim(store, &batch()).await;
    }
    app.execute(
        "insert into inbox (key, receipt_id, body_digest)
         select gen_random_uuid(), gen_random_uuid(), gen_random_uuid()
         from generate_series(1, 20000)",
    )
    .await;
    let mut tx = store.begin().await.unwrap();
    let before = read(&mut tx).await;
    let claimed = inbox::claim(&mut tx, &batch()).await.unwrap();
    assert_eq!((claimed.won.len(), claimed.existing.len()), (340, 160));
    assert_eq!(read(&mut tx).await, (before.0, before.1 + 160));
    // A release finds its rows the same way.
    let free: Vec<(Uuid, Uuid)> =
        claimed.won.iter().map(|key| (*key, Uuid::from_u128(1))).collect();
    inbox::release(&mut tx, &free).await.unwrap();
    assert_eq!(read(&mut tx).await.0, before.0);
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn inbox_unclaim_releases_only_own_messages() {
    let app = TestApp::new().await;
    let (a, b) = (claim_of(Uuid::now_v7()), claim_of(Uuid::now_v7()));
    let mut tx = app.context.store.begin().await.unwrap();
    inbox::claim(&mut tx, &[a, b]).await.unwrap();
    let theirs = (b.key, Uuid::now_v7());
    inbox::release(&mut tx, &[(a.key, a.receipt_id), theirs]).await.unwrap();
    tx.commit().await.unwrap();
    let claimed = claim(&app.context.store, &[claim_of(a.key), claim_of(b.key)]).await;
    assert_eq!(claimed.won, HashSet::from([a.key]));
    assert_eq!(claimed.existing[&b.key].receipt_id, b.receipt_id);
}

#[tokio::test]
async fn inbox_claim_ignores_the_default_isolation_level() {
    let app = TestApp::new().await;
    let name = app.text("select current_database()").await;
    let serializable = "set default_transaction_isolation = 'serializable'";
    app.execute(&format!("alter database {name} {serializable}")).await;
    let store = Store::new(&app.config.database).unwrap();
    let mut tx = store.begin().await.unwrap();
    let level: String =
        sqlx::query_scalar("show transaction_isolation").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(level, "read committed");
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn inbox_migration_creates_active_partition_of_this_hour() {
    let app = TestApp::new().await;
    let hour = app.count(ACTIVE_HOUR).await;
    let this_hour = now().unix_timestamp() / 3600;
    // The database is a copy of a template that was migrated when the tests began.
    assert!((this_hour - 1..=this_hour).contains(&hour), "{hour} is not this hour");
    let table = format!("select count(*) from pg_class where relname = 'inbox_p{hour}'");
    assert_eq!(app.count(&table).await, 1);
}
