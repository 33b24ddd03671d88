//! Campaigns against the real adapters, and one against a receiver.

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
    Pace, Stop,
    campaign::{Campaign, Choice, Unsendable},
    generate::{Run, Webhook},
    plan::{Counts, Part, Step},
    post::Poster,
    rehearse::{Fate, Rehearsal, forged_headers, rehearse},
    report::{Report, Verdict},
    send,
};
use crate::{
    config::{Config, LoadOptions},
    domain::{ReasonCode, SourceName},
    sources::{Rejection, WebhookRequest},
};

fn config() -> Config {
    Config::load(LoadOptions { development: true, ..LoadOptions::default() }).unwrap()
}

fn run() -> Run {
    Run { id: "20260131-235959-1a2b3c".to_owned(), seed: 7 }
}

fn source(name: &str) -> SourceName {
    name.parse().unwrap()
}

fn campaign(config: &Config, name: &str, counts: Counts) -> Campaign {
    let counts = possible(name, counts);
    let source = source(name);
    let adapter = &config.sources[&source];
    Campaign::generated(adapter, &source, &Choice::default(), &run(), counts).unwrap()
}

/// A robot's call and a file's line tell no version, so none can be late.
fn possible(name: &str, counts: Counts) -> Counts {
    if matches!(name, "robot" | "vendors") { Counts { late: 0, ..counts } } else { counts }
}

fn rehearsal(config: &Config, campaign: &Campaign, step: Step) -> Rehearsal {
    rehearsed(config, campaign, step).unwrap()
}

