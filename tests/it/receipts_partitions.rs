//! Receipts are partitioned by time, and a missing partition loses nothing.

use std::collections::BTreeSet;

use tallyhook::{
    domain::{Envelope, Outcome},
    store::{receipts, receipts::partition_range},
};
use time::{Duration, OffsetDateTime};
use uuid::{NoContext, Timestamp, Uuid};

use crate::support::{
    TestApp,
    app::now,
    backdating::{DAY, plan},
    shop_order,
};

/// A receipt id of ours from that moment.
fn made_at(at: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond()))
}

/// A receipt id of another producer.
fn foreign() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, Uuid::now_v7().as_bytes())
}

fn row(envelope: &Envelope, outcome: Outcome) -> receipts::ReceiptRow<'_> {
    receipts::ReceiptRow {
        envelope,
        business_key: None,
        outcome,
        write_kind: None,
        attempts: 0,
        error: matches!(outcome, Outcome::Retried | Outcome::Dead).then_some("why"),
        keep_payload: true,
    }
}

/// The partition that holds a receipt.
async fn table(app: &TestApp, receipt_id: Uuid) -> String {
    app.text(&format!(
        "select tableoid::regclass::text from receipts where receipt_id = '{receipt_id}'"
    ))
    .await
}

/// Inserts receipts with these ids, one for each row.
async fn write(app: &TestApp, id: &str, rows: &str) {
    app.execute(&format!(
        "insert into receipts (
            receipt_id, source, tenant, event_key, topic, received_at, outcome, attempts)
         select {id}, 'shop', '', 'k' || n, '', now(), 'applied', 0 from {rows} as n"
    ))
    .await;
}

/// SQL for the lowest id of a moment plus the number `n`.
fn numbered(at: OffsetDateTime) -> String {
    let id = partition_range::lowest_id(at).to_string();
    format!("('{}' || lpad(n::text, 12, '0'))::uuid", &id[..24])
}

#[tokio::test]
async fn receipts_are_stored_in_the_partition_of_their_time() {
    let app = TestApp::new().await;
    let mut conn = app.context.store.connection().await.unwrap();
    let mut events: Vec<Envelope> = (1..=7).map(|number| shop_order(number, 1, "1.00")).collect();
    let here = now() + Duration::days(3);
    events[1].receipt_id = made_at(here);
    events[2].receipt_id = foreign();
    events[3].receipt_id = Uuid::nil();
    events[4].receipt_id = Uuid::max();
    events[5].receipt_id = made_at(now() - Duration::days(4000));
    events[6].receipt_id = made_at(now() + Duration::days(4000));
    let rows: Vec<_> = events.iter().map(|event| row(event, Outcome::Applied)).collect();
    assert!(receipts::record(&mut conn, &rows).await.unwrap().is_empty());
    let mut found = Vec::new();
    for event in &events {
        found.push(table(&app, event.receipt_id).await);
    }
    for (table, at) in found.iter().zip([now(), here]) {
        let holds = format!(
            "select ids @> receipt_id_at('{at}') from receipts_partitions where name = '{table}'"
        );
        let holds: bool =
            sqlx::query_scalar(sqlx::AssertSqlSafe(holds)).fetch_one(&app.db).await.unwrap();
        assert!(holds, "{table} at {at}");
    }
    assert_ne!(found[0], found[1]);
    assert_eq!(&found[2..], ["receipts_default"; 5]);
    // A receipt exists once, whatever its partition.
    let again: Vec<_> = events.iter().map(|event| row(event, Outcome::Stale)).collect();
    assert!(receipts::record(&mut conn, &again).await.unwrap().is_empty());
    assert_eq!(app.count("select count(*) from receipts where outcome = 'applied'").await, 7);
}

