//! Expired receipts are dropped by partition. Receipts that wait stay, and all sums stay the same.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use tallyhook::{
    app::Roles,
    config::Retention,
    domain::{Envelope, Outcome},
    maintenance::retention,
    review::Actor,
    store::{
        dead_letters::DeadLetterFilter,
        imports, receipts,
        receipts::{partition_range::ReceiptsRetention, partitions::ReceiptsMaintenanceReport},
    },
};
use uuid::Uuid;

use crate::support::{
    SHOP, TestApp, TestServer,
    app::now,
    backdating::{DAY, plan},
    events::again,
    http::client,
    import_files::{HEADER, TOKEN, VENDORS, done, figures, import_csv, progress, row},
    seconds, shop_order,
};

const ANNA: Actor<'static> = Actor { name: "anna", comment: "ticket 17" };

/// An order with a receipt id of another producer.
fn foreign(number: u64) -> Envelope {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, Uuid::now_v7().as_bytes());
    Envelope { receipt_id: id, ..shop_order(number, 1, "1.00") }
}

/// An order that can never be applied.
fn poison(number: u64) -> Envelope {
    Envelope { body: "{}".into(), ..shop_order(number, 1, "1.00") }
}

/// Applies orders: one of another producer, and one that came twice.
async fn apply_orders(app: &TestApp) -> Vec<Envelope> {
    let mut events = vec![shop_order(1, 1, "1.00"), shop_order(2, 1, "2.00"), foreign(3)];
    events.push(again(&events[0]));
    events.push(shop_order(1, 0, "1.00"));
    app.publish_all(&events).await;
    app.consumer("shop").await.drain(5).await;
    app.assert_outcomes(&events, &["applied", "applied", "applied", "duplicate", "stale"]).await;
    events
}

fn dropped_tables(report: &ReceiptsMaintenanceReport) -> Vec<&str> {
    report.dropped.iter().map(|dropped| dropped.table.as_str()).collect()
}

/// A maintenance run that keeps receipts for 90 days and sets the metrics.
async fn maintain(app: &TestApp) -> ReceiptsMaintenanceReport {
    let retention = Retention { receipts: Some(90 * DAY), ..app.components.retention.clone() };
    retention::run_once(&app.context.store, &retention, &app.context.metrics)
        .await
        .unwrap()
        .receipts
}

#[tokio::test]
async fn receipts_retention_drops_rows_and_audit_still_balances() {
    let app = TestApp::new().await;
    apply_orders(&app).await;
    app.age(100).await;
    // The same again, received today.
    apply_orders(&app).await;
    let totals = app.totals().await;
    let report = app.maintain_receipts(&plan(0, Some(90))).await;
    assert_eq!(
        (report.retained.len(), report.default_deleted, report.is_busy),
        (0, 1, false),
        "{report:?}"
    );
    let dropped: i64 = report.dropped.iter().map(|dropped| dropped.receipts).sum();
    assert_eq!(dropped, 4);
    assert!(report.dropped.iter().all(|dropped| dropped.moved == 0), "{report:?}");
    assert_eq!(app.count("select count(*) from receipts").await, 5);
    let old = "select count(*) from receipts where received_at < now() - interval '90 days'";
    assert_eq!(app.count(old).await, 0);
    let tables = "select count(*) from pg_class where relname = any(string_to_array('";
    let left = app.count(&format!("{tables}{}', ','))", dropped_tables(&report).join(","))).await;
    assert_eq!(left, 0, "the tables are gone");

    let after = app.totals().await;
    assert_eq!(after.past_retention, 5);
    assert_eq!(tallyhook::store::reconciliation::Totals { past_retention: 0, ..after }, totals);
    app.assert_conserved(10).await;
    // A second run does nothing.
    assert_eq!(
        app.maintain_receipts(&plan(0, Some(90))).await,
        ReceiptsMaintenanceReport::default()
    );
    app.assert_conserved(10).await;
}

#[tokio::test]
async fn receipts_retention_disabled_keeps_everything() {
    let app = TestApp::new().await;
    apply_orders(&app).await;
    app.age(4000).await;
    let report = app.maintain_receipts(&plan(0, None)).await;
    assert_eq!((report.dropped.len(), report.default_deleted), (0, 0), "{report:?}");
    assert_eq!(app.count("select count(*) from receipts").await, 5);
    // A worker whose clock is ahead by years drops nothing either.
    let report = app.maintain_receipts(&plan(-4000, Some(5000))).await;
    assert_eq!((report.dropped.len(), report.default_deleted), (0, 0), "{report:?}");
    assert_eq!(app.count("select count(*) from receipts").await, 5);
}

