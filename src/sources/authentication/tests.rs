//! Authentication by settings.

use bytes::Bytes;
use http::HeaderMap;
use time::{OffsetDateTime, macros::datetime};

use super::*;
use crate::sources::selector::Selector;

const AT: OffsetDateTime = datetime!(2026-01-02 3:04:05 UTC);
const FORGED: &str = "no configured secret verifies this signature";

fn settings(text: &str) -> SignatureSettings {
    let value = config::Config::builder()
        .add_source(config::File::from_str(text, config::FileFormat::Toml))
        .build()
        .unwrap();
    value.try_deserialize().unwrap()
}

fn by_signature(text: &str) -> Authentication {
    Authentication::new(AuthenticationMethod::Hmac, Some(settings(text))).unwrap()
}

fn by(method: AuthenticationMethod) -> Authentication {
    Authentication::new(method, None).unwrap()
}

fn secrets(authentication: &Authentication, texts: &[&str]) -> Vec<Secret> {
    let secret =
        |text: &&str| Secret::new("env:X", authentication.parse_key(text).unwrap()).unwrap();
    texts.iter().map(secret).collect()
}

/// A request to be verified.
#[derive(Clone)]
struct Case {
    headers: HeaderMap,
    query: &'static str,
    body: Bytes,
    at: OffsetDateTime,
}

