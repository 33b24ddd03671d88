//! Signed requests of Square.

use super::*;

#[test]
fn square_signature_matches_published_vectors() {
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
            let secret = Secret::new("env:S", Key::shared(key)).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_bytes(header.as_bytes()).unwrap(),
                signature.parse().unwrap(),
            );
            let body = Bytes::from(body);
            let received_at = datetime!(2026-01-02 0:00 UTC);
            let request = WebhookRequest { headers: &headers, query: "", body: &body, received_at };
            square.verify(&request, &[secret])
        };
        assert_eq!(verify(url, SIGNATURE.header), Ok(0), "{url}");
        // The URL is signed byte for byte: another spelling does not match.
        for other in [
            format!("{url}/"),
            url.replace("https", "http"),
            url.to_uppercase().replace("HTTPS", "https"),
        ] {
            assert_eq!(
                verify(&other, SIGNATURE.header),
                Err(Rejection::invalid_signature()),
                "{other}"
            );
        }
        let legacy = verify(url, "x-square-signature");
        assert!(matches!(legacy, Err(Rejection::InvalidSignature(_))), "{legacy:?}");
    }
}

#[test]
fn square_url_must_be_complete() {
    for settings in ["", "url = ''", "url = 'hooks.example/square'", "url = 'https://a b'"] {
        let error =
            ConfiguredSource::load("square", settings, &["FIRST"], &[]).err().unwrap_or_default();
        assert!(error.contains("sources.inbox.url"), "{settings}: {error}");
    }
    let error =
        ConfiguredSource::load("square", "uri = 'https://a'", &["FIRST"], &[]).err().unwrap();
    assert!(error.contains("sources.inbox") && error.contains("uri"), "{error}");
}

/// The only event of an authentic request with this body.
fn only_event(body: &str) -> Event {
    let settings = format!("url = '{URL}'");
    let source = ConfiguredSource::load("square", &settings, &["FIRST"], &[]).unwrap();
    match source.receive(&Bytes::copy_from_slice(body.as_bytes())) {
        Ok(Received::Events { mut events, .. }) if events.len() == 1 => events.remove(0),
        other => panic!("must be one event, is {other:?}"),
    }
}

#[test]
fn square_event_version_is_its_creation_time() {
    let version = only_event(&event("invoice.updated", "{}")).version;
    assert_eq!(version, Some(datetime!(2026-01-02 3:04:05.123456789 UTC)));
}

#[test]
fn square_unreadable_event_fails_mapping() {
    // The second of Square's vectors contains no event.
    let bare = only_event(r#"{"data":{"type":"webhooks","id":"fake_id"}}"#);
    assert_eq!((bare.topic.as_str(), bare.tenant.as_str()), ("", ""));
    let failure = square().map(&envelope("", bare.body)).unwrap_err();
    assert_eq!(failure, PermanentFailure::missing("/type"));

    let broken = only_event("{\"type\":");
    assert_eq!(broken.event_id.len(), 64);
    let failure = square().map(&envelope("", broken.body)).unwrap_err();
    assert_eq!(failure.reason, ReasonCode::InvalidJson);

    let nameless = r#"{"type":"invoice.updated","data":{}}"#;
    let failure = square().map(&envelope("invoice.updated", nameless)).unwrap_err();
    assert_eq!(failure, PermanentFailure::missing("/merchant_id"));
}