#[tokio::test]
async fn receipts_retention_lost_receipt_is_still_a_finding() {
    let app = TestApp::new().await;
    apply_orders(&app).await;
    app.age(100).await;
    apply_orders(&app).await;
    app.maintain_receipts(&plan(0, Some(90))).await;
    for (found, id) in [
        // Received today, in a partition.
        (1, "select last_receipt from orders where order_id = '2'"),
        // Of another producer, received today.
        (2, "select last_receipt from orders where order_id = '3'"),
    ] {
        app.execute(&format!("delete from receipts where receipt_id = ({id})")).await;
        let totals = app.totals().await;
        assert_eq!(totals.keys_without_receipt, found, "{totals:?}");
        assert_eq!(totals.dead_letters_without_dead_receipt, 0, "{totals:?}");
    }
    // The order of another producer's message is as old as its first receipt. So the audit cannot
    // know whether its last receipt should exist.
    assert_eq!(app.totals().await.documents_without_receipt, 1);
}

#[tokio::test]
async fn receipts_retention_moves_waiting_rows_before_the_drop() {
    let app = TestApp::new().await;
    let (waits, dead_letter, discarded) = (shop_order(1, 1, "1.00"), poison(2), poison(3));
    let mut conn = app.context.store.connection().await.unwrap();
    let waiting = receipts::ReceiptRow {
        envelope: &waits,
        business_key: None,
        outcome: Outcome::Retried,
        write_kind: None,
        attempts: 1,
        error: Some("why"),
        keep_payload: true,
    };
    receipts::record(&mut conn, &[waiting]).await.unwrap();
    app.publish_all(&[dead_letter.clone(), discarded.clone(), shop_order(4, 1, "1.00")]).await;
    app.consumer("shop").await.drain(3).await;
    app.archive_dead_letters(2).await;
    let dead_letters = app.dead_letters().await;
    let of = |event: &Envelope| {
        let found = dead_letters
            .rows()
            .iter()
            .find(|dead_letter| dead_letter.receipt_id == event.receipt_id);
        found.unwrap().dead_letter_id
    };
    app.discard_dead_letter(of(&discarded), ANNA).await.unwrap();
    app.age(100).await;
    let before = app.totals().await;

    let report = app.maintain_receipts(&plan(0, Some(90))).await;
    assert_eq!((report.retained.len(), report.default_deleted), (0, 0), "{report:?}");
    let dropped: i64 = report.dropped.iter().map(|dropped| dropped.receipts).sum();
    let moved: usize = report.dropped.iter().map(|dropped| dropped.moved).sum();
    assert_eq!((dropped, moved), (2, 2), "{report:?}");
    let stays = "select string_agg(outcome || ' ' || tableoid::regclass, ', ' order by outcome)
                 from receipts";
    assert_eq!(app.text(stays).await, "dead receipts_default, retried receipts_default");
    let after = app.totals().await;
    assert_eq!(tallyhook::store::reconciliation::Totals { past_retention: 0, ..after }, before);
    assert_eq!(before.dead_letters_without_dead_receipt, 0, "{before:?}");

    // Both are processed a hundred days late, so they are recent.
    app.execute(
        "update dead_letters set payload = convert_to('{\"id\": 2, \"name\": \"#2\",
        \"financial_status\": \"paid\", \"currency\": \"EUR\", \"current_total_price\": \"1.00\",
        \"updated_at\": \"2026-01-01T00:00:00Z\", \"line_items\": []}', 'UTF8')
        where state = 'open'",
    )
    .await;
    let open = DeadLetterFilter { state: Some("open".to_owned()), ..Default::default() };
    app.replay(&app.select_dead_letters(open).await, ANNA).await;
    app.consumer("shop").await.drain(1).await;
    let state = "select string_agg(state, ', ' order by state) from dead_letters";
    assert_eq!(app.text(state).await, "discarded, resolved");
    app.execute(
        "update receipts set outcome = 'ignored', error = null, processed_at = now()
        where outcome = 'retried'",
    )
    .await;
    assert_eq!(
        app.maintain_receipts(&plan(0, Some(90))).await,
        ReceiptsMaintenanceReport::default()
    );
    app.execute("update receipts set processed_at = received_at - interval '100 days'").await;
    assert_eq!(app.maintain_receipts(&plan(0, Some(90))).await.default_deleted, 2);
    assert_eq!(app.totals().await.past_retention, 4);
}

