//! Requirements on every platform: one suite over a table.
//!
//! A new kind of source needs a file below [`cases`]. Each case is configured through
//! [`Components::from_toml`], so that configuration and source are tested together; each
//! assertion names the case and the rule.

mod case;
mod cases;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::HeaderMap;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{OutgoingWebhook, Received, Rejection, Source, WebhookRequest, signature::Encoding};
use crate::{
    app::Components,
    config::SOURCE_KINDS,
    domain::{Envelope, EventKey, MappedEvent, ReasonCode, SourceName},
};
use case::{
    Credential, Mutation, UnreadableBody, Variation,
    Variation::{Body, Header, Later},
    envelope_of, label,
};

/// Values of the secrets, by the names that cases and tests use.
type Secrets = [(&'static str, &'static str); 4];

/// Secrets that are valid as text, hexadecimal and base64.
const SECRETS: Secrets =
    [("FIRST", "c0ffee00"), ("SECOND", "deadbeef"), ("STRANGE", "0badf00d"), ("EMPTY", "")];

const RECEIVED_AT: OffsetDateTime = datetime!(2026-01-02 3:04:05 UTC);

/// An envelope as the receiver builds it, for mapping tests.
pub(super) fn envelope(topic: &str, body: impl Into<Bytes>) -> Envelope {
    let source: SourceName = "inbox".parse().unwrap();
    Envelope {
        receipt_id: Uuid::nil(),
        key: EventKey::new(&source, "", "1", 0),
        source,
        tenant: String::new(),
        topic: topic.to_owned(),
        version: None,
        received_at: RECEIVED_AT,
        failed_attempts: 0,
        generation: 0,
        replay_id: None,
        received_over_http: true,
        secret_label: None,
        import: None,
        body: body.into(),
    }
}

/// A JSON object of these fields, whose values are literals. A change replaces the field of
/// the same name; an empty literal removes it.
pub(super) fn json_object(fields: &[(&str, &str)], changes: &[(&str, &str)]) -> String {
    let mut merged: BTreeMap<&str, &str> = fields.iter().copied().collect();
    merged.extend(changes.iter().copied());
    merged.retain(|_, literal| !literal.is_empty());
    let members: Vec<_> =
        merged.iter().map(|(name, literal)| format!("\"{name}\":{literal}")).collect();
    format!("{{{}}}", members.join(","))
}

/// A configured source.
pub(super) struct ConfiguredSource(Components);

impl ConfiguredSource {
    /// Loads a section with these settings, secrets (`env:NAME`) and tenants.
    pub(super) fn load(
        kind: &str,
        settings: &str,
        secrets: &[&str],
        tenants: &[&str],
    ) -> Result<Self, String> {
        Self::load_with(kind, settings, &SECRETS, secrets, tenants)
    }

    /// The same with these values of the secrets.
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
        Components::from_toml(&text, &variables).map(Self).map_err(|error| format!("{error:#}"))
    }

    /// Receives a body that its platform sends at [`RECEIVED_AT`].
    pub(super) fn receive(&self, body: &Bytes) -> Result<Received, Rejection> {
        let webhook = OutgoingWebhook {
            topic: "",
            tenant: "",
            event_id: "",
            triggered_at: RECEIVED_AT,
            sent_at: RECEIVED_AT,
            body,
        };
        let headers: HeaderMap = self.source().signed_headers(&webhook).into_iter().collect();
        self.source().receive(&WebhookRequest {
            headers: &headers,
            query: "",
            body,
            received_at: RECEIVED_AT,
        })
    }

    pub(super) fn source(&self) -> &Source {
        self.0.sources.values().next().unwrap()
    }
}

/// Mutations of a valid token; a case lists those that its platform tolerates.
const TOKEN_MUTATIONS: [(&str, Mutation); 11] = [
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
    // The right bytes in the wrong encoding.
    ("in the other encoding", |text| {
        let (this, other) = match Encoding::Hex.decode(text) {
            Some(_) => (Encoding::Hex, Encoding::Base64),
            None => (Encoding::Base64, Encoding::Hex),
        };
        other.encode(&this.decode(text).unwrap())
    }),
];

