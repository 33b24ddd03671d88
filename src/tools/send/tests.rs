//! Scenarios with the real source code, and some with a receiver.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Request, StatusCode},
    routing::post,
};
use bytes::Bytes;
use time::OffsetDateTime;

use super::{
    SendOptions, StopSignals,
    generate::{Run, Webhook},
    plan::{Counts, Step, StepKind},
    post::Poster,
    predict::{PredictedOutcome, Prediction, headers_with_invalid_signature, predict},
    report::{SendOutcome, SendReport},
    scenario::{ScenarioError, Selection, SendScenario},
    send,
};
use crate::{
    app::Components,
    config::LoadOptions,
    domain::{ReasonCode, SourceName},
    sources::{Rejection, WebhookRequest},
};

fn config() -> Components {
    Components::load(LoadOptions { development: true, ..LoadOptions::default() }).unwrap().1
}

fn run() -> Run {
    Run { id: "20260131-235959-1a2b3c".to_owned(), seed: 7 }
}

fn source_name(name: &str) -> SourceName {
    name.parse().unwrap()
}

fn scenario(config: &Components, name: &str, counts: Counts) -> SendScenario {
    let counts = possible(name, counts);
    let source_name = source_name(name);
    let source = &config.sources[&source_name];
    SendScenario::generated(source, &source_name, &Selection::default(), &run(), counts).unwrap()
}

/// Callbacks and lines of a file have no version, so none can be late.
fn possible(name: &str, counts: Counts) -> Counts {
    if matches!(name, "robot" | "vendors") { Counts { late: 0, ..counts } } else { counts }
}

fn prediction(config: &Components, scenario: &SendScenario, step: Step) -> Prediction {
    predicted(config, scenario, step).unwrap()
}

fn predicted(
    config: &Components,
    scenario: &SendScenario,
    step: Step,
) -> Result<Prediction, Rejection> {
    let source = &config.sources[&scenario.source];
    predict(source, &scenario.source, &scenario.tenant, &scenario.webhook(step))
}

const COUNTS: Counts = Counts { unique: 60, duplicates: 10, late: 10, poison: 10, forged: 2 };
/// Each source, and how small and large its generated bodies may be.
const SOURCES: [(&str, usize, usize); 12] = [
    ("shopify", 12_000, 30_000),
    ("woocommerce", 1_800, 5_000),
    ("erp", 300, 2_000),
    ("stripe", 500, 2_500),
    ("standard_webhooks", 300, 2_000),
    ("square", 700, 1_000),
    ("quickbooks", 150, 400),
    ("xero", 200, 600),
    ("github", 300, 2_000),
    ("cloudevents", 200, 2_000),
    ("robot", 100, 400),
    ("vendors", 80, 300),
];

#[test]
fn generated_webhook_has_the_predicted_outcome() {
    let config = config();
    for (name, ..) in SOURCES {
        let scenario = scenario(&config, name, COUNTS);
        for step in scenario.plan.steps() {
            if scenario.predicted_outcome(step) == PredictedOutcome::Rejected {
                let refused = predicted(&config, &scenario, step);
                assert!(matches!(refused, Err(Rejection::InvalidFields(_))), "{name} {refused:?}");
                continue;
            }
            let prediction = prediction(&config, &scenario, step);
            if step.kind != StepKind::Forged {
                assert_eq!(
                    prediction.outcome(),
                    scenario.predicted_outcome(step),
                    "{name} {step:?} {:?}",
                    prediction.mapped
                );
            }
        }
    }
}

#[test]
fn generated_bodies_have_realistic_sizes() {
    let config = config();
    for (name, least, most) in SOURCES {
        let scenario = scenario(&config, name, Counts { unique: 200, ..COUNTS });
        let sizes: Vec<usize> = scenario
            .plan
            .steps()
            .filter(|step| matches!(step.kind, StepKind::Unique | StepKind::Late))
            .map(|step| scenario.webhook(step).body.len())
            .collect();
        let (smallest, largest) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!(least <= *smallest && *largest <= most, "{name}: {smallest} to {largest}");
        let typical = if name == "shopify" { 15_500..19_000 } else { least..most };
        assert!(typical.contains(&mean), "{name}: {mean} on average");
    }
}

