//! Uploads of invoice files: the response to the sender, and the outcome of every line (story 3).

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tallyhook::{app::Roles, config::Config};

use crate::support::{
    ERP, TestApp, TestServer,
    http::client,
    import_files::{
        HEADER, SlowUpload, TOKEN, VENDORS, csv, done, figures, id, import_csv, object, report,
        row, send, send_to,
    },
    seconds,
};

const RECEIVER: Roles = Roles { receiver: true, worker: false };

async fn server(tune: impl FnOnce(&mut Config)) -> (TestApp, TestServer) {
    let app = TestApp::with(&[VENDORS, ERP], tune).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    (app, server)
}

/// Every page of an import's items.
async fn items(server: &TestServer, id: &str, query: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut next = Some(format!("/imports/{id}/items{query}"));
    while let Some(path) = next {
        let answer = client().get(server.url(&path)).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let page: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        found.extend(page["items"].as_array().unwrap().iter().cloned());
        next = page["next"].as_str().map(str::to_owned);
    }
    found
}

async fn problem(answer: reqwest::Response, status: u16) -> Value {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let receipt = answer.headers()["x-tallyhook-receipt"].to_str().unwrap().to_owned();
    let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["receipt"], receipt.as_str());
    problem
}

#[tokio::test]
async fn import_lines_are_independent_and_counted() {
    let (app, server) = server(|_| ()).await;
    let file = [
        HEADER,
        &row("INV-1", "10.00"),
        &row("INV-2", "20.00"),
        // The same invoice with another number format.
        &row("INV-1", "10.0"),
        &row("INV-3", "many"),
        "\n",
        "ACME,,30.00,euros,2026-05-01\n",
        "ACME,INV-4\n",
        &row("INV-5", "50.00"),
    ]
    .concat();
    let url = server.url("/imports/vendors?name=may.csv");
    let summary = report(send_to(&url, "text/csv", file.clone()).await).await;
    let [item_count, published, rejected] =
        ["items", "published", "rejected"].map(|word| summary[word].as_i64().unwrap());
    assert_eq!((item_count, published, rejected), (7, 4, 3), "{summary}");
    assert_eq!((&summary["state"], &summary["source"]), (&json!("received"), &json!("vendors")));
    assert_eq!(summary["rejections_omitted"], 0);
    let mistakes: Vec<(i64, &str)> = summary["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mistake| {
            assert!(!mistake["message"].as_str().unwrap().is_empty());
            (mistake["line"].as_i64().unwrap(), mistake["field"].as_str().unwrap())
        })
        .collect();
    let expected = [(5, "amount"), (7, "currency"), (7, "invoice_number"), (8, "")];
    assert_eq!(mistakes.iter().copied().collect::<BTreeSet<_>>(), expected.into_iter().collect());
    assert!(mistakes.is_sorted_by_key(|(line, _)| line));

    let first = id(&summary);
    let status = done(&server, &first).await;
    assert_eq!(figures(&status), [7, 0, 3, 0, 1, 0, 0, 3, 0], "{status}");
    assert_eq!((&status["name"], &status["error"]), (&json!("may.csv"), &Value::Null));
    assert!((status["duplicate_rate"].as_f64().unwrap() - 0.25).abs() < 1e-9);
    assert!(status["batches"].as_i64().unwrap() >= 1);
    assert!(status["elapsed_ms"].as_i64().unwrap() >= status["average_batch_ms"].as_i64().unwrap());
    let books = "select string_agg(invoice_number || ' ' || total, ', ' order by invoice_number)
                 from invoices";
    let before = app.text(books).await;
    assert!(before.contains("INV-1 10") && before.contains("INV-5 50"), "{before}");

    // The same file again adds nothing and says so.
    let second = import_csv(&server, file.clone()).await;
    assert_eq!(figures(&done(&server, &second).await), [7, 0, 0, 0, 4, 0, 0, 3, 0]);
    assert_eq!(app.text(books).await, before);
    // A corrected file reports the changes; the rest is duplicates.
    let corrected = file.replace("INV-2,20.00", "INV-2,25.00").replace("many", "30.00");
    let third = import_csv(&server, corrected).await;
    assert_eq!(figures(&done(&server, &third).await), [7, 0, 1, 1, 3, 0, 0, 2, 0]);
    assert!(app.text(books).await.contains("INV-2 25"));
    assert_eq!(app.count("select count(*) from invoices").await, 4);
    // The counts of the first import are unchanged.
    assert_eq!(figures(&done(&server, &first).await), [7, 0, 3, 0, 1, 0, 0, 3, 0]);

    let lines = items(&server, &first, "?limit=2").await;
    let actual: Vec<(i64, &str)> = lines
        .iter()
        .map(|item| (item["line"].as_i64().unwrap(), item["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(actual.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4, 5, 7, 8, 9]);
    assert_eq!(actual.iter().filter(|(_, outcome)| *outcome == "rejected").count(), 3);
    assert!(lines[3]["error"].as_str().unwrap().starts_with("amount: "), "{}", lines[3]);
    assert_eq!(lines[6]["business_key"], "INV-5");
    assert_eq!((&lines[6]["write_kind"], &lines[6]["attempts"]), (&json!("created"), &json!(0)));
    let status = "select string_agg(distinct response_status::text, ',') from receipts";
    assert_eq!(app.text(status).await, "202");
    let payload = "select convert_from(payload, 'UTF8') from receipts
                where outcome = 'rejected' and import_line = 8 limit 1";
    assert!(app.text(payload).await.contains("INV-4"), "a rejected line has a receipt");
    assert_eq!(app.totals().await.rejected, 8);
    server.stop().await;
    app.assert_conserved(4 + 4 + 5).await;
}

#[tokio::test]
async fn import_ndjson_and_json_array_are_accepted() {
    let (app, server) = server(|config| config.receiver.body_limit_bytes = 1000).await;
    // The item that is too large is rejected; the others are accepted.
    let large = object(&"9".repeat(2000), "1.00");
    let lines = [&object("A-1", "1.00"), "not json\n", &large, &object("A-2", "2.00")].concat();
    let summary = report(send(&server, "application/x-ndjson", lines).await).await;
    assert_eq!((&summary["published"], &summary["rejected"]), (&json!(2), &json!(2)), "{summary}");
    let at: Vec<&Value> =
        summary["rejections"].as_array().unwrap().iter().map(|r| &r["line"]).collect();
    assert_eq!(at, [2, 3]);
    assert_eq!(figures(&done(&server, &id(&summary)).await), [4, 0, 2, 0, 0, 0, 0, 2, 0]);

    // All items are on one line; paging still returns each once.
    let objects: Vec<String> = (1..=5)
        .map(|number| object(&format!("B-{number}"), "1.00").trim_end().to_owned())
        .collect();
    let array = format!("[{}, 7]", objects.join(","));
    let summary = report(send(&server, "application/json; charset=utf-8", array).await).await;
    assert_eq!((&summary["published"], &summary["rejected"]), (&json!(5), &json!(1)), "{summary}");
    let array = id(&summary);
    assert_eq!(figures(&done(&server, &array).await), [6, 0, 5, 0, 0, 0, 0, 1, 0]);
    let found = items(&server, &array, "?limit=2").await;
    let receipts: BTreeSet<&str> =
        found.iter().map(|item| item["receipt_id"].as_str().unwrap()).collect();
    assert_eq!((found.len(), receipts.len()), (6, 6));
    assert_eq!(items(&server, &array, "?limit=2&outcome=created").await.len(), 5);
    assert_eq!(items(&server, &array, "?outcome=updated").await.len(), 0);

    // An empty array is a complete file.
    let summary = report(send(&server, "application/json", "[]").await).await;
    assert_eq!((&summary["items"], &summary["state"]), (&json!(0), &json!("received")));
    assert_eq!(figures(&done(&server, &id(&summary)).await), [0; 9]);
    assert_eq!(app.count("select count(*) from invoices").await, 7);
    server.stop().await;
    app.assert_conserved(7).await;
}

#[tokio::test]
async fn import_rejected_upload_names_the_cause() {
    let app = TestApp::with(&[VENDORS, ERP], |_| ()).await;
    let server = TestServer::start(&app.config, RECEIVER).await;
    let post = |path: &str| client().post(server.url(path)).header("content-type", "text/csv");
    for path in ["/imports/unknown", "/imports/erp", "/imports/No%20Name", "/imports/a%00b"] {
        problem(post(path).bearer_auth(TOKEN).body(csv(1)).send().await.unwrap(), 404).await;
    }
    problem(post("/imports/vendors").body(csv(1)).send().await.unwrap(), 401).await;
    let forged = post("/imports/vendors").bearer_auth("guessed").body(csv(1));
    problem(forged.send().await.unwrap(), 401).await;
    let answer = client().put(server.url("/imports/vendors")).send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "GET, POST");
    problem(answer, 405).await;

    let problem_details = problem(send(&server, "text/plain", csv(1)).await, 415).await;
    assert!(
        problem_details["detail"].as_str().unwrap().contains("application/x-ndjson"),
        "{problem_details}"
    );
    let packed = post("/imports/vendors").bearer_auth(TOKEN).header("content-encoding", "gzip");
    problem(packed.body(csv(1)).send().await.unwrap(), 415).await;
    let problem_details = problem(send(&server, "application/json", "{}").await, 400).await;
    assert!(
        problem_details["detail"].as_str().unwrap().starts_with("line 1: "),
        "{problem_details}"
    );
    let problem_details =
        problem(send(&server, "text/csv", "vendor,amount\nACME,1\n").await, 400).await;
    assert!(
        problem_details["detail"].as_str().unwrap().contains("invoice_number"),
        "{problem_details}"
    );

    let metrics = server.service.metrics.render();
    for line in [
        r#"tallyhook_http_requests_total{source="unknown",status="404"} 3"#,
        r#"tallyhook_http_requests_total{source="erp",status="404"} 1"#,
        r#"tallyhook_http_requests_total{source="vendors",status="415"} 2"#,
        r#"tallyhook_invalid_signatures_total{source="vendors"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    let queue = app.context.topology.inbound_queue(&"vendors".parse().unwrap());
    assert_eq!(app.amqp().await.depth(&queue).await, Some(0));
    server.stop().await;
}

#[tokio::test]
async fn import_early_rejection_reaches_a_sending_client() {
    let app = TestApp::with(&[VENDORS], |_| ()).await;
    let server = TestServer::start(&app.config, RECEIVER).await;
    let large = vec![b'x'; 20 * 1024 * 1024];
    for (media_type, token, status) in
        [("text/csv", "guessed", 401), ("text/plain", TOKEN, 415), ("application/json", TOKEN, 400)]
    {
        let mut client = SlowUpload::with(&server, media_type, token, large.len(), "").await;
        assert_eq!(client.push(&large, seconds(20)).await, large.len(), "{status}");
        let (actual, answer) = client.answer().await;
        assert_eq!(actual, status, "{answer}");
    }
    // A client with `Expect: 100-continue` sends no body.
    let asks = "expect: 100-continue\r\n";
    let client = SlowUpload::with(&server, "text/csv", "guessed", large.len(), asks).await;
    let (actual, answer) = client.answer().await;
    assert_eq!(actual, 401, "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn import_items_need_the_secret_and_counts_need_the_id() {
    let (_rig, server) = server(|_| ()).await;
    let import = import_csv(&server, csv(3)).await;
    done(&server, &import).await;
    let get = |path: String| client().get(server.url(&path));
    problem(get(format!("/imports/{import}/items")).send().await.unwrap(), 401).await;
    let guessed = get(format!("/imports/{import}/items")).bearer_auth("guessed");
    problem(guessed.send().await.unwrap(), 401).await;
    for query in ["outcome=fine", "after=x", "limit=0", "limit=1001"] {
        let request = get(format!("/imports/{import}/items?{query}")).bearer_auth(TOKEN);
        let problem_details = problem(request.send().await.unwrap(), 400).await;
        let key = query.split('=').next().unwrap();
        assert!(problem_details["detail"].as_str().unwrap().starts_with(key), "{problem_details}");
    }
    assert_eq!(items(&server, &import, "?after=2").await.len(), 2);
    let simple = import.replace('-', "");
    let strange = uuid::Uuid::now_v7();
    for id in [
        "x".to_owned(),
        simple,
        format!("%7B{import}%7D"),
        strange.to_string(),
        "vendors".to_owned(),
        "%FF".to_owned(),
    ] {
        problem(get(format!("/imports/{id}")).send().await.unwrap(), 404).await;
        problem(get(format!("/imports/{id}/items")).bearer_auth(TOKEN).send().await.unwrap(), 404)
            .await;
    }
    assert_eq!(get(format!("/imports/{import}")).send().await.unwrap().status(), StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn import_without_database_accepts_files_and_defers_status() {
    let app = TestApp::with(&[VENDORS], |config| {
        "postgres://user@127.0.0.1:1/nothing".clone_into(&mut config.database.url);
        config.database.connect_timeout_ms = 500;
    });
    // The test app itself needs no database.
    let app = app.await;
    let server = TestServer::start(&app.config, RECEIVER).await;
    assert_eq!(server.get(&server.url("/readyz")).await.status(), 200);
    let import = import_csv(&server, csv(3)).await;
    let answer = server.get(&server.url(&format!("/imports/{import}"))).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    problem(answer, 503).await;
    assert_eq!(server.get(&server.url("/readyz")).await.status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn import_concurrency_limit_returns_503() {
    let (app, server) = server(|_| ()).await;
    let other = csv(300).replace("INV-", "OTHER-");
    let (first, second) =
        tokio::join!(import_csv(&server, csv(300)), import_csv(&server, other.clone()));
    for import in [&first, &second] {
        assert_eq!(figures(&done(&server, import).await), [300, 0, 300, 0, 0, 0, 0, 0, 0]);
    }
    // One file twice at the same time: each invoice is created once.
    let again = csv(300).replace("INV-", "AGAIN-");
    let (first, second) =
        tokio::join!(import_csv(&server, again.clone()), import_csv(&server, again.clone()));
    let [first, second] = [done(&server, &first).await, done(&server, &second).await];
    let sum = |word: &str| first[word].as_i64().unwrap() + second[word].as_i64().unwrap();
    assert_eq!((sum("created"), sum("duplicate"), sum("total")), (300, 300, 600));

    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = SlowUpload::begin(&server, HEADER.len()).await;
        client.send("vendor,").await;
        clients.push(client);
    }
    crate::support::eventually("four files", seconds(10), || async {
        app.count("select count(*) from imports where state = 'receiving'").await == 4
    })
    .await;
    let answer = send(&server, "text/csv", csv(1)).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    problem(answer, 503).await;
    for mut client in clients {
        client.send(HEADER.strip_prefix("vendor,").unwrap()).await;
        assert_eq!(client.answer().await.0, 202);
    }
    assert_eq!(send(&server, "text/csv", csv(1)).await.status(), 202);
    server.stop().await;
    assert_eq!(app.count("select count(*) from invoices").await, 900);
}
