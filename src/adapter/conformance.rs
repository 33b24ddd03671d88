//! What every adapter must do, whatever its platform: one suite over a table.
//!
//! A new kind of source is one more file below [`kinds`]. Each row is
//! configured through [`Config::from_toml`], so that configuration and adapter
//! are held together; each assertion says which kind broke which rule.

mod kind;
mod kinds;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::HeaderMap;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{Adapter, Call, Delivery, Received, Rejection, signature::Encoding};
use crate::{
    config::{Config, source},
    domain::{Envelope, EventKey, Mapped, Reason, SourceName},
};
use kind::{
    Delta::{self, Body, Header, Later},
    Proof, Spoil, Unreadable, enveloped, label,
};

/// The values of the secrets that rows and tests refer to by name.
type Secrets = [(&'static str, &'static str); 4];

/// Secrets that are well-formed as text, as hexadecimal and as base64.
const SECRETS: Secrets =
    [("FIRST", "c0ffee00"), ("SECOND", "deadbeef"), ("STRANGE", "0badf00d"), ("EMPTY", "")];

const AT: OffsetDateTime = datetime!(2026-01-02 3:04:05 UTC);

/// An envelope as the receiver makes it, for mapping tests.
pub(super) fn envelope(topic: &str, body: impl Into<Bytes>) -> Envelope {
    let source: SourceName = "inbox".parse().unwrap();
    Envelope {
        receipt_id: Uuid::nil(),
        key: EventKey::new(&source, "", "1", 0),
        source,
        tenant: String::new(),
        topic: topic.to_owned(),
        version: None,
        received_at: AT,
        attempt: 0,
        generation: 0,
        replay: None,
        over_http: true,
        secret: None,
        import: None,
        body: body.into(),
    }
}

/// A JSON object of these fields, each value a literal; a change replaces a
/// field of the same name, and an empty literal leaves it out.
pub(super) fn object(fields: &[(&str, &str)], changes: &[(&str, &str)]) -> String {
    let mut merged: BTreeMap<&str, &str> = fields.iter().copied().collect();
    merged.extend(changes.iter().copied());
    merged.retain(|_, literal| !literal.is_empty());
    let members: Vec<_> =
        merged.iter().map(|(name, literal)| format!("\"{name}\":{literal}")).collect();
    format!("{{{}}}", members.join(","))
}

/// A configured source.
pub(super) struct Source(Config);

impl Source {
    /// A section with these settings, secrets (`env:NAME`) and tenants.
    pub(super) fn load(
        kind: &str,
        settings: &str,
        secrets: &[&str],
        tenants: &[&str],
    ) -> Result<Self, String> {
        Self::load_with(kind, settings, &SECRETS, secrets, tenants)
    }

    /// The same, with secrets that have these values.
    pub(super) fn load_with(
        kind: &str,
        settings: &str,
        values: &[(&str, &str)],
        secrets: &[&str],
        tenants: &[&str],
    ) -> Result<Self, String> {
        let references: Vec<_> = secrets.iter().map(|name| format!("env:{name}")).collect();
        let text = format!(
            "[sources.inbox]\nkind = {kind:?}\nsecrets = {references:?}\ntenants = {tenants:?}\n{settings}"
        );
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables = values.iter().map(owned).collect();
        Config::from_toml(&text, &variables).map(Self).map_err(|error| format!("{error:#}"))
    }

    /// What it makes of a body that its platform sends it, at [`AT`].
    pub(super) fn receive(&self, body: &Bytes) -> Result<Received, Rejection> {
        let delivery =
            Delivery { topic: "", tenant: "", event_id: "", triggered_at: AT, sent_at: AT, body };
        let headers: HeaderMap = self.adapter().dress(&delivery).into_iter().collect();
        self.adapter().receive(&Call { headers: &headers, query: "", body, received_at: AT })
    }

    pub(super) fn adapter(&self) -> &Adapter {
        self.0.sources.values().next().unwrap()
    }
}