#[test]
fn event_keys_differ_except_for_duplicates() {
    let config = config();
    for (name, ..) in SOURCES {
        let scenario = scenario(&config, name, COUNTS);
        let mut known: BTreeMap<String, Step> = BTreeMap::new();
        let refused = |step: &Step| scenario.predicted_outcome(*step) == PredictedOutcome::Rejected;
        for step in scenario.plan.steps().filter(|step| !refused(step)) {
            let key = prediction(&config, &scenario, step).envelope.key.to_string();
            let before = known.get(&key).copied();
            assert_eq!(before.is_some(), step.kind == StepKind::Duplicate, "{name} {step:?}");
            if let Some(before) = before {
                assert_eq!(scenario.webhook(before), scenario.webhook(step));
            }
            known.entry(key).or_insert(step);
        }
    }
}

#[test]
fn late_webhook_has_an_older_version_of_the_same_document() {
    let config = config();
    for (name, ..) in SOURCES {
        let scenario = scenario(&config, name, Counts { late: 130, ..COUNTS });
        for late in &scenario.plan.late {
            let newer = Step { kind: StepKind::Unique, age: 0, ..*late };
            let [late, newer] = [*late, newer].map(|step| prediction(&config, &scenario, step));
            assert!(late.version() < newer.version(), "{name}");
            let source = &config.sources[&scenario.source];
            assert_eq!(source.business_key(&late.envelope), source.business_key(&newer.envelope));
        }
    }
}

#[test]
fn poison_alternates_and_has_its_own_reason() {
    let config = config();
    for (name, reasons) in [("shopify", 3), ("woocommerce", 3), ("erp", 3)] {
        let scenario = scenario(&config, name, Counts { poison: 10, ..COUNTS });
        let poison = scenario.plan.steps().filter(|step| step.kind == StepKind::Poison);
        let mut found: BTreeMap<&str, u32> = BTreeMap::new();
        for step in poison {
            let PredictedOutcome::Dead(reason) = prediction(&config, &scenario, step).outcome()
            else {
                panic!("{name} {step:?} can be applied");
            };
            *found.entry(reason.as_str()).or_default() += 1;
        }
        assert_eq!(found.len(), reasons, "{name}: {found:?}");
    }
}

#[test]
fn forged_signature_is_rejected() {
    let config = config();
    for (name, ..) in SOURCES {
        let scenario = scenario(&config, name, COUNTS);
        let source = &config.sources[&scenario.source];
        let webhook = scenario.webhook(Step { kind: StepKind::Forged, event: 70, age: 0 });
        let received_at = OffsetDateTime::UNIX_EPOCH;
        let headers =
            headers_with_invalid_signature(source, &scenario.tenant, &webhook, received_at);
        let request =
            WebhookRequest { headers: &headers, query: "", body: &webhook.body, received_at };
        assert!(matches!(source.receive(&request), Err(Rejection::InvalidSignature(_))), "{name}");
    }
}

#[test]
fn same_run_gives_the_same_bytes() {
    let config = config();
    for (name, ..) in SOURCES {
        let source_name = source_name(name);
        let bodies = |run: Run| -> Vec<Bytes> {
            let counts = Counts { unique: 30, duplicates: 0, late: 5, poison: 5, forged: 1 };
            let counts = possible(name, counts);
            let source = &config.sources[&source_name];
            let selection = Selection::default();
            let scenario =
                SendScenario::generated(source, &source_name, &selection, &run, counts).unwrap();
            scenario.plan.steps().map(|step| scenario.webhook(step).body).collect()
        };
        let these: HashSet<Bytes> = bodies(run()).into_iter().collect();
        assert!(bodies(run()).iter().all(|body| these.contains(body)), "{name}");
        for other in [Run { seed: 8, ..run() }, Run { id: "other".to_owned(), ..run() }] {
            assert!(bodies(other).iter().all(|body| !these.contains(body)), "{name}");
        }
    }
}

