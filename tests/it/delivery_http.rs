//! Mirrored invoices: the destination has exactly one for each, whatever messages are lost (story 4).

use serde_json::json;
use tallyhook::{
    review::{Selection, deliveries},
    store::{audit_log::Actor, deliveries::DeliveryFilter},
};

use crate::support::{
    ERP, MockAccounting, TestApp, app::SteppedConsumer, erp_invoice, events::again, eventually,
    seconds,
};

/// The delay before a delivery is retried.
const SOON: &str = "initial_delay_ms = 50";

/// The settings of the destination `books`, the accounting system.
fn destination(accounting: &MockAccounting, more: &str) -> String {
    format!(
        r#"
        [destinations.books]
        kind = 'http'
        events = ['invoice.created']
        url = '{url}/invoices'
        body = '''{{"vendor": {{{{ vendor|tojson }}}}, "number": {{{{ number|tojson }}}},
            "amount": {{{{ total|tojson }}}}, "currency": {{{{ currency|tojson }}}}}}'''
        allow_private_addresses = true
        timeout_ms = 400
        max_concurrency = 8
        rate_limit_per_second = 1000
        max_delay_ms = 2000
        circuit_breaker_open_ms = 200
        {more}
        [destinations.books.headers]
        Authorization = 'Bearer env:ACCOUNTING_TOKEN'
        [destinations.books.response]
        id = '/id'
        "#,
        url = accounting.url(),
    )
}

fn with_look_up(accounting: &MockAccounting, more: &str) -> String {
    format!(
        "{}
        [destinations.books.lookup]
        url = '{}/invoices?vendor={{vendor}}&number={{number}}'
        id = '/invoices/0/id'
        ",
        destination(accounting, more),
        accounting.url(),
    )
}

/// Lets the worker apply so many invoices.
async fn receive(app: &TestApp, from: u32, count: u32) {
    let events: Vec<_> = (from..from + count)
        .map(|number| erp_invoice(&format!("INV-{number}"), 1, &format!("{number}.50")))
        .collect();
    app.publish_all(&events).await;
    let mut consumer = app.consumer("erp").await;
    let known = i64::from(count) + app.count("select count(*) from invoices").await;
    while app.count("select count(*) from invoices").await < known {
        consumer.step().await;
    }
}

async fn states(app: &TestApp) -> String {
    app.text(
        "select string_agg(state || ' ' || n, ', ' order by state)
         from (select state, count(*) as n from deliveries group by state) as s",
    )
    .await
}

async fn come_to(app: &TestApp, expected: &str) {
    eventually(expected, seconds(60), || async { states(app).await == expected }).await;
}

/// Asserts one invoice of each number at the destination, and its id there on every mirror.
async fn assert_mirrored_once(app: &TestApp, accounting: &MockAccounting, count: usize) {
    let invoices = accounting.invoices().await;
    let mut numbers: Vec<&str> = invoices.iter().map(|invoice| invoice.number.as_str()).collect();
    numbers.sort_unstable();
    let all = numbers.len();
    numbers.dedup();
    assert_eq!((all, numbers.len()), (count, count), "invoices at the destination");
    for invoice in &invoices {
        let (id, number) = (&invoice.id, &invoice.number);
        let known = app
            .count(&format!(
                "select count(*) from deliveries where state = 'delivered' and remote_id = '{id}'
                 and document_number = '{number}'"
            ))
            .await;
        assert_eq!(known, 1, "{number} has the id {id} at the destination");
    }
    let ticked = "select count(*) from invoices where mirrored_at is not null";
    assert_eq!(app.count(ticked).await, i64::try_from(count).unwrap());
}

#[tokio::test]
async fn http_delivery_lost_responses_and_killed_destination_create_each_invoice_once() {
    const INVOICES: u32 = 200;
    let mut accounting = MockAccounting::start().await;
    let app = TestApp::with(&[ERP, &with_look_up(&accounting, SOON)], |_| ()).await;
    accounting.faults(json!({"timeout_after_create_every": 10, "hang_ms": 2000})).await;
    receive(&app, 0, INVOICES).await;
    let _delivery_worker = app.start_delivery();
    let delivered = "select count(*) from deliveries where state = 'delivered'";
    eventually("half of the invoices are delivered", seconds(60), || async {
        app.count(delivered).await > 80
    })
    .await;
    accounting.kill().await;
    let waiting =
        "select count(*) from deliveries where state <> 'delivered' and error is not null";
    eventually("the outage is felt", seconds(20), || async { app.count(waiting).await > 0 }).await;
    accounting.restart().await;
    accounting.faults(json!({"timeout_after_create_every": 10, "hang_ms": 2000})).await;
    come_to(&app, &format!("delivered {INVOICES}")).await;
    assert_mirrored_once(&app, &accounting, INVOICES as usize).await;
    let found = "select count(*) from deliveries where warning like 'found by a look-up%'";
    assert!(app.count(found).await > 0, "nothing was ever in doubt");
    // An outage of the destination fails no delivery.
    assert_eq!(app.count("select count(*) from dead_letters").await, 0);
}