#[tokio::test]
async fn receipts_retention_dead_letter_without_receipt_is_a_finding() {
    let app = TestApp::new().await;
    app.publish_all(&[poison(1)]).await;
    app.consumer("shop").await.drain(1).await;
    app.archive_dead_letters(1).await;
    let dead_letters = app.dead_letters().await;
    app.discard_dead_letter(dead_letters.rows()[0].dead_letter_id, ANNA).await.unwrap();
    app.age(100).await;
    assert_eq!(app.maintain_receipts(&plan(0, Some(90))).await.dropped.len(), 1);
    assert_eq!(app.count("select count(*) from receipts").await, 0);
    // Another producer uses the same receipt id for another message.
    let old = app.text("select receipt_id::text from dead_letters").await;
    app.publish_all(&[Envelope { receipt_id: old.parse().unwrap(), ..poison(2) }]).await;
    app.consumer("shop").await.drain(1).await;
    app.archive_dead_letters(1).await;
    let states = "select string_agg(state, ', ' order by state) from dead_letters";
    assert_eq!(app.text(states).await, "discarded, open");
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn receipts_retention_holds_partition_with_many_waiting_rows() {
    let app = TestApp::new().await;
    app.maintain_receipts(&plan(100, None)).await;
    let write = async |number: i32, outcome: &str, processed: &str| {
        app.execute(&format!(
            "insert into receipts (receipt_id, source, tenant, event_key, topic, received_at,
                 outcome, attempts, error, processed_at)
             select (left(receipt_id_at(now() - interval '100 days')::text, 24)
                    || lpad(n::text, 12, '0'))::uuid,
                 'shop', '', 'k' || n, '', now() - interval '100 days', '{outcome}', 0, 'why',
                 {processed}
             from generate_series({number} + 1, {number} + 5001) as n"
        ))
        .await;
    };
    let old = "now() - interval '100 days'";
    write(0, "retried", old).await;
    let kept = app.maintain_receipts(&plan(0, Some(90))).await;
    let [held] = &kept.retained[..] else { panic!("{kept:?}") };
    assert_eq!((held.waiting, held.recent), (5001, 0), "{kept:?}");
    let metrics = &app.context.metrics;
    maintain(&app).await;
    assert_eq!(
        (metrics.receipts_partitions_retained.get(), metrics.receipts_dropped.get()),
        (1, 0)
    );
    assert!(!dropped_tables(&kept).contains(&held.table.as_str()));
    assert_eq!(app.count(&format!("select count(*) from {}", held.table)).await, 5001);

    app.execute("update receipts set outcome = 'stale'").await;
    write(6000, "applied", "now()").await;
    let again = app.maintain_receipts(&plan(0, Some(90))).await;
    let [young] = &again.retained[..] else { panic!("{again:?}") };
    assert_eq!((young.waiting, young.recent, &young.table), (0, 5001, &held.table), "{again:?}");
    app.execute("update receipts set processed_at = received_at").await;
    let last = maintain(&app).await;
    assert_eq!((last.retained.len(), dropped_tables(&last)), (0, vec![held.table.as_str()]));
    assert_eq!(
        (metrics.receipts_partitions_retained.get(), metrics.receipts_dropped.get()),
        (0, 10_002)
    );
    assert_eq!(metrics.maintenance_failures.get(), 0);
    assert_eq!(app.totals().await.past_retention, 10_002);
}

