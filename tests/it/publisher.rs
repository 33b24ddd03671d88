//! A publish that came back `Ok` is with the broker, whatever happens to
//! queues, memory and neighbours meanwhile (P1).

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tallyhook::{broker::PublishError, domain::Envelope, service::Roles};
use tokio::time::{Instant, timeout};

use crate::support::{
    ERP, Front, Rig, SHOP, erp_order, events::shop_body, eventually, seconds, shop_order,
};

#[tokio::test]
async fn what_finds_no_queue_is_kept_and_brought_home() {
    let rig = Rig::new().await;
    let raw = rig.raw().await;
    let topology = &rig.tools.topology;
    let inbound = topology.inbound_queue(&topology.sources()[0]);
    raw.delete(&inbound).await;
    let orders: Vec<_> = (0..5).map(|order| shop_order(order, 1, "1.00")).collect();
    rig.send(&orders).await;
    assert_eq!(raw.depth(&topology.unrouted()).await, Some(5));
    // A worker that starts declares the queue and brings the messages home.
    let front = Front::start(&rig.config, Roles { receiver: false, worker: true }).await;
    eventually("the orders", seconds(20), || async {
        rig.count("select count(*) from orders").await == 5
    })
    .await;
    front.stop().await;
    rig.assert_fates(&orders, &["applied"; 5]).await;
    rig.assert_conserved(5).await;
}

