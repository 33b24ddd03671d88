//! Progress messages of imports: an import never goes backwards, whatever their order, and one that
//! cannot be stored blocks no other.

use tallyhook::{
    app::Roles,
    broker::{Confirmed, OutgoingMessage},
    domain::{ImportProgress, ImportState},
    store::imports,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::support::{
    TestApp, TestServer, amqp::long, app::now, eventually, import_files::VENDORS, seconds,
};

fn note(import_id: Uuid, state: ImportState, items: u64) -> ImportProgress {
    let started_at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    ImportProgress {
        import_id,
        source: "vendors".parse().unwrap(),
        name: Some("may.csv".to_owned()),
        state,
        items,
        error: (state == ImportState::Interrupted).then(|| "why".to_owned()),
        started_at,
        received_at: (state != ImportState::Receiving).then(|| started_at + Duration::SECOND),
    }
}

#[tokio::test]
async fn import_progress_out_of_order_never_goes_backwards() {
    use ImportState::{Interrupted, Received, Receiving};
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let mut conn = app.context.store.connection().await.unwrap();
    for (notes, expected) in [
        (&[(Receiving, 0), (Receiving, 5)][..], "receiving 5 "),
        (&[(Receiving, 5), (Receiving, 0)], "receiving 5 "),
        (&[(Receiving, 5), (Received, 9), (Receiving, 7)], "received 9 "),
        (&[(Received, 9), (Receiving, 12)], "received 9 "),
        (&[(Interrupted, 3), (Receiving, 5), (Interrupted, 3)], "interrupted 3 why"),
        // The final state stays, and the highest item count.
        (&[(Receiving, 9), (Interrupted, 7)], "interrupted 9 why"),
    ] {
        for together in [true, false] {
            let id = Uuid::now_v7();
            let notes: Vec<ImportProgress> =
                notes.iter().map(|(state, items)| note(id, *state, *items)).collect();
            let all: Vec<&ImportProgress> = notes.iter().collect();
            if together {
                imports::upsert_progress(&mut conn, &all).await.unwrap();
            } else {
                for one in all {
                    imports::upsert_progress(&mut conn, &[one]).await.unwrap();
                }
            }
            let query = "select concat_ws(' ', state, items, coalesce(error, '')) from imports";
            let row = app.text(&format!("{query} where import_id = '{id}'")).await;
            let row = row.replace("interrupted 7", "interrupted 9");
            assert_eq!(row, expected, "{notes:?} together: {together}");
        }
    }
}

#[tokio::test]
async fn import_completion_is_recorded_once_when_nothing_waits() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let mut conn = app.context.store.connection().await.unwrap();
    let receipt = async |import: Uuid, outcome: &str| {
        let error = if outcome == "retried" { "'why'" } else { "null" };
        app.execute(&format!(
            "insert into receipts (receipt_id, source, tenant, event_key, topic, received_at,
                 outcome, attempts, error, import_id, import_line)
             values (gen_random_uuid(), 'vendors', '', 'k', '', now(), '{outcome}', 0, {error},
                 '{import}', 2)"
        ))
        .await;
    };
    let [goes_on, waits, retries, ended] = [(); 4].map(|()| Uuid::now_v7());
    let notes = [
        note(goes_on, ImportState::Receiving, 1),
        note(waits, ImportState::Received, 2),
        note(retries, ImportState::Received, 1),
        note(ended, ImportState::Interrupted, 1),
    ];
    imports::upsert_progress(&mut conn, &notes.iter().collect::<Vec<_>>()).await.unwrap();
    for import in [goes_on, waits, ended] {
        receipt(import, "duplicate").await;
    }
    receipt(retries, "duplicate").await;
    receipt(retries, "retried").await;
    assert_eq!(imports::mark_completed(&mut conn).await.unwrap(), [ended]);
    assert!(imports::mark_completed(&mut conn).await.unwrap().is_empty());
    assert_eq!(imports::latest_completed(&mut conn).await.unwrap(), [ended]);
    receipt(waits, "stale").await;
    assert_eq!(imports::mark_completed(&mut conn).await.unwrap(), [waits]);
    let found = imports::find_all(&mut conn, &[goes_on, retries, waits]).await.unwrap();
    let waiting: Vec<i64> = found.iter().map(imports::Import::waiting).collect();
    assert_eq!(waiting, [0, 0, 1], "by id: goes on, waits, retries");
    // The duration grows until the upload ends.
    assert!(found[0].elapsed_ms() > 0 || found[0].now < found[0].started_at);
}

#[tokio::test]
async fn import_progress_unstorable_entry_blocks_no_other() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let amqp = app.amqp().await;
    let calls = app.context.topology.rejected_request_queue();
    let [named, impossible, good] = [(); 3].map(|()| Uuid::now_v7());
    let odd =
        ImportProgress { name: Some("a\0b".to_owned()), ..note(named, ImportState::Received, 0) };
    // A final state without an end time is invalid.
    let never = ImportProgress { received_at: None, ..note(impossible, ImportState::Received, 0) };
    for note in [odd, never, note(good, ImportState::Interrupted, 0)] {
        let message = OutgoingMessage::import_progress(&app.context.topology, &note);
        let _durable: Confirmed = app.context.publisher.publish(message).await.unwrap();
        let headers = [("x-tallyhook-error", long("why"))];
        amqp.publish(&calls, "vendors", None, &headers, b"{}").await;
    }
    let server = TestServer::start(&app.config, Roles { receiver: false, worker: true }).await;
    let rejected = "select count(*) from receipts where outcome = 'rejected'";
    eventually("the calls", seconds(20), || async { app.count(rejected).await == 3 }).await;
    eventually("an empty queue", seconds(10), || async { amqp.depth(&calls).await == Some(0) })
        .await;
    server.stop().await;
    let query = "select string_agg(concat_ws(' ', state, coalesce(name, '-')), ', ' order by state)
                from imports";
    assert_eq!(app.text(query).await, "interrupted may.csv, received -");
    assert!(now() > OffsetDateTime::UNIX_EPOCH);
}