#[test]
fn conformance_every_kind_has_a_case() {
    for kind in SOURCE_KINDS {
        assert!(cases::all().any(|row| row.kind == kind), "{kind}: has no row here");
    }
}

#[test]
fn conformance_every_case_is_complete() {
    for kind in cases::all() {
        let name = kind.name;
        let Credential { header, known_value: known, .. } = kind.credential;
        assert!(!header.is_empty() && !known.is_empty(), "{name}: no known signature");
        assert!(!kind.body.is_empty() && !kind.business_key.is_empty(), "{name}: no good body");
        assert!(!kind.redelivered.is_empty(), "{name}: no redelivery");
        assert!(!kind.different_event.is_empty(), "{name}: no other event");
        let tenants =
            [kind.allowed.is_empty(), kind.foreign.is_empty(), kind.other_tenant.is_none()];
        assert_eq!(tenants, [kind.tenant.is_empty(); 3], "{name}: tenants");
        for forgiven in kind.credential.tolerated {
            assert!(
                TOKEN_MUTATIONS.iter().any(|(spoil, _)| spoil == forgiven),
                "{name}: {forgiven:?}"
            );
        }
        let signs = kind.credential.signs_body;
        assert!(signs || kind.credential.tolerance_s.is_none(), "{name}: a time and no signature");
    }
}

#[test]
fn signature_matches_reference_implementation() {
    for kind in cases::all() {
        let source = kind.default_source();
        let request = kind.request(&source, &[]);
        let known = kind.credential.known_value;
        assert_eq!(
            request.headers[kind.credential.header], known,
            "{}: known signature",
            kind.name
        );
        let given = request.set(kind.credential.header, known).send_to(&source);
        kind.assert_authentic(&given, "known signature");
    }
}

#[test]
fn signed_request_round_trips() {
    for kind in cases::all() {
        let source = kind.default_source();
        let event = kind.event(&source, &[], "round trip");
        assert_eq!(event.topic, kind.topic, "{}: the topic survives", kind.name);
        assert_eq!(event.tenant, kind.tenant, "{}: the tenant survives", kind.name);
        let kept = kind.stored_body.unwrap_or(kind.body);
        assert_eq!(event.body, kept, "{}: the body survives", kind.name);
        let repeats = source.source().conflict_policy().redelivers_identical_body;
        assert_eq!(repeats, kind.repeats_same_bytes, "{}: repeats the same bytes", kind.name);
    }
}

#[test]
fn event_equivalent_forms_are_one_event() {
    for kind in cases::all() {
        let source = kind.default_source();
        let first = kind.event(&source, &[], "first form");
        for form in kind.equivalent_forms {
            let event = kind.event(&source, form, "another form");
            let told = (&event.event_id, &event.tenant, &event.topic);
            let expected = (&first.event_id, &first.tenant, &first.topic);
            assert_eq!(told, expected, "{}: {form:?}", kind.name);
            let number = source.source().business_key(&envelope_of(event));
            assert_eq!(number.as_deref(), Some(kind.business_key), "{}: {form:?}", kind.name);
        }
    }
}

#[test]
fn body_tampered_is_rejected() {
    for kind in cases::all() {
        let source = kind.default_source();
        let mut request = kind.request(&source, &[]);
        for body in [&[kind.body, b" "].concat()[..], &kind.body[1..], b""] {
            request.body = Bytes::copy_from_slice(body);
            let given = request.send_to(&source);
            match given {
                // Only a case without a body signature may accept it.
                Ok(_) | Err(Rejection::InvalidFields(_)) if !kind.credential.signs_body => {}
                given => kind.assert_invalid_signature(&given, "tampered body"),
            }
        }
    }
}

#[test]
fn signature_mutated_is_rejected() {
    for kind in cases::all() {
        let source = kind.default_source();
        for (rule, change) in TOKEN_MUTATIONS {
            let given = kind.with_token(&source, change);
            if kind.credential.tolerated.contains(&rule) {
                kind.assert_authentic(&given, rule);
            } else {
                kind.assert_invalid_signature(&given, rule);
            }
        }
        for (rule, change) in kind.credential.rejected {
            kind.assert_invalid_signature(&kind.with_value(&source, *change), rule);
        }
        for (rule, change) in kind.credential.accepted {
            kind.assert_authentic(&kind.with_value(&source, *change), rule);
        }
    }
}

