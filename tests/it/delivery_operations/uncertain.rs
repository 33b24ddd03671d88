//! A re-issue while the destination may still have the first invoice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, http::StatusCode};
use tallyhook::review::{
    self,
    deliveries::{DeliveryError, LookupFinding},
};
use tokio::net::TcpListener;

use super::{
    ANNA, DESTINATIONS, app_with_destinations, app_with_invoice, commands::Binary, delivered,
    newest_delivery, reissue, send, void,
};

#[tokio::test]
async fn reissue_of_uncertain_delivery_needs_confirmation() {
    let app = app_with_invoice().await;
    let [queue, accounting] =
        [newest_delivery(&app, "events").await, newest_delivery(&app, "accounting").await];
    send(&app, queue.delivery_id, delivered("1"), None).await;
    send(&app, accounting.delivery_id, delivered("INV-7"), Some(201)).await;
    // A delivery that was never sent created nothing.
    let unsent = newest_delivery(&app, "ledger").await;
    for id in [queue.delivery_id, accounting.delivery_id, unsent.delivery_id] {
        void(&app, id).await.unwrap();
    }
    for (id, why) in [(queue.delivery_id, "queue"), (accounting.delivery_id, "no look-up")] {
        match reissue(&app, id, false).await {
            Err(DeliveryError::MayStillExist { why: cause, .. }) => {
                assert!(cause.contains(why), "{cause}");
            }
            other => panic!("{other:?}"),
        }
    }
    let unconfigured = BTreeMap::new();
    match review::deliveries::reissue(
        &app.context.store,
        &unconfigured,
        queue.delivery_id,
        false,
        ANNA,
    )
    .await
    {
        Err(DeliveryError::MayStillExist { why, .. }) => {
            assert!(why.contains("not configured"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(app.count("select count(*) from deliveries").await, 3);
    let reissued = reissue(&app, unsent.delivery_id, false).await.unwrap();
    assert!(matches!(reissued.lookup, LookupFinding::Unknown { .. }), "{reissued:?}");
    let reissued = reissue(&app, queue.delivery_id, true).await.unwrap();
    assert!(reissued.confirmed_gone && matches!(reissued.lookup, LookupFinding::Unknown { .. }));
    let query = "select string_agg((detail->'lookup'->>'result') || ' '
                    || (detail->>'confirmed_gone'), ', ' order by audit_id)
                from audit_log where action = 'reissue'";
    assert_eq!(app.text(query).await, "unknown false, unknown true");
}

/// An accounting system that records look-ups and returns a fixed response.
#[derive(Clone)]
struct LookupServer {
    settings: String,
    response: Arc<Mutex<(StatusCode, String)>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl LookupServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accounting = Self {
            settings: format!(
                "[destinations.accounting.lookup]\n\
                 url = 'http://{address}/invoices?number={{number}}&vendor={{vendor}}'\n\
                 id = '/invoices/0/id'\n"
            ),
            response: Arc::new(Mutex::new((StatusCode::OK, String::new()))),
            requests: Arc::default(),
        };
        let this = accounting.clone();
        let router = Router::new().fallback(move |request: axum::extract::Request| {
            let path = request.uri().path_and_query().map(ToString::to_string);
            this.requests.lock().unwrap().push(path.unwrap_or_default());
            let response = this.response.lock().unwrap().clone();
            async move { response }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        accounting
    }

    fn respond_with(&self, status: u16, body: &str) {
        *self.response.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), body.to_owned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reissue_looks_the_invoice_up_at_the_destination() {
    let accounting = LookupServer::start().await;
    let destinations = format!("{DESTINATIONS}{}", accounting.settings);
    let app = app_with_destinations(&destinations).await;
    let id = newest_delivery(&app, "accounting").await.delivery_id;
    send(&app, id, delivered("INV-7"), Some(201)).await;
    // There is no lookup for a delivery that is not voided.
    assert!(matches!(reissue(&app, id, false).await, Err(DeliveryError::Refused(_))));
    assert_eq!(accounting.requests.lock().unwrap().len(), 0);
    void(&app, id).await.unwrap();

    accounting.respond_with(200, r#"{"invoices":[{"id":"INV-7"}]}"#);
    match reissue(&app, id, false).await {
        Err(error @ DeliveryError::StillAtDestination { .. }) => {
            assert!(error.to_string().contains("accounting has it as INV-7"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(*accounting.requests.lock().unwrap(), ["/invoices?number=I-1&vendor=ACME"]);
    for (status, body) in [(500, ""), (200, "nonsense"), (200, r#"{"invoices":[{}]}"#)] {
        accounting.respond_with(status, body);
        let unknown = reissue(&app, id, false).await;
        assert!(
            matches!(unknown, Err(DeliveryError::MayStillExist { .. })),
            "{status} {body}: {unknown:?}"
        );
    }
    assert_eq!(app.count("select count(*) from audit_log where action = 'reissue'").await, 0);

    accounting.respond_with(200, r#"{"invoices":[]}"#);
    let new = reissue(&app, id, false).await.unwrap();
    assert_eq!(new.lookup, LookupFinding::NotFound);
    // A confirmation overrides the lookup, and the audit log records that.
    let new = new.delivery.delivery_id;
    send(&app, new, delivered("INV-8"), Some(201)).await;
    void(&app, new).await.unwrap();
    accounting.respond_with(200, r#"{"invoices":[{"id":"INV-8"}]}"#);
    let binary = Binary::on(&app, &destinations);
    let new = new.to_string();
    let refused = binary.run(&["reissue", &new, "--comment", "why"]);
    assert!(refused.0 == 1 && refused.1.contains("as INV-8"), "{refused:?}");
    let confirmed = binary.run(&["reissue", &new, "--comment", "why", "--gone"]);
    assert!(
        confirmed.0 == 0 && confirmed.1.contains("WARNING: accounting still shows it as INV-8"),
        "{confirmed:?}"
    );
    let query = "select string_agg(concat_ws(' ', detail->'lookup'->>'result',
                    detail->'lookup'->>'remote_id', detail->>'confirmed_gone',
                    detail->>'overrides_lookup'), ', ' order by audit_id)
                from audit_log where action = 'reissue'";
    assert_eq!(app.text(query).await, "not_found false false, found INV-8 true true");
}

#[tokio::test]
async fn reissue_of_unsent_delivery_is_rejected_if_lookup_finds_it() {
    let accounting = LookupServer::start().await;
    let app = app_with_destinations(&format!("{DESTINATIONS}{}", accounting.settings)).await;
    let id = newest_delivery(&app, "accounting").await.delivery_id;
    void(&app, id).await.unwrap();
    accounting.respond_with(200, r#"{"invoices":[{"id":"INV-1"}]}"#);
    let refused = reissue(&app, id, false).await;
    assert!(matches!(refused, Err(DeliveryError::StillAtDestination { .. })), "{refused:?}");
    accounting.respond_with(503, "");
    assert!(reissue(&app, id, false).await.is_ok());
}
