//! Expired keys are dropped, but no key of an event that can still come back (P6). Maintenance does not
//! block workers.

use std::time::Duration;

use tallyhook::{
    config::{DatabaseConfig, Retention},
    domain::Envelope,
    maintenance::retention,
    observability::metrics::Metrics,
    review::Actor,
    store::{
        Store, inbox,
        inbox::{
            Claim, partitions,
            partitions::{
                InboxMaintenanceReport, InboxRetention, PARTITIONS_PER_WINDOW,
                RetainedInboxPartition,
            },
        },
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{SHOP, TestApp, app::now, events::again, eventually, seconds, shop_order};

const ANNA: Actor<'static> = Actor { name: "anna", comment: "ticket 17" };
const DAY: Duration = Duration::from_hours(24);
const DEDUPE_WINDOW: Duration = Duration::from_hours(40 * 24);
const PARTITIONS: &str = "select count(*) from pg_inherits where inhparent = 'inbox'::regclass";

/// Runs maintenance as if so many days had passed.
async fn maintain_after(app: &TestApp, days: u32) -> InboxMaintenanceReport {
    partitions::maintain(&app.context.store, &plan(days)).await.unwrap()
}

fn plan(days: u32) -> InboxRetention {
    InboxRetention { dedupe_window: Some(DEDUPE_WINDOW), now: now() + DAY * days }
}

/// Publishes an event and applies it.
async fn apply_order(app: &TestApp, order: u64) -> Envelope {
    let event = shop_order(order, 1, "10.00");
    app.publish_all(std::slice::from_ref(&event)).await;
    app.consumer("shop").await.drain(1).await;
    app.assert_outcomes(std::slice::from_ref(&event), &["applied"]).await;
    event
}

/// The outcome of another copy of an event.
async fn outcome_of_copy(app: &TestApp, event: &Envelope) -> String {
    let copy = again(event);
    app.publish_all(std::slice::from_ref(&copy)).await;
    app.consumer("shop").await.drain(1).await;
    app.outcome_of(&copy).await.unwrap().0
}

#[tokio::test]
async fn inbox_partition_is_dropped_after_the_dedupe_window() {
    let app = TestApp::new().await;
    let old = apply_order(&app, 1).await;
    let report = maintain_after(&app, 0).await;
    assert_eq!(
        (report.created, report.dropped.len(), report.status.partitions.len()),
        (None, 0, 1)
    );
    let interval = 40 / PARTITIONS_PER_WINDOW + 1;
    let report = maintain_after(&app, interval).await;
    assert!(report.created.is_some() && !report.is_deferred, "{report:?}");
    let newer = apply_order(&app, 2).await;
    // The old partition was active until now, so its last key is new.
    let report = maintain_after(&app, interval + 40).await;
    assert_eq!(
        (report.dropped.len(), outcome_of_copy(&app, &old).await.as_str()),
        (0, "duplicate")
    );
    let oldest = report.status.partitions[0].hour;
    let report = maintain_after(&app, interval + 41).await;
    assert_eq!(report.dropped, [oldest]);
    assert!(report.status.remembered_since > now(), "{report:?}");
    assert_eq!(
        app.count("select partition_hour::bigint from inbox_dropped_partitions").await,
        i64::from(oldest)
    );
    assert_eq!(outcome_of_copy(&app, &newer).await, "duplicate");
    // An event whose key was dropped is applied again. This is why the window is checked.
    assert_eq!(outcome_of_copy(&app, &old).await, "applied");
    app.assert_conserved(5).await;
}

#[tokio::test]
async fn inbox_partition_count_stays_bounded() {
    let app = TestApp::new().await;
    let mut max_partitions = 0;
    for day in 0..200 {
        max_partitions =
            max_partitions.max(maintain_after(&app, day).await.status.partitions.len());
    }
    let shares = usize::try_from(PARTITIONS_PER_WINDOW).unwrap();
    assert!((shares + 1..=shares + 2).contains(&max_partitions), "{max_partitions} partitions");
    assert!(app.count("select count(*) from inbox_dropped_partitions").await > 5);
    assert_eq!(app.count(PARTITIONS).await, i64::try_from(shares).unwrap() + 1);
}

#[tokio::test]
async fn inbox_audit_ignores_dropped_keys_only() {
    let app = TestApp::new().await;
    apply_order(&app, 1).await;
    maintain_after(&app, 20).await;
    assert_eq!(maintain_after(&app, 100).await.dropped.len(), 1);
    let totals = app.totals().await;
    assert_eq!((totals.applied, totals.inbox_keys), (1, 0));
    assert_eq!((totals.processed_without_key, totals.keys_without_receipt), (0, 0));
    let newer = apply_order(&app, 2).await;
    app.execute(&format!(
        "update receipts set processed_at = now() + interval '200 days'
         where receipt_id = '{}'; delete from inbox",
        newer.receipt_id
    ))
    .await;
    assert_eq!(app.totals().await.processed_without_key, 1);
}

#[tokio::test]
async fn inbox_partition_is_retained_for_an_open_dead_letter() {
    let app = TestApp::new().await;
    let first = apply_order(&app, 1).await;
    // The same key with another body becomes a dead letter.
    let mut other = again(&first);
    other.body = shop_order(1, 2, "99.00").body;
    app.publish_all(&[other]).await;
    app.consumer("shop").await.drain(1).await;
    app.archive_dead_letters(1).await;
    maintain_after(&app, 20).await;

    let report = maintain_after(&app, 100).await;
    let oldest = report.status.partitions[0].hour;
    assert_eq!(report.dropped, [0; 0]);
    assert_eq!(report.status.retained, [RetainedInboxPartition { hour: oldest, dead_letters: 1 }]);
    // Another expired partition is dropped nevertheless.
    let report = maintain_after(&app, 200).await;
    assert_eq!((report.dropped.len(), report.status.retained.len()), (1, 1));
    assert_eq!(outcome_of_copy(&app, &first).await, "duplicate");

    let dead_letters = app.dead_letters().await;
    assert_eq!(dead_letters.rows()[0].reason, "conflicting_duplicate");
    app.discard_dead_letter(dead_letters.rows()[0].dead_letter_id, ANNA).await.unwrap();
    let report = maintain_after(&app, 200).await;
    assert_eq!((report.dropped.as_slice(), report.status.retained.len()), (&[oldest][..], 0));
}

#[tokio::test]
async fn inbox_dead_letter_without_key_retains_nothing() {
    let app = TestApp::new().await;
    let mut poison = shop_order(1, 1, "1.00");
    poison.body = "{}".into();
    app.publish_all(&[poison]).await;
    app.consumer("shop").await.drain(1).await;
    app.archive_dead_letters(1).await;
    apply_order(&app, 2).await;
    maintain_after(&app, 20).await;
    let report = maintain_after(&app, 100).await;
    assert_eq!((report.dropped.len(), report.status.retained.len()), (1, 0));
}

#[tokio::test]
async fn inbox_without_retention_creates_and_drops_nothing() {
    let app = TestApp::new().await;
    let forever = InboxRetention { dedupe_window: None, ..plan(10_000) };
    let report = partitions::maintain(&app.context.store, &forever).await.unwrap();
    assert_eq!(
        (report.created, report.dropped.len(), report.status.partitions.len()),
        (None, 0, 1)
    );
}

fn claim_of(key: Uuid) -> Claim {
    Claim { key, receipt_id: Uuid::now_v7(), body_digest: key }
}

#[tokio::test]
async fn inbox_maintenance_waits_for_long_transactions_without_blocking() {
    let app = TestApp::new().await;
    let store = &app.context.store;
    let mut long = store.begin().await.unwrap();
    inbox::claim(&mut long, &[claim_of(Uuid::now_v7())]).await.unwrap();
    let others = async {
        for _ in 0..20 {
            let mut tx = store.begin().await.unwrap();
            let claimed = inbox::claim(&mut tx, &[claim_of(Uuid::now_v7())]).await.unwrap();
            assert_eq!(claimed.won.len(), 1);
            tx.commit().await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    let (report, ()) = tokio::join!(maintain_after(&app, 20), others);
    assert!(report.is_deferred && report.created.is_none(), "{report:?}");
    assert_eq!(app.count(PARTITIONS).await, 1);
    long.commit().await.unwrap();
    let report = maintain_after(&app, 20).await;
    assert!(!report.is_deferred && report.created.is_some(), "{report:?}");
    // The same when a partition is dropped.
    let mut long = store.begin().await.unwrap();
    inbox::claim(&mut long, &[claim_of(Uuid::now_v7())]).await.unwrap();
    let later = InboxRetention { dedupe_window: Some(DAY), now: now() + 22 * DAY };
    let report = partitions::maintain(store, &later).await.unwrap();
    assert!(report.is_deferred && report.dropped.is_empty(), "{report:?}");
    long.rollback().await.unwrap();
    let report = partitions::maintain(store, &later).await.unwrap();
    assert_eq!((report.is_deferred, report.dropped.len()), (false, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inbox_claims_continue_during_maintenance() {
    let app = TestApp::with(&[SHOP], |config| config.database.max_connections = 6).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut claimants = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (store, stop) = (app.context.store.clone(), stop.clone());
        claimants.spawn(async move {
            let (mut batches, mut last) = (0, Vec::new());
            while !stop.is_cancelled() {
                let new: Vec<Claim> = (0..20).map(|_| claim_of(Uuid::now_v7())).collect();
                let claims: Vec<Claim> = new.iter().chain(&last).copied().collect();
                let mut tx = store.begin().await.unwrap();
                let claimed = inbox::claim(&mut tx, &claims).await.unwrap();
                assert!(new.iter().all(|claim| claimed.won.contains(&claim.key)));
                tx.commit().await.unwrap();
                last = new;
                batches += 1;
            }
            batches
        });
    }
    let mut dropped = 0;
    for round in 1..=25 {
        let report = maintain_after(&app, round * 21).await;
        dropped += report.dropped.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    let batches = claimants.join_all().await;
    assert!(batches.iter().all(|count| *count > 10), "{batches:?}");
    assert!(dropped >= 10, "only {dropped} were dropped");
}

#[tokio::test]
async fn inbox_maintenance_runs_in_one_worker_at_a_time() {
    let app = TestApp::new().await;
    let others: Vec<Store> = (0..3).map(|_| Store::new(&app.config.database).unwrap()).collect();
    let (mut created, mut dropped) = (Vec::new(), Vec::new());
    for round in 1..=8 {
        let at = plan(round * 21);
        let runs = others.iter().map(|store| partitions::maintain(store, &at));
        for report in futures_util::future::join_all(runs).await {
            let report = report.unwrap();
            assert!(!report.is_deferred);
            created.extend(report.created);
            dropped.extend(report.dropped);
        }
    }
    let all = (created.len(), dropped.len());
    created.dedup();
    dropped.sort_unstable();
    dropped.dedup();
    assert_eq!((created.len(), dropped.len()), all, "something was done twice");
    assert_eq!(all.0, 8);
    assert!(all.1 >= 5, "{dropped:?}");
}

#[tokio::test]
async fn inbox_closed_partition_is_vacuumed_and_frozen() {
    let app = TestApp::new().await;
    for order in 1..=3 {
        apply_order(&app, order).await;
    }
    let before = app.count("select pg_current_xact_id()::text::bigint").await;
    let report = maintain_after(&app, 20).await;
    let closed = report.status.partitions[0].hour;
    let of =
        |column: &str| format!("select {column} from pg_class where relname = 'inbox_p{closed}'");
    assert_eq!(app.count(&of("reltuples::bigint")).await, 3);
    assert_eq!(app.count(&of("(relpages - relallvisible)::bigint")).await, 0);
    // All rows up to the vacuum are frozen, so no transaction id can wrap around.
    let unfrozen = format!("(age(relfrozenxid) - age('{before}'::xid))::bigint");
    assert!(app.count(&of(&unfrozen)).await <= 0);
}

#[tokio::test]
async fn maintenance_reports_its_work_and_survives_an_outage() {
    let app = TestApp::with(&[SHOP], |_| ()).await;
    let (retention, metrics) = (&app.components.retention, &app.context.metrics);
    let report = retention::run_once(&app.context.store, retention, metrics).await.unwrap();
    assert_eq!((report.inbox.status.partitions.len(), report.receipts.retained.len()), (1, 0));
    let partition_count = |state: &str| metrics.inbox_partitions.with_label_values(&[state]).get();
    assert_eq!((partition_count("active"), partition_count("retained")), (1, 0));
    assert!(metrics.inbox_bytes.get() > 0);
    assert_window_starts_at(metrics, report.inbox.status.partitions[0].hour);
    let worked = metrics.maintenance_last_success.get();
    assert!((now().unix_timestamp() - worked).abs() < 60, "{worked}");
    assert_eq!(metrics.maintenance_failures.get(), 0);

    metrics.maintenance_last_success.set(17);
    let unreachable = Store::new(&DatabaseConfig {
        url: "postgres://user@127.0.0.1:1/nothing".to_owned(),
        connect_timeout_ms: 300,
        ..app.config.database.clone()
    })
    .unwrap();
    retention::run_once(&unreachable, retention, metrics).await.unwrap_err();
    assert_eq!(
        (metrics.maintenance_failures.get(), metrics.maintenance_last_success.get()),
        (1, 17)
    );
}

/// The window of the inbox's metric starts with an hour.
fn assert_window_starts_at(metrics: &Metrics, hour: i32) {
    let expected = now().unix_timestamp() - i64::from(hour) * 3600;
    let window = metrics.inbox_dedupe_window.get();
    assert!((expected - 60..=expected).contains(&window), "{window} s instead of {expected} s");
}

#[tokio::test]
async fn maintenance_counts_dropped_and_retained_partitions() {
    let app = TestApp::new().await;
    let metrics = &app.context.metrics;
    let first = apply_order(&app, 1).await;
    // The same key with another body becomes a dead letter.
    let mut conflicting = again(&first);
    conflicting.body = shop_order(1, 2, "99.00").body;
    app.publish_all(&[conflicting]).await;
    app.consumer("shop").await.drain(1).await;
    app.archive_dead_letters(1).await;
    app.age(100).await;
    // An expired partition without keys, and the one that followed it.
    let today = i32::try_from(now().unix_timestamp() / 3600).unwrap();
    let followed_by = today - 80 * 24;
    for hour in [today - 90 * 24, followed_by] {
        app.execute(&format!(
            "create table inbox_p{hour} partition of inbox (primary key (key))
             for values in ({hour})"
        ))
        .await;
    }
    let retention = Retention {
        dedupe_window: Some(DEDUPE_WINDOW),
        receipts: Some(90 * DAY),
        ..app.components.retention.clone()
    };
    let run = async || retention::run_once(&app.context.store, &retention, metrics).await.unwrap();
    let partitions = |state: &str| metrics.inbox_partitions.with_label_values(&[state]).get();

    run().await;
    assert_eq!(metrics.inbox_partitions_dropped.get(), 1);
    assert_eq!((partitions("active"), partitions("retained")), (2, 1));
    assert_window_starts_at(metrics, followed_by + 1);
    // The receipt of the dead letter is kept, too.
    assert_eq!(metrics.receipts_dropped.get(), 1);

    let dead_letters = app.dead_letters().await;
    app.discard_dead_letter(dead_letters.rows()[0].dead_letter_id, ANNA).await.unwrap();
    run().await;
    assert_eq!(metrics.inbox_partitions_dropped.get(), 2);
    assert_eq!((partitions("active"), partitions("retained")), (2, 0));
    assert_eq!(metrics.receipts_dropped.get(), 2);
    assert_eq!(metrics.maintenance_failures.get(), 0);
}

#[tokio::test]
async fn maintenance_runs_when_a_worker_starts() {
    let app = TestApp::new().await;
    // As if maintenance had not run for a year.
    let open = i32::try_from(OffsetDateTime::now_utc().unix_timestamp() / 3600).unwrap();
    app.execute(&format!(
        "do $$ declare old text; begin
            select inhrelid::regclass into old from pg_inherits
            where inhparent = 'inbox'::regclass;
            execute format('alter table inbox detach partition %s', old);
            execute format('alter table %s rename to inbox_old', old);
            alter table inbox attach partition inbox_old for values in ({0});
            alter table inbox alter column partition_hour set default {0};
        end $$",
        open - 365 * 24
    ))
    .await;
    let roles = tallyhook::app::Roles { receiver: false, worker: true };
    let server = crate::support::TestServer::start(&app.config, roles).await;
    eventually("a new partition", seconds(30), || async { app.count(PARTITIONS).await == 2 }).await;
    let event = applied_by_service(&app).await;
    server.stop().await;
    app.assert_outcomes(&[event], &["applied"]).await;
}

async fn applied_by_service(app: &TestApp) -> Envelope {
    let event = shop_order(1, 1, "10.00");
    app.publish_all(std::slice::from_ref(&event)).await;
    eventually("the event", seconds(30), || async { app.outcome_of(&event).await.is_some() }).await;
    event
}
