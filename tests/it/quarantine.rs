//! Forged calls: counted, kept in bounds where a source asks for it, and
//! applied once when a person releases them after the secret was mended.

use std::collections::BTreeMap;

use reqwest::Response;
use tallyhook::{
    config::Config,
    review::quarantine::{self, QuarantineError, Release},
    service::Roles,
    store::{acts::Actor, quarantine::Filter},
};
use uuid::Uuid;

use crate::support::{
    Front, Rig, SHOP,
    broker::long,
    events::shop_body,
    eventually,
    http::{client, dress},
    seconds,
};

const KEEPING: &str = "
[sources.shop]
kind = 'shopify'
secrets = ['env:SECRET']
quarantine = 2
";
const ANNA: Actor<'static> = Actor { name: "anna", reason: "ticket 17" };
const KEPT: &str = "select count(*) from quarantine";

/// The shop as it signs with a secret that is not configured yet.
fn another_secret() -> Config {
    let secrets = BTreeMap::from([("SECRET".to_owned(), "another secret".to_owned())]);
    Config::from_toml(KEEPING, &secrets).unwrap()
}

/// Posts a webhook signed by another secret.
async fn forge(front: &Front, event_id: &str, body: &str) -> Response {
    let mut request = client().post(front.url("/hooks/shop?token=hunter2"));
    for (name, value) in dress(&another_secret(), "shop", event_id, body) {
        request = request.header(name.as_str(), value.as_bytes());
    }
    request
        .header("content-type", "application/json")
        .header("authorization", "Bearer hunter2")
        .header("cookie", "session=hunter2")
        .body(body.to_owned())
        .send()
        .await
        .unwrap()
}

/// One more that is kept: not more than one a second is.
async fn keep(rig: &Rig, front: &Front, event_id: &str, body: &str) -> Uuid {
    tokio::time::sleep(seconds(1)).await;
    let answer = forge(front, event_id, body).await;
    assert_eq!(answer.status(), 401);
    let id: Uuid = answer.headers()["x-tallyhook-receipt"].to_str().unwrap().parse().unwrap();
    let kept = format!("{KEPT} where receipt_id = '{id}'");
    eventually("the call", seconds(20), || async { rig.count(&kept).await == 1 }).await;
    id
}

fn release<'a>(rig: &'a Rig, config: &'a Config) -> Release<'a> {
    Release {
        store: &rig.tools.store,
        sources: &config.sources,
        publisher: &rig.tools.publisher,
        topology: &rig.tools.topology,
        actor: ANNA,
    }
}