/// A page of an import's items.
async fn items(server: &TestServer, id: &str) -> Value {
    let url = server.url(&format!("/imports/{id}/items"));
    let response = client().get(url).bearer_auth(TOKEN).send().await.unwrap();
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn receipts_retention_keeps_import_counts() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let file = [HEADER, &row("1", "1.00"), &row("2", "2.00"), &row("1", "1.00"), &row("3", "much")];
    let id = import_csv(&server, file.concat()).await;
    let whole = done(&server, &id).await;
    assert_eq!(figures(&whole), [4, 0, 2, 0, 1, 0, 0, 1, 0], "{whole}");
    assert_eq!(whole["past_retention"], 0);
    let current = async || {
        let mut status = progress(&server, &id).await;
        let past = status["past_retention"].take();
        (status, past.as_i64().unwrap())
    };
    // The worker may complete the import at any moment. Then it does so again.
    app.execute("update imports set completed_at = null").await;
    let mut conn = app.context.store.connection().await.unwrap();
    imports::mark_completed(&mut conn).await.unwrap();
    let before = {
        // The receipt of one line is younger, so retention keeps it.
        app.age(100).await;
        app.execute(
            "update receipts set receipt_id = receipt_id_at(now()), received_at = now(),
            processed_at = now() - interval '100 days' where import_line = 3",
        )
        .await;
        current().await.0
    };
    let report = app.maintain_receipts(&plan(0, Some(90))).await;
    assert_eq!(report.dropped.iter().map(|dropped| dropped.receipts).sum::<i64>(), 3, "{report:?}");
    let (after, past) = current().await;
    assert_eq!(past, 3);
    assert_eq!(after, before);
    let page = items(&server, &id).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "{page}");
    assert_eq!(page["past_retention"], 3);

    // The last receipt is deleted from the default partition.
    app.execute(
        "update receipts set receipt_id = gen_random_uuid(),
        received_at = now() - interval '100 days'",
    )
    .await;
    assert_eq!(app.maintain_receipts(&plan(0, Some(90))).await.default_deleted, 1);
    let (after, past) = current().await;
    assert_eq!((figures(&after), past), (figures(&whole), 4));
    assert_eq!(items(&server, &id).await["past_retention"], 4);
    // No item waits, and the import is completed as before.
    app.execute("update imports set completed_at = null").await;
    assert_eq!(imports::mark_completed(&mut conn).await.unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn receipts_retention_does_not_wait_for_readers() {
    let app = TestApp::new().await;
    apply_orders(&app).await;
    app.age(100).await;
    let mut reader = app.context.store.begin().await.unwrap();
    sqlx::query("select from receipts").execute(&mut *reader).await.unwrap();
    let ahead = ReceiptsRetention { premake: 60 * DAY, ..plan(0, Some(90)) };
    for plan in [plan(0, Some(90)), ahead] {
        let report = app.maintain_receipts(&plan).await;
        assert_eq!(
            report,
            ReceiptsMaintenanceReport { is_busy: true, ..ReceiptsMaintenanceReport::default() }
        );
    }
    let metrics = &app.context.metrics;
    metrics.maintenance_last_success.set(17);
    assert!(maintain(&app).await.is_busy);
    assert_eq!(
        (metrics.maintenance_failures.get(), metrics.maintenance_last_success.get()),
        (1, 17)
    );
    reader.rollback().await.unwrap();
    // Another worker is not blocked either.
    let mut other = app.context.store.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(hashtext('tallyhook receipts'))")
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(
        app.maintain_receipts(&ahead).await,
        ReceiptsMaintenanceReport { is_busy: true, ..ReceiptsMaintenanceReport::default() }
    );
    other.rollback().await.unwrap();
    let report = app.maintain_receipts(&ahead).await;
    assert!(
        !report.is_busy && !report.created.is_empty() && !report.dropped.is_empty(),
        "{report:?}"
    );
    app.assert_conserved(5).await;
}

#[tokio::test]
async fn receipts_writes_succeed_during_maintenance() {
    let app = TestApp::with(&[SHOP], |config| config.database.max_connections = 8).await;
    let stop = Arc::new(AtomicBool::new(false));
    // Each writer inserts new receipts, old ones, and ones that no partition covers until it is
    // created.
    let writers: Vec<_> = (0..3_u64)
        .map(|writer| {
            let (store, stop) = (app.context.store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut written = 0;
                let mut round = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let days = i64::from(round % 40) * 10;
                    let mut events: Vec<Envelope> = [-days - 30, days, days + 5, 0]
                        .into_iter()
                        .map(|days| {
                            let at = now() + time::Duration::days(days);
                            let low = receipts::partition_range::lowest_id(at).as_u128();
                            let made = Uuid::now_v7().as_u128() & ((1 << 80) - 1);
                            Envelope {
                                receipt_id: Uuid::from_u128(low | made),
                                ..shop_order(writer, 1, "1.00")
                            }
                        })
                        .collect();
                    events.push(foreign(writer));
                    let rows: Vec<_> = events
                        .iter()
                        .map(|envelope| receipts::ReceiptRow {
                            envelope,
                            business_key: None,
                            outcome: Outcome::Ignored,
                            write_kind: None,
                            attempts: 0,
                            error: None,
                            keep_payload: true,
                        })
                        .collect();
                    let mut tx = store.begin().await.unwrap();
                    receipts::record(&mut tx, &rows).await.unwrap();
                    tx.commit().await.unwrap();
                    written += events.len();
                }
                i64::try_from(written).unwrap()
            })
        })
        .collect();
    let (mut made, mut dropped, mut left) = (0, 0, 0);
    while made < 40 || dropped < 10 {
        left += 1;
        assert!(left < 400, "made {made}, dropped {dropped}");
        // The clock advances step by step; old partitions expire.
        let days = i64::from(left % 40) * 10;
        for plan in [plan(days, None), plan(-days, None)] {
            made += app
                .maintain_receipts(&ReceiptsRetention {
                    partition_span: DAY,
                    premake: 2 * DAY,
                    ..plan
                })
                .await
                .created
                .len();
        }
        app.execute(
            "update receipts set processed_at = received_at - interval '400 days',
            received_at = received_at - interval '400 days'
            where received_at > now() - interval '1 day' and random() < 0.5",
        )
        .await;
        dropped += app
            .maintain_receipts(&ReceiptsRetention { premake: seconds(0), ..plan(0, Some(20)) })
            .await
            .dropped
            .len();
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    let past = app.count("select sum(ignored)::bigint from receipts_dropped_partitions").await;
    assert_eq!(app.count("select count(*) from receipts").await + past, written);
    assert!(past > 0);
}