#[test]
fn signature_surrounding_white_space_is_ignored() {
    for kind in cases::all() {
        let source = kind.default_source();
        let given = kind.with_value(&source, |value| format!(" {value}\t"));
        kind.assert_authentic(&given, "white space around the signature");
    }
}

#[test]
fn signature_missing_is_rejected() {
    for kind in cases::all() {
        let source = kind.default_source();
        let header = kind.credential.header;
        let mut request = kind.request(&source, &[]);
        let [before, _, after] = (kind.credential.token)(request.value(header));
        for value in ["", "  ", &format!("{before}{after}")] {
            let given = kind.request(&source, &[]).set(header, value).send_to(&source);
            kind.assert_invalid_signature(&given, "empty signature header");
        }
        request.headers.remove(header);
        kind.assert_invalid_signature(&request.send_to(&source), "no signature header");
    }
}

#[test]
fn signed_headers_missing_or_changed_are_rejected() {
    for kind in cases::all() {
        let source = kind.default_source();
        for header in kind.credential.required_headers {
            let mut request = kind.request(&source, &[]).set(header, "");
            kind.assert_invalid_signature(&request.send_to(&source), &format!("empty {header}"));
            request.headers.remove(*header);
            kind.assert_invalid_signature(&request.send_to(&source), &format!("no {header}"));
        }
        for delta in kind.credential.signed_headers {
            assert!(matches!(delta, Header(..)), "{}: {delta:?} would be signed", kind.name);
            let given = kind.request(&source, &[*delta]).send_to(&source);
            kind.assert_invalid_signature(&given, &format!("signed and then changed: {delta:?}"));
        }
        for settings in kind.credential.foreign_settings {
            let stranger = kind.source_with(settings, &["FIRST"], &[]);
            let given = kind.request(&source, &[]).send_to(&stranger);
            kind.assert_invalid_signature(&given, &format!("under {settings}"));
            let own = kind.request(&stranger, &[]).send_to(&stranger);
            kind.assert_authentic(&own, &format!("under {settings}, its own"));
        }
    }
}

#[test]
fn signed_timestamp_must_be_within_tolerance() {
    const MONTH: i64 = 30 * 24 * 3600;
    for kind in cases::all() {
        let source = kind.default_source();
        let received = |seconds: i64| {
            let mut request = kind.request(&source, &[]);
            request.received_at += time::Duration::seconds(seconds);
            request.send_to(&source)
        };
        // Without a signed timestamp, the age of a request is irrelevant.
        let near = kind.credential.tolerance_s.unwrap_or(MONTH);
        for seconds in [-near, -1, 0, 1, near] {
            kind.assert_authentic(&received(seconds), &format!("received {seconds} s later"));
        }
        if let Some(tolerance) = kind.credential.tolerance_s {
            for seconds in [tolerance + 1, -tolerance - 1, MONTH, -MONTH] {
                let rule = format!("received {seconds} s after the signed time");
                kind.assert_invalid_signature(&received(seconds), &rule);
            }
            // The response to a forged request does not depend on its timestamp.
            let strange = kind.source_for(&["STRANGE"], &[]);
            let mut forged = kind.request(&strange, &[]);
            let in_time = forged.send_to(&source);
            forged.received_at += time::Duration::seconds(MONTH);
            assert_eq!(forged.send_to(&source), in_time, "{}: forged and old", kind.name);
        }
    }
}