#[tokio::test]
async fn forged_calls_are_counted_and_only_kept_where_a_source_asks_for_it() {
    let rig = Rig::with(&[SHOP], |_| ()).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    for _ in 0..5 {
        assert_eq!(forge(&front, "1", &shop_body(1, 1, "1.00")).await.status(), 401);
    }
    let metrics = &front.service.metrics;
    assert_eq!(metrics.forged.with_label_values(&["shop"]).get(), 5);
    assert_eq!(metrics.unrecorded.with_label_values(&["shop"]).get(), 0);
    // One that is taken comes after whatever else was sent.
    assert_eq!(front.post("shop", "2", &shop_body(2, 1, "1.00")).await.status(), 200);
    let receipts = "select count(*) from receipts";
    eventually("the order", seconds(20), || async { rig.count(receipts).await == 1 }).await;
    assert_eq!(rig.count(KEPT).await, 0);
    front.stop().await;
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn the_quarantine_keeps_the_newest_and_a_flood_costs_one_a_second() {
    let rig = Rig::with(&[KEEPING], |_| ()).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let first = keep(&rig, &front, "1", &shop_body(1, 1, "1.00")).await;
    keep(&rig, &front, "2", &shop_body(2, 1, "1.00")).await;
    keep(&rig, &front, "3", &shop_body(3, 1, "1.00")).await;
    for _ in 0..20 {
        forge(&front, "4", &shop_body(4, 1, "1.00")).await;
    }
    let metrics = &front.service.metrics;
    assert_eq!(metrics.forged.with_label_values(&["shop"]).get(), 23);
    assert!(metrics.unrecorded.with_label_values(&["shop"]).get() >= 10);
    // Too large to be kept.
    tokio::time::sleep(seconds(1)).await;
    let large = format!("{{\"note\": \"{}\"}}", "x".repeat(256 * 1024));
    assert_eq!(forge(&front, "5", &large).await.status(), 401);
    front.stop().await;
    assert!(rig.count(KEPT).await <= 2);
    // The oldest is pushed out first.
    assert_eq!(rig.count(&format!("{KEPT} where receipt_id = '{first}'")).await, 0);
    assert_eq!(rig.count("select count(*) from receipts").await, 0);
    let rest = quarantine::list(&rig.tools.store, &Filter::default(), 10).await.unwrap();
    assert!(rest.iter().all(|call| call.payload_bytes < 1000), "{rest:?}");
}

#[tokio::test]
async fn a_head_that_no_row_can_hold_is_kept_without_it() {
    let rig = Rig::with(&[KEEPING], |_| ()).await;
    let (raw, calls) = (rig.raw().await, rig.tools.topology.calls());
    for head in [r#"["\u0000"]"#, "{}"] {
        let headers = [("x-tallyhook-http-headers", long(head))];
        raw.publish(&calls, "shop", None, &headers, b"{}").await;
    }
    let front = Front::start(&rig.config, Roles { receiver: false, worker: true }).await;
    let plain = format!("{KEPT} where headers = '[]' and error like 'not all of the call%'");
    eventually("the calls", seconds(20), || async { rig.count(&plain).await == 2 }).await;
    front.stop().await;
}

#[tokio::test]
async fn after_the_secret_is_mended_a_call_is_released_and_applied_once() {
    let rig = Rig::with(&[KEEPING], |_| ()).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let body = shop_body(1, 1, "10.00");
    let id = keep(&rig, &front, "1", &body).await;

    // Everything is shown but what would let anybody in.
    let shown = quarantine::show(&rig.tools.store, id).await.unwrap();
    assert_eq!(shown.payload.as_deref(), Some(body.as_str()));
    assert_eq!(shown.parameters, ["token"]);
    let told = serde_json::to_string(&shown).unwrap();
    assert!(!told.contains("hunter2") && told.contains("authorization"), "{told}");
    assert!(!rig.text("select headers::text from quarantine").await.contains("session"));

    // Not yet: it is still refused, and it stays.
    match release(&rig, &rig.config).call(id).await {
        Err(QuarantineError::Refused { id: told, .. }) => assert_eq!(told, id),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.count(KEPT).await, 1);

    let mended = another_secret();
    let copy = "create temporary table copy as select * from quarantine";
    let mut session = rig.db.acquire().await.unwrap();
    sqlx::query(copy).execute(&mut *session).await.unwrap();
    assert_eq!(release(&rig, &mended).call(id).await.unwrap(), 1);
    assert_eq!(rig.count(KEPT).await, 0);
    let applied = format!(
        "select count(*) from receipts where receipt_id = '{id}' and outcome = 'applied'
         and response_status is null"
    );
    eventually("the order", seconds(20), || async { rig.count(&applied).await == 1 }).await;
    let gone = release(&rig, &mended).call(id).await;
    assert!(matches!(gone, Err(QuarantineError::NoSuchCall(_))), "{gone:?}");

    // Released by two people at once, or before a crash: it was there again.
    let back = "insert into quarantine select * from copy";
    sqlx::query(back).execute(&mut *session).await.unwrap();
    assert_eq!(release(&rig, &mended).call(id).await.unwrap(), 1);
    let queue = rig.tools.topology.inbound_queue(&"shop".parse().unwrap());
    let raw = rig.raw().await;
    eventually("an empty queue", seconds(10), || async { raw.depth(&queue).await == Some(0) })
        .await;
    front.stop().await;
    assert_eq!(rig.count("select count(*) from orders").await, 1);
    let acts = format!(
        "select count(*) from audit_log where act = 'release' and actor = 'anna'
         and reason = 'ticket 17' and detail->>'receipt_id' = '{id}' and detail->>'source' = 'shop'"
    );
    assert_eq!(rig.count(&acts).await, 2);
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn a_call_that_cannot_be_sent_stays_and_one_that_is_discarded_goes() {
    let (mut servers, rig) =
        Rig::own(&[KEEPING], |config| config.broker.confirm_timeout_ms = 500).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let id = keep(&rig, &front, "1", &shop_body(1, 1, "10.00")).await;
    front.stop().await;
    servers.rabbitmq.kill().await.unwrap();
    let mended = another_secret();
    let sent = release(&rig, &mended).call(id).await;
    assert!(matches!(sent, Err(QuarantineError::NotSent { .. })), "{sent:?}");
    assert_eq!(rig.count(KEPT).await, 1);
    let discard = || quarantine::discard(&rig.tools.store, std::slice::from_ref(&id), ANNA);
    assert_eq!(discard().await.unwrap(), 1);
    assert_eq!(discard().await.unwrap(), 0);
    assert_eq!(rig.count("select count(*) from audit_log where act = 'discard'").await, 1);
}

#[tokio::test]
async fn a_call_that_is_older_than_what_is_remembered_is_not_released() {
    let rig = Rig::with(&[KEEPING], |_| ()).await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    let id = keep(&rig, &front, "1", &shop_body(1, 1, "1.00")).await;
    front.stop().await;
    // Shopify sends for four hours: a copy may have come that much earlier.
    let forgotten = |hours: u32| {
        format!(
            "delete from inbox_forgotten; insert into inbox_forgotten (generation, settled_until)
             select 1, received_at - interval '{hours} hours' from quarantine"
        )
    };
    let config = another_secret();
    rig.execute(&forgotten(3)).await;
    let refused = release(&rig, &config).call(id).await;
    assert!(matches!(refused, Err(QuarantineError::TooOld { .. })), "{refused:?}");
    assert_eq!(rig.count(KEPT).await, 1);
    rig.execute(&forgotten(5)).await;
    assert_eq!(release(&rig, &config).call(id).await.unwrap(), 1);
}
