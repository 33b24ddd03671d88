//! Responses of the receiver over real HTTP.

use std::time::Duration;

use reqwest::{Client, Response};
use tallyhook::{app::Roles, config::Config};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{
    ERP, SHOP, TestApp, TestServer, WOO,
    events::{shop_body, woo},
    eventually,
    http::{client, dress},
    seconds,
};

const RECEIVER: Roles = Roles { receiver: true, worker: false };

/// A receiver without a worker.
async fn server(tune: impl FnOnce(&mut Config)) -> (TestApp, TestServer) {
    let app = TestApp::with(&[SHOP, WOO, ERP], tune).await;
    let server = TestServer::start(&app.config, RECEIVER).await;
    (app, server)
}

/// Asserts that an answer is a problem that names its receipt.
async fn assert_problem(answer: Response, status: u16) -> String {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let receipt = answer.headers()["x-tallyhook-receipt"].to_str().unwrap().to_owned();
    assert_eq!(receipt.parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
    let problem: serde_json::Value =
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!((&problem["status"], &problem["receipt"]), (&status.into(), &receipt.into()));
    problem["detail"].as_str().unwrap().to_owned()
}

/// The number of messages in a source's queue.
async fn arrived(app: &TestApp, source: &str) -> u32 {
    let queue = app.context.topology.inbound_queue(&source.parse().unwrap());
    app.amqp().await.depth(&queue).await.unwrap()
}

#[tokio::test]
async fn receiver_authentic_webhook_returns_empty_200() {
    let (app, server) = server(|_| ()).await;
    let answer = server.post("shop", "1", &shop_body(1, 1, "1.00")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-length"], "0");
    assert!(answer.headers().contains_key("x-tallyhook-receipt"));
    assert!(answer.bytes().await.unwrap().is_empty());
    assert_eq!(arrived(&app, "shop").await, 1);
    server.stop().await;
}

#[tokio::test]
async fn receiver_rejected_webhook_names_the_cause_and_is_not_published() {
    let (app, server) = server(|config| config.receiver.body_limit_bytes = 1000).await;
    let http = client();
    let body = shop_body(1, 1, "1.00");
    let post = |path: &str| http.post(server.url(path));
    let signed = |mut request: reqwest::RequestBuilder, body: &str| {
        for (name, value) in dress(&app.components, "shop", "1", body) {
            request = request.header(name.as_str(), value.as_bytes());
        }
        request.body(body.to_owned())
    };

    for path in ["/hooks/unknown", "/hooks/Not%20a%20name", "/hooks/%FF", "/hooks/a%00b", "/hooks/"]
    {
        assert_problem(signed(post(path), &body).send().await.unwrap(), 404).await;
    }
    assert_problem(post("/elsewhere").send().await.unwrap(), 404).await;
    for method in [reqwest::Method::GET, reqwest::Method::PUT, reqwest::Method::DELETE] {
        let answer = http.request(method, server.url("/hooks/shop")).send().await.unwrap();
        assert_eq!(answer.headers()["allow"], "POST");
        assert_problem(answer, 405).await;
    }

    assert_problem(post("/hooks/shop").body(body.clone()).send().await.unwrap(), 401).await;
    let tampered = signed(post("/hooks/shop"), &body).body(body.replace("1.00", "9.00"));
    let detail = assert_problem(tampered.send().await.unwrap(), 401).await;
    assert!(!detail.contains("secret of the tests"), "{detail}");

    let form = signed(post("/hooks/shop"), &body);
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    assert_problem(form.send().await.unwrap(), 415).await;

    let large = "x".repeat(1001);
    assert_problem(signed(post("/hooks/shop"), &large).send().await.unwrap(), 413).await;
    assert_eq!(arrived(&app, "shop").await, 0);
    // A chunked body does not tell its length in advance.
    let chunked = format!(
        "POST /hooks/shop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
         5dc\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1500)
    );
    let answer = server.first_answer(chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("x-tallyhook-receipt"), "{answer}");
    assert_eq!(arrived(&app, "shop").await, 0);
    server.stop().await;
}

#[tokio::test]
async fn receiver_oversized_body_returns_readable_413() {
    let (_rig, server) = server(|_| ()).await;
    let http = client();
    for _ in 0..20 {
        let body = vec![b'x'; 9_000_000];
        let answer = http.post(server.url("/hooks/shop")).body(body).send().await;
        assert_problem(answer.expect("the connection broke before the answer"), 413).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn receiver_slow_body_returns_408_and_frees_its_permit() {
    let (_rig, server) = server(|config| {
        config.receiver.body_timeout_ms = 300;
        config.receiver.max_concurrent_requests = 1;
    })
    .await;
    let begun = Instant::now();
    let slow = b"POST /hooks/shop HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    let answer = server.first_answer(slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("x-tallyhook-receipt"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.post("shop", "1", &shop_body(1, 1, "1.00")).await.status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn receiver_unfinished_headers_close_the_connection() {
    let (_rig, server) = server(|config| config.receiver.header_timeout_ms = 300).await;
    let mut stream = TcpStream::connect(server.receiver()).await.unwrap();
    stream.write_all(b"POST /hooks/shop HTTP/1.1\r\nhost: ").await.unwrap();
    let mut rest = Vec::new();
    let closed = timeout(seconds(5), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection is still open");
    server.stop().await;
}

#[tokio::test]
async fn receiver_concurrency_limit_returns_503() {
    let (_rig, server) = server(|config| config.receiver.max_concurrent_requests = 3).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server.receiver()).await.unwrap();
        let begun = b"POST /hooks/shop HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
        stream.write_all(begun).await.unwrap();
        slow.push(stream);
    }
    eventually("three requests in flight", seconds(5), || async {
        server.service.metrics.http_requests_in_flight.get() == 3
    })
    .await;
    let answer = server.post("shop", "1", &shop_body(1, 1, "1.00")).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    let detail = assert_problem(answer, 503).await;
    assert!(detail.contains("too many requests"), "{detail}");
    // A disconnected client frees its permit.
    drop(slow);
    eventually("room", seconds(5), || async {
        server.post("shop", "1", &shop_body(1, 1, "1.00")).await.status() == 200
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn receiver_ping_is_recorded_once_a_minute() {
    let (app, server) = server(|_| ()).await;
    for _ in 0..3 {
        let ping = client()
            .post(server.url("/hooks/woo"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("webhook_id=17")
            .send()
            .await
            .unwrap();
        assert_eq!(ping.status(), 200);
        assert!(ping.bytes().await.unwrap().is_empty());
    }
    // Another source rejects it.
    let request = client().post(server.url("/hooks/shop")).body("webhook_id=17");
    assert_problem(request.send().await.unwrap(), 401).await;
    let mut consumer = app.consumer("woo").await;
    consumer.drain(1).await;
    // Without a limit, unauthenticated pings could fill the receipts.
    consumer.assert_idle(&app, woo("order.created", 1, 1)).await;
    let query =
        "select concat_ws(' ', topic, outcome, response_status, convert_from(payload, 'UTF8'))
                from receipts where topic = 'ping'";
    assert_eq!(app.text(query).await, "ping ignored 200 webhook_id=17");
    app.assert_conserved(2).await;
    server.stop().await;
}

#[tokio::test]
async fn receiver_odd_bytes_are_answered_without_panic() {
    let app = TestApp::with(&[SHOP, ERP], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let http = client();
    let post = |source: &str, body: Vec<u8>, extra: Vec<(&'static str, Vec<u8>)>| {
        let mut request = http.post(server.url(&format!("/hooks/{source}")));
        let source = &app.components.sources[&source.parse().unwrap()];
        let headers = source.signed_headers(&tallyhook::sources::OutgoingWebhook {
            topic: "orders/updated",
            tenant: "demo.myshopify.com",
            event_id: "odd",
            triggered_at: time::OffsetDateTime::now_utc(),
            sent_at: time::OffsetDateTime::now_utc(),
            body: &body,
        });
        let mut map = reqwest::header::HeaderMap::new();
        for (name, value) in headers {
            map.insert(name, value);
        }
        for (name, value) in extra {
            map.insert(name, reqwest::header::HeaderValue::from_bytes(&value).unwrap());
        }
        request = request.headers(map).body(body);
        async move { request.send().await.unwrap() }
    };
    let order = || shop_body(1, 1, "1.00").into_bytes();
    // Rejected: a required header is unreadable or too long for an AMQP property.
    for (name, value) in [
        ("x-shopify-topic", b"\xff\xfe".to_vec()),
        ("x-shopify-topic", b"".to_vec()),
        ("x-shopify-topic", vec![b'x'; 256]),
        ("x-shopify-shop-domain", vec![b'x'; 3000]),
    ] {
        assert_problem(post("shop", order(), vec![(name, value)]).await, 400).await;
    }
    assert_problem(
        post("shop", order(), vec![("x-shopify-hmac-sha256", b"\xff".to_vec())]).await,
        401,
    )
    .await;
    // Accepted; the worker decides.
    let nul = br#"{"event_id": "1", "type": "order.created", "company": "a\u0000b"}"#;
    assert_eq!(post("erp", nul.to_vec(), Vec::new()).await.status(), 200);
    let mut accepted = 1;
    for body in [
        b"".to_vec(),
        b"\0\0\0".to_vec(),
        b"\xff\xfe".to_vec(),
        b"[[[[[[[[[[[[[[[[".repeat(1000),
        br#"{"id": "a\u0000b", "currency": "EUR", "total_price": "1"}"#.to_vec(),
        br#"{"id": 1, "currency": "EUR", "total_price": 1e9999}"#.to_vec(),
        br#"{"id": 1, "name": "\ud800", "currency": "EUR", "total_price": "1"}"#.to_vec(),
        br#"{"id": 1, "currency": "EUR", "total_price": "-1", "updated_at": "9999-12-31T23:59:59-23:59"}"#
            .to_vec(),
        br#"{"id": 1, "currency": "EUR", "total_price": "1", "updated_at": "0000-01-01T00:00:00Z"}"#
            .to_vec(),
        br#"{"id": 1, "currency": "EUR", "total_price": "1", "updated_at": "253402300799"}"#.to_vec(),
        br#"{"id": 1, "currency": "EUR", "total_price": "1", "updated_at": "-377705116800"}"#.to_vec(),
    ] {
        let id = format!("odd-{accepted}").into_bytes();
        let answer = post("shop", body, vec![("x-shopify-webhook-id", id)]).await;
        assert_eq!(answer.status(), 200);
        accepted += 1;
    }
    for (name, value) in [
        ("x-shopify-webhook-id", b"a|b%c".to_vec()),
        ("x-shopify-webhook-id", vec![b'i'; 6000]),
        ("x-shopify-triggered-at", b"yesterday".to_vec()),
        ("x-shopify-topic", vec![b'x'; 255]),
        ("x-shopify-shop-domain", vec![b'x'; 2048]),
    ] {
        assert_eq!(post("shop", order(), vec![(name, value)]).await.status(), 200);
        accepted += 1;
    }
    eventually("every message", seconds(20), || async {
        let final_outcomes =
            "select count(*) from receipts where outcome not in ('retried', 'rejected')";
        app.count(final_outcomes).await == accepted
    })
    .await;
    server.stop().await;
    assert_eq!(
        app.count("select count(*) from dead_letters where reason = 'attempts_exhausted'").await,
        0
    );
    assert_eq!(app.totals().await.rejected, 4);
    app.assert_conserved(accepted).await;
}

#[tokio::test]
async fn receiver_probes_and_metrics_report_the_state() {
    let books = "[sources.books]\nkind = 'quickbooks'\nsecrets = ['env:SECRET']\n\
                 [sources.books.enrich.urls]\ninvoice = 'https://api.example/{id}'\n";
    let app = TestApp::with(&[SHOP, books], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    for event in ["1", "1", "2"] {
        server.post("shop", event, &shop_body(1, 1, "1.00")).await;
    }
    let not_found = Client::new().post(server.url("/hooks/unlisted")).send().await.unwrap();
    assert_eq!(not_found.status(), 404);
    let operations = format!("http://{}", server.service.operations_address);
    for base in [server.url(""), operations.clone()] {
        assert_eq!(server.get(&format!("{base}/livez")).await.status(), 200);
        let ready = server.get(&format!("{base}/readyz")).await;
        assert_eq!(ready.status(), 200);
        let json: serde_json::Value =
            serde_json::from_slice(&ready.bytes().await.unwrap()).unwrap();
        // A load balancer must not take a receiver out because a worker cannot work.
        let parts = if base == operations {
            serde_json::json!({"receiver": "ok", "worker": "ok", "database": "ok"})
        } else {
            serde_json::json!({"receiver": "ok"})
        };
        assert_eq!(json["parts"], parts);
    }
    let metrics = || async {
        let url = format!("{operations}/metrics");
        server.get(&url).await.text().await.unwrap()
    };
    eventually("what is measured now and then", seconds(15), || async {
        let text = metrics().await;
        text.contains("tallyhook_database_connections{")
            && text.contains(r#"tallyhook_messages_total{outcome="duplicate",source="shop"} 1"#)
    })
    .await;
    let text = metrics().await;
    for line in [
        r#"tallyhook_http_requests_total{source="shop",status="200"} 3"#,
        r#"tallyhook_http_requests_total{source="unknown",status="404"} 1"#,
        r#"tallyhook_messages_total{outcome="duplicate",source="shop"} 1"#,
        r#"tallyhook_broker_up{connection="consume"} 1"#,
        "tallyhook_database_up 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("unlisted"), "a request chose a label");
    server.stop().await;
}

#[tokio::test]
async fn receiver_stopping_finishes_open_requests() {
    let app = TestApp::with(&[SHOP], |_| ()).await;
    let server = TestServer::start(&app.config, RECEIVER).await;
    let body = shop_body(1, 1, "1.00");
    let mut head =
        format!("POST /hooks/shop HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in dress(&app.components, "shop", "1", &body) {
        head.extend([name.as_str(), ": ", value.to_str().unwrap(), "\r\n"]);
    }
    let mut stream = TcpStream::connect(server.receiver()).await.unwrap();
    stream.write_all(format!("{head}\r\n{}", &body[..10]).as_bytes()).await.unwrap();
    eventually("the call", seconds(5), || async {
        server.service.metrics.http_requests_in_flight.get() == 1
    })
    .await;
    let address = server.receiver();
    let stopping = tokio::spawn(server.stop());
    eventually("no new connections", seconds(10), || async {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    stream.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = Vec::new();
    timeout(seconds(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stopping.await.unwrap();
    assert_eq!(arrived(&app, "shop").await, 1);
}
