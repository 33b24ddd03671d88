//! One row of the suite: a kind of source, and what tells its calls apart.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::{Duration, OffsetDateTime};

use super::{ConfiguredSource, RECEIVED_AT, SECRETS, Secrets, envelope};
use crate::{
    domain::{Envelope, MappedEvent, PermanentFailure},
    sources::{Event, FOREIGN_TENANT_PREFIX, OutgoingWebhook, Received, Rejection, WebhookRequest},
};

/// One kind of source. A row names what it has and takes the rest of
/// [`Case::DEFAULT`].
#[derive(Clone, Copy)]
pub(super) struct Case {
    /// For messages.
    pub(super) name: &'static str,
    /// Its word in the configuration.
    pub(super) kind: &'static str,
    /// Its own settings, below `[sources.inbox]`.
    pub(super) settings: &'static str,
    /// What its secrets look like.
    pub(super) secrets: &'static Secrets,
    /// Secrets that are not of its form.
    pub(super) malformed_secrets: &'static [&'static str],
    /// How a call proves itself.
    pub(super) credential: Credential,
    /// A topic that is mapped.
    pub(super) topic: &'static str,
    /// The tenant as events name it; empty if the kind knows none.
    pub(super) tenant: &'static str,
    /// How a person may write that tenant in the allow-list.
    pub(super) allowed: &'static [&'static str],
    /// What an allow-list may hold without letting the tenant in.
    pub(super) foreign: &'static [&'static str],
    /// The same tenant, written otherwise in the call.
    pub(super) same_tenant: &'static [Variation],
    /// A call of a tenant that is not [`Case::tenant`].
    pub(super) other_tenant: Option<Variation>,
    /// A body with one event that can be mapped.
    pub(super) body: &'static [u8],
    /// What is kept of it, if not all.
    pub(super) stored_body: Option<&'static [u8]>,
    /// A body that cannot be mapped, though its number can be read.
    pub(super) unmappable_body: Option<&'static [u8]>,
    /// The number in both; the id, where the kind only refers to things.
    pub(super) business_key: &'static str,
    /// The same event, sent in the platform's other forms.
    pub(super) equivalent_forms: &'static [&'static [Variation]],
    /// What a redelivery may change.
    pub(super) redelivered: &'static [Variation],
    /// What makes it another event.
    pub(super) different_event: &'static [Variation],
    /// Whether other bytes under a known key are a conflict.
    pub(super) repeats_same_bytes: bool,
    /// Media types that are taken; an empty one stands for none at all.
    pub(super) accepted_media_types: &'static [&'static str],
    /// Media types that are not.
    pub(super) rejected_media_types: &'static [&'static str],
    /// What becomes of an authentic body that cannot be understood.
    pub(super) unreadable: UnreadableBody,
    /// A call with several events, where the platform makes such.
    pub(super) multi_event: Option<MultiEventCase>,
}

/// How a call proves itself, in one header.
#[derive(Clone, Copy)]
pub(super) struct Credential {
    /// The header.
    pub(super) header: &'static str,
    /// Its whole value for the row's good call under the first secret, as
    /// another program made it; each row says which.
    pub(super) known_value: &'static str,
    /// Cuts the token out of such a value: before, token, behind.
    pub(super) token: for<'a> fn(&'a str) -> [&'a str; 3],
    /// Whether the token depends on the body; if not, it is shown as it is.
    pub(super) signs_body: bool,
    /// What the platform forgives of [`super::TOKEN_MUTATIONS`], by name: all else is
    /// refused.
    pub(super) tolerated: &'static [&'static str],
    /// Changes of the whole value that are refused.
    pub(super) rejected: &'static [(&'static str, Mutation)],
    /// Changes of the whole value that are taken.
    pub(super) accepted: &'static [(&'static str, Mutation)],
    /// Two values made one, as a sender does that is changing its secret.
    pub(super) join: Option<fn(&str, &str) -> String>,
    /// Other headers without which no call is authentic.
    pub(super) required_headers: &'static [&'static str],
    /// What is signed beside the body, and so cannot be changed behind it.
    pub(super) signed_headers: &'static [Variation],
    /// How far the signed time may be from now, in seconds; `None` if no time
    /// is signed.
    pub(super) tolerance_s: Option<i64>,
    /// Other settings, under which the good call is not authentic.
    pub(super) foreign_settings: &'static [&'static str],
    /// The parameter of the query in which the token may stand instead.
    pub(super) query_parameter: Option<&'static str>,
}