#[tokio::test]
async fn receipts_of_any_producer_are_recorded() {
    let app = TestApp::new().await;
    let mut events = [1, 2, 3].map(|number| shop_order(number, 1, "1.00"));
    events[1].receipt_id = foreign();
    events[2].receipt_id = Uuid::nil();
    app.publish_all(&events).await;
    app.consumer("shop").await.drain(3).await;
    app.assert_outcomes(&events, &["applied", "applied", "applied"]).await;
    assert_eq!(app.tables().await.last().unwrap(), &("receipts_default".to_owned(), 2));
    app.assert_conserved(3).await;
}

#[tokio::test]
async fn receipts_recorded_before_are_distinguished_from_new() {
    let app = TestApp::new().await;
    let mut conn = app.context.store.connection().await.unwrap();
    let mut events = [1, 2, 3, 4].map(|number| shop_order(number, 1, "1.00"));
    // Also in the default partition.
    events[1].receipt_id = foreign();
    let [ours, theirs, other, new] = &events;
    let known = async |conn: &mut tallyhook::store::Conn, rows: &[receipts::ReceiptRow<'_>]| {
        let found = receipts::record(conn, rows).await.unwrap();
        found.into_iter().collect::<BTreeSet<Uuid>>()
    };
    let waits = [ours, theirs, other].map(|event| row(event, Outcome::Retried));
    assert_eq!(known(&mut conn, &waits).await, [].into());
    let dead = [row(other, Outcome::Dead)];
    assert_eq!(known(&mut conn, &dead).await, [other.receipt_id].into());
    let applied = [ours, theirs, other, new].map(|event| row(event, Outcome::Applied));
    let before = [ours.receipt_id, theirs.receipt_id, other.receipt_id].into();
    assert_eq!(known(&mut conn, &applied).await, before);
    // A final outcome does not change.
    assert_eq!(known(&mut conn, &applied).await, [].into());
    assert_eq!(app.count("select count(*) from receipts where outcome_changed").await, 3);
    assert_eq!(app.count("select count(*) from receipts").await, 4);
}

#[tokio::test]
async fn receipts_recorded_concurrently_are_inserted_once() {
    let app = TestApp::new().await;
    let event = shop_order(1, 1, "1.00");
    let id = event.receipt_id;
    let (mut first, mut second) =
        (app.context.store.begin().await.unwrap(), app.context.store.begin().await.unwrap());
    let rows = [row(&event, Outcome::Retried)];
    assert!(receipts::record(&mut first, &rows).await.unwrap().is_empty());
    let store = app.context.store.clone();
    let waiting = tokio::spawn({
        let event = event.clone();
        async move {
            let found = receipts::record(&mut second, &[row(&event, Outcome::Applied)]).await;
            second.commit().await.unwrap();
            drop(store);
            found.unwrap()
        }
    });
    first.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap(), [id]);
    assert_eq!(app.outcome_of(&event).await, Some(("applied".to_owned(), 0)));
}

