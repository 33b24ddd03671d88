//! Items that fail after the upload: each fails alone (story 3).

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tallyhook::{app::Roles, review::Actor, store::imports};

use crate::support::{
    TestApp, TestServer, eventually,
    http::client,
    import_files::{HEADER, TOKEN, VENDORS, csv, done, figures, id, import_csv, report, row, send},
    seconds,
};

#[tokio::test]
async fn import_dead_item_alone_fails_and_is_created_by_replay() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    app.execute("alter table invoices add constraint odd check (invoice_number <> 'INV-3')").await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let import = import_csv(&server, csv(5)).await;
    let status = done(&server, &import).await;
    assert_eq!(figures(&status), [5, 0, 4, 0, 0, 0, 0, 0, 1], "{status}");
    let completed = "select count(*) from imports where completed_at is not null";
    eventually("the summary", seconds(20), || async { app.count(completed).await == 1 }).await;
    let before = done(&server, &import).await;
    let url = server.url(&format!("/imports/{import}/items?outcome=dead"));
    let answer = client().get(url).bearer_auth(TOKEN).send().await.unwrap();
    let page: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let item = &page["items"][0];
    assert_eq!((&item["line"], &item["business_key"]), (&json!(4), &json!("INV-3")), "{page}");
    assert!(item["error"].as_str().unwrap().contains("odd"), "{page}");

    app.execute("alter table invoices drop constraint odd").await;
    let anna = Actor { name: "anna", comment: "corrected" };
    let dead_letters = app.dead_letters().await;
    assert_eq!(dead_letters.len(), 1);
    app.replay(&dead_letters, anna).await;
    eventually("the invoice", seconds(20), || async { done(&server, &import).await["dead"] == 0 })
        .await;
    let after = done(&server, &import).await;
    assert_eq!(figures(&after), [5, 0, 5, 0, 0, 0, 0, 0, 0], "{after}");
    assert_eq!(after["elapsed_ms"], before["elapsed_ms"], "the import ended when it ended");
    let metrics = server.service.metrics.render();
    let ended = r#"tallyhook_imports_total{source="vendors",state="received"} 1"#;
    assert!(metrics.contains(ended), "{metrics}");
    server.stop().await;
    app.assert_conserved(5).await;
}

/// The lines of the large file, and what they are.
const LINES: u32 = 5000;
const REJECTED: u32 = LINES / 100;
const DUPLICATES: u32 = LINES / 20;
const PUBLISHED: u32 = LINES - REJECTED;
const CREATED: u32 = PUBLISHED - DUPLICATES;

fn counts(figures: [u32; 9]) -> [i64; 9] {
    figures.map(i64::from)
}

/// A file of this many lines: 5 % duplicates, 1 % invalid, the rest distinct invoices.
fn large(lines: u32) -> String {
    let mut invoice = 0;
    (0..lines).fold(HEADER.to_owned(), |file, line| {
        file + &match line % 100 {
            // The invoice before it with another number format.
            19 | 39 | 59 | 79 | 98 => row(&format!("INV-{invoice:05}"), "1.0"),
            99 => row("INV-X", "one"),
            _ => {
                invoice += 1;
                row(&format!("INV-{invoice:05}"), "1.00")
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_large_file_matches_its_report_and_is_idempotent() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    // Two of a hundred numbers fail at the first attempt.
    app.execute(
        "create function not_yet() returns trigger language plpgsql as $$ begin
             if right(new.invoice_number, 2) in ('07', '57') and not exists (
                 select from receipts
                 where business_key = new.invoice_number and outcome = 'retried')
             then raise exception 'not yet'; end if;
             return new; end $$;
         create trigger not_yet before insert on invoices for each row execute function not_yet()",
    )
    .await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let file = large(LINES);
    let summary = report(send(&server, "text/csv", file.clone()).await).await;
    assert_eq!(
        (&summary["state"], &summary["items"], &summary["published"], &summary["rejected"]),
        (&json!("received"), &json!(LINES), &json!(PUBLISHED), &json!(REJECTED))
    );
    assert_eq!(summary["rejections"].as_array().unwrap().len(), REJECTED as usize);
    let first = id(&summary);
    let status = done(&server, &first).await;
    assert_eq!(
        figures(&status),
        counts([LINES, 0, CREATED, 0, DUPLICATES, 0, 0, REJECTED, 0]),
        "{status}"
    );
    assert!(
        (status["duplicate_rate"].as_f64().unwrap() - f64::from(DUPLICATES) / f64::from(PUBLISHED))
            .abs()
            < 1e-9
    );
    let retried = "select count(*) from receipts
                   where outcome = 'applied' and write_kind = 'created' and attempts > 0";
    let unlucky = "select count(*) from invoices where right(invoice_number, 2) in ('07', '57')";
    let unlucky = app.count(unlucky).await;
    assert_eq!(unlucky, i64::from(CREATED) / 50);
    // The duplicate may be applied instead of the first.
    let failed = "select count(distinct business_key) from receipts where attempts > 0";
    assert_eq!(app.count(failed).await, unlucky);
    assert!(app.count(retried).await > 0);
    let books = "select count(*) || ' ' || sum(total) from invoices";
    let before = app.text(books).await;
    assert!(before.starts_with(&format!("{CREATED} {CREATED}")), "{before}");

    // Through every page, each line once.
    let mut lines = BTreeSet::new();
    let mut next = Some(format!("/imports/{first}/items?limit=1000"));
    while let Some(path) = next {
        let answer = client().get(server.url(&path)).bearer_auth(TOKEN).send().await.unwrap();
        let page: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        for item in page["items"].as_array().unwrap() {
            assert!(lines.insert(item["line"].as_i64().unwrap()), "{item} comes twice");
        }
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(
        (lines.len(), lines.first(), lines.last()),
        (LINES as usize, Some(&2), Some(&i64::from(LINES + 1)))
    );

    let summary = report(send(&server, "text/csv", file).await).await;
    let second = id(&summary);
    let status = done(&server, &second).await;
    assert_eq!(
        figures(&status),
        counts([LINES, 0, 0, 0, PUBLISHED, 0, 0, REJECTED, 0]),
        "{status}"
    );
    assert!((status["duplicate_rate"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    assert_eq!(app.text(books).await, before);
    let completed = "select count(*) from imports where completed_at is not null";
    eventually("the summaries", seconds(30), || async { app.count(completed).await == 2 }).await;
    let metrics = || server.service.metrics.render();
    eventually("the gauge", seconds(30), || async {
        metrics().contains(r#"tallyhook_import_duplicate_ratio{source="vendors"} 1"#)
    })
    .await;
    let ended = r#"tallyhook_imports_total{source="vendors",state="received"} 2"#;
    assert!(metrics().contains(ended));
    // Completion is reported once.
    let mut connection = app.context.store.connection().await.unwrap();
    assert!(imports::mark_completed(&mut connection).await.unwrap().is_empty());
    server.stop().await;
    assert_eq!(app.totals().await.rejected, i64::from(2 * REJECTED));
    app.assert_conserved(i64::from(2 * PUBLISHED)).await;
}