/// Bad tokens, made out of a good one; a row says which it forgives.
const SPOILS: [(&str, Spoil); 11] = [
    ("tampered", |text| {
        let first = if text.starts_with('0') { '1' } else { '0' };
        format!("{first}{}", &text[1..])
    }),
    ("truncated by four characters", |text| text[..text.len() - 4].to_owned()),
    ("truncated by one character", |text| text[..text.len() - 1].to_owned()),
    ("without its padding", |text| match text.trim_end_matches('=') {
        bare if bare.len() < text.len() => bare.to_owned(),
        bare => bare[1..].to_owned(),
    }),
    ("lengthened", |text| format!("0000{text}")),
    ("twice", |text| format!("{text},{text}")),
    ("not of the alphabet", |text| "*".repeat(text.len())),
    ("with white space within", |text| format!("{} {}", &text[..4], &text[4..])),
    ("empty", |_| String::new()),
    ("in upper case", str::to_ascii_uppercase),
    // The right bytes, written the wrong way.
    ("in the other encoding", |text| {
        let (this, other) = match Encoding::Hex.decode(text) {
            Some(_) => (Encoding::Hex, Encoding::Base64),
            None => (Encoding::Base64, Encoding::Hex),
        };
        other.encode(&this.decode(text).unwrap())
    }),
];

#[test]
fn every_kind_has_a_row() {
    for kind in source::KINDS {
        assert!(kinds::all().any(|row| row.word == kind), "{kind}: has no row here");
    }
}

#[test]
fn every_row_says_what_it_must() {
    for kind in kinds::all() {
        let name = kind.name;
        let Proof { header, known, .. } = kind.proof;
        assert!(!header.is_empty() && !known.is_empty(), "{name}: no known signature");
        assert!(!kind.body.is_empty() && !kind.number.is_empty(), "{name}: no good body");
        assert!(!kind.redelivered.is_empty(), "{name}: no redelivery");
        assert!(!kind.another.is_empty(), "{name}: no other event");
        let tenants = [kind.allowed.is_empty(), kind.foreign.is_empty(), kind.elsewhere.is_none()];
        assert_eq!(tenants, [kind.tenant.is_empty(); 3], "{name}: tenants");
        for forgiven in kind.proof.forgives {
            assert!(SPOILS.iter().any(|(spoil, _)| spoil == forgiven), "{name}: {forgiven:?}");
        }
        let signs = kind.proof.signs_body;
        assert!(signs || kind.proof.tolerance_s.is_none(), "{name}: a time and no signature");
    }
}

#[test]
fn signatures_are_what_another_program_makes() {
    for kind in kinds::all() {
        let source = kind.plain();
        let request = kind.request(&source, &[]);
        let known = kind.proof.known;
        assert_eq!(request.headers[kind.proof.header], known, "{}: known signature", kind.name);
        let given = request.set(kind.proof.header, known).made_to(&source);
        kind.takes_signature(&given, "known signature");
    }
}

#[test]
fn what_is_dressed_is_received() {
    for kind in kinds::all() {
        let source = kind.plain();
        let event = kind.event(&source, &[], "round trip");
        assert_eq!(event.topic, kind.topic, "{}: the topic survives", kind.name);
        assert_eq!(event.tenant, kind.tenant, "{}: the tenant survives", kind.name);
        let kept = kind.kept.unwrap_or(kind.body);
        assert_eq!(event.body, kept, "{}: the body survives", kind.name);
        let repeats = source.adapter().rules().repeats_same_bytes;
        assert_eq!(repeats, kind.repeats_same_bytes, "{}: repeats the same bytes", kind.name);
    }
}

#[test]
fn every_form_of_an_event_is_the_same_event() {
    for kind in kinds::all() {
        let source = kind.plain();
        let first = kind.event(&source, &[], "first form");
        for form in kind.forms {
            let event = kind.event(&source, form, "another form");
            let told = (&event.event_id, &event.tenant, &event.topic);
            let expected = (&first.event_id, &first.tenant, &first.topic);
            assert_eq!(told, expected, "{}: {form:?}", kind.name);
            let number = source.adapter().number(&enveloped(event));
            assert_eq!(number.as_deref(), Some(kind.number), "{}: {form:?}", kind.name);
        }
    }
}

#[test]
fn a_tampered_body_is_refused() {
    for kind in kinds::all() {
        let source = kind.plain();
        let mut request = kind.request(&source, &[]);
        for body in [&[kind.body, b" "].concat()[..], &kind.body[1..], b""] {
            request.body = Bytes::copy_from_slice(body);
            let given = request.made_to(&source);
            match given {
                // So that no row says it by mistake.
                Ok(_) | Err(Rejection::Invalid(_)) if !kind.proof.signs_body => {}
                given => kind.refuses_signature(&given, "tampered body"),
            }
        }
    }
}