/// The heart of P1: both queues are torn down under load, over and over, and
/// no publish that came back `Ok` is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_confirmed_message_is_missing_when_queues_are_deleted_under_load() {
    const ROUNDS: usize = 6;
    const TASKS: u64 = 300;
    let rig = Arc::new(Rig::with(&[SHOP], |config| config.broker.publish_window = 64).await);
    let raw = rig.raw().await;
    let topology = Arc::clone(&rig.tools.topology);
    let queues = [topology.inbound_queue(&topology.sources()[0]), topology.unrouted()];
    let mut failed = 0;
    for round in 0..ROUNDS {
        let deleted = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..TASKS)
            .map(|order| {
                let rig = Arc::clone(&rig);
                let deleted = Arc::clone(&deleted);
                tokio::spawn(async move {
                    let mut results = Vec::new();
                    loop {
                        // Goes on as a client would that is told 503, until
                        // something was confirmed after the deletion.
                        let envelope = shop_order(order, 1, "1.00");
                        let after = deleted.load(Ordering::SeqCst);
                        let ok = rig.publish(&envelope).await.is_ok();
                        results.push((envelope.key.to_string(), after, ok));
                        if after && ok {
                            return results;
                        }
                        tokio::time::sleep(Duration::from_millis(rand::random_range(1..30))).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(10 + 5 * round as u64)).await;
        // Deleting an inbound queue loses what is in it, and that is the
        // deleter's doing: what was confirmed before the deletion began may
        // be gone, what was published after it ended may not.
        for queue in &queues {
            raw.delete(queue).await;
        }
        deleted.store(true, Ordering::SeqCst);
        let mut results = Vec::new();
        for task in tasks {
            results.extend(timeout(seconds(30), task).await.unwrap().unwrap());
        }
        rig.tools.publisher.ready().await;
        timeout(seconds(20), topology.declare(&rig.link)).await.unwrap().unwrap();
        let mut there = HashSet::new();
        for queue in &queues {
            there.extend(raw.take_all(queue).await);
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

/// A queue that is never there at all, and one that always is: every result
/// must be the message's own, though both travel on the same channels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_result_is_the_messages_own() {
    let (servers, rig) = Rig::own(&[SHOP, ERP], |config| config.broker.publish_channels = 2).await;
    let prefix = &rig.config.broker.prefix;
    let full = r#"{"max-length":0,"overflow":"reject-publish"}"#;
    let pattern = format!("^{prefix}\\.inbound\\.shop$");
    servers.rabbitmq.rabbitmqctl(&["set_policy", "full", &pattern, full]).await.unwrap();
    // The policy is there a moment later, and an empty queue takes its first.
    eventually("the policy", seconds(20), || async {
        rig.publish(&shop_order(0, 1, "1.00")).await.is_err()
    })
    .await;
    let rig = Arc::new(rig);
    let mut tasks = Vec::new();
    for task in 0..8_u64 {
        let rig = Arc::clone(&rig);
        tasks.push(tokio::spawn(async move {
            let mut sent: HashMap<String, bool> = HashMap::new();
            for turn in 0..150_u64 {
                let refused = (task + turn) % 3 == 0;
                let envelope = if refused {
                    shop_order(1, 1, "1.00")
                } else {
                    erp_order(&format!("{task}-{turn}"), 1, "1.00")
                };
                match rig.publish(&envelope).await {
                    Ok(_) => assert!(!refused, "a full queue took a message"),
                    Err(error) => {
                        assert_eq!(error, PublishError::Refused);
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
    let erp = rig.tools.topology.inbound_queue(&"erp".parse().unwrap());
    let there: HashSet<String> = rig.raw().await.take_all(&erp).await.into_iter().collect();
    assert_eq!(there, taken);
    assert!(taken.len() > 700);
}

#[tokio::test]
async fn a_limit_that_is_taken_away_does_not_refuse_for_ever() {
    let (servers, rig) = Rig::own(&[SHOP], |config| {
        // A channel that is refused everything is given up after 5 s.
        config.broker.confirm_timeout_ms = 500;
    })
    .await;
    let front = Front::start(&rig.config, Roles { receiver: true, worker: false }).await;
    let post = |id: String| {
        let poster = front.poster();
        async move { poster.post("shop", &id, &shop_body(1, 1, "1.00")).await.unwrap().status() }
    };
    let full = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    let pattern = format!("^{}\\.inbound", rig.config.broker.prefix);
    servers.rabbitmq.rabbitmqctl(&["set_policy", "full", &pattern, full]).await.unwrap();
    let mut sent = 0;
    while post(format!("full-{sent}")).await != 503 {
        sent += 1;
        assert!(sent < 200, "the queue is never full");
    }
    // Now there is no limit, and nothing in the queue; and nobody tells the
    // channels that were refused.
    servers.rabbitmq.rabbitmqctl(&["clear_policy", "full"]).await.unwrap();
    let queue = rig.tools.topology.inbound_queue(&rig.tools.topology.sources()[0]);
    rig.raw().await.take_all(&queue).await;
    eventually("room", seconds(30), || async { post("room".to_owned()).await == 200 }).await;
    front.stop().await;
}

#[tokio::test]
async fn a_full_queue_and_a_short_memory_are_answered_503_and_pass() {
    let (servers, rig) = Rig::own(&[SHOP], |config| {
        config.broker.confirm_timeout_ms = 1000;
    })
    .await;
    let ctl = |arguments: &'static [&'static str]| servers.rabbitmq.rabbitmqctl(arguments);
    let front = Front::start(&rig.config, Roles { receiver: true, worker: false }).await;
    let post = |id: String| {
        let poster = front.poster();
        async move { poster.post("shop", &id, &shop_body(1, 1, "1.00")).await.unwrap() }
    };
    assert_eq!(post("before".to_owned()).await.status(), 200);

    let full = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    let pattern = format!("^{}\\.inbound", rig.config.broker.prefix);
    servers.rabbitmq.rabbitmqctl(&["set_policy", "full", &pattern, full]).await.unwrap();
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
    assert!(refused.text().await.unwrap().contains("could not be made durable"));
    // Whoever takes messages makes room.
    let queue = rig.tools.topology.inbound_queue(&rig.tools.topology.sources()[0]);
    let taken = rig.raw().await.take_all(&queue).await.len();
    eventually("room", seconds(20), || async { post("room".to_owned()).await.status() == 200 })
        .await;

    ctl(&["clear_policy", "full"]).await.unwrap();

    ctl(&["set_vm_memory_high_watermark", "0.000001"]).await.unwrap();
    for turn in 0..6 {
        let begun = Instant::now();
        let answer = post(format!("memory-{turn}")).await;
        assert!(begun.elapsed() < seconds(3), "an answer took {:?}", begun.elapsed());
        // The first may enter the socket before the broker says that it is blocked.
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "5");
        if turn == 1 {
            let ready = front.get(&front.url("/readyz")).await;
            assert_eq!(ready.status(), 503, "{}", ready.text().await.unwrap());
        }
    }
    ctl(&["set_vm_memory_high_watermark", "0.6"]).await.unwrap();
    eventually("the end of the alarm", seconds(40), || async {
        post("after".to_owned()).await.status() == 200
    })
    .await;
    // What was told 200 is there; what was told 503 may be there too.
    let there = u32::try_from(taken).unwrap() + rig.raw().await.depth(&queue).await.unwrap();
    assert!(there >= accepted + 2, "{there} of {} are there", accepted + 2);
    front.stop().await;
}

#[tokio::test]
async fn a_publish_to_an_exchange_that_is_gone_is_no_success_and_mends_itself() {
    let rig = Rig::new().await;
    let raw = rig.raw().await;
    raw.delete_exchange(&rig.tools.topology.inbound_exchange()).await;
    let orders: Vec<Envelope> = (0..20).map(|order| shop_order(order, 1, "1.00")).collect();
    let results = join_all(orders.iter().map(|order| rig.publish(order))).await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    eventually("the exchange", seconds(20), || async {
        rig.publish(&shop_order(99, 1, "1.00")).await.is_ok()
    })
    .await;
    let mut lane = rig.lane("shop").await;
    lane.step().await;
    assert_eq!(rig.count("select count(*) from orders where order_id = '99'").await, 1);
}

#[tokio::test]
async fn an_away_broker_is_told_at_once() {
    let (mut servers, rig) = Rig::own(&[SHOP], |_| ()).await;
    servers.rabbitmq.kill().await.unwrap();
    eventually("the connection to be missed", seconds(10), || async {
        rig.tools.publisher.trouble().is_some()
    })
    .await;
    let begun = Instant::now();
    let result = rig.publish(&shop_order(1, 1, "1.00")).await;
    assert!(matches!(result, Err(PublishError::Away(_))), "{result:?}");
    assert!(begun.elapsed() < Duration::from_millis(100));
}
