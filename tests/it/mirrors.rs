//! Mirrored invoices: exactly one at the target for each that came in,
//! whatever is lost on the way (story 4).

use serde_json::json;
use tallyhook::{
    review::deliveries,
    store::{acts::Actor, deliveries::Filter},
};

use crate::support::{ERP, Economy, Rig, erp_invoice, events::again, eventually, seconds};

/// How soon a delivery is tried again.
const SOON: &str = "first_delay_ms = 50";

/// The target that stands for the economy system.
fn target(economy: &Economy, more: &str) -> String {
    format!(
        r#"
        [targets.books]
        kind = 'http'
        events = ['invoice.created']
        url = '{url}/invoices'
        body = '''{{"vendor": {{{{ vendor|tojson }}}}, "number": {{{{ number|tojson }}}},
            "amount": {{{{ total|tojson }}}}, "currency": {{{{ currency|tojson }}}}}}'''
        allow_private_addresses = true
        timeout_ms = 400
        concurrency = 8
        per_second = 1000
        longest_delay_ms = 2000
        breaker_open_ms = 200
        {more}
        [targets.books.headers]
        Authorization = 'Bearer env:ECONOMY_TOKEN'
        [targets.books.answer]
        id = '/id'
        "#,
        url = economy.url(),
    )
}

fn with_look_up(economy: &Economy, more: &str) -> String {
    format!(
        "{}
        [targets.books.lookup]
        url = '{}/invoices?vendor={{vendor}}&number={{number}}'
        id = '/invoices/0/id'
        ",
        target(economy, more),
        economy.url(),
    )
}

/// Has the worker take so many invoices in.
async fn receive(rig: &Rig, from: u32, count: u32) {
    let events: Vec<_> = (from..from + count)
        .map(|number| erp_invoice(&format!("INV-{number}"), 1, &format!("{number}.50")))
        .collect();
    rig.send(&events).await;
    let mut lane = rig.lane("erp").await;
    let known = i64::from(count) + rig.count("select count(*) from invoices").await;
    while rig.count("select count(*) from invoices").await < known {
        lane.step().await;
    }
}

async fn states(rig: &Rig) -> String {
    rig.text(
        "select string_agg(state || ' ' || n, ', ' order by state)
         from (select state, count(*) as n from deliveries group by state) as s",
    )
    .await
}

async fn come_to(rig: &Rig, expected: &str) {
    eventually(expected, seconds(60), || async { states(rig).await == expected }).await;
}

/// One of each at the target, and every mirror known by its id there.
async fn assert_mirrored_once(rig: &Rig, economy: &Economy, count: usize) {
    let there = economy.invoices().await;
    let mut numbers: Vec<&str> = there.iter().map(|invoice| invoice.number.as_str()).collect();
    numbers.sort_unstable();
    let all = numbers.len();
    numbers.dedup();
    assert_eq!((all, numbers.len()), (count, count), "invoices at the target");
    for invoice in &there {
        let (id, number) = (&invoice.id, &invoice.number);
        let known = rig
            .count(&format!(
                "select count(*) from deliveries where state = 'delivered' and remote_id = '{id}'
                 and document_number = '{number}'"
            ))
            .await;
        assert_eq!(known, 1, "{number} is {id} there");
    }
    let ticked = "select count(*) from invoices where ticked_off_at is not null";
    assert_eq!(rig.count(ticked).await, i64::try_from(count).unwrap());
}

#[tokio::test]
async fn one_answer_in_ten_lost_and_the_target_killed_leave_exactly_one_of_each() {
    const INVOICES: u32 = 200;
    let mut economy = Economy::start().await;
    let rig = Rig::with(&[ERP, &with_look_up(&economy, SOON)], |_| ()).await;
    economy.faults(json!({"timeout_after_create_every": 10, "hang_ms": 2000})).await;
    receive(&rig, 0, INVOICES).await;
    let _delivering = rig.deliver();
    let delivered = "select count(*) from deliveries where state = 'delivered'";
    eventually("half is there", seconds(60), || async { rig.count(delivered).await > 80 }).await;
    economy.kill().await;
    let waiting =
        "select count(*) from deliveries where state <> 'delivered' and error is not null";
    eventually("the outage is felt", seconds(20), || async { rig.count(waiting).await > 0 }).await;
    economy.restart().await;
    economy.faults(json!({"timeout_after_create_every": 10, "hang_ms": 2000})).await;
    come_to(&rig, &format!("delivered {INVOICES}")).await;
    assert_mirrored_once(&rig, &economy, INVOICES as usize).await;
    let found = "select count(*) from deliveries where warning like '%looking it up%'";
    assert!(rig.count(found).await > 0, "nothing was ever in doubt");
    // The target's outage was no delivery's fault.
    assert_eq!(rig.count("select count(*) from dead_letters").await, 0);
}