#[test]
fn incompatible_settings_need_a_file() {
    let text = "[sources.other]\nkind = 'generic'\nsecrets = ['env:S']\n\
                [sources.other.order]\nid = '/nr'\ncurrency = '/cur'\ntotal = '/sum'\n";
    let variables = BTreeMap::from([("S".to_owned(), "s".to_owned())]);
    let config = Components::from_toml(text, &variables).unwrap();
    let source_name = source_name("other");
    let source = &config.sources[&source_name];
    let refused =
        SendScenario::generated(source, &source_name, &Selection::default(), &run(), COUNTS);
    assert_eq!(refused.err(), Some(ScenarioError::IncompatibleSettings(source_name.clone())));

    let file = Bytes::from_static(br#"{"nr": 1, "cur": "EUR", "sum": "1.50"}"#);
    let bad = Bytes::from_static(b"{}");
    let files = vec![(file, None), (bad, None)];
    let now = OffsetDateTime::UNIX_EPOCH;
    let scenario =
        SendScenario::files(source, &source_name, Selection::default(), files, 2, now).unwrap();
    let fates: Vec<PredictedOutcome> =
        scenario.plan.steps().map(|step| scenario.predicted_outcome(step)).collect();
    let dead = PredictedOutcome::Dead(ReasonCode::MissingField);
    assert_eq!(fates, [PredictedOutcome::Applied, dead, PredictedOutcome::Applied, dead]);
}

#[test]
fn profile_selects_the_payload_kind() {
    for (profile, late, topic) in [("bigcommerce", 3, "store/order"), ("etsy", 0, "order.")] {
        let text = format!(
            "[sources.shop]\nkind = 'standard_webhooks'\nprofile = '{profile}'\nsecrets = ['env:S']\n"
        );
        let secret = "whsec_c3RhbmRhcmQtd2ViaG9va3MtZGV2ZWxvcG1lbnQ=";
        let variables = BTreeMap::from([("S".to_owned(), secret.to_owned())]);
        let config = Components::from_toml(&text, &variables).unwrap();
        let scenario = scenario(&config, "shop", Counts { late, ..COUNTS });
        for step in scenario.plan.steps().filter(|step| step.kind != StepKind::Forged) {
            let prediction = prediction(&config, &scenario, step);
            assert_eq!(
                prediction.outcome(),
                scenario.predicted_outcome(step),
                "{profile} {step:?} {:?}",
                prediction.mapped
            );
            // A truncated body has no topic.
            let broken = step.kind == StepKind::Poison;
            assert!(
                broken || prediction.envelope.topic.starts_with(topic),
                "{:?}",
                prediction.envelope
            );
        }
    }
}

#[test]
fn unsupported_topic_is_named_in_the_error() {
    let config = config();
    let source_name = source_name("shopify");
    let source = &config.sources[&source_name];
    let selection = Selection { topic: Some("orders/eaten".to_owned()), tenant: None };
    let refused =
        SendScenario::generated(source, &source_name, &selection, &run(), COUNTS).unwrap_err();
    assert!(refused.to_string().contains("orders/eaten"), "{refused}");
    let refused = SendScenario::files(
        source,
        &source_name,
        Selection::default(),
        Vec::new(),
        1,
        OffsetDateTime::UNIX_EPOCH,
    );
    assert_eq!(refused.err(), Some(ScenarioError::TopicMissing("shopify")));
}

/// Responds like the receiver, except for a 503 to the first request.
async fn receiver(config: Components) -> reqwest::Url {
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let handle =
        |State((config, first)): State<(Components, Arc<std::sync::atomic::AtomicBool>)>,
         request: Request<axum::body::Body>| async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                let later = HeaderMap::from_iter([(http::header::RETRY_AFTER, 0.into())]);
                return (StatusCode::SERVICE_UNAVAILABLE, later);
            }
            let received_at = OffsetDateTime::UNIX_EPOCH;
            let request =
                WebhookRequest { headers: &parts.headers, query: "", body: &body, received_at };
            let status = match config.sources[&source_name("shopify")].receive(&request) {
                Ok(_) => StatusCode::OK,
                Err(_) => StatusCode::UNAUTHORIZED,
            };
            (status, HeaderMap::new())
        };
    let router = Router::new().route("/hooks/shopify", post(handle)).with_state((config, first));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/shopify", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url.parse().unwrap()
}