#[test]
fn a_bad_signature_is_refused() {
    for kind in kinds::all() {
        let source = kind.plain();
        for (rule, change) in SPOILS {
            let given = kind.with_token(&source, change);
            if kind.proof.forgives.contains(&rule) {
                kind.takes_signature(&given, rule);
            } else {
                kind.refuses_signature(&given, rule);
            }
        }
        for (rule, change) in kind.proof.refuses {
            kind.refuses_signature(&kind.with_value(&source, *change), rule);
        }
        for (rule, change) in kind.proof.takes {
            kind.takes_signature(&kind.with_value(&source, *change), rule);
        }
    }
}

#[test]
fn white_space_around_a_signature_is_nothing() {
    for kind in kinds::all() {
        let source = kind.plain();
        let given = kind.with_value(&source, |value| format!(" {value}\t"));
        kind.takes_signature(&given, "white space around the signature");
    }
}

#[test]
fn a_call_without_a_signature_is_refused() {
    for kind in kinds::all() {
        let source = kind.plain();
        let header = kind.proof.header;
        let mut request = kind.request(&source, &[]);
        let [before, _, after] = (kind.proof.token)(request.value(header));
        for value in ["", "  ", &format!("{before}{after}")] {
            let given = kind.request(&source, &[]).set(header, value).made_to(&source);
            kind.refuses_signature(&given, "empty signature header");
        }
        request.headers.remove(header);
        kind.refuses_signature(&request.made_to(&source), "no signature header");
    }
}

#[test]
fn what_is_signed_beside_the_body_must_be_there_and_cannot_be_changed() {
    for kind in kinds::all() {
        let source = kind.plain();
        for header in kind.proof.with {
            let mut request = kind.request(&source, &[]).set(header, "");
            kind.refuses_signature(&request.made_to(&source), &format!("empty {header}"));
            request.headers.remove(*header);
            kind.refuses_signature(&request.made_to(&source), &format!("no {header}"));
        }
        for delta in kind.proof.binds {
            assert!(matches!(delta, Header(..)), "{}: {delta:?} would be signed", kind.name);
            let given = kind.request(&source, &[*delta]).made_to(&source);
            kind.refuses_signature(&given, &format!("signed and then changed: {delta:?}"));
        }
        for settings in kind.proof.strangers {
            let stranger = kind.set_up(settings, &["FIRST"], &[]);
            let given = kind.request(&source, &[]).made_to(&stranger);
            kind.refuses_signature(&given, &format!("under {settings}"));
            let own = kind.request(&stranger, &[]).made_to(&stranger);
            kind.takes_signature(&own, &format!("under {settings}, its own"));
        }
    }
}

#[test]
fn a_signed_time_must_be_near_and_no_other_is_asked() {
    const MONTH: i64 = 30 * 24 * 3600;
    for kind in kinds::all() {
        let source = kind.plain();
        let received = |seconds: i64| {
            let mut request = kind.request(&source, &[]);
            request.received_at += time::Duration::seconds(seconds);
            request.made_to(&source)
        };
        // Without a signed time, a call that waited long is as good as any.
        let near = kind.proof.tolerance_s.unwrap_or(MONTH);
        for seconds in [-near, -1, 0, 1, near] {
            kind.takes_signature(&received(seconds), &format!("received {seconds} s later"));
        }
        if let Some(tolerance) = kind.proof.tolerance_s {
            for seconds in [tolerance + 1, -tolerance - 1, MONTH, -MONTH] {
                let rule = format!("received {seconds} s after the signed time");
                kind.refuses_signature(&received(seconds), &rule);
            }
            // A forged one is not told whether its time was right.
            let strange = kind.source(&["STRANGE"], &[]);
            let mut forged = kind.request(&strange, &[]);
            let in_time = forged.made_to(&source);
            forged.received_at += time::Duration::seconds(MONTH);
            assert_eq!(forged.made_to(&source), in_time, "{}: forged and old", kind.name);
        }
    }
}