#[tokio::test]
async fn without_a_look_up_the_key_alone_keeps_it_at_one() {
    const INVOICES: u32 = 60;
    let economy = Economy::start().await;
    let rig = Rig::with(&[ERP, &target(&economy, SOON)], |_| ()).await;
    economy.faults(json!({"timeout_after_create_every": 4, "hang_ms": 2000})).await;
    receive(&rig, 0, INVOICES).await;
    let _delivering = rig.deliver();
    let uncertain = "select count(*) from deliveries where state = 'uncertain'";
    eventually("doubt", seconds(20), || async { rig.count(uncertain).await > 0 }).await;
    economy.faults(json!({"clear": true})).await;
    come_to(&rig, &format!("delivered {INVOICES}")).await;
    assert_mirrored_once(&rig, &economy, INVOICES as usize).await;
}

#[tokio::test]
async fn a_worker_killed_while_it_sends_leaves_exactly_one_of_each() {
    const INVOICES: u32 = 60;
    let economy = Economy::start().await;
    let rig = Rig::with(&[ERP, &with_look_up(&economy, SOON)], |_| ()).await;
    economy.faults(json!({"timeout_after_create_every": 3, "hang_ms": 2000})).await;
    receive(&rig, 0, INVOICES).await;
    let delivering = rig.deliver();
    let sending = "select count(*) from deliveries where state = 'sending'";
    eventually("calls under way", seconds(20), || async { rig.count(sending).await >= 4 }).await;
    delivering.kill().await;
    let left = rig.count(sending).await;
    assert!(left > 0, "it was killed between two calls");
    // Keys were on record before the first call.
    let unkeyed = "select count(*) from deliveries
                   where state = 'sending' and (idempotency_key is null or request is null)";
    assert_eq!(rig.count(unkeyed).await, 0);
    let _delivering = rig.deliver();
    economy.faults(json!({"clear": true})).await;
    // The leases run for a minute; the dead worker's are given up here.
    rig.execute("update deliveries set lease_until = now() where state = 'sending'").await;
    come_to(&rig, &format!("delivered {INVOICES}")).await;
    assert_mirrored_once(&rig, &economy, INVOICES as usize).await;
}

#[tokio::test]
async fn a_database_killed_while_calls_are_under_way_leaves_exactly_one_of_each() {
    const INVOICES: u32 = 80;
    let economy = Economy::start().await;
    let (mut servers, rig) = Rig::own(&[ERP, &with_look_up(&economy, SOON)], |_| ()).await;
    economy.faults(json!({"timeout_after_create_every": 5, "hang_ms": 2000})).await;
    receive(&rig, 0, INVOICES).await;
    let _delivering = rig.deliver();
    let delivered = "select count(*) from deliveries where state = 'delivered'";
    eventually("some are there", seconds(30), || async { rig.count(delivered).await > 10 }).await;
    servers.postgres.kill().await.unwrap();
    servers.postgres.restart().await.unwrap();
    // What was under way and could not be recorded is nobody's any more.
    let lost = "update deliveries set lease_until = now() where state = 'sending'";
    eventually("the database is back", seconds(30), || async {
        rig.tools.store.execute(lost).await.is_ok()
    })
    .await;
    economy.faults(json!({"clear": true})).await;
    let sql = "select count(*) from deliveries where state = 'delivered'";
    eventually("all of it", seconds(60), || async {
        drop(rig.tools.store.execute(lost).await);
        rig.count(sql).await == i64::from(INVOICES)
    })
    .await;
    assert_mirrored_once(&rig, &economy, INVOICES as usize).await;
}

