//! A re-issue while the target may still have the first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, http::StatusCode};
use tallyhook::review::deliveries::{self as desk, DeliveryError, LookUp};
use tokio::net::TcpListener;

use super::{
    ANNA, TARGETS, commands::Binary, delivered, reissue, send, to, void, with_an_invoice,
    with_targets,
};

#[tokio::test]
async fn on_doubt_only_a_persons_word_reissues() {
    let rig = with_an_invoice().await;
    let [queue, economy] = [to(&rig, "events").await, to(&rig, "economy").await];
    send(&rig, queue.delivery_id, delivered("1"), None).await;
    send(&rig, economy.delivery_id, delivered("INV-7"), Some(201)).await;
    // A mirror that was never sent is nowhere.
    let unsent = to(&rig, "ledger").await;
    for id in [queue.delivery_id, economy.delivery_id, unsent.delivery_id] {
        void(&rig, id).await.unwrap();
    }
    for (id, why) in [(queue.delivery_id, "queue"), (economy.delivery_id, "no look-up")] {
        match reissue(&rig, id, false).await {
            Err(DeliveryError::Doubt { why: told, .. }) => assert!(told.contains(why), "{told}"),
            other => panic!("{other:?}"),
        }
    }
    let nowhere = BTreeMap::new();
    match desk::reissue(&rig.tools.store, &nowhere, queue.delivery_id, false, ANNA).await {
        Err(DeliveryError::Doubt { why, .. }) => assert!(why.contains("not configured"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.count("select count(*) from deliveries").await, 3);
    let reissued = reissue(&rig, unsent.delivery_id, false).await.unwrap();
    assert!(matches!(reissued.look_up, LookUp::Unknown { .. }), "{reissued:?}");
    let reissued = reissue(&rig, queue.delivery_id, true).await.unwrap();
    assert!(reissued.told_gone && matches!(reissued.look_up, LookUp::Unknown { .. }));
    let told = "select string_agg((detail->'look_up'->>'answer') || ' '
                    || (detail->>'told_gone'), ', ' order by audit_id)
                from audit_log where act = 'reissue'";
    assert_eq!(rig.text(told).await, "unknown false, unknown true");
}

/// An economy system that is asked what it has, and answers as it is told.
#[derive(Clone)]
struct Economy {
    targets: String,
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Economy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let economy = Self {
            targets: format!(
                "[targets.economy.lookup]\n\
                 url = 'http://{address}/invoices?number={{number}}&vendor={{vendor}}'\n\
                 id = '/invoices/0/id'\n"
            ),
            answer: Arc::new(Mutex::new((StatusCode::OK, String::new()))),
            asked: Arc::default(),
        };
        let this = economy.clone();
        let app = Router::new().fallback(move |request: axum::extract::Request| {
            let asked = request.uri().path_and_query().map(ToString::to_string);
            this.asked.lock().unwrap().push(asked.unwrap_or_default());
            let answer = this.answer.lock().unwrap().clone();
            async move { answer }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        economy
    }

    fn answers(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), body.to_owned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_is_asked_whether_it_is_really_gone() {
    let economy = Economy::start().await;
    let targets = format!("{TARGETS}{}", economy.targets);
    let rig = with_targets(&targets).await;
    let id = to(&rig, "economy").await.delivery_id;
    send(&rig, id, delivered("INV-7"), Some(201)).await;
    // Nobody is asked about what is not even voided.
    assert!(matches!(reissue(&rig, id, false).await, Err(DeliveryError::Refused(_))));
    assert_eq!(economy.asked.lock().unwrap().len(), 0);
    void(&rig, id).await.unwrap();

    economy.answers(200, r#"{"invoices":[{"id":"INV-7"}]}"#);
    match reissue(&rig, id, false).await {
        Err(error @ DeliveryError::StillThere { .. }) => {
            assert!(error.to_string().contains("economy shows it as INV-7"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(*economy.asked.lock().unwrap(), ["/invoices?number=I-1&vendor=ACME"]);
    for (status, body) in [(500, ""), (200, "nonsense"), (200, r#"{"invoices":[{}]}"#)] {
        economy.answers(status, body);
        let doubt = reissue(&rig, id, false).await;
        assert!(matches!(doubt, Err(DeliveryError::Doubt { .. })), "{status} {body}: {doubt:?}");
    }
    assert_eq!(rig.count("select count(*) from audit_log where act = 'reissue'").await, 0);

    economy.answers(200, r#"{"invoices":[]}"#);
    let new = reissue(&rig, id, false).await.unwrap();
    assert_eq!(new.look_up, LookUp::Nowhere);
    // A person's word outweighs what it shows, and that goes on record.
    let new = new.delivery.delivery_id;
    send(&rig, new, delivered("INV-8"), Some(201)).await;
    void(&rig, new).await.unwrap();
    economy.answers(200, r#"{"invoices":[{"id":"INV-8"}]}"#);
    let binary = Binary::on(&rig, &targets);
    let new = new.to_string();
    let refused = binary.run(&["reissue", &new, "--reason", "why"]);
    assert!(refused.0 == 1 && refused.1.contains("as INV-8"), "{refused:?}");
    let done = binary.run(&["reissue", &new, "--reason", "why", "--gone"]);
    assert!(done.0 == 0 && done.1.contains("WARNING: economy still shows it as INV-8"), "{done:?}");
    let told = "select string_agg(concat_ws(' ', detail->'look_up'->>'answer',
                    detail->'look_up'->>'remote_id', detail->>'told_gone',
                    detail->>'against_the_look_up'), ', ' order by audit_id)
                from audit_log where act = 'reissue'";
    assert_eq!(rig.text(told).await, "nowhere false false, there INV-8 true true");
}

#[tokio::test]
async fn what_was_never_sent_is_still_refused_if_the_target_shows_it() {
    let economy = Economy::start().await;
    let rig = with_targets(&format!("{TARGETS}{}", economy.targets)).await;
    let id = to(&rig, "economy").await.delivery_id;
    void(&rig, id).await.unwrap();
    economy.answers(200, r#"{"invoices":[{"id":"INV-1"}]}"#);
    let refused = reissue(&rig, id, false).await;
    assert!(matches!(refused, Err(DeliveryError::StillThere { .. })), "{refused:?}");
    economy.answers(503, "");
    assert!(reissue(&rig, id, false).await.is_ok());
}