#[test]
fn a_token_may_stand_in_the_query_where_the_kind_says_so() {
    for kind in kinds::all() {
        let source = kind.plain();
        let (_, secret) = kind.secrets[0];
        let parameter = kind.proof.in_query.unwrap_or("token");
        let asked = |query: String, header: Option<&str>| {
            let mut request = kind.request(&source, &[]);
            request.headers.remove(kind.proof.header);
            request.query = query;
            let request = match header {
                Some(value) => request.set(kind.proof.header, value),
                None => request,
            };
            request.made_to(&source)
        };
        let good = format!("{parameter}={secret}");
        if kind.proof.in_query.is_none() {
            kind.refuses_signature(&asked(good, None), "token in the query");
            continue;
        }
        kind.takes_signature(&asked(good.clone(), None), "token in the query");
        for (rule, spoil) in SPOILS {
            let bad = format!("{parameter}={}", spoil(secret));
            kind.refuses_signature(&asked(bad, None), &format!("query, {rule}"));
        }
        let wrong = asked(good, Some("Bearer wrong"));
        kind.refuses_signature(&wrong, "a wrong header is not mended by the query");
    }
}

#[test]
fn each_configured_secret_verifies_and_no_other() {
    for kind in kinds::all() {
        let both = kind.source(&["FIRST", "SECOND"], &[]);
        for (signer, expected) in [("FIRST", "env:FIRST"), ("SECOND", "env:SECOND")] {
            let given = kind.request(&kind.source(&[signer], &[]), &[]).made_to(&both);
            assert_eq!(label(&given), Some(expected), "{}: rotated secret", kind.name);
        }
        let forged = kind.request(&kind.source(&["STRANGE"], &[]), &[]);
        kind.refuses_signature(&forged.made_to(&both), "wrong secret");
        kind.refuses_signature(&forged.made_to(&kind.plain()), "wrong secret");
    }
}

#[test]
fn a_sender_that_changes_its_secret_signs_with_both() {
    for kind in kinds::all() {
        let Some(join) = kind.proof.joins else { continue };
        let [first, second, strange] =
            ["FIRST", "SECOND", "STRANGE"].map(|name| kind.source(&[name], &[]));
        let request = kind.request(&first, &[]);
        let other = kind.request(&second, &[]);
        let header = kind.proof.header;
        let joined = join(request.value(header), other.value(header));
        let request = request.set(header, &joined);
        assert_eq!(label(&request.made_to(&first)), Some("env:FIRST"), "{}", kind.name);
        assert_eq!(label(&request.made_to(&second)), Some("env:SECOND"), "{}", kind.name);
        kind.refuses_signature(&request.made_to(&strange), "neither of two secrets");
    }
}

#[test]
fn an_empty_secret_is_refused_at_configuration() {
    for kind in kinds::all() {
        for secrets in [&["EMPTY"][..], &["FIRST", "EMPTY"], &[]] {
            let loaded = Source::load_with(kind.word, kind.settings, kind.secrets, secrets, &[]);
            let error = loaded.err().unwrap_or_default();
            assert!(
                error.contains("sources.inbox.secrets"),
                "{}: empty secret {secrets:?}: must be refused by its key, is {error:?}",
                kind.name
            );
        }
    }
}

#[test]
fn a_malformed_secret_is_refused_at_configuration_and_not_repeated() {
    for kind in kinds::all() {
        for text in kind.malformed {
            let values = [("FIRST", *text)];
            let loaded = Source::load_with(kind.word, kind.settings, &values, &["FIRST"], &[]);
            let error = loaded.err().unwrap_or_default();
            // That a prefix has nothing behind it may be said.
            let repeated = !text.ends_with('_') && error.contains(text);
            assert!(
                error.contains("sources.inbox.secrets") && !repeated,
                "{}: malformed secret {text:?}: {error:?}",
                kind.name
            );
        }
    }
}