#[tokio::test]
async fn http_delivery_without_lookup_relies_on_the_idempotency_key() {
    const INVOICES: u32 = 60;
    let accounting = MockAccounting::start().await;
    let app = TestApp::with(&[ERP, &destination(&accounting, SOON)], |_| ()).await;
    accounting.faults(json!({"timeout_after_create_every": 4, "hang_ms": 2000})).await;
    receive(&app, 0, INVOICES).await;
    let _delivery_worker = app.start_delivery();
    let uncertain = "select count(*) from deliveries where state = 'uncertain'";
    eventually("doubt", seconds(20), || async { app.count(uncertain).await > 0 }).await;
    accounting.faults(json!({"clear": true})).await;
    come_to(&app, &format!("delivered {INVOICES}")).await;
    assert_mirrored_once(&app, &accounting, INVOICES as usize).await;
}

#[tokio::test]
async fn http_delivery_worker_killed_while_sending_creates_each_invoice_once() {
    const INVOICES: u32 = 60;
    let accounting = MockAccounting::start().await;
    let app = TestApp::with(&[ERP, &with_look_up(&accounting, SOON)], |_| ()).await;
    accounting.faults(json!({"timeout_after_create_every": 3, "hang_ms": 2000})).await;
    receive(&app, 0, INVOICES).await;
    let delivery_worker = app.start_delivery();
    let sending = "select count(*) from deliveries where state = 'sending'";
    eventually("calls under way", seconds(20), || async { app.count(sending).await >= 4 }).await;
    delivery_worker.kill().await;
    let in_flight = app.count(sending).await;
    assert!(in_flight > 0, "the worker was killed between two requests");
    // Keys are stored before the first request.
    let unkeyed = "select count(*) from deliveries
                   where state = 'sending' and (idempotency_key is null or request is null)";
    assert_eq!(app.count(unkeyed).await, 0);
    let _delivery_worker = app.start_delivery();
    accounting.faults(json!({"clear": true})).await;
    // Leases last a minute; end those of the killed worker now.
    app.execute("update deliveries set lease_until = now() where state = 'sending'").await;
    come_to(&app, &format!("delivered {INVOICES}")).await;
    assert_mirrored_once(&app, &accounting, INVOICES as usize).await;
}

#[tokio::test]
async fn http_delivery_database_killed_while_sending_creates_each_invoice_once() {
    const INVOICES: u32 = 80;
    let accounting = MockAccounting::start().await;
    let (mut servers, app) =
        TestApp::on_leased_servers(&[ERP, &with_look_up(&accounting, SOON)], |_| ()).await;
    accounting.faults(json!({"timeout_after_create_every": 5, "hang_ms": 2000})).await;
    receive(&app, 0, INVOICES).await;
    let _delivery_worker = app.start_delivery();
    let delivered = "select count(*) from deliveries where state = 'delivered'";
    eventually("some invoices are delivered", seconds(30), || async {
        app.count(delivered).await > 10
    })
    .await;
    servers.kill_postgres().await;
    servers.restart_postgres().await;
    // End the leases of the requests whose responses could not be recorded.
    let lost = "update deliveries set lease_until = now() where state = 'sending'";
    eventually("the database is back", seconds(30), || async {
        app.context.store.execute(lost).await.is_ok()
    })
    .await;
    accounting.faults(json!({"clear": true})).await;
    let sql = "select count(*) from deliveries where state = 'delivered'";
    eventually("all of it", seconds(60), || async {
        drop(app.context.store.execute(lost).await);
        app.count(sql).await == i64::from(INVOICES)
    })
    .await;
    assert_mirrored_once(&app, &accounting, INVOICES as usize).await;
}