#[tokio::test]
async fn receipts_partitions_are_created_ahead_and_identical() {
    let app = TestApp::new().await;
    assert_eq!(
        app.maintain_receipts(&plan(0, None)).await.created.len(),
        0,
        "the migration made some"
    );
    let far = partition_range::ReceiptsRetention { premake: 90 * DAY, ..plan(0, None) };
    let (one, other) = tokio::join!(app.maintain_receipts(&far), app.maintain_receipts(&far));
    let made: BTreeSet<&String> = one.created.iter().chain(&other.created).collect();
    assert_eq!(made.len(), one.created.len() + other.created.len(), "some were made twice");
    // Each run may have found the lock held by the other.
    let left = app.maintain_receipts(&far).await;
    assert!((8..=10).contains(&(made.len() + left.created.len())), "{one:?} {other:?} {left:?}");
    assert_eq!(
        app.maintain_receipts(&far).await,
        receipts::partitions::ReceiptsMaintenanceReport::default()
    );
    let holes = "select count(*) from receipts_partitions as span
        where until_id < receipt_id_at(now() + interval '90 days') and not exists (
            select from receipts_partitions as next where next.from_id = span.until_id)";
    assert_eq!(app.count(holes).await, 0);
    // All partitions have the same columns, constraints, indexes and storage parameters.
    for what in [
        "select string_agg(concat_ws(' ', attname, attnotnull, attcompression, attstorage,
             pg_get_expr(adbin, adrelid)), ', ' order by attnum)
         from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
         where attrelid = span.oid and attnum > 0",
        "select string_agg(pg_get_constraintdef(oid), ', ' order by conname)
         from pg_constraint where conrelid = span.oid and contype = 'c'",
        "select string_agg(regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', ''), ', '
             order by pg_get_indexdef(indexrelid))
         from pg_index where indrelid = span.oid and exists (
            select from pg_inherits where inhrelid = indexrelid)",
        "select array_to_string(span.reloptions, ', ')",
    ] {
        let kinds = format!(
            "select string_agg(distinct ({what}), ' ## ') from pg_class as span
             where oid in (select inhrelid from pg_inherits where inhparent = 'receipts'::regclass)
               and relname <> 'receipts_default'"
        );
        let kinds = app.text(&kinds).await;
        assert!(!kinds.is_empty() && !kinds.contains(" ## "), "{kinds}");
    }
    let compressed = "select count(distinct attrelid) from pg_attribute
        where attname = 'payload' and attcompression = 'l' and attrelid in (
            select inhrelid from pg_inherits where inhparent = 'receipts'::regclass)";
    let all = "select count(*) from pg_inherits where inhparent = 'receipts'::regclass";
    assert_eq!(app.count(compressed).await, app.count(all).await);
}

#[tokio::test]
async fn receipts_new_partition_takes_rows_from_the_default() {
    let app = TestApp::new().await;
    let then = now() + Duration::days(200);
    let made = made_at(then);
    write(&app, &format!("'{made}'"), "generate_series(1, 1)").await;
    write(&app, "gen_random_uuid()", "generate_series(1, 10)").await;
    assert_eq!(table(&app, made).await, "receipts_default");
    let report = app.maintain_receipts(&plan(-200, None)).await;
    assert_eq!((report.blocked.len(), report.is_busy), (0, false), "{report:?}");
    assert!(report.created.contains(&table(&app, made).await), "{report:?}");
    assert_eq!(app.tables().await.last().unwrap(), &("receipts_default".to_owned(), 10));
}

#[tokio::test]
async fn receipts_too_many_default_rows_block_no_other_partition() {
    let app = TestApp::new().await;
    let then = now() + Duration::days(200);
    write(&app, &numbered(then), "generate_series(1, 5001)").await;
    write(&app, &numbered(then + Duration::days(7)), "generate_series(1, 5)").await;
    let report = app.maintain_receipts(&plan(-200, None)).await;
    assert_eq!(report.blocked.len(), 1, "{report:?}");
    assert!(report.created.len() >= 4, "{report:?}");
    let tables: Vec<i64> = app.tables().await.into_iter().map(|(_, receipts)| receipts).collect();
    assert_eq!(tables, [5, 5001]);
    // It is created once few enough rows are left.
    app.execute(
        "delete from receipts where receipt_id in (
        select receipt_id from receipts_default limit 1)",
    )
    .await;
    assert_eq!(app.maintain_receipts(&plan(-200, None)).await.created, report.blocked);
    assert_eq!(app.tables().await.len(), 2);
    assert_eq!(app.count("select count(*) from receipts_default").await, 0);
}

#[tokio::test]
async fn receipts_migration_indexes_every_partition() {
    let app = TestApp::new().await;
    let indexes = "select string_agg(concat_ws(' ', parent.relname,
            (select count(*) from pg_inherits where inhparent = parent.oid) = (
                select count(*) from pg_inherits where inhparent = 'receipts'::regclass)), ', '
            order by parent.relname)
        from pg_index join pg_class as parent on parent.oid = indexrelid
        where indrelid = 'receipts'::regclass and indisvalid";
    assert_eq!(
        app.text(indexes).await,
        "receipts_business_key t, receipts_event_key t, receipts_import t, receipts_pkey t, \
         receipts_received_at t, receipts_retried t"
    );
    app.context.store.check_writable().await.unwrap();
}
