//! What the receiver answers, over real HTTP.

use std::time::Duration;

use reqwest::{Client, Response};
use tallyhook::{config::Config, service::Roles};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{
    ERP, Front, Rig, SHOP, WOO,
    events::shop_body,
    eventually,
    http::{client, dress},
    seconds,
};

const RECEIVER: Roles = Roles { receiver: true, worker: false };

/// A receiver without a worker.
async fn front(tune: impl FnOnce(&mut Config)) -> (Rig, Front) {
    let rig = Rig::with(&[SHOP, WOO, ERP], tune).await;
    let front = Front::start(&rig.config, RECEIVER).await;
    (rig, front)
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

/// What arrived in the shop's queue.
async fn arrived(rig: &Rig, source: &str) -> u32 {
    let queue = rig.tools.topology.inbound_queue(&source.parse().unwrap());
    rig.raw().await.depth(&queue).await.unwrap()
}

#[tokio::test]
async fn an_authentic_call_is_answered_by_an_empty_200() {
    let (rig, front) = front(|_| ()).await;
    let answer = front.post("shop", "1", &shop_body(1, 1, "1.00")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-length"], "0");
    assert!(answer.headers().contains_key("x-tallyhook-receipt"));
    assert!(answer.bytes().await.unwrap().is_empty());
    assert_eq!(arrived(&rig, "shop").await, 1);
    front.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_told_why_and_goes_nowhere() {
    let (rig, front) = front(|config| config.receiver.body_limit_bytes = 1000).await;
    let http = client();
    let body = shop_body(1, 1, "1.00");
    let post = |path: &str| http.post(front.url(path));
    let signed = |mut request: reqwest::RequestBuilder, body: &str| {
        for (name, value) in dress(&rig.config, "shop", "1", body) {
            request = request.header(name.as_str(), value.as_bytes());
        }
        request.body(body.to_owned())
    };

    for path in ["/hooks/nobody", "/hooks/Not%20a%20name", "/hooks/%FF", "/hooks/a%00b", "/hooks/"]
    {
        assert_problem(signed(post(path), &body).send().await.unwrap(), 404).await;
    }
    assert_problem(post("/elsewhere").send().await.unwrap(), 404).await;
    for method in [reqwest::Method::GET, reqwest::Method::PUT, reqwest::Method::DELETE] {
        let answer = http.request(method, front.url("/hooks/shop")).send().await.unwrap();
        assert_eq!(answer.headers()["allow"], "POST");
        assert_problem(answer, 405).await;
    }

    assert_problem(post("/hooks/shop").body(body.clone()).send().await.unwrap(), 401).await;
    let tampered = signed(post("/hooks/shop"), &body).body(body.replace("1.00", "9.00"));
    let told = assert_problem(tampered.send().await.unwrap(), 401).await;
    assert!(!told.contains("secret of the tests"), "{told}");

    let form = signed(post("/hooks/shop"), &body);
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    assert_problem(form.send().await.unwrap(), 415).await;

    let large = "x".repeat(1001);
    assert_problem(signed(post("/hooks/shop"), &large).send().await.unwrap(), 413).await;
    assert_eq!(arrived(&rig, "shop").await, 0);
    // A chunked body does not tell its length in advance.
    let chunked = format!(
        "POST /hooks/shop HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
         5dc\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1500)
    );
    let answer = front.first_answer(chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("x-tallyhook-receipt"), "{answer}");
    assert_eq!(arrived(&rig, "shop").await, 0);
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_far_too_much_still_reads_its_413() {
    let (_rig, front) = front(|_| ()).await;
    let http = client();
    for _ in 0..20 {
        let body = vec![b'x'; 9_000_000];
        let answer = http.post(front.url("/hooks/shop")).body(body).send().await;
        assert_problem(answer.expect("the connection broke before the answer"), 413).await;
    }
    front.stop().await;
}

#[tokio::test]
async fn a_slow_body_is_answered_408_and_gives_its_place_back() {
    let (_rig, front) = front(|config| {
        config.receiver.body_timeout_ms = 300;
        config.receiver.max_concurrent_requests = 1;
    })
    .await;
    let begun = Instant::now();
    let slow = b"POST /hooks/shop HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    let answer = front.first_answer(slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("x-tallyhook-receipt"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(front.post("shop", "1", &shop_body(1, 1, "1.00")).await.status(), 200);
    front.stop().await;
}

#[tokio::test]
async fn headers_that_never_end_are_given_up() {
    let (_rig, front) = front(|config| config.receiver.header_timeout_ms = 300).await;
    let mut stream = TcpStream::connect(front.receiver()).await.unwrap();
    stream.write_all(b"POST /hooks/shop HTTP/1.1\r\nhost: ").await.unwrap();
    let mut rest = Vec::new();
    let closed = timeout(seconds(5), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection is still open");
    front.stop().await;
}

#[tokio::test]
async fn more_calls_than_configured_are_answered_503() {
    let (_rig, front) = front(|config| config.receiver.max_concurrent_requests = 3).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(front.receiver()).await.unwrap();
        let begun = b"POST /hooks/shop HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
        stream.write_all(begun).await.unwrap();
        slow.push(stream);
    }
    eventually("three calls under way", seconds(5), || async {
        front.service.metrics.requests_in_flight.get() == 3
    })
    .await;
    let answer = front.post("shop", "1", &shop_body(1, 1, "1.00")).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    let told = assert_problem(answer, 503).await;
    assert!(told.contains("too many calls"), "{told}");
    // A client that goes away gives its place back.
    drop(slow);
    eventually("room", seconds(5), || async {
        front.post("shop", "1", &shop_body(1, 1, "1.00")).await.status() == 200
    })
    .await;
    front.stop().await;
}

#[tokio::test]
async fn a_ping_is_answered_and_one_a_minute_is_on_record() {
    let (rig, front) = front(|_| ()).await;
    for _ in 0..3 {
        let ping = client()
            .post(front.url("/hooks/woo"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("webhook_id=17")
            .send()
            .await
            .unwrap();
        assert_eq!(ping.status(), 200);
        assert!(ping.bytes().await.unwrap().is_empty());
    }
    // No other source takes it.
    let request = client().post(front.url("/hooks/shop")).body("webhook_id=17");
    assert_problem(request.send().await.unwrap(), 401).await;
    let mut lane = rig.lane("woo").await;
    lane.settle(1).await;
    assert!(lane.is_quiet().await, "a stranger can fill the receipts");
    let told =
        "select concat_ws(' ', topic, outcome, response_status, convert_from(payload, 'UTF8'))
                from receipts where source = 'woo'";
    assert_eq!(rig.text(told).await, "ping ignored 200 webhook_id=17");
    rig.assert_conserved(1).await;
    front.stop().await;
}

#[tokio::test]
async fn odd_bytes_in_headers_and_bodies_are_answered_and_nobody_panics() {
    let rig = Rig::with(&[SHOP, ERP], |_| ()).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let http = client();
    let post = |source: &str, body: Vec<u8>, extra: Vec<(&'static str, Vec<u8>)>| {
        let mut request = http.post(front.url(&format!("/hooks/{source}")));
        let adapter = &rig.config.sources[&source.parse().unwrap()];
        let headers = adapter.dress(&tallyhook::adapter::Delivery {
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
    // Refused: what must be there cannot be read, or fits no property.
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
    // Taken, and the worker sees what comes of it.
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
        let settled = "select count(*) from receipts where outcome not in ('retried', 'rejected')";
        rig.count(settled).await == accepted
    })
    .await;
    front.stop().await;
    assert_eq!(
        rig.count("select count(*) from dead_letters where reason = 'attempts_exhausted'").await,
        0
    );
    assert_eq!(rig.sums().await.rejected, 4);
    rig.assert_conserved(accepted).await;
}

#[tokio::test]
async fn probes_and_metrics_tell_how_it_is() {
    let books = "[sources.books]\nkind = 'quickbooks'\nsecrets = ['env:SECRET']\n\
                 [sources.books.enrich.urls]\ninvoice = 'https://api.example/{id}'\n";
    let rig = Rig::with(&[SHOP, books], |_| ()).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    for event in ["1", "1", "2"] {
        front.post("shop", event, &shop_body(1, 1, "1.00")).await;
    }
    let nobody = Client::new().post(front.url("/hooks/a-stranger")).send().await.unwrap();
    assert_eq!(nobody.status(), 404);
    let operations = format!("http://{}", front.service.operations);
    for base in [front.url(""), operations.clone()] {
        assert_eq!(front.get(&format!("{base}/livez")).await.status(), 200);
        let ready = front.get(&format!("{base}/readyz")).await;
        assert_eq!(ready.status(), 200);
        let told: serde_json::Value =
            serde_json::from_slice(&ready.bytes().await.unwrap()).unwrap();
        // Whoever balances load between receivers must not be told that one
        // cannot take anything because a worker cannot work.
        let parts = if base == operations {
            serde_json::json!({"receiver": "ok", "worker": "ok", "database": "ok"})
        } else {
            serde_json::json!({"receiver": "ok"})
        };
        assert_eq!(told["parts"], parts);
    }
    let metrics = || async {
        let url = format!("{operations}/metrics");
        front.get(&url).await.text().await.unwrap()
    };
    eventually("what is measured now and then", seconds(15), || async {
        let text = metrics().await;
        text.contains("tallyhook_database_connections{") && text.contains(r#"outcome="duplicate""#)
    })
    .await;
    let text = metrics().await;
    // Every name in the one file that defines them.
    let source = include_str!("../../src/metrics.rs");
    let names: Vec<&str> =
        source.split('"').filter(|text| text.starts_with("tallyhook_")).collect();
    assert!(names.len() > 10);
    for name in names {
        // Dead letters are a gauge by reason: there are none. No source takes
        // files, and no target is configured.
        let shown = text.contains(&format!("# TYPE {name} "));
        let silent = [
            "tallyhook_dead_letter",
            "tallyhook_failed_attempts_total",
            "tallyhook_import",
            "tallyhook_deliver",
        ];
        let silent = silent.iter().any(|start| name.starts_with(start));
        assert!(shown || silent, "{name} is not shown:\n{text}");
    }
    for line in [
        r#"tallyhook_receipts_total{answer="200",source="shop"} 3"#,
        r#"tallyhook_receipts_total{answer="404",source="unknown"} 1"#,
        r#"tallyhook_messages_total{outcome="duplicate",source="shop"} 1"#,
        r#"tallyhook_broker_up{link="consume"} 1"#,
        "tallyhook_database_up 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("stranger"), "a stranger chose a label");
    front.stop().await;
}

#[tokio::test]
async fn a_service_that_stops_finishes_what_it_began() {
    let rig = Rig::with(&[SHOP], |_| ()).await;
    let front = Front::start(&rig.config, RECEIVER).await;
    let body = shop_body(1, 1, "1.00");
    let mut head =
        format!("POST /hooks/shop HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in dress(&rig.config, "shop", "1", &body) {
        head.extend([name.as_str(), ": ", value.to_str().unwrap(), "\r\n"]);
    }
    let mut stream = TcpStream::connect(front.receiver()).await.unwrap();
    stream.write_all(format!("{head}\r\n{}", &body[..10]).as_bytes()).await.unwrap();
    eventually("the call", seconds(5), || async {
        front.service.metrics.requests_in_flight.get() == 1
    })
    .await;
    let stopping = tokio::spawn(front.stop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = Vec::new();
    timeout(seconds(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stopping.await.unwrap();
    assert_eq!(arrived(&rig, "shop").await, 1);
}
