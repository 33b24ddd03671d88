//! Which requests are authentic.

use super::*;

#[test]
fn signature_matches_reference_implementation() {
    for case in cases::all() {
        let source = case.default_source();
        let request = case.request(&source, &[]);
        let known = case.credential.known_value;
        assert_eq!(
            request.headers[case.credential.header], known,
            "{}: known signature",
            case.name
        );
        let result = request.set(case.credential.header, known).send_to(&source);
        case.assert_authentic(&result, "known signature");
    }
}

#[test]
fn body_tampered_is_rejected() {
    for case in cases::all() {
        let source = case.default_source();
        let mut request = case.request(&source, &[]);
        for body in [&[case.body, b" "].concat()[..], &case.body[1..], b""] {
            request.body = Bytes::copy_from_slice(body);
            let result = request.send_to(&source);
            match result {
                // Only a case without a body signature may accept it.
                Ok(_) | Err(Rejection::InvalidFields(_)) if !case.credential.signs_body => {}
                result => case.assert_invalid_signature(&result, "tampered body"),
            }
        }
    }
}

#[test]
fn signature_mutated_is_rejected() {
    for case in cases::all() {
        let source = case.default_source();
        for (rule, change) in TOKEN_MUTATIONS {
            let result = case.with_token(&source, change);
            if case.credential.tolerated.contains(&rule) {
                case.assert_authentic(&result, rule);
            } else {
                case.assert_invalid_signature(&result, rule);
            }
        }
        for (rule, change) in case.credential.rejected {
            case.assert_invalid_signature(&case.with_value(&source, *change), rule);
        }
        for (rule, change) in case.credential.accepted {
            case.assert_authentic(&case.with_value(&source, *change), rule);
        }
    }
}

#[test]
fn signature_surrounding_white_space_is_ignored() {
    for case in cases::all() {
        let source = case.default_source();
        let result = case.with_value(&source, |value| format!(" {value}\t"));
        case.assert_authentic(&result, "white space around the signature");
    }
}

#[test]
fn signature_missing_is_rejected() {
    for case in cases::all() {
        let source = case.default_source();
        let header = case.credential.header;
        let mut request = case.request(&source, &[]);
        let [before, _, after] = (case.credential.token)(request.value(header));
        for value in ["", "  ", &format!("{before}{after}")] {
            let result = case.request(&source, &[]).set(header, value).send_to(&source);
            case.assert_invalid_signature(&result, "empty signature header");
        }
        request.headers.remove(header);
        case.assert_invalid_signature(&request.send_to(&source), "no signature header");
    }
}

#[test]
fn signed_headers_missing_or_changed_are_rejected() {
    for case in cases::all() {
        let source = case.default_source();
        for header in case.credential.required_headers {
            let mut request = case.request(&source, &[]).set(header, "");
            case.assert_invalid_signature(&request.send_to(&source), &format!("empty {header}"));
            request.headers.remove(*header);
            case.assert_invalid_signature(&request.send_to(&source), &format!("no {header}"));
        }
        for variation in case.credential.signed_headers {
            assert!(
                matches!(variation, Header(..)),
                "{}: {variation:?} would be signed",
                case.name
            );
            let result = case.request(&source, &[*variation]).send_to(&source);
            case.assert_invalid_signature(
                &result,
                &format!("signed and then changed: {variation:?}"),
            );
        }
        for settings in case.credential.foreign_settings {
            let other = case.source_with(settings, &["FIRST"], &[]);
            let result = case.request(&source, &[]).send_to(&other);
            case.assert_invalid_signature(&result, &format!("under {settings}"));
            let accepted = case.request(&other, &[]).send_to(&other);
            case.assert_authentic(&accepted, &format!("under {settings}, signed for it"));
        }
    }
}

#[test]
fn signed_timestamp_must_be_within_tolerance() {
    const MONTH: i64 = 30 * 24 * 3600;
    for case in cases::all() {
        let source = case.default_source();
        let received = |seconds: i64| {
            let mut request = case.request(&source, &[]);
            request.received_at += time::Duration::seconds(seconds);
            request.send_to(&source)
        };
        // Without a signed timestamp, the age of a request is irrelevant.
        let near = case.credential.tolerance_s.unwrap_or(MONTH);
        for seconds in [-near, -1, 0, 1, near] {
            case.assert_authentic(&received(seconds), &format!("received {seconds} s later"));
        }
        if let Some(tolerance) = case.credential.tolerance_s {
            for seconds in [tolerance + 1, -tolerance - 1, MONTH, -MONTH] {
                let rule = format!("received {seconds} s after the signed timestamp");
                case.assert_invalid_signature(&received(seconds), &rule);
            }
            // The response to a forged request does not depend on its timestamp.
            let strange = case.source_for(&["STRANGE"], &[]);
            let mut forged = case.request(&strange, &[]);
            let in_time = forged.send_to(&source);
            forged.received_at += time::Duration::seconds(MONTH);
            assert_eq!(forged.send_to(&source), in_time, "{}: forged and old", case.name);
        }
    }
}

