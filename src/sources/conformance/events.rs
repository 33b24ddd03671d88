//! The events of authentic requests.

use super::*;

#[test]
fn signed_request_round_trips() {
    for case in cases::all() {
        let source = case.default_source();
        let event = case.event(&source, &[], "round trip");
        assert_eq!(event.topic, case.topic, "{}: the topic survives", case.name);
        assert_eq!(event.tenant, case.tenant, "{}: the tenant survives", case.name);
        let stored = case.stored_body.unwrap_or(case.body);
        assert_eq!(event.body, stored, "{}: the body survives", case.name);
        let repeats = source.source().conflict_policy().redelivers_identical_body;
        assert_eq!(
            repeats, case.redelivers_identical_body,
            "{}: repeats the same bytes",
            case.name
        );
    }
}

#[test]
fn event_equivalent_forms_are_one_event() {
    for case in cases::all() {
        let source = case.default_source();
        let first = case.event(&source, &[], "first form");
        for form in case.equivalent_forms {
            let event = case.event(&source, form, "another form");
            let actual = (&event.event_id, &event.tenant, &event.topic);
            let expected = (&first.event_id, &first.tenant, &first.topic);
            assert_eq!(actual, expected, "{}: {form:?}", case.name);
            let business_key = source.source().business_key(&envelope_of(event));
            assert_eq!(business_key.as_deref(), Some(case.business_key), "{}: {form:?}", case.name);
        }
    }
}

#[test]
fn tenant_not_allowed_is_rejected() {
    for case in cases::all() {
        let Some(other_tenant) = case.other_tenant else { continue };
        for tenant in case.allowed {
            let source = case.source_for(&["FIRST"], &["other", tenant]);
            let rule = format!("tenant allowed as {tenant:?}");
            let event = case.event(&source, &[], &rule);
            assert_eq!(event.tenant, case.tenant, "{}: {rule}", case.name);
            let result = case.request(&source, &[other_tenant]).send_to(&source);
            assert!(
                matches!(result, Err(Rejection::UnknownTenant(..))),
                "{}: another tenant than {tenant:?}: {result:?}",
                case.name
            );
        }
        for tenant in case.foreign {
            let source = case.source_for(&["FIRST"], &[tenant]);
            let result = case.request(&source, &[]).send_to(&source);
            assert!(
                matches!(result, Err(Rejection::UnknownTenant(..))),
                "{}: tenant {tenant:?} accepts another: {result:?}",
                case.name
            );
        }
        let source = case.source_for(&["FIRST"], case.allowed);
        for variation in case.same_tenant {
            let event = case.event(&source, &[*variation], "the same tenant, written differently");
            assert_eq!(event.tenant, case.tenant, "{}: {variation:?}", case.name);
        }
        let anywhere = case.event(&case.default_source(), &[other_tenant], "no allow-list");
        assert_ne!(anywhere.tenant, case.tenant, "{}: must be another tenant", case.name);
    }
}

#[test]
fn media_type_unsupported_is_rejected() {
    for case in cases::all() {
        let source = case.default_source();
        for media_type in case.accepted_media_types {
            let result =
                case.request(&source, &[Header("content-type", media_type)]).send_to(&source);
            assert!(result.is_ok(), "{}: content type {media_type:?}: {result:?}", case.name);
        }
        let mut request = case.request(&source, &[]);
        request.headers.remove("content-type");
        let result = request.send_to(&source);
        let untyped = case.accepted_media_types.contains(&"");
        assert_eq!(result.is_ok(), untyped, "{}: no content type: {result:?}", case.name);
        for media_type in case.rejected_media_types {
            let result =
                case.request(&source, &[Header("content-type", media_type)]).send_to(&source);
            assert_eq!(
                result,
                Err(Rejection::UnsupportedMediaType((*media_type).to_owned())),
                "{}: content type",
                case.name
            );
        }
    }
}

#[test]
fn body_unreadable_is_never_ignored() {
    for case in cases::all() {
        let source = case.default_source();
        for body in [&b"<order/>"[..], b"", b"{\"id\":1", b"\xff\xfe{}", b"webhook_id=1"] {
            let rule = "authentic, not JSON";
            let envelope = match case.unreadable {
                UnreadableBody::DeadLettered => {
                    let envelope = case.envelope(&source, &[Body(body)], rule);
                    assert_eq!(envelope.body, body, "{}: {rule}: the body is stored", case.name);
                    envelope
                }
                UnreadableBody::Rejected => {
                    case.assert_invalid_fields(&source, body, |failure| {
                        failure.reason == ReasonCode::InvalidJson
                    });
                    // As another AMQP producer may publish it.
                    let mut envelope = case.envelope(&source, &[], rule);
                    envelope.body = Bytes::copy_from_slice(body);
                    envelope
                }
            };
            let failure = source.source().map(&envelope).map_err(|failure| failure.reason);
            assert_eq!(failure, Err(ReasonCode::InvalidJson), "{}: {rule}: {body:?}", case.name);
            assert_eq!(source.source().business_key(&envelope), None, "{}: {rule}", case.name);
        }
    }
}

