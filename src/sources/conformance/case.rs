//! One case of the suite: a kind of source and its requests.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::{Duration, OffsetDateTime};

use super::{ConfiguredSource, RECEIVED_AT, SECRETS, Secrets, envelope};
use crate::{
    domain::Envelope,
    sources::{Event, OutgoingWebhook, Received, Rejection, WebhookRequest},
};

/// One kind of source. A case sets its own values and takes the others from
/// [`Case::DEFAULT`].
#[derive(Clone, Copy)]
pub(super) struct Case {
    /// Name, for assertion messages.
    pub(super) name: &'static str,
    /// Value of `kind` in the configuration.
    pub(super) kind: &'static str,
    /// Its own settings, below `[sources.inbox]`.
    pub(super) settings: &'static str,
    /// Secrets in its format.
    pub(super) secrets: &'static Secrets,
    /// Secrets that are not in its format.
    pub(super) malformed_secrets: &'static [&'static str],
    /// How a request is authenticated.
    pub(super) credential: Credential,
    /// A mapped topic.
    pub(super) topic: &'static str,
    /// The tenant in events; empty if the kind has none.
    pub(super) tenant: &'static str,
    /// How the tenant may be written in the allow-list.
    pub(super) allowed: &'static [&'static str],
    /// Entries of an allow-list that do not match the tenant.
    pub(super) foreign: &'static [&'static str],
    /// The same tenant, written differently in the request.
    pub(super) same_tenant: &'static [Variation],
    /// A request of another tenant.
    pub(super) other_tenant: Option<Variation>,
    /// A body with one event that can be mapped.
    pub(super) body: &'static [u8],
    /// The stored body, if it is not the complete one.
    pub(super) stored_body: Option<&'static [u8]>,
    /// A body that cannot be mapped, but whose business key can be read.
    pub(super) unmappable_body: Option<&'static [u8]>,
    /// The business key in both; the resource id for thin events.
    pub(super) business_key: &'static str,
    /// The same event in the platform's other forms.
    pub(super) equivalent_forms: &'static [&'static [Variation]],
    /// What a redelivery may change.
    pub(super) redelivered: &'static [Variation],
    /// What makes it a different event.
    pub(super) different_event: &'static [Variation],
    /// Whether other bytes under a known key are a conflict.
    pub(super) redelivers_identical_body: bool,
    /// Accepted media types; an empty one means no header.
    pub(super) accepted_media_types: &'static [&'static str],
    /// Rejected media types.
    pub(super) rejected_media_types: &'static [&'static str],
    /// What happens to an authentic body that is unreadable.
    pub(super) unreadable: UnreadableBody,
    /// A request with several events, if the platform sends such.
    pub(super) multi_event: Option<MultiEventCase>,
}

/// How a request is authenticated, in one header.
#[derive(Clone, Copy)]
pub(super) struct Credential {
    /// Name of the header.
    pub(super) header: &'static str,
    /// Its value for the case's request under the first secret, computed by another
    /// program; each case names it.
    pub(super) known_value: &'static str,
    /// Splits such a value into the text before the token, the token, and the text after
    /// it.
    pub(super) token: for<'a> fn(&'a str) -> [&'a str; 3],
    /// Whether the token depends on the body.
    pub(super) signs_body: bool,
    /// The [`super::TOKEN_MUTATIONS`] that the platform tolerates, by name; all others are
    /// rejected.
    pub(super) tolerated: &'static [&'static str],
    /// Changes of the value that are rejected.
    pub(super) rejected: &'static [(&'static str, Mutation)],
    /// Changes of the value that are accepted.
    pub(super) accepted: &'static [(&'static str, Mutation)],
    /// Joins two values, as a sender does during a secret rotation.
    pub(super) join: Option<fn(&str, &str) -> String>,
    /// Other headers that an authentic request needs.
    pub(super) required_headers: &'static [&'static str],
    /// Changes of headers that the signature covers.
    pub(super) signed_headers: &'static [Variation],
    /// Maximum difference of the signed timestamp from now, in seconds; `None` if none is
    /// signed.
    pub(super) tolerance_s: Option<i64>,
    /// Other settings, under which the request is not authentic.
    pub(super) foreign_settings: &'static [&'static str],
    /// The query parameter that may contain the token instead.
    pub(super) query_parameter: Option<&'static str>,
}

