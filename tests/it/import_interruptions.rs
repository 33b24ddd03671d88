//! Interrupted uploads: the items read so far are kept, a connected sender gets an error, and the
//! whole file sent again adds nothing twice.

use std::time::Duration;

use serde_json::{Value, json};
use tallyhook::app::Roles;

use crate::support::{
    TestApp, TestServer, eventually,
    import_files::{SlowUpload, VENDORS, csv, done, figures, id, object, progress, report, send},
    proxy::Proxy,
    seconds,
};

const RECEIVER: Roles = Roles { receiver: true, worker: false };

/// Waits for the one interrupted import; returns its id.
async fn interrupted(app: &TestApp) -> String {
    let ended = "select count(*) from imports where state = 'interrupted'";
    eventually("its end", seconds(60), || async { app.count(ended).await == 1 }).await;
    app.text("select import_id::text from imports where state = 'interrupted'").await
}

/// Sends the whole file and checks that every invoice exists once.
async fn resend(app: &TestApp, server: &TestServer, invoices: u32, known: i64) {
    let summary = report(send(server, "text/csv", csv(invoices)).await).await;
    let all = i64::from(invoices);
    let expected = [all, 0, all - known, 0, known, 0, 0, 0, 0];
    assert_eq!(figures(&done(server, &id(&summary)).await), expected);
    assert_eq!(app.count("select count(*) from invoices").await, all);
    let wrong = "select count(*) from invoices where total <> 1.00";
    assert_eq!(app.count(wrong).await, 0, "a number that was cut off is in the books");
}

#[tokio::test]
async fn import_client_disconnects_keeps_whole_lines_only() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let file = csv(200);
    let mut client = SlowUpload::begin(&server, file.len()).await;
    // Cut inside an amount: `1` of `1.00`.
    let half = file.find("INV-101,").unwrap() + "INV-101,1".len();
    client.send(&file[..half]).await;
    eventually("what was sent", seconds(20), || async {
        app.count("select count(*) from invoices").await == 100
    })
    .await;
    drop(client);
    let import = interrupted(&app).await;
    let status = done(&server, &import).await;
    assert_eq!(figures(&status), [100, 0, 100, 0, 0, 0, 0, 0, 0], "{status}");
    assert!(status["error"].as_str().unwrap().contains("is incomplete"), "{status}");
    resend(&app, &server, 200, 100).await;
    server.stop().await;
    app.assert_conserved(300).await;
}

#[tokio::test]
async fn import_client_stalls_returns_408() {
    let app = TestApp::with(&[VENDORS], |config| config.receiver.body_timeout_ms = 500).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let file = csv(20);
    let mut client = SlowUpload::begin(&server, file.len()).await;
    client.send(&file[..file.find("INV-11,").unwrap()]).await;
    let (status, answer) = client.answer().await;
    assert_eq!(status, 408, "{answer}");
    assert!(answer.contains("nothing is added twice"), "{answer}");
    let status = done(&server, &interrupted(&app).await).await;
    let created = status["created"].as_i64().unwrap();
    assert!((9..=10).contains(&created), "{status}");
    resend(&app, &server, 20, created).await;
    server.stop().await;
}

#[tokio::test]
async fn import_syntax_error_keeps_the_items_before_it() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let file = format!(
        "[{},\n{},\n{{\"vendor\": oops}},\n{}]",
        object("A-1", "1.00").trim_end(),
        object("A-2", "1.00").trim_end(),
        object("A-3", "1.00")
    );
    let summary = report(send(&server, "application/json", file).await).await;
    assert_eq!(
        (&summary["state"], &summary["published"]),
        (&json!("interrupted"), &json!(2)),
        "{summary}"
    );
    assert!(summary["error"].as_str().unwrap().starts_with("line 3: "), "{summary}");
    let progress = done(&server, &id(&summary)).await;
    assert_eq!(figures(&progress), [2, 0, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!((&progress["state"], &progress["error"]), (&summary["state"], &summary["error"]));
    server.stop().await;
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn import_receiver_stops_returns_503_with_retry_after() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let server = TestServer::start(&app.config, RECEIVER).await;
    let file = csv(20);
    let mut client = SlowUpload::begin(&server, file.len()).await;
    client.send(&file[..file.find("INV-11,").unwrap()]).await;
    let queue = app.context.topology.inbound_queue(&"vendors".parse().unwrap());
    let amqp = app.amqp().await;
    eventually("ten lines", seconds(20), || async { amqp.depth(&queue).await >= Some(9) }).await;
    let stopping = tokio::spawn(server.stop());
    let (status, answer) = client.answer().await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("retry-after: 5"), "{answer}");
    stopping.await.unwrap();

    let server = TestServer::start(&app.config, Roles::ALL).await;
    let status = done(&server, &interrupted(&app).await).await;
    assert!(status["error"].as_str().unwrap().contains("stopped"), "{status}");
    let created = status["created"].as_i64().unwrap();
    resend(&app, &server, 20, created).await;
    server.stop().await;
}