#[tokio::test]
async fn http_delivery_response_status_decides_the_outcome() {
    let accounting = MockAccounting::start().await;
    let app = TestApp::with(
        &[ERP, &with_look_up(&accounting, "initial_delay_ms = 50\nmax_attempts = 3")],
        |_| (),
    )
    .await;
    let _delivery_worker = app.start_delivery();

    // 429: the delay is the one that the response asks for, and the attempt counts.
    accounting.faults(json!({"answer": {"status": 429, "retry_after": 0, "times": 1}})).await;
    receive(&app, 1, 1).await;
    come_to(&app, "delivered 1").await;
    assert_eq!(app.count("select attempts::bigint from deliveries").await, 1);

    // 500: the outcome is unknown, so the invoice is looked up before it is sent again.
    accounting.faults(json!({"answer": {"status": 500, "times": 1}})).await;
    receive(&app, 2, 1).await;
    come_to(&app, "delivered 2").await;

    // Another caller created it already: success, with a warning.
    let body = r#"{"vendor": "ACME", "number": "INV-3", "amount": "1", "currency": "EUR"}"#;
    assert_eq!(accounting.create("another-key", body).await.status(), 201);
    receive(&app, 3, 1).await;
    come_to(&app, "delivered 3").await;
    let warned = "select count(*) from deliveries
                  where document_number = 'INV-3' and warning <> '' and remote_id <> ''";
    assert_eq!(app.count(warned).await, 1);

    // 422: the dead letter holds the request and the response.
    accounting
        .faults(json!({"answer": {"status": 422, "times": 1, "body": {"error": "no such vendor"}}}))
        .await;
    receive(&app, 4, 1).await;
    come_to(&app, "delivered 3, failed 1").await;
    let dead_letter = app
        .text(
            "select reason || ' ' || (headers->>'response') || ' ' || convert_from(payload, 'UTF8')
             from dead_letters where state = 'open'",
        )
        .await;
    assert!(dead_letter.starts_with("delivery_refused"), "{dead_letter}");
    assert!(
        dead_letter.contains("no such vendor") && dead_letter.contains("INV-4"),
        "{dead_letter}"
    );

    // Exhausted: other deliveries succeed, so this one fails.
    accounting.faults(json!({"answer": {"status": 500, "containing": "INV-5"}})).await;
    receive(&app, 5, 4).await;
    come_to(&app, "delivered 6, failed 2").await;
    let reason = "select reason from dead_letters order by dead_letter_id desc limit 1";
    assert_eq!(app.text(reason).await, "attempts_exhausted");
    let totals = app.totals().await;
    assert_eq!(
        (totals.dead, totals.dead_letters, totals.dead_letters_without_dead_receipt),
        (0, 0, 0),
        "{totals:?}"
    );
}

#[tokio::test]
async fn http_delivery_unreachable_destination_counts_no_attempt() {
    let mut accounting = MockAccounting::start().await;
    let more = "initial_delay_ms = 50\ncircuit_breaker_threshold = 3\nmax_attempts = 2";
    let app = TestApp::with(&[ERP, &with_look_up(&accounting, more)], |_| ()).await;
    accounting.kill().await;
    receive(&app, 0, 20).await;
    let _delivery_worker = app.start_delivery();
    let open =
        app.context.metrics.circuit_breaker_open.with_label_values(&["destination", "books"]);
    eventually("the breaker opens", seconds(20), || async { open.get() == 1 }).await;
    let probes = app.context.metrics.delivery_attempts.with_label_values(&["books", "retry_later"]);
    let before = probes.get();
    eventually("failed probes", seconds(20), || async { probes.get() >= before + 3 }).await;
    assert_eq!(app.count("select count(*) from deliveries where attempts > 0").await, 0);
    // A probe may be under way. No delivery has another state.
    let other_states = "select count(*) from deliveries where state not in ('pending', 'sending')";
    assert_eq!(app.count(other_states).await, 0);
    accounting.restart().await;
    come_to(&app, "delivered 20").await;
    eventually("it closes", seconds(20), || async { open.get() == 0 }).await;
    assert_mirrored_once(&app, &accounting, 20).await;
}