impl Case {
    fn new(headers: &[(&str, &str)], body: &'static str) -> Self {
        let empty = Self { headers: HeaderMap::new(), query: "", body: body.into(), at: AT };
        headers.iter().fold(empty, |case, (name, value)| case.with(name, value))
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    fn at(mut self, unix: i64) -> Self {
        self.at = OffsetDateTime::from_unix_timestamp(unix).unwrap();
        self
    }

    fn made_to(&self, authentication: &Authentication, texts: &[&str]) -> Result<usize, String> {
        let Self { headers, query, body, at } = self;
        let request = WebhookRequest { headers, query, body, received_at: *at };
        authentication.verify(&request, &secrets(authentication, texts)).map_err(|rejection| {
            assert!(matches!(rejection, Rejection::InvalidSignature(_)), "{rejection:?}");
            rejection.to_string()
        })
    }
}

/// Svix and Standard Webhooks; the secret is without its prefix `whsec_`.
const SVIX: &str = r#"
    header = "webhook-signature"
    prefix = "v1,"
    list = true
    encoding = "base64"
    key = "base64"
    template = "{id}.{timestamp}.{body}"
    timestamp = "header:webhook-timestamp"
    id = "header:webhook-id"
"#;
const SVIX_SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn svix() -> Case {
    let headers = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    Case::new(&headers, r#"{"test": 2432232314}"#).at(1_614_265_330)
}

/// Stripe's scheme.
const STRIPE: &str = r#"
    header = "Stripe-Signature"
    item = "v1"
    template = "{timestamp}.{body}"
    timestamp = "item:t"
"#;
/// `printf '1533204620.{"id":1}' | openssl dgst -sha256 -hmac secret`
const STRIPE_V1: &str = "0aa0ddfff1c830941318e36fb3be8847625055787ef39ee0d9336f864d111139";

fn stripe(header: &str) -> Case {
    Case::new(&[("stripe-signature", header)], r#"{"id":1}"#).at(1_533_204_620)
}

#[test]
fn signature_scheme_svix_settings_verify() {
    let svix_settings = by_signature(SVIX);
    let made = |case: Case| case.made_to(&svix_settings, &[SVIX_SECRET]);
    let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(made(svix()), Ok(0));
    // A rotation, and unknown schemes.
    let both = format!("v1a,xx v1,bm9uc2Vuc2U= v2,{} {good}", &good[3..]);
    assert_eq!(made(svix().with("webhook-signature", &both)), Ok(0));
    let other_version = format!("v2,{}", &good[3..]);
    let none = "the header webhook-signature has no signature of this scheme";
    for (name, value, error) in [
        ("webhook-id", "msg_other", FORGED),
        ("webhook-timestamp", "1614265331", FORGED),
        ("webhook-id", "", "the header webhook-id is missing or empty"),
        ("webhook-timestamp", "", "the header webhook-timestamp is missing or empty"),
        ("webhook-signature", "", "the header webhook-signature is missing or empty"),
        ("webhook-signature", "v1,", FORGED),
        ("webhook-signature", other_version.as_str(), none),
        ("webhook-signature", &good[3..], none),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt", FORGED),
    ] {
        assert_eq!(made(svix().with(name, value)), Err(error.to_owned()), "{name}: {value}");
    }
    let tampered = Case { body: r#"{"test": 2432232315}"#.into(), ..svix() };
    assert_eq!(made(tampered), Err(FORGED.to_owned()));
}

#[test]
fn signature_scheme_timestamp_must_be_recent() {
    let stripe_settings = by_signature(STRIPE);
    let strict = by_signature(&format!("{STRIPE}tolerance_s = 1\n"));
    for (shift, lenient, tight) in [
        (0, true, true),
        (1, true, true),
        (-1, true, true),
        (2, true, false),
        (300, true, false),
        (-300, true, false),
        (301, false, false),
        (-301, false, false),
        (86_400, false, false),
    ] {
        let svix_says =
            svix().at(1_614_265_330 + shift).made_to(&by_signature(SVIX), &[SVIX_SECRET]);
        assert_eq!(svix_says.is_ok(), lenient, "{shift}: {svix_says:?}");
        let case = stripe(&format!("t=1533204620,v1={STRIPE_V1}")).at(1_533_204_620 + shift);
        for (settings, expected) in [(&stripe_settings, lenient), (&strict, tight)] {
            let verified = case.made_to(settings, &["secret"]);
            assert_eq!(verified.is_ok(), expected, "{shift}: {verified:?}");
            assert!(expected || verified.is_err_and(|error| error.contains("signed time")));
        }
    }
    // A sender without a valid signature learns nothing about our clock.
    let forged = stripe("t=1,v1=00").made_to(&stripe_settings, &["secret"]);
    assert_eq!(forged, Err(FORGED.to_owned()));
}

#[test]
fn signature_scheme_key_value_list_is_parsed() {
    let stripe_settings = by_signature(STRIPE);
    let made = |header: &str| stripe(header).made_to(&stripe_settings, &["other", "secret"]);
    let t = "t=1533204620";
    for header in [
        format!("{t},v1={STRIPE_V1}"),
        format!("{t}, v1=00, v1={STRIPE_V1}, v0=63f3"),
        format!("v1={STRIPE_V1},{t}"),
        format!("{t},v1=not hex,v1={}", STRIPE_V1.to_uppercase()),
    ] {
        assert_eq!(made(&header), Ok(1), "{header}");
    }
    let no_signature = "the header stripe-signature has no signature v1=";
    let no_time = "the header stripe-signature has no t=";
    for (header, error) in [
        (format!("{t},v0={STRIPE_V1}"), no_signature),
        (format!("{t},v1="), FORGED),
        (t.to_owned(), no_signature),
        (STRIPE_V1.to_owned(), no_signature),
        (format!("v1={STRIPE_V1}"), no_time),
        (format!("t=,v1={STRIPE_V1}"), no_time),
        (format!("t=1533204621,v1={STRIPE_V1}"), FORGED),
        (format!("{t},v1={}", "00,v1=".repeat(100) + STRIPE_V1), FORGED),
    ] {
        assert_eq!(made(&header), Err(error.to_owned()), "{header}");
    }
}

#[test]
fn signature_scheme_url_is_signed() {
    let address = "https://webhook.site/webhooks";
    let settings = |url: &str| {
        let header = "header = 'x-square-hmacsha256-signature'\nencoding = 'base64'\n";
        by_signature(&format!("{header}template = '{{url}}{{body}}'\nurl = '{url}'"))
    };
    let signature = "W3FlCNk5IA3ZQ2LHTWoajvzfaDu/OwY2tNHIHC3IUOA=";
    let body = r#"{"data":{"type":"webhooks","id":"fake_id"}}"#;
    let case = Case::new(&[("x-square-hmacsha256-signature", signature)], body);
    assert_eq!(case.made_to(&settings(address), &["signature-key"]), Ok(0));
    for (other, secret) in [
        ("https://webhook.site/webhooks/", "signature-key"),
        ("http://webhook.site/webhooks", "signature-key"),
        (address, "signature-key "),
    ] {
        let verified = case.made_to(&settings(other), &[secret]);
        assert_eq!(verified, Err(FORGED.to_owned()), "{other}");
    }
}

#[test]
fn signature_scheme_signed_request_verifies() {
    for (text, sent_as_header) in [
        ("", false),
        ("algorithm = 'sha512'\nencoding = 'base64'\nprefix = 'sha512='", false),
        (SVIX, true),
        (STRIPE, false),
        (
            "item = 's'\nid = 'item:i'\ntimestamp = 'item:t'\ntimestamp_unit = 'ms'\n\
             template = '{timestamp}:{id}:{header:X-Shop}:{body}!'",
            false,
        ),
    ] {
        let authentication = by_signature(text);
        let secret = &secrets(&authentication, &[SVIX_SECRET])[0];
        let webhook = OutgoingWebhook {
            topic: "t",
            tenant: "acme",
            event_id: "e1",
            triggered_at: OffsetDateTime::UNIX_EPOCH,
            sent_at: AT,
            body: b"{}",
        };
        let headers = vec![("x-shop".parse().unwrap(), HeaderValue::from_static("acme"))];
        let signed = authentication.sign(&webhook, headers, secret);
        assert_eq!(signed.iter().any(|(name, _)| name == "webhook-id"), sent_as_header, "{text}");
        let headers: HeaderMap = signed.into_iter().collect();
        let case = Case { headers, ..Case::new(&[], "{}") };
        assert_eq!(case.made_to(&authentication, &["bm8=", SVIX_SECRET]), Ok(1), "{text}");
        let later = case.clone().at(AT.unix_timestamp() + 301);
        let dated = text.contains("timestamp");
        assert_eq!(later.made_to(&authentication, &[SVIX_SECRET]).is_err(), dated, "{text}");
        let tampered = case.with("x-shop", "other").made_to(&authentication, &[SVIX_SECRET]);
        assert_eq!(tampered.is_err(), text.contains("X-Shop"), "{text}");
    }
}

#[test]
fn signature_scheme_invalid_timestamp_is_rejected() {
    for unit in ["s", "ms"] {
        let authentication = by_signature(&format!(
            "template = '{{timestamp}}.{{body}}'\ntimestamp = 'header:X-Time'\n\
             timestamp_unit = '{unit}'"
        ));
        let secret = &secrets(&authentication, &["k"])[0];
        for time in
            ["x", "1.5", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "²"]
        {
            let bytes = secret.hmac(Algorithm::Sha256, &[time.as_bytes(), b".", b"{}"]);
            let signature = Encoding::Hex.encode(&bytes);
            let case = Case::new(&[("x-signature", &signature), ("x-time", time)], "{}");
            let error = case.made_to(&authentication, &["k"]).unwrap_err();
            assert!(error.contains("signed time"), "{time}: {error}");
        }
    }
}

#[test]
fn bearer_token_must_equal_the_secret() {
    let bearer = by(AuthenticationMethod::Bearer);
    let made = |value: &str| {
        Case::new(&[("authorization", value)], "{}").made_to(&bearer, &["a", "töken"])
    };
    for value in ["Bearer töken", "bearer töken", "BEARER  töken"] {
        assert_eq!(made(value), Ok(1), "{value}");
    }
    assert_eq!(made("Bearer a"), Ok(0));
    let wrong = "no configured secret is this token";
    for (value, error) in [
        ("Bearer b", wrong),
        ("Bearer töken2", wrong),
        ("Bearer töke", wrong),
        ("Bearer TÖKEN", wrong),
        ("Bearer", "the header Authorization is not a bearer token"),
        ("töken", "the header Authorization is not a bearer token"),
        ("Basic töken", "the header Authorization is not a bearer token"),
        ("", "the header Authorization is missing or empty"),
    ] {
        assert_eq!(made(value), Err(error.to_owned()), "{value}");
    }
    for text in ["a b", " a", "a\t"] {
        assert!(bearer.parse_key(text).is_err(), "{text:?}");
    }
}

#[test]
fn bearer_token_in_query_requires_permission() {
    let with_query = |query| Case { query, ..Case::new(&[], "{}") };
    let missing = Err("the header Authorization is missing or empty".to_owned());
    let (header_only, both) = (
        by(AuthenticationMethod::Bearer),
        by(AuthenticationMethod::Bearer).allow_in_query("access_token"),
    );
    let good = with_query("a=1&access_token=a%26b");
    assert_eq!(good.made_to(&both, &["a&b"]), Ok(0));
    assert_eq!(good.made_to(&header_only, &["a&b"]), missing);
    // The header takes precedence over the query.
    let contradicting = good.with("authorization", "Bearer other");
    assert!(contradicting.made_to(&both, &["a&b"]).is_err());
    for query in ["", "access_token", "access_token=", "Access_token=a", "token=a"] {
        assert_eq!(with_query(query).made_to(&both, &["a"]), missing, "{query}");
    }
    assert!(with_query("access_token=b&access_token=a").made_to(&both, &["a"]).is_err());
}

#[test]
fn basic_auth_checks_user_and_password() {
    let basic = by(AuthenticationMethod::Basic);
    // RFC 7617, section 2; the second has a password with a colon.
    let made = |value: &str| {
        let texts = ["Aladdin:open sesame", "user:a:b"];
        Case::new(&[("authorization", value)], "{}").made_to(&basic, &texts)
    };
    assert_eq!(made("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Ok(0));
    assert_eq!(made("basic dXNlcjphOmI="), Ok(1));
    for (value, error) in [
        ("Basic QWxhZGRpbjo=", "no configured secret is this user and password"),
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", "the header Authorization is not base64"),
        ("Basic Aladdin:open sesame", "the header Authorization is not base64"),
        ("Bearer QWxhZGRpbg==", "the header Authorization is not a user and a password"),
        ("", "the header Authorization is missing or empty"),
    ] {
        assert_eq!(made(value), Err(error.to_owned()), "{value}");
    }
    for text in ["user", "user:", ":"] {
        assert!(basic.parse_key(text).is_err(), "{text}");
    }
}

#[test]
fn secret_text_is_decoded_by_key_encoding() {
    let key =
        |encoding: &str, text: &str| by_signature(&format!("key = '{encoding}'")).parse_key(text);
    let bytes = |encoding, text| key(encoding, text).map(|key| key.expose().to_vec());
    assert_eq!(bytes("utf8", " 6869 "), Ok(b" 6869 ".to_vec()));
    assert_eq!(bytes("hex", " 686A\n"), Ok(b"hj".to_vec()));
    assert_eq!(bytes("base64", "aGk=\n"), Ok(b"hi".to_vec()));
    for (encoding, text) in [("hex", "686"), ("hex", "secret"), ("base64", "aGk"), ("base64", "*")]
    {
        let error = key(encoding, text).unwrap_err();
        assert_eq!(error, "the secret is not encoded as signature.key says", "{encoding}");
    }
}

#[test]
fn signature_settings_invalid_key_is_named() {
    let timed = "timestamp = 'header:x-t'\ntemplate = '{timestamp}{body}'\n";
    for (text, key) in [
        ("header = 'a b'".to_owned(), "header"),
        ("header = ''".to_owned(), "header"),
        ("item = 'v1'\nlist = true".to_owned(), "list"),
        ("item = 'v1='".to_owned(), "item"),
        ("template = ''".to_owned(), "template"),
        ("template = '{id}'\nid = 'header:x'".to_owned(), "template"),
        ("template = '{body}{body}'".to_owned(), "template"),
        ("template = '{bodies}{body}'".to_owned(), "template"),
        ("template = '{body'".to_owned(), "template"),
        ("template = 'body}{body}'".to_owned(), "template"),
        ("template = '{body}}'".to_owned(), "template"),
        ("template = '{header:a b}{body}'".to_owned(), "template"),
        ("template = '{header:}{body}'".to_owned(), "template"),
        ("timestamp = 'header:x'".to_owned(), "template"),
        ("template = '{timestamp}{body}'".to_owned(), "timestamp"),
        (timed.replace("header:x-t", "/t"), "timestamp"),
        (timed.replace("header:x-t", "header:"), "timestamp"),
        (timed.replace("header:x-t", "item:t"), "timestamp"),
        (format!("{timed}list = true").replace("header:x-t", "item:t"), "timestamp"),
        (format!("{timed}item = 't'").replace("header:x-t", "item:t"), "timestamp"),
        (format!("{timed}tolerance_s = 0"), "tolerance_s"),
        (format!("{timed}tolerance_s = 86401"), "tolerance_s"),
        ("tolerance_s = 300".to_owned(), "tolerance_s"),
        ("timestamp_unit = 'ms'".to_owned(), "timestamp_unit"),
        ("template = '{id}{body}'".to_owned(), "id"),
        ("id = 'header:x'".to_owned(), "id"),
        ("template = '{id}{body}'\nid = 'const:x'".to_owned(), "id"),
        ("template = '{url}{body}'".to_owned(), "url"),
        ("url = 'https://shop.example'".to_owned(), "url"),
    ] {
        let error = Authentication::new(AuthenticationMethod::Hmac, Some(settings(&text))).err();
        let field = error.map(|error| error.field).unwrap_or_default();
        assert_eq!(field, format!("signature.{key}"), "{text}");
    }
    for method in [AuthenticationMethod::Bearer, AuthenticationMethod::Basic] {
        let error = Authentication::new(method, Some(settings(""))).err();
        assert_eq!(error.map(|error| error.field).as_deref(), Some("signature"));
    }
}

#[test]
fn signature_id_defaults_to_event_id_header() {
    let from_header = Selector::Header("x-id".to_owned());
    let id_setting =
        |text: &str, event_id: Option<&Selector>| settings(text).with_default_id(event_id).id;
    let template = "template = '{id}{body}'";
    assert_eq!(id_setting(template, Some(&from_header)).as_deref(), Some("header:x-id"));
    let given = format!("{template}\nid = 'header:y'");
    assert_eq!(id_setting(&given, Some(&from_header)).as_deref(), Some("header:y"));
    // The body is not read before it is verified.
    assert_eq!(id_setting(template, Some(&Selector::Pointer("/id".to_owned()))), None);
    assert_eq!(id_setting(template, None), None);
    assert_eq!(id_setting("", Some(&from_header)), None);
}