#[test]
fn only_tenants_of_the_allow_list_come_in() {
    for kind in kinds::all() {
        let Some(elsewhere) = kind.elsewhere else { continue };
        for tenant in kind.allowed {
            let source = kind.source(&["FIRST"], &["nobody", tenant]);
            let rule = format!("tenant allowed as {tenant:?}");
            let event = kind.event(&source, &[], &rule);
            assert_eq!(event.tenant, kind.tenant, "{}: {rule}", kind.name);
            let given = kind.request(&source, &[elsewhere]).made_to(&source);
            assert!(
                matches!(given, Err(Rejection::Tenant(..))),
                "{}: another tenant than {tenant:?}: {given:?}",
                kind.name
            );
        }
        for tenant in kind.foreign {
            let source = kind.source(&["FIRST"], &[tenant]);
            let given = kind.request(&source, &[]).made_to(&source);
            assert!(
                matches!(given, Err(Rejection::Tenant(..))),
                "{}: tenant {tenant:?} lets another in: {given:?}",
                kind.name
            );
        }
        let source = kind.source(&["FIRST"], kind.allowed);
        for delta in kind.alike {
            let event = kind.event(&source, &[*delta], "the same tenant, written otherwise");
            assert_eq!(event.tenant, kind.tenant, "{}: {delta:?}", kind.name);
        }
        let anywhere = kind.event(&kind.plain(), &[elsewhere], "no allow-list");
        assert_ne!(anywhere.tenant, kind.tenant, "{}: elsewhere is another tenant", kind.name);
    }
}

#[test]
fn a_forged_call_learns_nothing_but_that() {
    // Neither the tenant, the content type nor the body is looked at first.
    for kind in kinds::all() {
        let source = kind.source(&["FIRST"], kind.allowed);
        let strange = kind.source(&["STRANGE"], &[]);
        for delta in kind.elsewhere.into_iter().chain([Body(b"<order/>")]) {
            let forged = kind.request(&strange, &[delta]).set("content-type", "text/html");
            kind.refuses_signature(&forged.made_to(&source), &format!("forged call, {delta:?}"));
        }
    }
}

#[test]
fn only_its_own_media_types_are_taken() {
    for kind in kinds::all() {
        let source = kind.plain();
        for taken in kind.takes {
            let given = kind.request(&source, &[Header("content-type", taken)]).made_to(&source);
            assert!(given.is_ok(), "{}: content type {taken:?}: {given:?}", kind.name);
        }
        let mut request = kind.request(&source, &[]);
        request.headers.remove("content-type");
        let given = request.made_to(&source);
        let untyped = kind.takes.contains(&"");
        assert_eq!(given.is_ok(), untyped, "{}: no content type: {given:?}", kind.name);
        for refused in kind.declines {
            let given = kind.request(&source, &[Header("content-type", refused)]).made_to(&source);
            assert_eq!(
                given,
                Err(Rejection::ContentType((*refused).to_owned())),
                "{}: content type",
                kind.name
            );
        }
    }
}

#[test]
fn an_authentic_body_that_is_not_json_is_never_taken_for_an_event() {
    for kind in kinds::all() {
        let source = kind.plain();
        for body in [&b"<order/>"[..], b"", b"{\"id\":1", b"\xff\xfe{}", b"webhook_id=1"] {
            let rule = "authentic, not JSON";
            let envelope = match kind.unreadable {
                Unreadable::Buried => {
                    let envelope = kind.envelope(&source, &[Body(body)], rule);
                    assert_eq!(envelope.body, body, "{}: {rule}: the body is kept", kind.name);
                    envelope
                }
                Unreadable::Refused => {
                    kind.refuses_fields(&source, body, |failure| {
                        failure.reason == Reason::InvalidJson
                    });
                    // As another AMQP producer may publish it.
                    let mut envelope = kind.envelope(&source, &[], rule);
                    envelope.body = Bytes::copy_from_slice(body);
                    envelope
                }
            };
            let failure = source.adapter().map(&envelope).map_err(|failure| failure.reason);
            assert_eq!(failure, Err(Reason::InvalidJson), "{}: {rule}: {body:?}", kind.name);
            assert_eq!(source.adapter().number(&envelope), None, "{}: {rule}", kind.name);
        }
    }
}

#[test]
fn the_event_id_is_equal_on_redelivery_and_on_nothing_else() {
    for kind in kinds::all() {
        let source = kind.plain();
        let id = |delta: &[Delta]| kind.event(&source, delta, "event id").event_id;
        let first = id(&[]);
        assert!(!first.is_empty(), "{}: the event id is empty", kind.name);
        assert_eq!(id(&[]), first, "{}: the same call", kind.name);
        // A retry is made later, and signed anew where the time is signed.
        assert_eq!(id(&[Later(7200)]), first, "{}: two hours later", kind.name);
        for delta in kind.redelivered {
            assert_eq!(id(&[*delta]), first, "{}: redelivered with {delta:?}", kind.name);
            let later = id(&[*delta, Later(7200)]);
            assert_eq!(later, first, "{}: redelivered later with {delta:?}", kind.name);
        }
        for delta in kind.another {
            assert_ne!(id(&[*delta]), first, "{}: another event by {delta:?}", kind.name);
        }
    }
}

