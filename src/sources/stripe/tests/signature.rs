//! Stripe's signatures.

use super::*;

#[test]
fn stripe_signature_matches_published_vector() {
    let expected = Event {
        event_id: "evt_123".to_owned(),
        tenant: "acct_123".to_owned(),
        topic: "invoiceitem.created".to_owned(),
        version: None,
        body: Bytes::from_static(ITEM.as_bytes()),
    };
    let expected = Received::Events { events: vec![expected], secret_label: "secret".to_owned() };
    assert_eq!(receive(&source(&["secret"]), SIGNED, AT), Ok(expected));
    let other_secret = receive(&source(&["whsec_secret"]), SIGNED, AT);
    assert_eq!(other_secret, Err(Rejection::invalid_signature()));
}

#[test]
fn stripe_secret_is_not_decoded() {
    // Including "whsec_", and not decoded.
    assert_eq!(stripe().parse_key("whsec_c2VjcmV0").unwrap().expose(), b"whsec_c2VjcmV0");
}

#[test]
fn stripe_tolerance_is_at_most_a_day() {
    let load = |settings: &str| {
        let text = format!("[sources.s]\nkind = 'stripe'\nsecrets = ['env:S']\n{settings}");
        let variables = [("S".to_owned(), "secret".to_owned())].into();
        Components::from_toml(&text, &variables).map_err(|error| format!("{error:#}"))
    };
    let is_accepted = |settings: &str, difference_s: i64| {
        let config = load(settings).unwrap();
        let source = config.sources.values().next().unwrap();
        receive(source, SIGNED, AT + Span::seconds(difference_s)).is_ok()
    };
    for tolerance_s in [0, 86_400] {
        let settings = format!("tolerance_s = {tolerance_s}");
        assert!(is_accepted(&settings, tolerance_s) && !is_accepted(&settings, tolerance_s + 1));
    }
    for (settings, key) in
        [("tolerance_s = 86401", "sources.s.tolerance_s"), ("tolerance_s = -1", "sources.s")]
    {
        let error = load(settings).err().unwrap_or_default();
        assert!(error.contains(key), "{settings}: {error}");
    }
    assert!(load("tolerance = 5").is_err());
}