const OPTIONS: SendOptions =
    SendOptions { concurrency: 8, rate: NonZeroU32::new(10_000), settle: Duration::from_millis(1) };

#[tokio::test]
async fn send_reports_all_webhooks() {
    let config = config();
    let counts = Counts { unique: 60, duplicates: 10, late: 6, poison: 5, forged: 3 };
    let scenario = scenario(&config, "shopify", counts);
    let source = &config.sources[&scenario.source];
    let poster = Poster::new(receiver(config.clone()).await, 8, true).unwrap();
    let sent = send(&scenario, source, &poster, OPTIONS, &StopSignals::default(), || {}).await;

    let report = SendReport::new(&scenario, &poster, &sent, None);
    assert_eq!(report.outcome(), SendOutcome::All, "{report:?}");
    assert_eq!(report.responses, BTreeMap::from([("200".to_owned(), 81), ("401".to_owned(), 3)]));
    let expected = &report.expected;
    let outcomes = [expected.applied, expected.duplicate, expected.stale, expected.dead];
    assert_eq!(outcomes, [60, 10, 6, 5]);
    // The one with the 503 may have been published.
    assert_eq!((report.resends, expected.uncertain, expected.exact), (1, 1, false));
    assert!(report.table().contains("expected on record"));
}

#[tokio::test]
async fn send_without_receiver_reports_no_responses() {
    let config = config();
    let scenario = scenario(&config, "shopify", Counts { unique: 3, ..Counts::default() });
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/shopify", free.local_addr().unwrap());
    drop(free);
    let poster = Poster::new(url.parse().unwrap(), 1, false).unwrap();
    let source = &config.sources[&scenario.source];
    let sent = send(&scenario, source, &poster, OPTIONS, &StopSignals::default(), || {}).await;
    let report = SendReport::new(&scenario, &poster, &sent, None);
    assert_eq!(report.outcome(), SendOutcome::None);
    assert_eq!(report.responses, BTreeMap::from([("none".to_owned(), 3)]));
    assert_eq!(report.expected.uncertain, 0);
}

#[tokio::test]
async fn stopped_send_reports_unsent_webhooks() {
    let config = config();
    let scenario = scenario(&config, "shopify", Counts { unique: 9, ..Counts::default() });
    let poster = Poster::new(receiver(config.clone()).await, 1, false).unwrap();
    let source = &config.sources[&scenario.source];
    let stop = StopSignals::default();
    let options = SendOptions { concurrency: 1, ..OPTIONS };
    let sent =
        send(&scenario, source, &poster, options, &stop, || stop.stop_sending.cancel()).await;
    let report = SendReport::new(&scenario, &poster, &sent, None);
    assert_eq!((report.responses.get("503"), report.unsent), (Some(&1), 8));
}

#[test]
fn forged_token_is_rejected() {
    for method in ["bearer", "basic"] {
        let text = format!(
            "[sources.inbox]\nkind = 'generic'\nsecrets = ['env:S']\nauthentication = '{method}'"
        );
        let variables = BTreeMap::from([("S".to_owned(), "user:token".to_owned())]);
        let config = Components::from_toml(&text, &variables).unwrap();
        let (source_name, source) = config.sources.iter().next().unwrap();
        let webhook = Webhook {
            topic: String::new(),
            event_id: "1".to_owned(),
            triggered_at: OffsetDateTime::UNIX_EPOCH,
            body: Bytes::from_static(b"{}"),
        };
        assert!(predict(source, source_name, "", &webhook).is_ok(), "{method}");
        let headers =
            headers_with_invalid_signature(source, "", &webhook, OffsetDateTime::UNIX_EPOCH);
        let request = WebhookRequest {
            headers: &headers,
            query: "",
            body: &webhook.body,
            received_at: OffsetDateTime::UNIX_EPOCH,
        };
        assert!(
            matches!(source.receive(&request), Err(Rejection::InvalidSignature(_))),
            "{method}"
        );
    }
}