#[tokio::test]
async fn answers_come_to_what_they_mean() {
    let economy = Economy::start().await;
    let rig =
        Rig::with(&[ERP, &with_look_up(&economy, "first_delay_ms = 50\nattempts = 3")], |_| ())
            .await;
    let _delivering = rig.deliver();

    // Too many: as late as it asks for, and the attempt counts.
    economy.faults(json!({"answer": {"status": 429, "retry_after": 0, "times": 1}})).await;
    receive(&rig, 1, 1).await;
    come_to(&rig, "delivered 1").await;
    assert_eq!(rig.count("select attempts::bigint from deliveries").await, 1);

    // 500: nobody knows, so it is looked up before it is sent again.
    economy.faults(json!({"answer": {"status": 500, "times": 1}})).await;
    receive(&rig, 2, 1).await;
    come_to(&rig, "delivered 2").await;

    // It is there already, made by somebody else: success, with a warning.
    let body = r#"{"vendor": "ACME", "number": "INV-3", "amount": "1", "currency": "EUR"}"#;
    assert_eq!(economy.create("somebody-else", body).await.status(), 201);
    receive(&rig, 3, 1).await;
    come_to(&rig, "delivered 3").await;
    let warned = "select count(*) from deliveries
                  where document_number = 'INV-3' and warning <> '' and remote_id <> ''";
    assert_eq!(rig.count(warned).await, 1);

    // Refused: before a person, with both bodies.
    economy
        .faults(json!({"answer": {"status": 422, "times": 1, "body": {"error": "no such vendor"}}}))
        .await;
    receive(&rig, 4, 1).await;
    come_to(&rig, "delivered 3, failed 1").await;
    let letter = rig
        .text(
            "select reason || ' ' || (headers->>'response') || ' ' || convert_from(payload, 'UTF8')
             from dead_letters where state = 'open'",
        )
        .await;
    assert!(letter.starts_with("delivery_refused"), "{letter}");
    assert!(letter.contains("no such vendor") && letter.contains("INV-4"), "{letter}");

    // Exhausted: the others get through, so it is this one that fails.
    economy.faults(json!({"answer": {"status": 500, "containing": "INV-5"}})).await;
    receive(&rig, 5, 4).await;
    come_to(&rig, "delivered 6, failed 2").await;
    let reason = "select reason from dead_letters order by dead_letter_id desc limit 1";
    assert_eq!(rig.text(reason).await, "attempts_exhausted");
    let sums = rig.sums().await;
    assert_eq!((sums.dead, sums.dead_letters, sums.letters_without_dead), (0, 0, 0), "{sums:?}");
}

#[tokio::test]
async fn while_the_target_is_away_no_attempt_counts() {
    let mut economy = Economy::start().await;
    let more = "first_delay_ms = 50\nbreaker_failures = 3\nattempts = 2";
    let rig = Rig::with(&[ERP, &with_look_up(&economy, more)], |_| ()).await;
    economy.kill().await;
    receive(&rig, 0, 20).await;
    let _delivering = rig.deliver();
    let open = rig.tools.metrics.delivery_breaker_open.with_label_values(&["books"]);
    eventually("the breaker opens", seconds(20), || async { open.get() == 1 }).await;
    // Some probes fail.
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(rig.count("select count(*) from deliveries where attempts > 0").await, 0);
    assert_eq!(states(&rig).await, "pending 20");
    economy.restart().await;
    come_to(&rig, "delivered 20").await;
    eventually("it closes", seconds(20), || async { open.get() == 0 }).await;
    assert_mirrored_once(&rig, &economy, 20).await;
}