fn rehearsed(config: &Config, campaign: &Campaign, step: Step) -> Result<Rehearsal, Rejection> {
    let adapter = &config.sources[&campaign.source];
    rehearse(adapter, &campaign.source, &campaign.tenant, &campaign.webhook(step))
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
fn what_is_generated_has_the_fate_that_is_expected() {
    let config = config();
    for (name, ..) in SOURCES {
        let campaign = campaign(&config, name, COUNTS);
        for step in campaign.plan.steps() {
            if campaign.fate(step) == Fate::Refused {
                let refused = rehearsed(&config, &campaign, step);
                assert!(matches!(refused, Err(Rejection::InvalidFields(_))), "{name} {refused:?}");
                continue;
            }
            let told = rehearsal(&config, &campaign, step);
            if step.part != Part::Forged {
                assert_eq!(told.fate(), campaign.fate(step), "{name} {step:?} {:?}", told.mapped);
            }
        }
    }
}

#[test]
fn sizes_are_realistic() {
    let config = config();
    for (name, least, most) in SOURCES {
        let campaign = campaign(&config, name, Counts { unique: 200, ..COUNTS });
        let sizes: Vec<usize> = campaign
            .plan
            .steps()
            .filter(|step| matches!(step.part, Part::Unique | Part::Late))
            .map(|step| campaign.webhook(step).body.len())
            .collect();
        let (smallest, largest) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!(least <= *smallest && *largest <= most, "{name}: {smallest} to {largest}");
        let typical = if name == "shopify" { 15_500..19_000 } else { least..most };
        assert!(typical.contains(&mean), "{name}: {mean} on average");
    }
}

#[test]
fn events_are_told_apart_and_repeats_are_not() {
    let config = config();
    for (name, ..) in SOURCES {
        let campaign = campaign(&config, name, COUNTS);
        let mut known: BTreeMap<String, Step> = BTreeMap::new();
        let refused = |step: &Step| campaign.fate(*step) == Fate::Refused;
        for step in campaign.plan.steps().filter(|step| !refused(step)) {
            let key = rehearsal(&config, &campaign, step).envelope.key.to_string();
            let before = known.get(&key).copied();
            assert_eq!(before.is_some(), step.part == Part::Duplicate, "{name} {step:?}");
            if let Some(before) = before {
                assert_eq!(campaign.webhook(before), campaign.webhook(step));
            }
            known.entry(key).or_insert(step);
        }
    }
}

#[test]
fn what_is_late_tells_an_older_version_of_the_same_document() {
    let config = config();
    for (name, ..) in SOURCES {
        let campaign = campaign(&config, name, Counts { late: 130, ..COUNTS });
        for late in &campaign.plan.late {
            let newer = Step { part: Part::Unique, age: 0, ..*late };
            let [late, newer] = [*late, newer].map(|step| rehearsal(&config, &campaign, step));
            assert!(late.version() < newer.version(), "{name}");
            let adapter = &config.sources[&campaign.source];
            assert_eq!(adapter.business_key(&late.envelope), adapter.business_key(&newer.envelope));
        }
    }
}

#[test]
fn every_poison_is_there_and_dies_of_its_own_reason() {
    let config = config();
    for (name, reasons) in [("shopify", 3), ("woocommerce", 3), ("erp", 3)] {
        let campaign = campaign(&config, name, Counts { poison: 10, ..COUNTS });
        let poison = campaign.plan.steps().filter(|step| step.part == Part::Poison);
        let mut found: BTreeMap<&str, u32> = BTreeMap::new();
        for step in poison {
            let Fate::Dead(reason) = rehearsal(&config, &campaign, step).fate() else {
                panic!("{name} {step:?} can be applied");
            };
            *found.entry(reason.as_str()).or_default() += 1;
        }
        assert_eq!(found.len(), reasons, "{name}: {found:?}");
    }
}

#[test]
fn a_forged_signature_is_refused() {
    let config = config();
    for (name, ..) in SOURCES {
        let campaign = campaign(&config, name, COUNTS);
        let adapter = &config.sources[&campaign.source];
        let webhook = campaign.webhook(Step { part: Part::Forged, event: 70, age: 0 });
        let received_at = OffsetDateTime::UNIX_EPOCH;
        let headers = forged_headers(adapter, &campaign.tenant, &webhook, received_at);
        let call =
            WebhookRequest { headers: &headers, query: "", body: &webhook.body, received_at };
        assert!(matches!(adapter.receive(&call), Err(Rejection::InvalidSignature(_))), "{name}");
    }
}

#[test]
fn the_same_run_has_the_same_bytes_and_another_has_others() {
    let config = config();
    for (name, ..) in SOURCES {
        let source = source(name);
        let bodies = |run: Run| -> Vec<Bytes> {
            let counts = Counts { unique: 30, duplicates: 0, late: 5, poison: 5, forged: 1 };
            let counts = possible(name, counts);
            let adapter = &config.sources[&source];
            let choice = Choice::default();
            let campaign = Campaign::generated(adapter, &source, &choice, &run, counts).unwrap();
            campaign.plan.steps().map(|step| campaign.webhook(step).body).collect()
        };
        let these: HashSet<Bytes> = bodies(run()).into_iter().collect();
        assert!(bodies(run()).iter().all(|body| these.contains(body)), "{name}");
        for other in [Run { seed: 8, ..run() }, Run { id: "other".to_owned(), ..run() }] {
            assert!(bodies(other).iter().all(|body| !these.contains(body)), "{name}");
        }
    }
}

#[test]
fn a_source_of_another_shape_needs_a_file() {
    let text = "[sources.other]\nkind = 'generic'\nsecrets = ['env:S']\n\
                [sources.other.order]\nid = '/nr'\ncurrency = '/cur'\ntotal = '/sum'\n";
    let variables = BTreeMap::from([("S".to_owned(), "s".to_owned())]);
    let config = Config::from_toml(text, &variables).unwrap();
    let source = source("other");
    let adapter = &config.sources[&source];
    let refused = Campaign::generated(adapter, &source, &Choice::default(), &run(), COUNTS);
    assert_eq!(refused.err(), Some(Unsendable::Shape(source.clone())));

    let file = Bytes::from_static(br#"{"nr": 1, "cur": "EUR", "sum": "1.50"}"#);
    let bad = Bytes::from_static(b"{}");
    let files = vec![(file, None), (bad, None)];
    let now = OffsetDateTime::UNIX_EPOCH;
    let campaign = Campaign::files(adapter, &source, Choice::default(), files, 2, now).unwrap();
    let fates: Vec<Fate> = campaign.plan.steps().map(|step| campaign.fate(step)).collect();
    let dead = Fate::Dead(ReasonCode::MissingField);
    assert_eq!(fates, [Fate::Applied, dead, Fate::Applied, dead]);
}

#[test]
fn a_profile_decides_which_shape_a_source_takes() {
    for (profile, late, topic) in [("bigcommerce", 3, "store/order"), ("etsy", 0, "order.")] {
        let text = format!(
            "[sources.shop]\nkind = 'standard_webhooks'\nprofile = '{profile}'\nsecrets = ['env:S']\n"
        );
        let secret = "whsec_c3RhbmRhcmQtd2ViaG9va3MtZGV2ZWxvcG1lbnQ=";
        let variables = BTreeMap::from([("S".to_owned(), secret.to_owned())]);
        let config = Config::from_toml(&text, &variables).unwrap();
        let campaign = campaign(&config, "shop", Counts { late, ..COUNTS });
        for step in campaign.plan.steps().filter(|step| step.part != Part::Forged) {
            let told = rehearsal(&config, &campaign, step);
            assert_eq!(told.fate(), campaign.fate(step), "{profile} {step:?} {:?}", told.mapped);
            // A body that breaks off tells no topic.
            let broken = step.part == Part::Poison;
            assert!(broken || told.envelope.topic.starts_with(topic), "{:?}", told.envelope);
        }
    }
}

#[test]
fn a_topic_that_nobody_generates_is_named() {
    let config = config();
    let source = source("shopify");
    let adapter = &config.sources[&source];
    let choice = Choice { topic: Some("orders/eaten".to_owned()), tenant: None };
    let refused = Campaign::generated(adapter, &source, &choice, &run(), COUNTS).unwrap_err();
    assert!(refused.to_string().contains("orders/eaten"), "{refused}");
    let refused = Campaign::files(
        adapter,
        &source,
        Choice::default(),
        Vec::new(),
        1,
        OffsetDateTime::UNIX_EPOCH,
    );
    assert_eq!(refused.err(), Some(Unsendable::TopicMissing("shopify")));
}

/// Answers as the receiver does, but for the first call, which it puts off.
async fn receiver(config: Config) -> reqwest::Url {
    let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let handle = |State((config, first)): State<(Config, Arc<std::sync::atomic::AtomicBool>)>,
                  request: Request<axum::body::Body>| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            let later = HeaderMap::from_iter([(http::header::RETRY_AFTER, 0.into())]);
            return (StatusCode::SERVICE_UNAVAILABLE, later);
        }
        let received_at = OffsetDateTime::UNIX_EPOCH;
        let call = WebhookRequest { headers: &parts.headers, query: "", body: &body, received_at };
        let status = match config.sources[&source("shopify")].receive(&call) {
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

const PACE: Pace =
    Pace { concurrency: 8, rate: NonZeroU32::new(10_000), settle: Duration::from_millis(1) };

#[tokio::test]
async fn a_campaign_is_sent_whole_and_summed_up() {
    let config = config();
    let counts = Counts { unique: 60, duplicates: 10, late: 6, poison: 5, forged: 3 };
    let campaign = campaign(&config, "shopify", counts);
    let adapter = &config.sources[&campaign.source];
    let poster = Poster::new(receiver(config.clone()).await, 8, true).unwrap();
    let sent = send(&campaign, adapter, &poster, PACE, &Stop::default(), || {}).await;

    let report = Report::new(&campaign, &poster, &sent, None);
    assert_eq!(report.verdict(), Verdict::All, "{report:?}");
    assert_eq!(report.answers, BTreeMap::from([("200".to_owned(), 81), ("401".to_owned(), 3)]));
    let expected = &report.expected;
    let outcomes = [expected.applied, expected.duplicate, expected.stale, expected.dead];
    assert_eq!(outcomes, [60, 10, 6, 5]);
    // The one that was put off may have been kept.
    assert_eq!((report.resends, expected.uncertain, expected.exact), (1, 1, false));
    assert!(report.table().contains("expected in the books"));
}

#[tokio::test]
async fn without_a_receiver_nothing_is_as_it_should_be() {
    let config = config();
    let campaign = campaign(&config, "shopify", Counts { unique: 3, ..Counts::default() });
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/shopify", free.local_addr().unwrap());
    drop(free);
    let poster = Poster::new(url.parse().unwrap(), 1, false).unwrap();
    let adapter = &config.sources[&campaign.source];
    let sent = send(&campaign, adapter, &poster, PACE, &Stop::default(), || {}).await;
    let report = Report::new(&campaign, &poster, &sent, None);
    assert_eq!(report.verdict(), Verdict::None);
    assert_eq!(report.answers, BTreeMap::from([("no answer".to_owned(), 3)]));
    assert_eq!(report.expected.uncertain, 0);
}

#[tokio::test]
async fn what_is_stopped_is_summed_up_as_far_as_it_came() {
    let config = config();
    let campaign = campaign(&config, "shopify", Counts { unique: 9, ..Counts::default() });
    let poster = Poster::new(receiver(config.clone()).await, 1, false).unwrap();
    let adapter = &config.sources[&campaign.source];
    let stop = Stop::default();
    let pace = Pace { concurrency: 1, ..PACE };
    let sent = send(&campaign, adapter, &poster, pace, &stop, || stop.gently.cancel()).await;
    let report = Report::new(&campaign, &poster, &sent, None);
    assert_eq!((report.answers.get("503"), report.unsent), (Some(&1), 8));
}

#[test]
fn a_forged_token_is_another_token() {
    for method in ["bearer", "basic"] {
        let text = format!(
            "[sources.inbox]\nkind = 'generic'\nsecrets = ['env:S']\nauthentication = '{method}'"
        );
        let variables = BTreeMap::from([("S".to_owned(), "user:token".to_owned())]);
        let config = Config::from_toml(&text, &variables).unwrap();
        let (source, adapter) = config.sources.iter().next().unwrap();
        let webhook = Webhook {
            topic: String::new(),
            event_id: "1".to_owned(),
            triggered_at: OffsetDateTime::UNIX_EPOCH,
            body: Bytes::from_static(b"{}"),
        };
        assert!(rehearse(adapter, source, "", &webhook).is_ok(), "{method}");
        let headers = forged_headers(adapter, "", &webhook, OffsetDateTime::UNIX_EPOCH);
        let call = WebhookRequest {
            headers: &headers,
            query: "",
            body: &webhook.body,
            received_at: OffsetDateTime::UNIX_EPOCH,
        };
        assert!(matches!(adapter.receive(&call), Err(Rejection::InvalidSignature(_))), "{method}");
    }
}
