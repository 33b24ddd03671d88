//! Files that end before their end: what was read stands, whoever sent it is
//! told if it is still there, and the whole file sent again adds nothing twice.

use std::time::Duration;

use serde_json::{Value, json};
use tallyhook::service::Roles;

use crate::support::{
    Front, Rig, eventually,
    files::{Slow, VENDORS, csv, done, figures, id, object, progress, report, send},
    proxy::Proxy,
    seconds,
};

const RECEIVER: Roles = Roles { receiver: true, worker: false };

/// The only import that broke off, once it did.
async fn broken_off(rig: &Rig) -> String {
    let ended = "select count(*) from imports where state = 'broken_off'";
    eventually("its end", seconds(60), || async { rig.count(ended).await == 1 }).await;
    rig.text("select import_id::text from imports where state = 'broken_off'").await
}

/// Sends the whole file and checks that every invoice stands once.
async fn resend(rig: &Rig, front: &Front, invoices: u32, known: i64) {
    let told = report(send(front, "text/csv", csv(invoices)).await).await;
    let all = i64::from(invoices);
    let expected = [all, 0, all - known, 0, known, 0, 0, 0, 0];
    assert_eq!(figures(&done(front, &id(&told)).await), expected);
    assert_eq!(rig.count("select count(*) from invoices").await, all);
    let wrong = "select count(*) from invoices where total <> 1.00";
    assert_eq!(rig.count(wrong).await, 0, "a number that was cut off is in the books");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_what_it_sent_and_no_half_line() {
    let rig = Rig::with(&[VENDORS], |_| ()).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let file = csv(200);
    let mut client = Slow::begin(&front, file.len()).await;
    // Within an amount: 1 of 1.00.
    let half = file.find("INV-101,").unwrap() + "INV-101,1".len();
    client.send(&file[..half]).await;
    eventually("what was sent", seconds(20), || async {
        rig.count("select count(*) from invoices").await == 100
    })
    .await;
    drop(client);
    let import = broken_off(&rig).await;
    let told = done(&front, &import).await;
    assert_eq!(figures(&told), [100, 0, 100, 0, 0, 0, 0, 0, 0], "{told}");
    assert!(told["error"].as_str().unwrap().contains("broke off"), "{told}");
    resend(&rig, &front, 200, 100).await;
    front.stop().await;
    rig.assert_conserved(300).await;
}

#[tokio::test]
async fn a_client_that_falls_silent_is_told_so() {
    let rig = Rig::with(&[VENDORS], |config| config.receiver.body_timeout_ms = 500).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let file = csv(20);
    let mut client = Slow::begin(&front, file.len()).await;
    client.send(&file[..file.find("INV-11,").unwrap()]).await;
    let (status, answer) = client.answer().await;
    assert_eq!(status, 408, "{answer}");
    assert!(answer.contains("nothing is added twice"), "{answer}");
    let told = done(&front, &broken_off(&rig).await).await;
    let created = told["created"].as_i64().unwrap();
    assert!((9..=10).contains(&created), "{told}");
    resend(&rig, &front, 20, created).await;
    front.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_on_is_taken_up_to_there() {
    let rig = Rig::with(&[VENDORS], |_| ()).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let file = format!(
        "[{},\n{},\n{{\"vendor\": oops}},\n{}]",
        object("A-1", "1.00").trim_end(),
        object("A-2", "1.00").trim_end(),
        object("A-3", "1.00")
    );
    let told = report(send(&front, "application/json", file).await).await;
    assert_eq!((&told["state"], &told["published"]), (&json!("broken_off"), &json!(2)), "{told}");
    assert!(told["error"].as_str().unwrap().starts_with("line 3: "), "{told}");
    let progress = done(&front, &id(&told)).await;
    assert_eq!(figures(&progress), [2, 0, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!((&progress["state"], &progress["error"]), (&told["state"], &told["error"]));
    front.stop().await;
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn a_receiver_that_stops_tells_the_sender_to_come_again() {
    let rig = Rig::with(&[VENDORS], |_| ()).await;
    let front = Front::start(&rig.config, RECEIVER).await;
    let file = csv(20);
    let mut client = Slow::begin(&front, file.len()).await;
    client.send(&file[..file.find("INV-11,").unwrap()]).await;
    let queue = rig.tools.topology.inbound_queue(&"vendors".parse().unwrap());
    let raw = rig.raw().await;
    eventually("ten lines", seconds(20), || async { raw.depth(&queue).await >= Some(9) }).await;
    let stopping = tokio::spawn(front.stop());
    let (status, answer) = client.answer().await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("retry-after: 5"), "{answer}");
    stopping.await.unwrap();

    let front = Front::start(&rig.config, Roles::ALL).await;
    let told = done(&front, &broken_off(&rig).await).await;
    assert!(told["error"].as_str().unwrap().contains("stopped"), "{told}");
    let created = told["created"].as_i64().unwrap();
    resend(&rig, &front, 20, created).await;
    front.stop().await;
}

#[test]
fn a_receiver_that_dies_leaves_an_import_that_comes_in_for_ever_and_a_resend_completes_it() {
    let running = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    let main = running();
    let dying = running();
    let rig = main.block_on(Rig::with(&[VENDORS], |_| ()));
    let config = rig.config.clone();
    let file = csv(200);
    let half = file[..file.find("INV-101,").unwrap()].to_owned();
    let client = dying.block_on(async {
        let front = Front::start(&config, RECEIVER).await;
        let mut client = Slow::begin(&front, file.len()).await;
        client.send(&half).await;
        // Stopping is what a crash does not do.
        std::mem::forget(front);
        client
    });
    main.block_on(async {
        let queue = rig.tools.topology.inbound_queue(&"vendors".parse().unwrap());
        let raw = rig.raw().await;
        eventually("a hundred lines", seconds(20), || async {
            raw.depth(&queue).await >= Some(99)
        })
        .await;
    });
    std::mem::forget(client);
    dying.shutdown_background();
    main.block_on(async {
        let front = Front::start(&rig.config, Roles::ALL).await;
        eventually("what was sent", seconds(20), || async {
            rig.count("select count(*) from invoices").await >= 99
        })
        .await;
        let known = rig.count("select count(*) from invoices").await;
        let dead = rig.text("select import_id::text from imports").await;
        let told = progress(&front, &dead).await;
        // More is on record than its last note told: then that.
        assert_eq!((&told["state"], &told["total"]), (&json!("receiving"), &json!(known)));
        assert_eq!((&told["created"], &told["settled_at"]), (&json!(known), &Value::Null));
        resend(&rig, &front, 200, known).await;
        front.stop().await;
        rig.assert_conserved(200 + known).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_broker_killed_in_the_middle_a_resend_completes_the_file() {
    let (mut servers, rig) =
        Rig::own(&[VENDORS], |config| config.broker.confirm_timeout_ms = 1000).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let file = csv(2000);
    let half = file.find("INV-1001,").unwrap();
    let mut client = Slow::begin(&front, file.len()).await;
    client.send(&file[..half]).await;
    eventually("what was sent", seconds(30), || async {
        rig.count("select count(*) from invoices").await >= 990
    })
    .await;
    servers.rabbitmq.kill().await.unwrap();
    client.send(&file[half..]).await;
    let (status, answer) = client.answer().await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("retry-after"), "{answer}");
    let refused = send(&front, "text/csv", csv(1)).await;
    assert_eq!(refused.status(), 503);

    servers.rabbitmq.restart().await.unwrap();
    let ready = || async { front.get(&front.url("/readyz")).await.status() == 200 };
    eventually("the publisher", seconds(60), ready).await;
    // What could not be told with the broker away is told now.
    let told = done(&front, &broken_off(&rig).await).await;
    let known = told["created"].as_i64().unwrap();
    assert!(known >= 990, "{told}");
    resend(&rig, &front, 2000, known).await;
    front.stop().await;
    assert_eq!(rig.sums().await.dead, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_takes_nothing_stops_the_sender_and_fills_no_memory() {
    let mut proxy = None;
    let rig = Rig::with(&[VENDORS], |config| {
        config.broker.confirm_timeout_ms = 6000;
    })
    .await;
    let mut config = rig.config.clone();
    proxy.replace(Proxy::before(&mut config.broker.url));
    let front = Front::start(&config, RECEIVER).await;
    let in_flight = &front.service.metrics.import_items_in_flight;
    // 60 MB of invoices, 30 KB each.
    let line =
        object("A-1", "1.00").replace('}', &format!(", \"note\": \"{}\"}}", "x".repeat(30_000)));
    let file = line.repeat(2000);
    let mut client =
        Slow::with(&front, "application/x-ndjson", super::support::files::TOKEN, file.len(), "")
            .await;
    assert_eq!(client.push(&file.as_bytes()[..line.len() * 5], seconds(5)).await, line.len() * 5);
    let queue = rig.tools.topology.inbound_queue(&"vendors".parse().unwrap());
    let raw = rig.raw().await;
    eventually("the first", seconds(20), || async { raw.depth(&queue).await >= Some(4) }).await;
    proxy.as_ref().unwrap().silence();
    let sent = client.push(&file.as_bytes()[line.len() * 5..], Duration::from_secs(2)).await;
    let held = in_flight.get();
    assert!(sent < 45_000_000, "the sender got rid of {sent} bytes");
    assert!((1..=512).contains(&held), "{held} items are held");
    let (status, answer) = client.answer().await;
    assert_eq!(status, 503, "{answer}");
    eventually("nothing to be held", seconds(10), || async { in_flight.get() == 0 }).await;
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_taken_with_few_items_in_hand() {
    let rig = Rig::with(&[VENDORS], |_| ()).await;
    let front = Front::start(&rig.config, RECEIVER).await;
    let in_flight = front.service.metrics.import_items_in_flight.clone();
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
    let told = report(send(&front, "application/x-ndjson", file).await).await;
    assert_eq!((&told["published"], &told["state"]), (&json!(2000), &json!("received")), "{told}");
    finished.send(()).unwrap();
    let most = sampler.await.unwrap();
    assert!((1..=512).contains(&most), "{most} items were held");
    assert_eq!(front.service.metrics.import_items_in_flight.get(), 0);
    front.stop().await;
}
