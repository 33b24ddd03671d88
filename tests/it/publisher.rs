//! A publish that returned `Ok` is stored by the broker, whatever happens to queues and memory (P1).

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tallyhook::{app::Roles, broker::PublishError, domain::Envelope};
use tokio::time::{Instant, timeout};

use crate::support::{
    ERP, SHOP, TestApp, TestServer, erp_order, events::shop_body, eventually, proxy::Proxy,
    random::seeded_rng, seconds, servers, shop_order,
};

#[tokio::test]
async fn publisher_unroutable_message_is_stored_and_rerouted() {
    let app = TestApp::new().await;
    let amqp = app.amqp().await;
    let topology = &app.context.topology;
    let inbound = topology.inbound_queue(&topology.sources()[0]);
    amqp.delete(&inbound).await;
    let orders: Vec<_> = (0..5).map(|order| shop_order(order, 1, "1.00")).collect();
    app.publish_all(&orders).await;
    assert_eq!(amqp.depth(&topology.unrouted_queue()).await, Some(5));
    // A starting worker declares the queue and reroutes the messages.
    let server = TestServer::start(&app.config, Roles { receiver: false, worker: true }).await;
    eventually("the orders", seconds(20), || async {
        app.count("select count(*) from orders").await == 5
    })
    .await;
    server.stop().await;
    app.assert_outcomes(&orders, &["applied"; 5]).await;
    app.assert_conserved(5).await;
}

/// Both queues are deleted under load, repeatedly. No message whose publish returned `Ok` is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publisher_queues_deleted_under_load_lose_no_confirmed_message() {
    const ROUNDS: usize = 6;
    const TASKS: u64 = 300;
    let app = Arc::new(TestApp::with(&[SHOP], |config| config.broker.max_unconfirmed = 64).await);
    let amqp = app.amqp().await;
    let topology = Arc::clone(&app.context.topology);
    let queues = [topology.inbound_queue(&topology.sources()[0]), topology.unrouted_queue()];
    let mut rng = seeded_rng();
    let mut failed = 0;
    for round in 0..ROUNDS {
        let deleted = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..TASKS)
            .map(|order| {
                let app = Arc::clone(&app);
                let deleted = Arc::clone(&deleted);
                let mut rng = StdRng::seed_from_u64(rng.random());
                tokio::spawn(async move {
                    let mut results = Vec::new();
                    loop {
                        // Retries as a client does after a 503, until a publish after the deletion is confirmed.
                        let envelope = shop_order(order, 1, "1.00");
                        let after = deleted.load(Ordering::SeqCst);
                        let ok = app.publish(&envelope).await.is_ok();
                        results.push((envelope.key.to_string(), after, ok));
                        if after && ok {
                            return results;
                        }
                        let pause_ms = rng.random_range(1..30);
                        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(10 + 5 * round as u64)).await;
        // Deleting a queue loses its messages. A message that was confirmed before the deletion may be
        // lost; one that was published after it may not.
        for queue in &queues {
            amqp.delete(queue).await;
        }
        deleted.store(true, Ordering::SeqCst);
        let mut results = Vec::new();
        for task in tasks {
            results.extend(timeout(seconds(30), task).await.unwrap().unwrap());
        }
        app.context.publisher.wait_until_ready().await;
        timeout(seconds(20), topology.declare(&app.link)).await.unwrap().unwrap();
        let mut there = HashSet::new();
        for queue in &queues {
            there.extend(amqp.take_all(queue).await);
        }
        for (key, after, ok) in &results {
            if *ok && *after {
                assert!(there.contains(key), "round {round}: {key} was confirmed and is gone");
            }
        }
        failed += results.iter().filter(|(_, _, ok)| !ok).count();
    }
    assert!(failed > 0, "no round met a missing queue; the test tests nothing");
}

/// One queue rejects every message and the other accepts every message. Each publish gets the result
/// of its own message, although they share channels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publisher_confirms_are_matched_to_their_messages() {
    let app = TestApp::with(&[SHOP, ERP], |config| config.broker.publish_channels = 2).await;
    let prefix = &app.config.broker.prefix;
    servers::limit_queues(&format!("^{prefix}\\.inbound\\.shop$"), 0).await;
    // The policy applies a moment later, and an empty queue accepts one message.
    eventually("the policy", seconds(20), || async {
        app.publish(&shop_order(0, 1, "1.00")).await.is_err()
    })
    .await;
    let app = Arc::new(app);
    let mut tasks = Vec::new();
    for task in 0..8_u64 {
        let app = Arc::clone(&app);
        tasks.push(tokio::spawn(async move {
            let mut sent: HashMap<String, bool> = HashMap::new();
            for turn in 0..150_u64 {
                let refused = (task + turn) % 3 == 0;
                let envelope = if refused {
                    shop_order(1, 1, "1.00")
                } else {
                    erp_order(&format!("{task}-{turn}"), 1, "1.00")
                };
                match app.publish(&envelope).await {
                    Ok(_) => assert!(!refused, "a full queue took a message"),
                    Err(error) => {
                        assert_eq!(error, PublishError::Nacked);
                        assert!(refused, "a free queue refused a message");
                    }
                }
                sent.insert(envelope.key.to_string(), !refused);
            }
            sent
        }));
    }
    let mut taken = HashSet::new();
    for task in tasks {
        taken.extend(task.await.unwrap().into_iter().filter(|(_, ok)| *ok).map(|(key, _)| key));
    }
    let erp = app.context.topology.inbound_queue(&"erp".parse().unwrap());
    let there: HashSet<String> = app.amqp().await.take_all(&erp).await.into_iter().collect();
    assert_eq!(there, taken);
    assert!(taken.len() > 700);
}

#[tokio::test]
async fn publisher_removed_queue_limit_accepts_again() {
    let app = TestApp::with(&[SHOP], |config| {
        // A channel whose publishes are all nacked is closed after 5 s.
        config.broker.confirm_timeout_ms = 500;
    })
    .await;
    let server = TestServer::start(&app.config, Roles { receiver: true, worker: false }).await;
    let post = |id: String| {
        let webhook_client = server.webhook_client();
        async move { webhook_client.post("shop", &id, &shop_body(1, 1, "1.00")).await.unwrap().status() }
    };
    let inbound = format!("^{}\\.inbound", app.config.broker.prefix);
    servers::limit_queues(&inbound, 1).await;
    let mut sent = 0;
    while post(format!("full-{sent}")).await != 503 {
        sent += 1;
        assert!(sent < 200, "the queue is never full");
    }
    // Now the queue has no limit and is empty, but RabbitMQ does not notify the nacked channels.
    servers::clear_queue_limit(&inbound).await;
    let queue = app.context.topology.inbound_queue(&app.context.topology.sources()[0]);
    app.amqp().await.take_all(&queue).await;
    eventually("room", seconds(30), || async { post("room".to_owned()).await == 200 }).await;
    server.stop().await;
}

#[tokio::test]
async fn publisher_full_queue_and_memory_alarm_return_503_until_cleared() {
    let (servers, app) = TestApp::on_leased_servers(&[SHOP], |config| {
        config.broker.confirm_timeout_ms = 1000;
    })
    .await;
    let server = TestServer::start(&app.config, Roles { receiver: true, worker: false }).await;
    let post = |id: String| {
        let webhook_client = server.webhook_client();
        async move { webhook_client.post("shop", &id, &shop_body(1, 1, "1.00")).await.unwrap() }
    };
    assert_eq!(post("before".to_owned()).await.status(), 200);

    let full = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    let pattern = format!("^{}\\.inbound", app.config.broker.prefix);
    servers.rabbitmqctl(&["set_policy", "full", &pattern, full]).await;
    let mut accepted = 1;
    let refused = loop {
        let answer = post(format!("full-{accepted}")).await;
        if answer.status() == 503 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 200, "the queue is never full");
    };
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert!(refused.text().await.unwrap().contains("could not be stored"));
    // Consuming makes room.
    let queue = app.context.topology.inbound_queue(&app.context.topology.sources()[0]);
    let taken = app.amqp().await.take_all(&queue).await.len();
    eventually("room", seconds(20), || async { post("room".to_owned()).await.status() == 200 })
        .await;

    servers.rabbitmqctl(&["clear_policy", "full"]).await;

    servers.rabbitmqctl(&["set_vm_memory_high_watermark", "0.000001"]).await;
    for turn in 0..6 {
        let begun = Instant::now();
        let answer = post(format!("memory-{turn}")).await;
        assert!(begun.elapsed() < seconds(3), "an answer took {:?}", begun.elapsed());
        // The first publish may be sent before the broker reports the block.
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "5");
        if turn == 1 {
            let ready = server.get(&server.url("/readyz")).await;
            assert_eq!(ready.status(), 503, "{}", ready.text().await.unwrap());
        }
    }
    servers.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    eventually("the end of the alarm", seconds(40), || async {
        post("after".to_owned()).await.status() == 200
    })
    .await;
    // Every accepted message is in the queue; some that got 503 may be there too.
    let there = u32::try_from(taken).unwrap() + app.amqp().await.depth(&queue).await.unwrap();
    assert!(there >= accepted + 2, "{there} of {} are there", accepted + 2);
    server.stop().await;
}