/// Makes a text that is slightly wrong out of a good one.
pub(super) type Mutation = fn(&str) -> String;

/// What becomes of an authentic body that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnreadableBody {
    /// It is kept, and the worker buries it: a shop would give up on a 4xx.
    DeadLettered,
    /// It is refused with its fields: the caller reads the answer and mends it.
    Rejected,
}

/// A call with several events.
#[derive(Clone, Copy)]
pub(super) struct MultiEventCase {
    /// What else the call needs, such as its media type.
    pub(super) deltas: &'static [Variation],
    /// Its body.
    pub(super) body: &'static [u8],
    /// The id, tenant and topic of each event.
    pub(super) events: &'static [[&'static str; 3]],
    /// The same events, cut and ordered anew: each is a list of bodies that
    /// hold them all.
    pub(super) regrouped: &'static [&'static [&'static [u8]]],
}

/// How a call differs from the row's good one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Variation {
    Topic(&'static str),
    Tenant(&'static str),
    EventId(&'static str),
    Body(&'static [u8]),
    /// Set behind the signature.
    Header(&'static str, &'static str),
    /// Sent and received this many seconds later.
    Later(i64),
}

use Variation::{Body, EventId, Header, Later, Tenant, Topic};

/// A token that is the whole of its header.
pub(super) fn whole_value(value: &str) -> [&str; 3] {
    ["", value, ""]
}

/// A token that stands behind the first of these marks.
pub(super) fn split_after<'a>(mark: &str, value: &'a str) -> [&'a str; 3] {
    let start = value.find(mark).unwrap_or_else(|| panic!("no {mark:?} in {value:?}"));
    let (before, token) = value.split_at(start + mark.len());
    [before, token, ""]
}

/// JSON under all its media types, or under none.
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
    /// An HMAC of the body that is the whole of its header.
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
    /// What a row need not say.
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
        repeats_same_bytes: true,
        accepted_media_types: JSON_MEDIA_TYPES,
        rejected_media_types: OTHER_MEDIA_TYPES,
        unreadable: UnreadableBody::DeadLettered,
        multi_event: None,
    };

    pub(super) fn source_for(&self, secrets: &[&str], tenants: &[&str]) -> ConfiguredSource {
        self.source_with(self.settings, secrets, tenants)
    }

    /// The kind with other settings.
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

    /// The row's good call, changed and then signed by `signer`'s first secret.
    pub(super) fn request(&self, signer: &ConfiguredSource, deltas: &[Variation]) -> Request {
        let mut delivery = OutgoingWebhook {
            topic: self.topic,
            tenant: self.tenant,
            event_id: "evt-1",
            triggered_at: RECEIVED_AT,
            sent_at: RECEIVED_AT,
            body: self.body,
        };
        for delta in deltas {
            match *delta {
                Topic(topic) => delivery.topic = topic,
                Tenant(tenant) => delivery.tenant = tenant,
                EventId(id) => delivery.event_id = id,
                Body(body) => delivery.body = body,
                Later(seconds) => delivery.sent_at += Duration::seconds(seconds),
                Header(..) => {}
            }
        }
        let headers = signer.source().signed_headers(&delivery).into_iter().collect();
        let body = Bytes::copy_from_slice(delivery.body);
        let received_at = delivery.sent_at;
        let dressed = Request { headers, query: String::new(), body, received_at };
        deltas.iter().fold(dressed, |request, delta| request.with_header_change(*delta))
    }

    /// The good call with another text as its token, made to `source`.
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

    /// The good call with its header changed as a whole, made to `source`.
    pub(super) fn with_value(
        &self,
        source: &ConfiguredSource,
        change: Mutation,
    ) -> Result<Received, Rejection> {
        let request = self.request(source, &[]);
        let value = change(request.value(self.credential.header));
        request.set(self.credential.header, &value).send_to(source)
    }

    /// The events of a call that must be taken.
    pub(super) fn events(
        &self,
        source: &ConfiguredSource,
        deltas: &[Variation],
        rule: &str,
    ) -> Vec<Event> {
        match self.request(source, deltas).send_to(source) {
            Ok(Received::Events { events, .. }) => events,
            other => panic!("{}: {rule} {deltas:?}: must be taken, is {other:?}", self.name),
        }
    }

    /// The only event of a call that must be taken.
    pub(super) fn event(
        &self,
        source: &ConfiguredSource,
        deltas: &[Variation],
        rule: &str,
    ) -> Event {
        let mut events = self.events(source, deltas, rule);
        assert_eq!(events.len(), 1, "{}: {rule} {deltas:?}: must be one event", self.name);
        events.remove(0)
    }

    /// The event as the worker gets it.
    pub(super) fn envelope(
        &self,
        source: &ConfiguredSource,
        deltas: &[Variation],
        rule: &str,
    ) -> Envelope {
        envelope_of(self.event(source, deltas, rule))
    }

    pub(super) fn assert_invalid_signature(
        &self,
        result: &Result<Received, Rejection>,
        rule: &str,
    ) {
        assert!(
            matches!(result, Err(Rejection::InvalidSignature(_))),
            "{}: {rule}: must be refused for its signature, is {result:?}",
            self.name
        );
    }

    /// Asserts that an authentic call with this body is refused, and that each
    /// failure it is told is such a one.
    pub(super) fn assert_invalid_fields(
        &self,
        source: &ConfiguredSource,
        body: &'static [u8],
        is_such: impl Fn(&PermanentFailure) -> bool,
    ) {
        let given = self.request(source, &[Body(body)]).send_to(source);
        let Err(Rejection::InvalidFields(failures)) = &given else {
            panic!("{}: {body:?}: must be refused as invalid, is {given:?}", self.name);
        };
        let such = !failures.is_empty() && failures.iter().all(is_such);
        assert!(such, "{}: {body:?}: is refused with {failures:?}", self.name);
    }

    /// Asserts that of a call with events of several tenants, those that are not
    /// on the allow-list come as `foreign:` ones, which change nothing, and the
    /// others as if they were alone.
    pub(super) fn assert_foreign_events_ignored(
        &self,
        all: &ConfiguredSource,
        deltas: &[Variation],
        told: &[[&'static str; 3]],
    ) {
        let tenants: BTreeSet<_> = told.iter().map(|[_, tenant, _]| *tenant).collect();
        let whole = self.events(all, deltas, "no allow-list");
        for one in &tenants {
            let source = self.source_for(&["FIRST"], &[one]);
            let events = self.events(&source, deltas, &format!("only {one:?} is allowed"));
            assert_eq!(events.len(), whole.len(), "{}: only {one:?}: an event is lost", self.name);
            for (event, own) in events.into_iter().zip(&whole) {
                if event.tenant == *one {
                    assert_eq!(event, *own, "{}: only {one:?}", self.name);
                    continue;
                }
                let marked = [&event.topic, &event.event_id]
                    .map(|text| text.strip_prefix(FOREIGN_TENANT_PREFIX));
                let expected = [Some(own.topic.as_str()), Some(own.event_id.as_str())];
                assert_eq!(marked, expected, "{}: only {one:?}: a foreign event", self.name);
                let mapped = source.source().map(&envelope_of(event));
                assert_eq!(mapped, Ok(MappedEvent::Ignored), "{}: a foreign event", self.name);
            }
        }
        let everyone: Vec<_> = tenants.into_iter().collect();
        let source = self.source_for(&["FIRST"], &everyone);
        assert_eq!(self.events(&source, deltas, "all allowed"), whole, "{}: allowed", self.name);
        let nobody = self.source_for(&["FIRST"], &["nobody"]);
        let given = self.request(&nobody, deltas).send_to(&nobody);
        assert!(
            matches!(given, Err(Rejection::UnknownTenant(..))),
            "{}: all events are of strange tenants: {given:?}",
            self.name
        );
    }

    /// Asserts that the first secret verified the call.
    pub(super) fn assert_authentic(&self, result: &Result<Received, Rejection>, rule: &str) {
        assert_eq!(label(result), Some("env:FIRST"), "{}: {rule}: {result:?}", self.name);
    }
}

/// An event as the worker gets it.
pub(super) fn envelope_of(event: Event) -> Envelope {
    Envelope { tenant: event.tenant, version: event.version, ..envelope(&event.topic, event.body) }
}

/// The secret that verified a call.
pub(super) fn label(result: &Result<Received, Rejection>) -> Option<&str> {
    match result {
        Ok(Received::Events { secret_label: secret, .. }) => Some(secret),
        _ => None,
    }
}

/// A call to be made.
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

    /// Changes what is not signed, or must not be.
    pub(super) fn with_header_change(self, delta: Variation) -> Self {
        match delta {
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