#[tokio::test]
async fn what_was_deleted_at_the_target_stays_deleted_until_it_is_re_issued_once() {
    let economy = Economy::start().await;
    let rig = Rig::with(&[ERP, &with_look_up(&economy, SOON)], |_| ()).await;
    let _delivering = rig.deliver();
    let created = erp_invoice("INV-1", 1, "1.50");
    rig.send(std::slice::from_ref(&created)).await;
    let mut lane = rig.lane("erp").await;
    lane.step().await;
    come_to(&rig, "delivered 1").await;
    let there = economy.invoices().await;
    economy.delete(&there[0].id).await;

    // Neither a repeat nor a change nor a replay brings it back.
    rig.send(&[again(&created), erp_invoice("INV-1", 2, "1.50")]).await;
    lane.step().await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(states(&rig).await, "delivered 1");
    assert_eq!(economy.invoices().await, []);
    assert_eq!(rig.count("select count(*) from deliveries").await, 1);

    let store = &rig.tools.store;
    let why = Actor { name: "ann", reason: "deleted in the economy system by mistake" };
    let reissue = async |id| deliveries::reissue(store, &rig.config.targets, id, false, why).await;
    let [old] = deliveries::list(store, &Filter::default(), 9).await.unwrap().try_into().unwrap();
    // A retry is not it, and a re-issue needs a void and its reason first.
    let retried = deliveries::retry(store, &[old.delivery_id], &Filter::default(), why).await;
    assert!(retried.unwrap().deliveries.is_empty());
    reissue(old.delivery_id).await.unwrap_err();
    deliveries::void(store, old.delivery_id, why).await.unwrap();
    let ticked = "select count(*) from invoices where ticked_off_at is not null";
    assert_eq!(rig.count(ticked).await, 0);

    // Many at once, and again: one of them makes one.
    let many = futures_util::future::join_all((0..8).map(|_| reissue(old.delivery_id))).await;
    assert_eq!(many.iter().filter(|made| made.is_ok()).count(), 1);
    come_to(&rig, "delivered 1, voided 1").await;
    reissue(old.delivery_id).await.unwrap_err();
    let there = economy.invoices().await;
    assert_eq!(there.len(), 1);
    let [_, new] =
        deliveries::list(store, &Filter::default(), 9).await.unwrap().try_into().unwrap();
    assert_eq!((new.generation, new.remote_id.as_deref()), (1, Some(there[0].id.as_str())));
    assert_ne!(new.idempotency_key, old.idempotency_key);
    assert_eq!(rig.count(ticked).await, 1);

    // Voided by mistake, while it stands there: the target is asked, and says so.
    deliveries::void(store, new.delivery_id, why).await.unwrap();
    let refused = reissue(new.delivery_id).await.unwrap_err().to_string();
    assert!(refused.contains(&there[0].id), "{refused}");
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(economy.invoices().await.len(), 1);
}

#[tokio::test]
async fn an_answer_from_memory_is_not_taken_for_an_invoice() {
    let economy = Economy::start().await;
    let rig = Rig::with(&[ERP, &with_look_up(&economy, "first_delay_ms = 1500")], |_| ()).await;
    economy.faults(json!({"timeout_after_create_every": 1, "hang_ms": 1000})).await;
    let _delivering = rig.deliver();
    receive(&rig, 1, 1).await;
    come_to(&rig, "uncertain 1").await;
    economy.faults(json!({"clear": true})).await;
    // Somebody deletes it by hand before we come again with the same key.
    let there = economy.invoices().await;
    economy.delete(&there[0].id).await;
    come_to(&rig, "failed 1").await;
    assert_eq!(rig.text("select reason from dead_letters").await, "delivery_gone");
    assert_eq!(economy.invoices().await, []);
}

#[tokio::test]
async fn what_cannot_be_written_holds_nobody_up() {
    const INVOICES: u32 = 80;
    let economy = Economy::start().await;
    // Of all but the last, something that is no JSON.
    let target = with_look_up(&economy, SOON).replace(
        "body = '''",
        &format!("body = '''{{% if number is startingwith('INV-') and number != 'INV-{}' %}}?{{% endif %}}", INVOICES - 1),
    );
    let rig = Rig::with(&[ERP, &target], |_| ()).await;
    receive(&rig, 0, INVOICES).await;
    let _delivering = rig.deliver();
    // Had it to wait for something new after each, this would take twice as long.
    let expected = format!("delivered 1, failed {}", INVOICES - 1);
    eventually(&expected, seconds(20), || async { states(&rig).await == expected }).await;
}