#[tokio::test]
async fn publisher_deleted_exchange_fails_and_is_redeclared() {
    let app = TestApp::new().await;
    let amqp = app.amqp().await;
    amqp.delete_exchange(&app.context.topology.inbound_exchange()).await;
    let orders: Vec<Envelope> = (0..20).map(|order| shop_order(order, 1, "1.00")).collect();
    let results = join_all(orders.iter().map(|order| app.publish(order))).await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    eventually("the exchange", seconds(20), || async {
        app.publish(&shop_order(99, 1, "1.00")).await.is_ok()
    })
    .await;
    let mut consumer = app.consumer("shop").await;
    consumer.step().await;
    assert_eq!(app.count("select count(*) from orders where order_id = '99'").await, 1);
}

#[tokio::test]
async fn publisher_without_connection_fails_at_once() {
    let mut proxy = None;
    let app = TestApp::with(&[SHOP], |config| {
        proxy = Some(Proxy::before(&mut config.broker.url));
    })
    .await;
    proxy.unwrap().cut();
    eventually("the connection to be missed", seconds(10), || async {
        app.context.publisher.degraded_reason().is_some()
    })
    .await;
    let begun = Instant::now();
    let result = app.publish(&shop_order(1, 1, "1.00")).await;
    assert!(matches!(result, Err(PublishError::NotConnected(_))), "{result:?}");
    assert!(begun.elapsed() < Duration::from_millis(100));
}
