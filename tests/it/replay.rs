//! Only an operator's action closes a dead letter, and a replay is idempotent (P5).

use tallyhook::{
    broker::{Consumer, IncomingMessage},
    domain::{Envelope, EventKey, ImportPosition},
    review::{Actor, dead_letters::ReviewError},
};
use time::macros::datetime;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{SHOP, TestApp, events::again, proxy::Proxy, seconds, shop_order};

const ANNA: Actor<'static> = Actor { name: "anna", comment: "ticket 17" };
const STATE: &str = "select concat_ws(' ', state, outcome, closed_at is not null,
                         replay_id is not null) from dead_letters";
const REFUSE: &str = "create function refuse() returns trigger language plpgsql as $$ begin
        raise division_by_zero; end $$;
    create trigger refuse before insert on orders for each row execute function refuse()";

/// An app with one dead letter, which a trigger caused.
async fn app_with_dead_letter() -> (TestApp, Envelope) {
    let app = TestApp::new().await;
    app.execute(REFUSE).await;
    let order = shop_order(1, 1, "10.00");
    app.publish_all(std::slice::from_ref(&order)).await;
    app.consumer("shop").await.step().await;
    app.archive_dead_letters(1).await;
    (app, order)
}

async fn drop_trigger(app: &TestApp) {
    app.execute("drop trigger refuse on orders").await;
}

#[tokio::test]
async fn replay_dead_letter_republishes_every_envelope_field() {
    let app = TestApp::new().await;
    let order = shop_order(1, 1, "10.00");
    let mut published = Envelope {
        key: EventKey::new(&order.source, &order.tenant, "17", 3),
        version: Some(datetime!(2026-01-02 3:04:05.678 UTC)),
        failed_attempts: 2,
        generation: 3,
        replay_id: Some(Uuid::now_v7()),
        secret_label: Some("env:SECRET".to_owned()),
        import: Some(ImportPosition { import_id: Uuid::now_v7(), line: 12 }),
        body: "no JSON".into(),
        ..order
    };
    // As precise as AMQP carries it.
    let (source, now) = (published.source.clone(), published.received_at);
    published = IncomingMessage::from_envelope(&published).envelope(&source, now).unwrap();
    app.publish_all(std::slice::from_ref(&published)).await;
    let (connection, mut consumer) = app.consumer_on_own_connection("shop").await;
    consumer.step().await;
    connection.close().await;
    app.archive_dead_letters(1).await;

    let run = app.replay(&app.dead_letters().await, ANNA).await;
    let queue = app.context.topology.inbound_queue(&source);
    let mut consumer = Consumer::open(&app.link, &queue, 1).await.unwrap();
    let delivery = timeout(seconds(30), consumer.next()).await.unwrap().unwrap();
    let replayed = delivery.message.envelope(&source, now).unwrap();
    // All fields, so that a new one is decided on here: what a replay sets
    // itself, and what it must keep.
    let Envelope {
        receipt_id,
        source,
        tenant,
        key,
        topic,
        version,
        received_at,
        failed_attempts,
        generation,
        replay_id,
        received_over_http,
        secret_label,
        import,
        body,
    } = replayed;
    assert_eq!((failed_attempts, replay_id, secret_label), (0, Some(run), None));
    assert_eq!((receipt_id, received_at), (published.receipt_id, published.received_at));
    assert_eq!((source, tenant), (published.source, published.tenant));
    assert_eq!((key, topic, version), (published.key, published.topic, published.version));
    assert_eq!((generation, import), (published.generation, published.import));
    assert_eq!((received_over_http, body), (published.received_over_http, published.body));
}