#[test]
fn token_in_query_is_accepted_only_where_allowed() {
    for kind in cases::all() {
        let source = kind.default_source();
        let (_, secret) = kind.secrets[0];
        let parameter = kind.credential.query_parameter.unwrap_or("token");
        let asked = |query: String, header: Option<&str>| {
            let mut request = kind.request(&source, &[]);
            request.headers.remove(kind.credential.header);
            request.query = query;
            let request = match header {
                Some(value) => request.set(kind.credential.header, value),
                None => request,
            };
            request.send_to(&source)
        };
        let good = format!("{parameter}={secret}");
        if kind.credential.query_parameter.is_none() {
            kind.assert_invalid_signature(&asked(good, None), "token in the query");
            continue;
        }
        kind.assert_authentic(&asked(good.clone(), None), "token in the query");
        for (rule, spoil) in TOKEN_MUTATIONS {
            let bad = format!("{parameter}={}", spoil(secret));
            kind.assert_invalid_signature(&asked(bad, None), &format!("query, {rule}"));
        }
        let wrong = asked(good, Some("Bearer wrong"));
        kind.assert_invalid_signature(&wrong, "a wrong header is not mended by the query");
    }
}

#[test]
fn secret_each_configured_verifies_and_no_other() {
    for kind in cases::all() {
        let both = kind.source_for(&["FIRST", "SECOND"], &[]);
        for (signer, expected) in [("FIRST", "env:FIRST"), ("SECOND", "env:SECOND")] {
            let given = kind.request(&kind.source_for(&[signer], &[]), &[]).send_to(&both);
            assert_eq!(label(&given), Some(expected), "{}: rotated secret", kind.name);
        }
        let forged = kind.request(&kind.source_for(&["STRANGE"], &[]), &[]);
        kind.assert_invalid_signature(&forged.send_to(&both), "wrong secret");
        kind.assert_invalid_signature(&forged.send_to(&kind.default_source()), "wrong secret");
    }
}

#[test]
fn secret_rotation_accepts_either_signature() {
    for kind in cases::all() {
        let Some(join) = kind.credential.join else { continue };
        let [first, second, strange] =
            ["FIRST", "SECOND", "STRANGE"].map(|name| kind.source_for(&[name], &[]));
        let request = kind.request(&first, &[]);
        let other = kind.request(&second, &[]);
        let header = kind.credential.header;
        let joined = join(request.value(header), other.value(header));
        let request = request.set(header, &joined);
        assert_eq!(label(&request.send_to(&first)), Some("env:FIRST"), "{}", kind.name);
        assert_eq!(label(&request.send_to(&second)), Some("env:SECOND"), "{}", kind.name);
        kind.assert_invalid_signature(&request.send_to(&strange), "neither of two secrets");
    }
}

