//! Operator actions on deliveries: void, re-issue and retry, and the dead letters of failed ones.

mod actions;
mod commands;
mod concurrency;
mod constraints;
mod dead_letters;
mod ordering;
mod uncertain;

use std::time::Duration;

use sqlx::PgPool;
use tallyhook::{
    domain::{DeliveryState, ReasonCode},
    review::{
        Selection, deliveries as desk,
        deliveries::{DeliveryError, ReissueResult},
    },
    store::{
        audit_log::Actor,
        deliveries,
        deliveries::{AttemptOutcome, AttemptRecord, ClaimRequest, Delivery, DeliveryFilter},
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{ERP, TestApp, erp_invoice};

const ANNA: Actor<'static> = Actor { name: "anna", comment: "deleted there by hand" };
/// Two destinations that mirror invoices, and one that only receives events. `economy` stands last,
/// so that a test can append settings to it.
const TARGETS: &str = "
[destinations.ledger]
kind = 'http'
events = ['invoice.created']
url = 'http://127.0.0.1:9/invoices'
body = '{\"number\": {{ number|tojson }}}'
allow_private_addresses = true
[destinations.events]
kind = 'rabbitmq'
events = ['invoice.created', 'invoice.updated']
[destinations.accounting]
kind = 'http'
events = ['invoice.created']
url = 'http://127.0.0.1:9/invoices'
body = '{\"number\": {{ number|tojson }}}'
allow_private_addresses = true
";
const REQUEST: &str = r#"{"number":"I-1"}"#;
const LEASE: Duration = Duration::from_mins(1);
const TICKED: &str = "select count(*) from invoices where mirrored_at is not null";
const LETTER: &str = "select concat_ws(' ', state, outcome, reason) from dead_letters";

/// An app with one applied invoice, which has a delivery to each destination.
async fn with_an_invoice() -> TestApp {
    with_targets(TARGETS).await
}

async fn with_targets(targets: &str) -> TestApp {
    let app = TestApp::with(&[ERP, targets], |_| ()).await;
    app.publish_all(&[erp_invoice("I-1", 1, "10.00")]).await;
    app.consumer("erp").await.drain(1).await;
    app
}

/// The newest delivery to a destination.
async fn to(app: &TestApp, target: &str) -> Delivery {
    let filter =
        DeliveryFilter { destination: Some(target.to_owned()), ..DeliveryFilter::default() };
    desk::list(&app.tools.store, &filter, 100).await.unwrap().pop().unwrap()
}

async fn one(app: &TestApp, id: Uuid) -> Delivery {
    desk::show(&app.tools.store, id).await.unwrap().delivery
}

async fn state(app: &TestApp, id: Uuid) -> String {
    one(app, id).await.state
}

/// Claims a delivery as a worker does; returns the end of the lease.
async fn claim(app: &TestApp, delivery: &Delivery, lease: Duration) -> OffsetDateTime {
    let mut tx = app.tools.store.begin().await.unwrap();
    let due = deliveries::lock_due(&mut tx, &delivery.destination, 100).await.unwrap();
    assert!(due.iter().any(|due| due.delivery_id == delivery.delivery_id), "not due: {due:?}");
    let until = deliveries::claim(&mut tx, &[claimed(delivery)], lease).await.unwrap();
    tx.commit().await.unwrap();
    until
}

fn claimed(delivery: &Delivery) -> ClaimRequest {
    ClaimRequest {
        delivery_id: delivery.delivery_id,
        idempotency_key: delivery.key().unwrap(),
        request: REQUEST.to_owned(),
    }
}

fn attempt(
    id: Uuid,
    until: Option<OffsetDateTime>,
    outcome: AttemptOutcome,
    status: Option<u16>,
) -> AttemptRecord {
    let response = status.map(|status| format!("{{\"answered\":{status}}}"));
    AttemptRecord { delivery_id: id, lease_until: until, outcome, status, response }
}

async fn settle(app: &TestApp, attempt: AttemptRecord) -> usize {
    let mut tx = app.tools.store.begin().await.unwrap();
    let settled = deliveries::record_attempts(&mut tx, &[attempt]).await.unwrap();
    tx.commit().await.unwrap();
    settled.len()
}

/// Claims a delivery and records an outcome.
async fn send(app: &TestApp, id: Uuid, outcome: AttemptOutcome, status: Option<u16>) {
    let until = claim(app, &one(app, id).await, LEASE).await;
    assert_eq!(settle(app, attempt(id, Some(until), outcome, status)).await, 1);
}

fn delivered(remote_id: &str) -> AttemptOutcome {
    AttemptOutcome::Delivered { remote_id: Some(remote_id.to_owned()), warning: None }
}

fn uncertain() -> AttemptOutcome {
    AttemptOutcome::Retry {
        may_be_delivered: true,
        counts_as_attempt: true,
        delay: Duration::ZERO,
        error: "no answer".to_owned(),
    }
}

fn failed(reason: ReasonCode) -> AttemptOutcome {
    AttemptOutcome::Failed { reason, error: "it will not".to_owned() }
}

async fn void(app: &TestApp, id: Uuid) -> Result<Delivery, DeliveryError> {
    desk::void(&app.tools.store, id, ANNA).await
}

async fn reissue(
    app: &TestApp,
    id: Uuid,
    confirmed_gone: bool,
) -> Result<ReissueResult, DeliveryError> {
    desk::reissue(&app.tools.store, &app.components.destinations, id, confirmed_gone, ANNA).await
}

async fn retry(app: &TestApp, ids: &[Uuid]) -> desk::RetryResult {
    let filter = DeliveryFilter {
        ids: ids.to_vec(),
        state: Some(DeliveryState::Failed),
        ..DeliveryFilter::default()
    };
    let selection = Selection::new(filter, false).unwrap();
    let selected = desk::select(&app.tools.store, selection).await.unwrap();
    desk::retry(&app.tools.store, &selected, ANNA).await.unwrap()
}

/// Dead letters agree with deliveries, and invoices with mirrors.
async fn assert_sound(app: &TestApp) {
    let totals = app.totals().await;
    let wrong = [
        totals.mirrored_without_delivery,
        totals.delivered_not_marked_mirrored,
        totals.dead_letters_contradicting_delivery,
        totals.failed_deliveries_without_dead_letter,
    ];
    assert_eq!(wrong, [0; 4], "{totals:?}");
}

/// The SQLSTATE and the constraint with which a statement is refused.
async fn refusal(db: &PgPool, sql: &str) -> (String, String) {
    let error = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(db).await.expect_err(sql);
    let error = error.as_database_error().unwrap();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    (text(error.code().as_deref()), text(error.constraint()))
}