#[tokio::test]
async fn replay_applies_and_resolves_in_one_transaction() {
    let (app, order) = app_with_dead_letter().await;
    assert_eq!(app.text(STATE).await, "open f f");
    drop_trigger(&app).await;
    // If the dead letter cannot be resolved, the order is not applied either.
    app.execute(
        "create function hold() returns trigger language plpgsql as $$ begin
             raise division_by_zero; end $$;
         create trigger hold before update on dead_letters for each row
             when (new.state = 'resolved') execute function hold()",
    )
    .await;
    let dead_letter = app.dead_letters().await;
    let run = app.replay(&dead_letter, ANNA).await;
    assert_eq!(app.text(STATE).await, "replayed f t");
    let mut consumer = app.consumer("shop").await;
    consumer.step().await;
    assert_eq!(app.count("select count(*) from orders").await, 0);
    app.archive_dead_letters(1).await;
    assert_eq!(app.text(STATE).await, "open f t");

    app.execute("drop trigger hold on dead_letters").await;
    app.replay(&app.dead_letters().await, ANNA).await;
    consumer.step().await;
    assert_eq!(app.text(STATE).await, "resolved applied t t");
    app.assert_outcomes(&[order], &["applied"]).await;
    assert_eq!(app.count("select count(*) from orders").await, 1);
    let audited = format!(
        "select count(*) from audit_log where actor = 'anna' and comment = 'ticket 17'
         and action = 'replay' and detail->>'replay_id' = '{run}' and dead_letter_id is not null"
    );
    assert_eq!(app.count(&audited).await, 1);
    assert_eq!(app.count("select count(*) from replays where letter_count = 1").await, 2);
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn replay_twice_applies_once() {
    let (app, order) = app_with_dead_letter().await;
    drop_trigger(&app).await;
    let dead_letter = app.dead_letters().await;
    app.replay(&dead_letter, ANNA).await;
    app.replay(&dead_letter, ANNA).await;
    let mut consumer = app.consumer("shop").await;
    consumer.drain(2).await;
    assert_eq!(app.text(STATE).await, "resolved applied t t");
    // Once more from an outdated list, after it was resolved.
    let report = app.try_replay(&dead_letter, ANNA).await;
    assert!(matches!(report.failures[..], [ReviewError::AlreadyClosed(..)]), "{report:?}");
    consumer.assert_idle(&app, shop_order(2, 1, "1.00")).await;
    assert_eq!(app.text(STATE).await, "resolved applied t t");
    app.assert_outcomes(&[order], &["applied"]).await;
    assert_eq!(app.count("select count(*) from orders").await, 2);
    assert_eq!(app.count("select count(*) from audit_log where action = 'replay'").await, 2);
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn replay_failing_again_reopens_the_dead_letter() {
    let (app, order) = app_with_dead_letter().await;
    let failed = "select last_failed_at::text from dead_letters";
    let first = "select first_failed_at::text from dead_letters";
    let (before, begun) = (app.text(failed).await, app.text(first).await);
    app.replay(&app.dead_letters().await, ANNA).await;
    app.consumer("shop").await.step().await;
    assert_eq!(app.text(STATE).await, "replayed f t");
    app.archive_dead_letters(1).await;
    assert_eq!(app.text(STATE).await, "open f t");
    assert!(app.text(failed).await > before);
    assert_eq!(app.text(first).await, begun);
    app.assert_outcomes(&[order], &["dead"]).await;
    assert_eq!(app.count("select count(*) from dead_letters").await, 1);
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn replay_of_applied_event_resolves_as_duplicate() {
    let (app, order) = app_with_dead_letter().await;
    drop_trigger(&app).await;
    let resent = again(&order);
    app.publish_all(std::slice::from_ref(&resent)).await;
    let mut consumer = app.consumer("shop").await;
    consumer.step().await;
    app.replay(&app.dead_letters().await, ANNA).await;
    consumer.step().await;
    assert_eq!(app.text(STATE).await, "resolved duplicate t t");
    app.assert_outcomes(&[order, resent], &["duplicate", "applied"]).await;
    assert_eq!(app.count("select count(*) from orders").await, 1);
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn archiver_same_message_twice_keeps_one_dead_letter() {
    let (app, order) = app_with_dead_letter().await;
    let first = app.text("select dead_letters::text from dead_letters").await;
    // The same message is dead-lettered again, as after a crash before the acknowledgement.
    app.publish_all(std::slice::from_ref(&order)).await;
    let mut consumer = app.consumer("shop").await;
    consumer.step().await;
    app.archive_dead_letters(1).await;
    assert_eq!(app.text("select dead_letters::text from dead_letters").await, first);

    // Its second copy reaches the archiver only after it was resolved.
    app.publish_all(std::slice::from_ref(&order)).await;
    consumer.step().await;
    drop_trigger(&app).await;
    app.replay(&app.dead_letters().await, ANNA).await;
    consumer.step().await;
    assert_eq!(app.text(STATE).await, "resolved applied t t");
    app.archive_dead_letters(1).await;
    assert_eq!(app.text(STATE).await, "resolved applied t t");
    app.assert_outcomes(&[order], &["applied"]).await;
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn discard_needs_an_open_dead_letter_and_is_audited() {
    let (app, _) = app_with_dead_letter().await;
    let dead_letter = app.dead_letters().await;
    let id = dead_letter.rows()[0].dead_letter_id;
    app.replay(&dead_letter, ANNA).await;
    let discard = || app.discard_dead_letter(id, ANNA);
    assert_eq!(discard().await.unwrap(), 0, "a replay is in flight");
    app.consumer("shop").await.step().await;
    app.archive_dead_letters(1).await;
    assert_eq!(discard().await.unwrap(), 1);
    assert_eq!(discard().await.unwrap(), 0, "it is gone already");
    assert_eq!(app.text(STATE).await, "discarded t t");
    let audit = "select string_agg(concat_ws(' ', action, actor, comment), ', ' order by audit_id)
                from audit_log";
    assert_eq!(app.text(audit).await, "replay anna ticket 17, discard anna ticket 17");
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn replay_of_discarded_dead_letter_is_rejected() {
    let (app, order) = app_with_dead_letter().await;
    drop_trigger(&app).await;
    let dead_letter = app.dead_letters().await;
    let id = dead_letter.rows()[0].dead_letter_id;
    assert_eq!(app.discard_dead_letter(id, ANNA).await.unwrap(), 1);
    let report = app.try_replay(&dead_letter, ANNA).await;
    assert!(matches!(report.failures[..], [ReviewError::AlreadyClosed(..)]), "{report:?}");
    app.consumer("shop").await.assert_idle(&app, shop_order(2, 1, "1.00")).await;
    app.assert_outcomes(&[order], &["dead"]).await;
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn replay_without_broker_keeps_the_dead_letter_open() {
    let mut proxy = None;
    let app = TestApp::with(&[SHOP], |config| {
        proxy = Some(Proxy::before(&mut config.broker.url));
    })
    .await;
    app.execute(REFUSE).await;
    app.publish_all(&[shop_order(1, 1, "10.00")]).await;
    app.consumer("shop").await.step().await;
    app.archive_dead_letters(1).await;
    proxy.unwrap().cut();
    let dead_letter = app.dead_letters().await;
    let report = app.try_replay(&dead_letter, ANNA).await;
    assert!(matches!(report.failures[..], [ReviewError::PublishFailed { .. }]), "{report:?}");
    assert_eq!(app.text(STATE).await, "open f f");
    app.assert_conserved(1).await;
}
