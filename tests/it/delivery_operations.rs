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
        self, Selection,
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
/// Two destinations that mirror invoices, and one that only receives events. `accounting` is last,
/// so that a test can append settings to it.
const DESTINATIONS: &str = "
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
const MIRRORED_INVOICES: &str = "select count(*) from invoices where mirrored_at is not null";
const DEAD_LETTER: &str = "select concat_ws(' ', state, outcome, reason) from dead_letters";

/// An app with one applied invoice, which has a delivery to each destination.
async fn app_with_invoice() -> TestApp {
    app_with_destinations(DESTINATIONS).await
}

async fn app_with_destinations(destinations: &str) -> TestApp {
    let app = TestApp::with(&[ERP, destinations], |_| ()).await;
    app.publish_all(&[erp_invoice("I-1", 1, "10.00")]).await;
    app.consumer("erp").await.drain(1).await;
    app
}

/// The newest delivery to a destination.
async fn newest_delivery(app: &TestApp, destination: &str) -> Delivery {
    let filter =
        DeliveryFilter { destination: Some(destination.to_owned()), ..DeliveryFilter::default() };
    review::deliveries::list(&app.context.store, &filter, 100).await.unwrap().pop().unwrap()
}

async fn delivery_by_id(app: &TestApp, id: Uuid) -> Delivery {
    review::deliveries::show(&app.context.store, id).await.unwrap().delivery
}

async fn state(app: &TestApp, id: Uuid) -> String {
    delivery_by_id(app, id).await.state
}

/// Claims a delivery as a worker does; returns the end of the lease.
async fn claim(app: &TestApp, delivery: &Delivery, lease: Duration) -> OffsetDateTime {
    let mut tx = app.context.store.begin().await.unwrap();
    let due = deliveries::lock_due(&mut tx, &delivery.destination, 100).await.unwrap();
    assert!(due.iter().any(|due| due.delivery_id == delivery.delivery_id), "not due: {due:?}");
    let until = deliveries::claim(&mut tx, &[claim_request(delivery)], lease).await.unwrap();
    tx.commit().await.unwrap();
    until
}

fn claim_request(delivery: &Delivery) -> ClaimRequest {
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

async fn record_attempt(app: &TestApp, attempt: AttemptRecord) -> usize {
    let mut tx = app.context.store.begin().await.unwrap();
    let recorded = deliveries::record_attempts(&mut tx, &[attempt]).await.unwrap();
    tx.commit().await.unwrap();
    recorded.len()
}

/// Claims a delivery and records an outcome.
async fn send(app: &TestApp, id: Uuid, outcome: AttemptOutcome, status: Option<u16>) {
    let until = claim(app, &delivery_by_id(app, id).await, LEASE).await;
    assert_eq!(record_attempt(app, attempt(id, Some(until), outcome, status)).await, 1);
}

fn delivered(remote_id: &str) -> AttemptOutcome {
    AttemptOutcome::Delivered { remote_id: Some(remote_id.to_owned()), warning: None }
}

fn uncertain() -> AttemptOutcome {
    AttemptOutcome::Retry {
        may_be_delivered: true,
        counts_as_attempt: true,
        delay: Duration::ZERO,
        error: "no response".to_owned(),
    }
}

fn failed(reason: ReasonCode) -> AttemptOutcome {
    AttemptOutcome::Failed { reason, error: "rejected".to_owned() }
}

async fn void(app: &TestApp, id: Uuid) -> Result<Delivery, DeliveryError> {
    review::deliveries::void(&app.context.store, id, ANNA).await
}

async fn reissue(
    app: &TestApp,
    id: Uuid,
    confirmed_gone: bool,
) -> Result<ReissueResult, DeliveryError> {
    review::deliveries::reissue(
        &app.context.store,
        &app.components.destinations,
        id,
        confirmed_gone,
        ANNA,
    )
    .await
}

async fn retry(app: &TestApp, ids: &[Uuid]) -> review::deliveries::RetryResult {
    let filter = DeliveryFilter {
        ids: ids.to_vec(),
        state: Some(DeliveryState::Failed),
        ..DeliveryFilter::default()
    };
    let selection = Selection::new(filter, false).unwrap();
    let selected = review::deliveries::select(&app.context.store, selection).await.unwrap();
    review::deliveries::retry(&app.context.store, &selected, ANNA).await.unwrap()
}

/// Dead letters agree with deliveries, and invoices with mirrors.
async fn assert_sound(app: &TestApp) {
    let totals = app.totals().await;
    let contradictions = [
        totals.mirrored_without_delivery,
        totals.delivered_not_marked_mirrored,
        totals.dead_letters_contradicting_delivery,
        totals.failed_deliveries_without_dead_letter,
    ];
    assert_eq!(contradictions, [0; 4], "{totals:?}");
}

/// The SQLSTATE and the constraint with which a statement is refused.
async fn refusal(db: &PgPool, sql: &str) -> (String, String) {
    let error = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(db).await.expect_err(sql);
    let error = error.as_database_error().unwrap();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    (text(error.code().as_deref()), text(error.constraint()))
}