/// Changes a valid text slightly.
pub(super) type Mutation = fn(&str) -> String;

/// What happens to an authentic body that is unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnreadableBody {
    /// It is accepted, and the worker dead-letters it: a shop gives up after a 4xx.
    DeadLettered,
    /// It is rejected with its invalid fields: the sender reads the response and corrects
    /// them.
    Rejected,
}

/// A request with several events.
#[derive(Clone, Copy)]
pub(super) struct MultiEventCase {
    /// Other changes of the request, such as its media type.
    pub(super) variations: &'static [Variation],
    /// Its body.
    pub(super) body: &'static [u8],
    /// Id, tenant and topic of each event.
    pub(super) events: &'static [[&'static str; 3]],
    /// The same events in other requests: each entry is a list of bodies that together
    /// contain them all.
    pub(super) regrouped: &'static [&'static [&'static [u8]]],
}

/// How a request differs from the case's valid one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Variation {
    Topic(&'static str),
    Tenant(&'static str),
    EventId(&'static str),
    Body(&'static [u8]),
    /// A header set after signing.
    Header(&'static str, &'static str),
    /// Sent and received this many seconds later.
    Later(i64),
}

use Variation::{Body, EventId, Header, Later, Tenant, Topic};

/// A token that is the complete value.
pub(super) fn whole_value(value: &str) -> [&str; 3] {
    ["", value, ""]
}

/// A token after the first occurrence of a marker.
pub(super) fn split_after<'a>(mark: &str, value: &'a str) -> [&'a str; 3] {
    let start = value.find(mark).unwrap_or_else(|| panic!("no {mark:?} in {value:?}"));
    let (before, token) = value.split_at(start + mark.len());
    [before, token, ""]
}

/// Media types of JSON, and none.
const JSON_MEDIA_TYPES: &[&str] = &[
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON;charset=UTF-8",
    "application/vnd.api+json",
    "application/cloudevents+json; charset=utf-8",
    "",
];

const OTHER_MEDIA_TYPES: &[&str] =
    &["application/x-www-form-urlencoded", "text/plain", "application/jsonp"];

impl Credential {
    /// An HMAC of the body as the complete value.
    pub(super) const HMAC: Self = Self {
        header: "",
        known_value: "",
        token: whole_value,
        signs_body: true,
        tolerated: &[],
        rejected: &[],
        accepted: &[],
        join: None,
        required_headers: &[],
        signed_headers: &[],
        tolerance_s: None,
        foreign_settings: &[],
        query_parameter: None,
    };
}

impl Case {
    /// Defaults of a case.
    pub(super) const DEFAULT: Self = Self {
        name: "",
        kind: "",
        settings: "",
        secrets: &SECRETS,
        malformed_secrets: &[],
        credential: Credential::HMAC,
        topic: "",
        tenant: "",
        allowed: &[],
        foreign: &[],
        same_tenant: &[],
        other_tenant: None,
        body: b"",
        stored_body: None,
        unmappable_body: None,
        business_key: "",
        equivalent_forms: &[],
        redelivered: &[],
        different_event: &[],
        redelivers_identical_body: true,
        accepted_media_types: JSON_MEDIA_TYPES,
        rejected_media_types: OTHER_MEDIA_TYPES,
        unreadable: UnreadableBody::DeadLettered,
        multi_event: None,
    };

    pub(super) fn source_for(&self, secrets: &[&str], tenants: &[&str]) -> ConfiguredSource {
        self.source_with(self.settings, secrets, tenants)
    }

    /// The source with other settings.
    pub(super) fn source_with(
        &self,
        settings: &str,
        secrets: &[&str],
        tenants: &[&str],
    ) -> ConfiguredSource {
        ConfiguredSource::load_with(self.kind, settings, self.secrets, secrets, tenants)
            .unwrap_or_else(|error| panic!("{}: must be configurable: {error}", self.name))
    }

    pub(super) fn default_source(&self) -> ConfiguredSource {
        self.source_for(&["FIRST"], &[])
    }

    /// The valid request with variations, signed with the first secret of `signer`.
    pub(super) fn request(&self, signer: &ConfiguredSource, variations: &[Variation]) -> Request {
        let mut webhook = OutgoingWebhook {
            topic: self.topic,
            tenant: self.tenant,
            event_id: "evt-1",
            triggered_at: RECEIVED_AT,
            sent_at: RECEIVED_AT,
            body: self.body,
        };
        for variation in variations {
            match *variation {
                Topic(topic) => webhook.topic = topic,
                Tenant(tenant) => webhook.tenant = tenant,
                EventId(id) => webhook.event_id = id,
                Body(body) => webhook.body = body,
                Later(seconds) => webhook.sent_at += Duration::seconds(seconds),
                Header(..) => {}
            }
        }
        let headers = signer.source().signed_headers(&webhook).into_iter().collect();
        let body = Bytes::copy_from_slice(webhook.body);
        let received_at = webhook.sent_at;
        let headers = Request { headers, query: String::new(), body, received_at };
        variations.iter().fold(headers, |request, variation| request.with_header_change(*variation))
    }

    /// Sends the valid request with a changed token.
    pub(super) fn with_token(
        &self,
        source: &ConfiguredSource,
        change: impl FnOnce(&str) -> String,
    ) -> Result<Received, Rejection> {
        let request = self.request(source, &[]);
        let [before, token, after] = (self.credential.token)(request.value(self.credential.header));
        let value = format!("{before}{}{after}", change(token));
        request.set(self.credential.header, &value).send_to(source)
    }

    /// Sends the valid request with a changed header.
    pub(super) fn with_value(
        &self,
        source: &ConfiguredSource,
        change: Mutation,
    ) -> Result<Received, Rejection> {
        let request = self.request(source, &[]);
        let value = change(request.value(self.credential.header));
        request.set(self.credential.header, &value).send_to(source)
    }

    /// The events of a request that must be accepted.
    pub(super) fn events(
        &self,
        source: &ConfiguredSource,
        variations: &[Variation],
        rule: &str,
    ) -> Vec<Event> {
        match self.request(source, variations).send_to(source) {
            Ok(Received::Events { events, .. }) => events,
            other => panic!("{}: {rule} {variations:?}: must be accepted, is {other:?}", self.name),
        }
    }

    /// The only event of a request that must be accepted.
    pub(super) fn event(
        &self,
        source: &ConfiguredSource,
        variations: &[Variation],
        rule: &str,
    ) -> Event {
        let mut events = self.events(source, variations, rule);
        assert_eq!(events.len(), 1, "{}: {rule} {variations:?}: must be tenant event", self.name);
        events.remove(0)
    }

    /// The envelope of the event, as the worker receives it.
    pub(super) fn envelope(
        &self,
        source: &ConfiguredSource,
        variations: &[Variation],
        rule: &str,
    ) -> Envelope {
        envelope_of(self.event(source, variations, rule))
    }
}

/// The envelope of an event, as the worker receives it.
pub(super) fn envelope_of(event: Event) -> Envelope {
    Envelope { tenant: event.tenant, version: event.version, ..envelope(&event.topic, event.body) }
}

/// The label of the secret that verified a request.
pub(super) fn label(result: &Result<Received, Rejection>) -> Option<&str> {
    match result {
        Ok(Received::Events { secret_label: secret, .. }) => Some(secret),
        _ => None,
    }
}

/// A request to be sent.
pub(super) struct Request {
    pub(super) headers: HeaderMap,
    pub(super) query: String,
    pub(super) body: Bytes,
    pub(super) received_at: OffsetDateTime,
}

impl Request {
    pub(super) fn set(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// Applies a header variation, which is not signed.
    pub(super) fn with_header_change(self, variation: Variation) -> Self {
        match variation {
            Header(name, value) => self.set(name, value),
            _ => self,
        }
    }

    pub(super) fn value(&self, header: &str) -> &str {
        self.headers[header].to_str().unwrap()
    }

    pub(super) fn send_to(&self, source: &ConfiguredSource) -> Result<Received, Rejection> {
        source.source().receive(&WebhookRequest {
            headers: &self.headers,
            query: &self.query,
            body: &self.body,
            received_at: self.received_at,
        })
    }
}