#[test]
fn event_id_is_equal_on_redelivery_only() {
    for case in cases::all() {
        let source = case.default_source();
        let id = |variation: &[Variation]| case.event(&source, variation, "event id").event_id;
        let first = id(&[]);
        assert!(!first.is_empty(), "{}: the event id is empty", case.name);
        assert_eq!(id(&[]), first, "{}: the same request", case.name);
        // A retry is sent later; its timestamp and signature are new if they are signed.
        assert_eq!(id(&[Later(7200)]), first, "{}: two hours later", case.name);
        for variation in case.redelivered {
            assert_eq!(id(&[*variation]), first, "{}: redelivered with {variation:?}", case.name);
            let later = id(&[*variation, Later(7200)]);
            assert_eq!(later, first, "{}: redelivered later with {variation:?}", case.name);
        }
        for variation in case.different_event {
            assert_ne!(id(&[*variation]), first, "{}: another event by {variation:?}", case.name);
        }
    }
}

#[test]
fn request_with_several_events_is_split() {
    for case in cases::all() {
        let Some(many) = case.multi_event else { continue };
        let source = case.default_source();
        let with = |body: &'static [u8]| [many.variations, &[Body(body)]].concat();
        let rule = "several events in one request";
        let events = case.events(&source, &with(many.body), rule);
        let actual: Vec<_> =
            events.iter().map(|event| [&*event.event_id, &*event.tenant, &*event.topic]).collect();
        assert_eq!(actual, many.events, "{}: {rule}", case.name);
        let ids: BTreeSet<_> = events.iter().map(|event| event.event_id.clone()).collect();
        assert_eq!(ids.len(), events.len(), "{}: {rule}: an id twice", case.name);
        let later = [&with(many.body)[..], &[Later(7200)]].concat();
        assert_eq!(case.events(&source, &later, rule), events, "{}: redelivered", case.name);
        for bodies in many.regrouped {
            let regrouped: Vec<_> =
                bodies.iter().flat_map(|body| case.events(&source, &with(body), rule)).collect();
            let regrouped_ids: BTreeSet<_> =
                regrouped.iter().map(|event| event.event_id.clone()).collect();
            assert_eq!(regrouped_ids, ids, "{}: regrouped into {}", case.name, bodies.len());
            assert_eq!(regrouped.len(), events.len(), "{}: regrouped: an id twice", case.name);
        }
        for event in events {
            let envelope = envelope_of(event);
            let mapped = source.source().map(&envelope);
            assert!(mapped.is_ok(), "{}: {rule}: {:?}: {mapped:?}", case.name, envelope.body);
        }
        case.assert_foreign_events_ignored(&source, &with(many.body), many.events);
    }
}

#[test]
fn business_key_is_readable_if_mapping_fails() {
    for case in cases::all() {
        let source = case.default_source();
        let good = case.envelope(&source, &[], "good body");
        match source.source().map(&good) {
            Ok(MappedEvent::Change(change)) => assert_eq!(
                change.business_key(),
                case.business_key,
                "{}: the business key",
                case.name
            ),
            other => panic!("{}: a valid body must change a document: {other:?}", case.name),
        }
        let business_key = |envelope: &Envelope| source.source().business_key(envelope);
        assert_eq!(
            business_key(&good).as_deref(),
            Some(case.business_key),
            "{}: business key",
            case.name
        );
        let Some(unmappable) = case.unmappable_body else { continue };
        let bad = match case.unreadable {
            UnreadableBody::DeadLettered => {
                case.envelope(&source, &[Body(unmappable)], "unmappable body")
            }
            UnreadableBody::Rejected => {
                case.assert_invalid_fields(&source, unmappable, |failure| {
                    failure.field.starts_with('/')
                });
                Envelope { body: unmappable.into(), ..good }
            }
        };
        let failure = source.source().map(&bad);
        assert!(
            failure.as_ref().is_err_and(|failure| failure.field.starts_with('/')),
            "{}: an unmappable body must name its field: {failure:?}",
            case.name
        );
        assert_eq!(
            business_key(&bad).as_deref(),
            Some(case.business_key),
            "{}: business key",
            case.name
        );
    }
}

/// How many events a body holds depends on the platform, but an accepted request has at
/// least one.
#[test]
fn accepted_request_has_an_event() {
    for case in cases::all() {
        let source = case.default_source();
        for body in [&b"{}"[..], b"[]", b"null", b"1", b"[{}]", b"\"text\""] {
            if let Ok(Received::Events { events, .. }) =
                case.request(&source, &[Body(body)]).send_to(&source)
            {
                let ids: BTreeSet<_> = events.iter().map(|event| &event.event_id).collect();
                assert!(!events.is_empty(), "{}: no event in {body:?}", case.name);
                assert!(!ids.contains(&String::new()), "{}: {body:?} has no id", case.name);
                assert_eq!(ids.len(), events.len(), "{}: {body:?}: an id twice", case.name);
            }
        }
    }
}
