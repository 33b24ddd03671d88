//! Calls as Square signs them.

use super::*;

#[test]
fn squares_own_vectors_verify() {
    // square-nodejs-sdk, tests/integration/webhooks.test.ts.
    for (url, key, body, signature) in [
        (
            "https://webhook.site/679a4f3a-dcfa-49ee-bac5-9d0edad886b9",
            "Ibxx_5AKakO-3qeNVR61Dw",
            r#"{"merchant_id":"MLEFBHHSJGVHD","type":"webhooks.test_notification","event_id":"ac3ac95b-f97d-458c-a6e6-18981597e05f","created_at":"2022-07-13T20:30:59.037339943Z","data":{"type":"webhooks","id":"bc368e64-01aa-407e-b46e-3231809b1129"}}"#,
            "GF4YkrJgGBDZ9NIYbNXBnMzqb2HoL4RW/S6vkZ9/2N4=",
        ),
        (
            "https://webhook.site/webhooks",
            "signature-key",
            r#"{"data":{"type":"webhooks","id":"fake_id"}}"#,
            "W3FlCNk5IA3ZQ2LHTWoajvzfaDu/OwY2tNHIHC3IUOA=",
        ),
    ] {
        let verify = |url: &str, header: &str| {
            let square = Square::new(SquareSettings { url: Some(url.to_owned()) }).unwrap();
            let secret = Secret::new("env:S", Key::Shared(key.as_bytes().to_vec())).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_bytes(header.as_bytes()).unwrap(),
                signature.parse().unwrap(),
            );
            let body = Bytes::from(body);
            let received_at = datetime!(2026-01-02 0:00 UTC);
            let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at };
            square.verify(&call, &[secret])
        };
        assert_eq!(verify(url, SIGNATURE_HEADER), Ok(0), "{url}");
        // Byte for byte: the same place under another spelling is no match.
        for other in [
            format!("{url}/"),
            url.replace("https", "http"),
            url.to_uppercase().replace("HTTPS", "https"),
        ] {
            assert_eq!(
                verify(&other, SIGNATURE_HEADER),
                Err(Rejection::invalid_signature()),
                "{other}"
            );
        }
        let legacy = verify(url, "x-square-signature");
        assert!(matches!(legacy, Err(Rejection::InvalidSignature(_))), "{legacy:?}");
    }
}

#[test]
fn the_url_is_needed_whole() {
    for settings in ["", "url = ''", "url = 'hooks.example/square'", "url = 'https://a b'"] {
        let error =
            ConfiguredSource::load("square", settings, &["FIRST"], &[]).err().unwrap_or_default();
        assert!(error.contains("sources.inbox.url"), "{settings}: {error}");
    }
    let error =
        ConfiguredSource::load("square", "uri = 'https://a'", &["FIRST"], &[]).err().unwrap();
    assert!(error.contains("sources.inbox") && error.contains("uri"), "{error}");
}

fn received(
    body: &str,
    tenants: &[&str],
    more: &[(&'static str, &str)],
) -> Result<Received, Rejection> {
    let source =
        ConfiguredSource::load("square", &format!("url = '{URL}'"), &["FIRST"], tenants).unwrap();
    let adapter = source.source();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let received_at = datetime!(2026-01-02 3:04:05 UTC);
    let delivery = OutgoingWebhook {
        topic: "",
        tenant: "",
        event_id: "",
        triggered_at: received_at,
        sent_at: received_at,
        body: &body,
    };
    let mut headers: HeaderMap = adapter.signed_headers(&delivery).into_iter().collect();
    for (name, value) in more {
        headers.insert(*name, value.parse().unwrap());
    }
    adapter.receive(&WebhookRequest { headers: &headers, query: "", body: &body, received_at })
}

fn only(received: Result<Received, Rejection>) -> Event {
    match received {
        Ok(Received::Events { mut events, .. }) if events.len() == 1 => events.remove(0),
        other => panic!("must be one event, is {other:?}"),
    }
}

#[test]
fn an_event_is_known_by_its_own_id_whatever_the_attempt() {
    let body = event("invoice.updated", "{}");
    let first = only(received(&body, &[], &[]));
    assert_eq!(first.event_id, "e-1");
    assert_eq!(first.topic, "invoice.updated");
    assert_eq!(first.tenant, "MLEFBHHSJGVHD");
    assert_eq!(first.version, Some(datetime!(2026-01-02 3:04:05.123456789 UTC)));
    let again = [("square-retry-number", "2"), ("square-retry-reason", "http_timeout")];
    assert_eq!(only(received(&body, &[], &again)), first);
    assert!(!square().redelivers_identical_body());
}

#[test]
fn a_merchants_id_keeps_its_case_in_the_allow_list() {
    let body = event("invoice.updated", "{}");
    assert!(received(&body, &["MLEFBHHSJGVHD"], &[]).is_ok());
    let refused = received(&body, &["mlefbhhsjgvhd"], &[]);
    assert!(matches!(refused, Err(Rejection::UnknownTenant("merchant_id", _))), "{refused:?}");
}

#[test]
fn what_cannot_be_read_goes_before_a_person() {
    // The second of Square's vectors has no event in it.
    let bare = only(received(r#"{"data":{"type":"webhooks","id":"fake_id"}}"#, &["M1"], &[]));
    assert_eq!((bare.topic.as_str(), bare.tenant.as_str()), ("", ""));
    let failure = square().map(&envelope("", bare.body)).unwrap_err();
    assert_eq!(failure, PermanentFailure::missing("/type"));

    let broken = only(received("{\"type\":", &[], &[]));
    assert_eq!(broken.event_id.len(), 64);
    let failure = square().map(&envelope("", broken.body)).unwrap_err();
    assert_eq!(failure.reason, ReasonCode::InvalidJson);

    let nameless = r#"{"type":"invoice.updated","data":{}}"#;
    let failure = square().map(&envelope("invoice.updated", nameless)).unwrap_err();
    assert_eq!(failure, PermanentFailure::missing("/merchant_id"));
}