#[test]
fn each_of_several_events_is_one_of_its_own() {
    for kind in kinds::all() {
        let Some(many) = kind.many else { continue };
        let source = kind.plain();
        let with = |body: &'static [u8]| [many.deltas, &[Body(body)]].concat();
        let rule = "several events in one call";
        let events = kind.events(&source, &with(many.body), rule);
        let told: Vec<_> =
            events.iter().map(|event| [&*event.event_id, &*event.tenant, &*event.topic]).collect();
        assert_eq!(told, many.events, "{}: {rule}", kind.name);
        let ids: BTreeSet<_> = events.iter().map(|event| event.event_id.clone()).collect();
        assert_eq!(ids.len(), events.len(), "{}: {rule}: an id twice", kind.name);
        let later = [&with(many.body)[..], &[Later(7200)]].concat();
        assert_eq!(kind.events(&source, &later, rule), events, "{}: redelivered", kind.name);
        for bodies in many.anew {
            let anew: Vec<_> =
                bodies.iter().flat_map(|body| kind.events(&source, &with(body), rule)).collect();
            let cut: BTreeSet<_> = anew.iter().map(|event| event.event_id.clone()).collect();
            assert_eq!(cut, ids, "{}: cut anew into {}", kind.name, bodies.len());
            assert_eq!(anew.len(), events.len(), "{}: cut anew: an id twice", kind.name);
        }
        for event in events {
            let envelope = enveloped(event);
            let mapped = source.adapter().map(&envelope);
            assert!(mapped.is_ok(), "{}: {rule}: {:?}: {mapped:?}", kind.name, envelope.body);
        }
        kind.keeps_foreign_events_out(&source, &with(many.body), many.events);
    }
}

#[test]
fn the_number_can_be_read_though_the_mapping_fails() {
    for kind in kinds::all() {
        let source = kind.plain();
        let good = kind.envelope(&source, &[], "good body");
        match source.adapter().map(&good) {
            Ok(Mapped::Change(change)) => assert_eq!(
                change.business_key(),
                kind.number,
                "{}: the number of the document",
                kind.name
            ),
            other => panic!("{}: a good body must change the books: {other:?}", kind.name),
        }
        let number = |envelope: &Envelope| source.adapter().number(envelope);
        assert_eq!(number(&good).as_deref(), Some(kind.number), "{}: the number", kind.name);
        let Some(unmappable) = kind.unmappable else { continue };
        let bad = match kind.unreadable {
            Unreadable::Buried => kind.envelope(&source, &[Body(unmappable)], "unmappable body"),
            Unreadable::Refused => {
                kind.refuses_fields(&source, unmappable, |failure| failure.field.starts_with('/'));
                Envelope { body: unmappable.into(), ..good }
            }
        };
        let failure = source.adapter().map(&bad);
        assert!(
            failure.as_ref().is_err_and(|failure| failure.field.starts_with('/')),
            "{}: an unmappable body must name its field: {failure:?}",
            kind.name
        );
        assert_eq!(number(&bad).as_deref(), Some(kind.number), "{}: the number", kind.name);
    }
}

/// Whether a call tells several events or none is the platform's affair; that
/// an answer of events holds at least one is ours.
#[test]
fn whatever_is_taken_holds_an_event() {
    for kind in kinds::all() {
        let source = kind.plain();
        for body in [&b"{}"[..], b"[]", b"null", b"1", b"[{}]", b"\"text\""] {
            if let Ok(Received::Events { events, .. }) =
                kind.request(&source, &[Body(body)]).made_to(&source)
            {
                let ids: BTreeSet<_> = events.iter().map(|event| &event.event_id).collect();
                assert!(!events.is_empty(), "{}: no event in {body:?}", kind.name);
                assert!(!ids.contains(&String::new()), "{}: {body:?} has no id", kind.name);
                assert_eq!(ids.len(), events.len(), "{}: {body:?}: an id twice", kind.name);
            }
        }
    }
}
