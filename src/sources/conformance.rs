//! Requirements on every platform: one suite over a table.
//!
//! A new kind of source needs a file below [`cases`]. Each case is configured through
//! [`Components::from_toml`], so that configuration and source are tested together; each
//! assertion names the case and the rule.

mod assertions;
mod authenticity;
mod case;
mod cases;
mod events;

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
        assert!(cases::all().any(|case| case.kind == kind), "{kind}: has no case");
    }
}

#[test]
fn conformance_every_case_is_complete() {
    for case in cases::all() {
        let name = case.name;
        let Credential { header, known_value: known, .. } = case.credential;
        assert!(!header.is_empty() && !known.is_empty(), "{name}: no known signature");
        assert!(!case.body.is_empty() && !case.business_key.is_empty(), "{name}: no valid body");
        assert!(!case.redelivered.is_empty(), "{name}: no redelivery");
        assert!(!case.different_event.is_empty(), "{name}: no other event");
        let tenants =
            [case.allowed.is_empty(), case.foreign.is_empty(), case.other_tenant.is_none()];
        assert_eq!(tenants, [case.tenant.is_empty(); 3], "{name}: tenants");
        for tolerated in case.credential.tolerated {
            assert!(
                TOKEN_MUTATIONS.iter().any(|(mutation, _)| mutation == tolerated),
                "{name}: unknown mutation {tolerated:?}"
            );
        }
        let signs = case.credential.signs_body;
        assert!(
            signs || case.credential.tolerance_s.is_none(),
            "{name}: a tolerance without a signature"
        );
    }
}