#[test]
fn secret_empty_is_rejected_by_configuration() {
    for kind in cases::all() {
        for secrets in [&["EMPTY"][..], &["FIRST", "EMPTY"], &[]] {
            let loaded =
                ConfiguredSource::load_with(kind.kind, kind.settings, kind.secrets, secrets, &[]);
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
fn secret_malformed_is_rejected_and_not_repeated() {
    for kind in cases::all() {
        for text in kind.malformed_secrets {
            let values = [("FIRST", *text)];
            let loaded =
                ConfiguredSource::load_with(kind.kind, kind.settings, &values, &["FIRST"], &[]);
            let error = loaded.err().unwrap_or_default();
            // An error may mention a prefix without a secret.
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
fn tenant_not_allowed_is_rejected() {
    for kind in cases::all() {
        let Some(elsewhere) = kind.other_tenant else { continue };
        for tenant in kind.allowed {
            let source = kind.source_for(&["FIRST"], &["nobody", tenant]);
            let rule = format!("tenant allowed as {tenant:?}");
            let event = kind.event(&source, &[], &rule);
            assert_eq!(event.tenant, kind.tenant, "{}: {rule}", kind.name);
            let given = kind.request(&source, &[elsewhere]).send_to(&source);
            assert!(
                matches!(given, Err(Rejection::UnknownTenant(..))),
                "{}: another tenant than {tenant:?}: {given:?}",
                kind.name
            );
        }
        for tenant in kind.foreign {
            let source = kind.source_for(&["FIRST"], &[tenant]);
            let given = kind.request(&source, &[]).send_to(&source);
            assert!(
                matches!(given, Err(Rejection::UnknownTenant(..))),
                "{}: tenant {tenant:?} lets another in: {given:?}",
                kind.name
            );
        }
        let source = kind.source_for(&["FIRST"], kind.allowed);
        for delta in kind.same_tenant {
            let event = kind.event(&source, &[*delta], "the same tenant, written otherwise");
            assert_eq!(event.tenant, kind.tenant, "{}: {delta:?}", kind.name);
        }
        let anywhere = kind.event(&kind.default_source(), &[elsewhere], "no allow-list");
        assert_ne!(anywhere.tenant, kind.tenant, "{}: elsewhere is another tenant", kind.name);
    }
}

#[test]
fn forged_request_gets_only_the_signature_error() {
    // Tenant, content type and body are checked after the signature.
    for kind in cases::all() {
        let source = kind.source_for(&["FIRST"], kind.allowed);
        let strange = kind.source_for(&["STRANGE"], &[]);
        for delta in kind.other_tenant.into_iter().chain([Body(b"<order/>")]) {
            let forged = kind.request(&strange, &[delta]).set("content-type", "text/html");
            kind.assert_invalid_signature(
                &forged.send_to(&source),
                &format!("forged request, {delta:?}"),
            );
        }
    }
}

#[test]
fn media_type_unsupported_is_rejected() {
    for kind in cases::all() {
        let source = kind.default_source();
        for taken in kind.accepted_media_types {
            let given = kind.request(&source, &[Header("content-type", taken)]).send_to(&source);
            assert!(given.is_ok(), "{}: content type {taken:?}: {given:?}", kind.name);
        }
        let mut request = kind.request(&source, &[]);
        request.headers.remove("content-type");
        let given = request.send_to(&source);
        let untyped = kind.accepted_media_types.contains(&"");
        assert_eq!(given.is_ok(), untyped, "{}: no content type: {given:?}", kind.name);
        for refused in kind.rejected_media_types {
            let given = kind.request(&source, &[Header("content-type", refused)]).send_to(&source);
            assert_eq!(
                given,
                Err(Rejection::UnsupportedMediaType((*refused).to_owned())),
                "{}: content type",
                kind.name
            );
        }
    }
}

#[test]
fn body_unreadable_is_never_ignored() {
    for kind in cases::all() {
        let source = kind.default_source();
        for body in [&b"<order/>"[..], b"", b"{\"id\":1", b"\xff\xfe{}", b"webhook_id=1"] {
            let rule = "authentic, not JSON";
            let envelope = match kind.unreadable {
                UnreadableBody::DeadLettered => {
                    let envelope = kind.envelope(&source, &[Body(body)], rule);
                    assert_eq!(envelope.body, body, "{}: {rule}: the body is kept", kind.name);
                    envelope
                }
                UnreadableBody::Rejected => {
                    kind.assert_invalid_fields(&source, body, |failure| {
                        failure.reason == ReasonCode::InvalidJson
                    });
                    // As another AMQP producer may publish it.
                    let mut envelope = kind.envelope(&source, &[], rule);
                    envelope.body = Bytes::copy_from_slice(body);
                    envelope
                }
            };
            let failure = source.source().map(&envelope).map_err(|failure| failure.reason);
            assert_eq!(failure, Err(ReasonCode::InvalidJson), "{}: {rule}: {body:?}", kind.name);
            assert_eq!(source.source().business_key(&envelope), None, "{}: {rule}", kind.name);
        }
    }
}

#[test]
fn event_id_is_equal_on_redelivery_only() {
    for kind in cases::all() {
        let source = kind.default_source();
        let id = |delta: &[Variation]| kind.event(&source, delta, "event id").event_id;
        let first = id(&[]);
        assert!(!first.is_empty(), "{}: the event id is empty", kind.name);
        assert_eq!(id(&[]), first, "{}: the same request", kind.name);
        // A retry is sent later; its timestamp and signature are new if they are signed.
        assert_eq!(id(&[Later(7200)]), first, "{}: two hours later", kind.name);
        for delta in kind.redelivered {
            assert_eq!(id(&[*delta]), first, "{}: redelivered with {delta:?}", kind.name);
            let later = id(&[*delta, Later(7200)]);
            assert_eq!(later, first, "{}: redelivered later with {delta:?}", kind.name);
        }
        for delta in kind.different_event {
            assert_ne!(id(&[*delta]), first, "{}: another event by {delta:?}", kind.name);
        }
    }
}

#[test]
fn request_with_several_events_is_split() {
    for kind in cases::all() {
        let Some(many) = kind.multi_event else { continue };
        let source = kind.default_source();
        let with = |body: &'static [u8]| [many.deltas, &[Body(body)]].concat();
        let rule = "several events in one request";
        let events = kind.events(&source, &with(many.body), rule);
        let told: Vec<_> =
            events.iter().map(|event| [&*event.event_id, &*event.tenant, &*event.topic]).collect();
        assert_eq!(told, many.events, "{}: {rule}", kind.name);
        let ids: BTreeSet<_> = events.iter().map(|event| event.event_id.clone()).collect();
        assert_eq!(ids.len(), events.len(), "{}: {rule}: an id twice", kind.name);
        let later = [&with(many.body)[..], &[Later(7200)]].concat();
        assert_eq!(kind.events(&source, &later, rule), events, "{}: redelivered", kind.name);
        for bodies in many.regrouped {
            let anew: Vec<_> =
                bodies.iter().flat_map(|body| kind.events(&source, &with(body), rule)).collect();
            let cut: BTreeSet<_> = anew.iter().map(|event| event.event_id.clone()).collect();
            assert_eq!(cut, ids, "{}: cut anew into {}", kind.name, bodies.len());
            assert_eq!(anew.len(), events.len(), "{}: cut anew: an id twice", kind.name);
        }
        for event in events {
            let envelope = envelope_of(event);
            let mapped = source.source().map(&envelope);
            assert!(mapped.is_ok(), "{}: {rule}: {:?}: {mapped:?}", kind.name, envelope.body);
        }
        kind.assert_foreign_events_ignored(&source, &with(many.body), many.events);
    }
}

#[test]
fn business_key_is_readable_if_mapping_fails() {
    for kind in cases::all() {
        let source = kind.default_source();
        let good = kind.envelope(&source, &[], "good body");
        match source.source().map(&good) {
            Ok(MappedEvent::Change(change)) => assert_eq!(
                change.business_key(),
                kind.business_key,
                "{}: the number of the document",
                kind.name
            ),
            other => panic!("{}: a good body must change the books: {other:?}", kind.name),
        }
        let number = |envelope: &Envelope| source.source().business_key(envelope);
        assert_eq!(number(&good).as_deref(), Some(kind.business_key), "{}: the number", kind.name);
        let Some(unmappable) = kind.unmappable_body else { continue };
        let bad = match kind.unreadable {
            UnreadableBody::DeadLettered => {
                kind.envelope(&source, &[Body(unmappable)], "unmappable body")
            }
            UnreadableBody::Rejected => {
                kind.assert_invalid_fields(&source, unmappable, |failure| {
                    failure.field.starts_with('/')
                });
                Envelope { body: unmappable.into(), ..good }
            }
        };
        let failure = source.source().map(&bad);
        assert!(
            failure.as_ref().is_err_and(|failure| failure.field.starts_with('/')),
            "{}: an unmappable body must name its field: {failure:?}",
            kind.name
        );
        assert_eq!(number(&bad).as_deref(), Some(kind.business_key), "{}: the number", kind.name);
    }
}

/// How many events a body holds depends on the platform, but an accepted request has at
/// least one.
#[test]
fn accepted_request_has_an_event() {
    for kind in cases::all() {
        let source = kind.default_source();
        for body in [&b"{}"[..], b"[]", b"null", b"1", b"[{}]", b"\"text\""] {
            if let Ok(Received::Events { events, .. }) =
                kind.request(&source, &[Body(body)]).send_to(&source)
            {
                let ids: BTreeSet<_> = events.iter().map(|event| &event.event_id).collect();
                assert!(!events.is_empty(), "{}: no event in {body:?}", kind.name);
                assert!(!ids.contains(&String::new()), "{}: {body:?} has no id", kind.name);
                assert_eq!(ids.len(), events.len(), "{}: {body:?}: an id twice", kind.name);
            }
        }
    }
}