#[test]
fn token_in_query_is_accepted_only_where_allowed() {
    for case in cases::all() {
        let source = case.default_source();
        let (_, secret) = case.secrets[0];
        let parameter = case.credential.query_parameter.unwrap_or("token");
        let send = |query: String, header: Option<&str>| {
            let mut request = case.request(&source, &[]);
            request.headers.remove(case.credential.header);
            request.query = query;
            let request = match header {
                Some(value) => request.set(case.credential.header, value),
                None => request,
            };
            request.send_to(&source)
        };
        let good = format!("{parameter}={secret}");
        if case.credential.query_parameter.is_none() {
            case.assert_invalid_signature(&send(good, None), "token in the query");
            continue;
        }
        case.assert_authentic(&send(good.clone(), None), "token in the query");
        for (rule, mutate) in TOKEN_MUTATIONS {
            let bad = format!("{parameter}={}", mutate(secret));
            case.assert_invalid_signature(&send(bad, None), &format!("query, {rule}"));
        }
        let other_header = send(good, Some("Bearer wrong"));
        case.assert_invalid_signature(
            &other_header,
            "a valid token in the query beside an invalid header",
        );
    }
}

#[test]
fn secret_each_configured_verifies_and_no_other() {
    for case in cases::all() {
        let both = case.source_for(&["FIRST", "SECOND"], &[]);
        for (signer, expected) in [("FIRST", "env:FIRST"), ("SECOND", "env:SECOND")] {
            let result = case.request(&case.source_for(&[signer], &[]), &[]).send_to(&both);
            assert_eq!(label(&result), Some(expected), "{}: rotated secret", case.name);
        }
        let forged = case.request(&case.source_for(&["STRANGE"], &[]), &[]);
        case.assert_invalid_signature(&forged.send_to(&both), "wrong secret");
        case.assert_invalid_signature(&forged.send_to(&case.default_source()), "wrong secret");
    }
}

#[test]
fn secret_rotation_accepts_either_signature() {
    for case in cases::all() {
        let Some(join) = case.credential.join else { continue };
        let [first, second, strange] =
            ["FIRST", "SECOND", "STRANGE"].map(|name| case.source_for(&[name], &[]));
        let request = case.request(&first, &[]);
        let other = case.request(&second, &[]);
        let header = case.credential.header;
        let joined = join(request.value(header), other.value(header));
        let request = request.set(header, &joined);
        assert_eq!(label(&request.send_to(&first)), Some("env:FIRST"), "{}", case.name);
        assert_eq!(label(&request.send_to(&second)), Some("env:SECOND"), "{}", case.name);
        case.assert_invalid_signature(&request.send_to(&strange), "neither of two secrets");
    }
}

#[test]
fn secret_empty_is_rejected_by_configuration() {
    for case in cases::all() {
        for secrets in [&["EMPTY"][..], &["FIRST", "EMPTY"], &[]] {
            let loaded =
                ConfiguredSource::load_with(case.kind, case.settings, case.secrets, secrets, &[]);
            let error = loaded.err().unwrap_or_default();
            assert!(
                error.contains("sources.inbox.secrets"),
                "{}: empty secret {secrets:?}: must be rejected by its key, is {error:?}",
                case.name
            );
        }
    }
}

#[test]
fn secret_malformed_is_rejected_and_not_repeated() {
    for case in cases::all() {
        for text in case.malformed_secrets {
            let values = [("FIRST", *text)];
            let loaded =
                ConfiguredSource::load_with(case.kind, case.settings, &values, &["FIRST"], &[]);
            let error = loaded.err().unwrap_or_default();
            // An error may mention a prefix without a secret.
            let repeated = !text.ends_with('_') && error.contains(text);
            assert!(
                error.contains("sources.inbox.secrets") && !repeated,
                "{}: malformed secret {text:?}: {error:?}",
                case.name
            );
        }
    }
}

#[test]
fn forged_request_gets_only_the_signature_error() {
    // Tenant, content type and body are checked after the signature.
    for case in cases::all() {
        let source = case.source_for(&["FIRST"], case.allowed);
        let strange = case.source_for(&["STRANGE"], &[]);
        for variation in case.other_tenant.into_iter().chain([Body(b"<order/>")]) {
            let forged = case.request(&strange, &[variation]).set("content-type", "text/html");
            case.assert_invalid_signature(
                &forged.send_to(&source),
                &format!("forged request, {variation:?}"),
            );
        }
    }
}