#[tokio::test]
async fn http_delivery_invoice_deleted_remotely_returns_only_by_reissue() {
    let accounting = MockAccounting::start().await;
    let app = TestApp::with(&[ERP, &with_look_up(&accounting, SOON)], |_| ()).await;
    let _delivery_worker = app.start_delivery();
    let created = erp_invoice("INV-1", 1, "1.50");
    app.publish_all(std::slice::from_ref(&created)).await;
    let mut consumer = app.consumer("erp").await;
    consumer.step().await;
    come_to(&app, "delivered 1").await;
    let invoices = accounting.invoices().await;
    accounting.delete(&invoices[0].id).await;

    // Neither a duplicate nor an update creates it again.
    app.publish_all(&[again(&created), erp_invoice("INV-1", 2, "1.50")]).await;
    consumer.step().await;
    assert_eq!(app.count("select count(*) from deliveries").await, 1);
    // A later invoice was delivered, so nothing of this one is pending.
    let later = created_after(&app, &mut consumer, &accounting, "INV-2").await;
    accounting.delete(&later).await;
    assert_eq!(accounting.invoices().await, []);

    let store = &app.context.store;
    let why = Actor { name: "ann", comment: "deleted in the accounting system by mistake" };
    let reissue =
        async |id| deliveries::reissue(store, &app.components.destinations, id, false, why).await;
    let invoice = DeliveryFilter { number: Some("INV-1".to_owned()), ..DeliveryFilter::default() };
    let [old] = deliveries::list(store, &invoice, 9).await.unwrap().try_into().unwrap();
    // A retry does not apply, and a re-issue needs a void first.
    let selection = Selection::new(invoice.clone(), false).unwrap();
    let selected = deliveries::select(store, selection).await.unwrap();
    let retried = deliveries::retry(store, &selected, why).await;
    assert!(retried.unwrap().deliveries.is_empty());
    reissue(old.delivery_id).await.unwrap_err();
    deliveries::void(store, old.delivery_id, why).await.unwrap();
    let ticked = "select count(*) from invoices
                  where mirrored_at is not null and invoice_number = 'INV-1'";
    assert_eq!(app.count(ticked).await, 0);

    // One of many concurrent re-issues succeeds, and no later one.
    let many = futures_util::future::join_all((0..8).map(|_| reissue(old.delivery_id))).await;
    assert_eq!(many.iter().filter(|made| made.is_ok()).count(), 1);
    come_to(&app, "delivered 2, voided 1").await;
    reissue(old.delivery_id).await.unwrap_err();
    let invoices = accounting.invoices().await;
    assert_eq!(invoices.len(), 1);
    let [_, new] = deliveries::list(store, &invoice, 9).await.unwrap().try_into().unwrap();
    assert_eq!((new.issue, new.remote_id.as_deref()), (1, Some(invoices[0].id.as_str())));
    assert_ne!(new.idempotency_key, old.idempotency_key);
    assert_eq!(app.count(ticked).await, 1);

    // Voided although the invoice exists: the lookup finds it.
    deliveries::void(store, new.delivery_id, why).await.unwrap();
    let refused = reissue(new.delivery_id).await.unwrap_err().to_string();
    assert!(refused.contains(&invoices[0].id), "{refused}");
    created_after(&app, &mut consumer, &accounting, "INV-3").await;
    assert_eq!(accounting.invoices().await.len(), 2);
}

/// Delivers an invoice that comes after everything else; returns its id at the destination.
async fn created_after(
    app: &TestApp,
    consumer: &mut SteppedConsumer,
    accounting: &MockAccounting,
    number: &str,
) -> String {
    app.publish_all(&[erp_invoice(number, 1, "1.00")]).await;
    consumer.step().await;
    let delivered = "select count(*) from deliveries where state = 'delivered'";
    let delivered = format!("{delivered} and document_number = '{number}'");
    eventually(number, seconds(30), || async { app.count(&delivered).await == 1 }).await;
    accounting.find("ACME", number).await.remove(0).id
}

#[tokio::test]
async fn http_delivery_replayed_response_of_deleted_invoice_fails() {
    let accounting = MockAccounting::start().await;
    let app =
        TestApp::with(&[ERP, &with_look_up(&accounting, "initial_delay_ms = 1500")], |_| ()).await;
    accounting.faults(json!({"timeout_after_create_every": 1, "hang_ms": 1000})).await;
    let _delivery_worker = app.start_delivery();
    receive(&app, 1, 1).await;
    come_to(&app, "uncertain 1").await;
    accounting.faults(json!({"clear": true})).await;
    // It is deleted by hand before the retry with the same key.
    let invoices = accounting.invoices().await;
    accounting.delete(&invoices[0].id).await;
    come_to(&app, "failed 1").await;
    assert_eq!(app.text("select reason from dead_letters").await, "delivery_gone");
    assert_eq!(accounting.invoices().await, []);
}

#[tokio::test]
async fn http_delivery_unrenderable_bodies_do_not_delay_others() {
    const INVOICES: u32 = 80;
    let accounting = MockAccounting::start().await;
    // All bodies but the last are invalid JSON.
    let destination = with_look_up(&accounting, SOON).replace(
        "body = '''",
        &format!("body = '''{{% if number is startingwith('INV-') and number != 'INV-{}' %}}?{{% endif %}}", INVOICES - 1),
    );
    let app = TestApp::with(&[ERP, &destination], |_| ()).await;
    receive(&app, 0, INVOICES).await;
    let _delivery_worker = app.start_delivery();
    // A wait for new work after each would take twice as long.
    let expected = format!("delivered 1, failed {}", INVOICES - 1);
    eventually(&expected, seconds(20), || async { states(&app).await == expected }).await;
}
