//! Signatures as Stripe makes them.

use super::*;

#[test]
fn the_published_vector_verifies() {
    let expected = Event {
        event_id: "evt_123".to_owned(),
        tenant: "acct_123".to_owned(),
        topic: "invoiceitem.created".to_owned(),
        version: None,
        body: Bytes::from_static(ITEM.as_bytes()),
    };
    let expected = Received::Events { events: vec![expected], secret_label: "secret".to_owned() };
    assert_eq!(receive(&source(&["secret"]), SIGNED, AT), Ok(expected));
    refusal(receive(&source(&["whsec_secret"]), SIGNED, AT));
}

#[test]
fn the_whole_text_is_the_key() {
    // "whsec_" and all, and nothing of it decoded.
    assert_eq!(stripe().parse_key("whsec_c2VjcmV0"), Ok(Key::Shared(b"whsec_c2VjcmV0".to_vec())));
}

#[test]
fn any_signature_by_any_secret_will_do() {
    let v1 = SIGNED.split(',').nth(1).unwrap();
    let zeros = format!("v1={}", "00".repeat(32));
    for header in [
        format!("t=1533204620,{zeros},{v1}"),
        format!("t=1533204620,{v1},{zeros}"),
        format!("{v1}, t=1533204620"),
        format!("t=1533204620,v1=,v1=nonsense,v2=x,loose,{v1}"),
        format!("t=1533204620,{}", v1.to_uppercase().replace("V1", "v1")),
    ] {
        for secrets in [&["secret"][..], &["secret", "other"], &["other", "secret"]] {
            let received = receive(&source(secrets), &header, AT);
            let Ok(Received::Events { secret_label: secret, .. }) = received else {
                panic!("{header} by {secrets:?}: {received:?}");
            };
            assert_eq!(secret, "secret");
        }
    }
}

#[test]
fn what_is_not_signed_so_is_refused() {
    let v1 = SIGNED.split(',').nth(1).unwrap();
    let hex = &v1["v1=".len()..];
    let zeros = format!("v1={}", "00".repeat(32));
    for header in [
        // The right bytes under another scheme or another time.
        format!("t=1533204620,v0={hex}"),
        format!("t=1533204620,v1a={hex}"),
        format!("t=1533204621,{v1}"),
        format!("t=1533204620.0,{v1}"),
        // The same number, written otherwise.
        format!("t=01533204620,{v1}"),
        format!("t=+1533204620,{v1}"),
        // Which of two times was signed?
        format!("t=1533204620,t=1533204621,{v1}"),
        format!("t=1533204620,t=1533204620,{v1}"),
        format!("t=,{v1}"),
        format!("t=now,{v1}"),
        v1.to_owned(),
        "t=1533204620".to_owned(),
        format!("t=1533204620,{}", &v1[..v1.len() - 2]),
        format!("t=1533204620,{v1}00"),
        hex.to_owned(),
        // Beyond as many as are looked at.
        format!("t=1533204620,{}{v1}", format!("{zeros},").repeat(MAX_SIGNATURES)),
    ] {
        refusal(receive(&source(&["secret"]), &header, AT));
    }
    assert!(refusal(receive(&source(&["secret"]), " ", AT)).contains(SIGNATURE_HEADER));
}

#[test]
fn the_signed_time_may_be_five_minutes_away_in_either_direction() {
    for (away, taken) in [(0, true), (300, true), (301, false), (86_400 * 30, false)] {
        for received_at in [AT + Span::seconds(away), AT - Span::seconds(away)] {
            let received = receive(&source(&["secret"]), SIGNED, received_at);
            assert_eq!(received.is_ok(), taken, "{received_at}");
            if !taken {
                assert!(refusal(received).contains(&format!("{away} s from now")));
            }
        }
    }
    // A forger is not told of the clock.
    let forged = receive(&source(&["other"]), SIGNED, AT + Span::days(1));
    assert_eq!(forged, Err(Rejection::invalid_signature()));
}

#[test]
fn the_tolerance_is_a_day_at_the_most() {
    let load = |settings: &str| {
        let text = format!("[sources.s]\nkind = 'stripe'\nsecrets = ['env:S']\n{settings}");
        let variables = [("S".to_owned(), "secret".to_owned())].into();
        Config::from_toml(&text, &variables).map_err(|error| format!("{error:#}"))
    };
    let received = |settings: &str, away: i64| {
        let config = load(settings).unwrap();
        let source = config.sources.values().next().unwrap();
        receive(source, SIGNED, AT + Span::seconds(away)).is_ok()
    };
    assert!(received("tolerance_s = 0", 0) && !received("tolerance_s = 0", 1));
    assert!(received("tolerance_s = 86400", 86_400) && !received("tolerance_s = 86400", 86_401));
    assert!(received("tenants = ['acct_123']", 0));
    assert!(!received("tenants = ['acct_12']", 0) && !received("tenants = ['ACCT_123']", 0));
    for (settings, key) in
        [("tolerance_s = 86401", "sources.s.tolerance_s"), ("tolerance_s = -1", "sources.s")]
    {
        let error = load(settings).err().unwrap_or_default();
        assert!(error.contains(key), "{settings}: {error}");
    }
    assert!(load("tolerance = 5").is_err());
}

#[test]
fn what_is_dressed_is_received() {
    let source = source(&["whsec_a", "whsec_b"]);
    let body = Bytes::from_static(b"{}");
    let delivery = OutgoingWebhook {
        topic: "",
        tenant: "",
        event_id: "",
        triggered_at: OffsetDateTime::UNIX_EPOCH,
        sent_at: AT,
        body: &body,
    };
    let headers: HeaderMap = source.signed_headers(&delivery).into_iter().collect();
    let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
    assert!(source.receive(&call).is_ok());
}