#[test]
fn import_receiver_killed_is_completed_by_a_resend() {
    let running = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    let main = running();
    let dying = running();
    let app = main.block_on(TestApp::with(&[VENDORS], |_| ()));
    let config = app.config.clone();
    let file = csv(200);
    let half = file[..file.find("INV-101,").unwrap()].to_owned();
    let client = dying.block_on(async {
        let server = TestServer::start(&config, RECEIVER).await;
        let mut client = SlowUpload::begin(&server, file.len()).await;
        client.send(&half).await;
        // A crash does not run the shutdown.
        std::mem::forget(server);
        client
    });
    main.block_on(async {
        let queue = app.context.topology.inbound_queue(&"vendors".parse().unwrap());
        let amqp = app.amqp().await;
        eventually("a hundred lines", seconds(20), || async {
            amqp.depth(&queue).await >= Some(99)
        })
        .await;
    });
    std::mem::forget(client);
    dying.shutdown_background();
    main.block_on(async {
        let server = TestServer::start(&app.config, Roles::ALL).await;
        eventually("what was sent", seconds(20), || async {
            app.count("select count(*) from invoices").await >= 99
        })
        .await;
        let known = app.count("select count(*) from invoices").await;
        let dead = app.text("select import_id::text from imports").await;
        let status = progress(&server, &dead).await;
        // More items are recorded than the last progress message had.
        assert_eq!((&status["state"], &status["total"]), (&json!("receiving"), &json!(known)));
        assert_eq!((&status["created"], &status["completed_at"]), (&json!(known), &Value::Null));
        resend(&app, &server, 200, known).await;
        server.stop().await;
        app.assert_conserved(200 + known).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_broker_killed_is_completed_by_a_resend() {
    let (mut servers, app) = TestApp::on_leased_servers(&[VENDORS], |config| {
        config.broker.confirm_timeout_ms = 1000;
    })
    .await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let file = csv(2000);
    let half = file.find("INV-1001,").unwrap();
    let mut client = SlowUpload::begin(&server, file.len()).await;
    client.send(&file[..half]).await;
    eventually("what was sent", seconds(30), || async {
        app.count("select count(*) from invoices").await >= 990
    })
    .await;
    servers.kill_rabbitmq().await;
    client.send(&file[half..]).await;
    let (status, answer) = client.answer().await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("retry-after"), "{answer}");
    let refused = send(&server, "text/csv", csv(1)).await;
    assert_eq!(refused.status(), 503);

    servers.restart_rabbitmq().await;
    let ready = || async { server.get(&server.url("/readyz")).await.status() == 200 };
    eventually("the publisher", seconds(60), ready).await;
    // The interruption is recorded once the broker is back.
    let status = done(&server, &interrupted(&app).await).await;
    let known = status["created"].as_i64().unwrap();
    assert!(known >= 990, "{status}");
    resend(&app, &server, 2000, known).await;
    server.stop().await;
    assert_eq!(app.totals().await.dead, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_broker_stalled_applies_backpressure() {
    let mut proxy = None;
    let app = TestApp::with(&[VENDORS], |config| {
        config.broker.confirm_timeout_ms = 4000;
    })
    .await;
    let mut config = app.config.clone();
    proxy.replace(Proxy::before(&mut config.broker.url));
    let server = TestServer::start(&config, RECEIVER).await;
    let in_flight = &server.service.metrics.import_items_in_flight;
    // 60 MB of invoices, 30 KB each.
    let line =
        object("A-1", "1.00").replace('}', &format!(", \"note\": \"{}\"}}", "x".repeat(30_000)));
    let file = line.repeat(2000);
    let mut client = SlowUpload::with(
        &server,
        "application/x-ndjson",
        super::support::import_files::TOKEN,
        file.len(),
        "",
    )
    .await;
    assert_eq!(client.push(&file.as_bytes()[..line.len() * 5], seconds(5)).await, line.len() * 5);
    let queue = app.context.topology.inbound_queue(&"vendors".parse().unwrap());
    let amqp = app.amqp().await;
    eventually("the first", seconds(20), || async { amqp.depth(&queue).await >= Some(4) }).await;
    proxy.as_ref().unwrap().silence();
    let sent = client.push(&file.as_bytes()[line.len() * 5..], seconds(1)).await;
    let held = in_flight.get();
    assert!(sent < 45_000_000, "the sender got rid of {sent} bytes");
    assert!((1..=512).contains(&held), "{held} items are held");
    let (status, answer) = client.answer().await;
    assert_eq!(status, 503, "{answer}");
    eventually("nothing to be held", seconds(10), || async { in_flight.get() == 0 }).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_large_file_holds_few_items_in_memory() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let server = TestServer::start(&app.config, RECEIVER).await;
    let in_flight = server.service.metrics.import_items_in_flight.clone();
    let (finished, mut sampling) = tokio::sync::oneshot::channel::<()>();
    let sampler = tokio::spawn(async move {
        let mut most = 0;
        while sampling.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            most = most.max(in_flight.get());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        most
    });
    let note = format!(", \"note\": \"{}\"}}", "x".repeat(30_000));
    let file: String = (1..=2000)
        .map(|number| object(&format!("A-{number}"), "1.00").replace('}', &note))
        .collect();
    assert!(file.len() > 60_000_000);
    let summary = report(send(&server, "application/x-ndjson", file).await).await;
    assert_eq!(
        (&summary["published"], &summary["state"]),
        (&json!(2000), &json!("received")),
        "{summary}"
    );
    finished.send(()).unwrap();
    let most = sampler.await.unwrap();
    assert!((1..=512).contains(&most), "{most} items were held");
    assert_eq!(server.service.metrics.import_items_in_flight.get(), 0);
    server.stop().await;
}
