//! One row of the suite: a kind of source, and what tells its calls apart.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::{Duration, OffsetDateTime};

use super::{AT, SECRETS, Secrets, Source, envelope};
use crate::{
    adapter::{Call, Delivery, Event, Received, Rejection},
    domain::{Envelope, Failure},
};

/// One kind of source. A row names what it has and takes the rest of
/// [`Kind::PLAIN`].
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// For messages.
    pub(super) name: &'static str,
    /// Its word in the configuration.
    pub(super) word: &'static str,
    /// Its own settings, below `[sources.inbox]`.
    pub(super) settings: &'static str,
    /// What its secrets look like.
    pub(super) secrets: &'static Secrets,
    /// Secrets that are not of its form.
    pub(super) malformed: &'static [&'static str],
    /// How a call proves itself.
    pub(super) proof: Proof,
    /// A topic that is mapped.
    pub(super) topic: &'static str,
    /// The tenant as events name it; empty if the kind knows none.
    pub(super) tenant: &'static str,
    /// How a person may write that tenant in the allow-list.
    pub(super) allowed: &'static [&'static str],
    /// What an allow-list may hold without letting the tenant in.
    pub(super) foreign: &'static [&'static str],
    /// The same tenant, written otherwise in the call.
    pub(super) alike: &'static [Delta],
    /// A call of a tenant that is not [`Kind::tenant`].
    pub(super) elsewhere: Option<Delta>,
    /// A body with one event that can be mapped.
    pub(super) body: &'static [u8],
    /// What is kept of it, if not all.
    pub(super) kept: Option<&'static [u8]>,
    /// A body that cannot be mapped, though its number can be read.
    pub(super) unmappable: Option<&'static [u8]>,
    /// The number in both; the id, where the kind only refers to things.
    pub(super) number: &'static str,
    /// The same event, sent in the platform's other forms.
    pub(super) forms: &'static [&'static [Delta]],
    /// What a redelivery may change.
    pub(super) redelivered: &'static [Delta],
    /// What makes it another event.
    pub(super) another: &'static [Delta],
    /// Whether other bytes under a known key are a conflict.
    pub(super) repeats_same_bytes: bool,
    /// Media types that are taken; an empty one stands for none at all.
    pub(super) takes: &'static [&'static str],
    /// Media types that are not.
    pub(super) declines: &'static [&'static str],
    /// What becomes of an authentic body that cannot be understood.
    pub(super) unreadable: Unreadable,
    /// A call with several events, where the platform makes such.
    pub(super) many: Option<Many>,
}

/// How a call proves itself, in one header.
#[derive(Clone, Copy)]
pub(super) struct Proof {
    /// The header.
    pub(super) header: &'static str,
    /// Its whole value for the row's good call under the first secret, as
    /// another program made it; each row says which.
    pub(super) known: &'static str,
    /// Cuts the token out of such a value: before, token, behind.
    pub(super) token: for<'a> fn(&'a str) -> [&'a str; 3],
    /// Whether the token depends on the body; if not, it is shown as it is.
    pub(super) signs_body: bool,
    /// What the platform forgives of [`super::SPOILS`], by name: all else is
    /// refused.
    pub(super) forgives: &'static [&'static str],
    /// Changes of the whole value that are refused.
    pub(super) refuses: &'static [(&'static str, Spoil)],
    /// Changes of the whole value that are taken.
    pub(super) takes: &'static [(&'static str, Spoil)],
    /// Two values made one, as a sender does that is changing its secret.
    pub(super) joins: Option<fn(&str, &str) -> String>,
    /// Other headers without which no call is authentic.
    pub(super) with: &'static [&'static str],
    /// What is signed beside the body, and so cannot be changed behind it.
    pub(super) binds: &'static [Delta],
    /// How far the signed time may be from now, in seconds; `None` if no time
    /// is signed.
    pub(super) tolerance_s: Option<i64>,
    /// Other settings, under which the good call is not authentic.
    pub(super) strangers: &'static [&'static str],
    /// The parameter of the query in which the token may stand instead.
    pub(super) in_query: Option<&'static str>,
}

/// Makes a text that is slightly wrong out of a good one.
pub(super) type Spoil = fn(&str) -> String;

/// What becomes of an authentic body that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is kept, and the worker buries it: a shop would give up on a 4xx.
    Buried,
    /// It is refused with its fields: the caller reads the answer and mends it.
    #[expect(dead_code, reason = "for callback sources, whose row comes with them")]
    Refused,
}

/// A call with several events.
#[derive(Clone, Copy)]
pub(super) struct Many {
    /// What else the call needs, such as its media type.
    pub(super) deltas: &'static [Delta],
    /// Its body.
    pub(super) body: &'static [u8],
    /// The id, tenant and topic of each event.
    pub(super) events: &'static [[&'static str; 3]],
    /// The same events, cut and ordered anew: each is a list of bodies that
    /// hold them all.
    pub(super) anew: &'static [&'static [&'static [u8]]],
}

/// How a call differs from the row's good one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delta {
    Topic(&'static str),
    Tenant(&'static str),
    EventId(&'static str),
    Body(&'static [u8]),
    /// Set behind the signature.
    Header(&'static str, &'static str),
    /// Sent and received this many seconds later.
    Later(i64),
}

use Delta::{Body, EventId, Header, Later, Tenant, Topic};

/// A token that is the whole of its header.
pub(super) fn whole(value: &str) -> [&str; 3] {
    ["", value, ""]
}

/// A token that stands behind the first of these marks.
pub(super) fn behind<'a>(mark: &str, value: &'a str) -> [&'a str; 3] {
    let start = value.find(mark).unwrap_or_else(|| panic!("no {mark:?} in {value:?}"));
    let (before, token) = value.split_at(start + mark.len());
    [before, token, ""]
}

/// JSON under all its media types, or under none.
const JSON: &[&str] = &[
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON;charset=UTF-8",
    "application/vnd.api+json",
    "application/cloudevents+json; charset=utf-8",
    "",
];

const NOT_JSON: &[&str] = &["application/x-www-form-urlencoded", "text/plain", "application/jsonp"];

impl Proof {
    /// An HMAC of the body that is the whole of its header.
    pub(super) const HMAC: Self = Self {
        header: "",
        known: "",
        token: whole,
        signs_body: true,
        forgives: &[],
        refuses: &[],
        takes: &[],
        joins: None,
        with: &[],
        binds: &[],
        tolerance_s: None,
        strangers: &[],
        in_query: None,
    };
}

impl Kind {
    /// What a row need not say.
    pub(super) const PLAIN: Self = Self {
        name: "",
        word: "",
        settings: "",
        secrets: &SECRETS,
        malformed: &[],
        proof: Proof::HMAC,
        topic: "",
        tenant: "",
        allowed: &[],
        foreign: &[],
        alike: &[],
        elsewhere: None,
        body: b"",
        kept: None,
        unmappable: None,
        number: "",
        forms: &[],
        redelivered: &[],
        another: &[],
        repeats_same_bytes: true,
        takes: JSON,
        declines: NOT_JSON,
        unreadable: Unreadable::Buried,
        many: None,
    };

    pub(super) fn source(&self, secrets: &[&str], tenants: &[&str]) -> Source {
        self.set_up(self.settings, secrets, tenants)
    }

    /// The kind with other settings.
    pub(super) fn set_up(&self, settings: &str, secrets: &[&str], tenants: &[&str]) -> Source {
        Source::load_with(self.word, settings, self.secrets, secrets, tenants)
            .unwrap_or_else(|error| panic!("{}: must be configurable: {error}", self.name))
    }

    pub(super) fn plain(&self) -> Source {
        self.source(&["FIRST"], &[])
    }

    /// The row's good call, changed and then signed by `signer`'s first secret.
    pub(super) fn request(&self, signer: &Source, deltas: &[Delta]) -> Request {
        let mut delivery = Delivery {
            topic: self.topic,
            tenant: self.tenant,
            event_id: "evt-1",
            triggered_at: AT,
            sent_at: AT,
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
        let headers = signer.adapter().dress(&delivery).into_iter().collect();
        let body = Bytes::copy_from_slice(delivery.body);
        let received_at = delivery.sent_at;
        let dressed = Request { headers, query: String::new(), body, received_at };
        deltas.iter().fold(dressed, |request, delta| request.changed(*delta))
    }

    /// The good call with another text as its token, made to `source`.
    pub(super) fn with_token(
        &self,
        source: &Source,
        change: impl FnOnce(&str) -> String,
    ) -> Result<Received, Rejection> {
        let request = self.request(source, &[]);
        let [before, token, after] = (self.proof.token)(request.value(self.proof.header));
        let value = format!("{before}{}{after}", change(token));
        request.set(self.proof.header, &value).made_to(source)
    }

    /// The good call with its header changed as a whole, made to `source`.
    pub(super) fn with_value(&self, source: &Source, change: Spoil) -> Result<Received, Rejection> {
        let request = self.request(source, &[]);
        let value = change(request.value(self.proof.header));
        request.set(self.proof.header, &value).made_to(source)
    }

    /// The events of a call that must be taken.
    pub(super) fn events(&self, source: &Source, deltas: &[Delta], rule: &str) -> Vec<Event> {
        match self.request(source, deltas).made_to(source) {
            Ok(Received::Events { events, .. }) => events,
            other => panic!("{}: {rule} {deltas:?}: must be taken, is {other:?}", self.name),
        }
    }

    /// The only event of a call that must be taken.
    pub(super) fn event(&self, source: &Source, deltas: &[Delta], rule: &str) -> Event {
        let mut events = self.events(source, deltas, rule);
        assert_eq!(events.len(), 1, "{}: {rule} {deltas:?}: must be one event", self.name);
        events.remove(0)
    }

    /// The event as the worker gets it.
    pub(super) fn envelope(&self, source: &Source, deltas: &[Delta], rule: &str) -> Envelope {
        enveloped(self.event(source, deltas, rule))
    }

    pub(super) fn refuses_signature(&self, result: &Result<Received, Rejection>, rule: &str) {
        assert!(
            matches!(result, Err(Rejection::Signature(_))),
            "{}: {rule}: must be refused for its signature, is {result:?}",
            self.name
        );
    }

    /// Asserts that an authentic call with this body is refused, and that each
    /// failure it is told is such a one.
    pub(super) fn refuses_fields(
        &self,
        source: &Source,
        body: &'static [u8],
        is_such: impl Fn(&Failure) -> bool,
    ) {
        let given = self.request(source, &[Body(body)]).made_to(source);
        let Err(Rejection::Invalid(failures)) = &given else {
            panic!("{}: {body:?}: must be refused as invalid, is {given:?}", self.name);
        };
        let such = !failures.is_empty() && failures.iter().all(is_such);
        assert!(such, "{}: {body:?}: is refused with {failures:?}", self.name);
    }

    /// Asserts that the first secret verified the call.
    pub(super) fn takes_signature(&self, result: &Result<Received, Rejection>, rule: &str) {
        assert_eq!(label(result), Some("env:FIRST"), "{}: {rule}: {result:?}", self.name);
    }
}

/// An event as the worker gets it.
pub(super) fn enveloped(event: Event) -> Envelope {
    Envelope { tenant: event.tenant, version: event.version, ..envelope(&event.topic, event.body) }
}

/// The secret that verified a call.
pub(super) fn label(result: &Result<Received, Rejection>) -> Option<&str> {
    match result {
        Ok(Received::Events { secret, .. }) => Some(secret),
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
    pub(super) fn changed(self, delta: Delta) -> Self {
        match delta {
            Header(name, value) => self.set(name, value),
            _ => self,
        }
    }

    pub(super) fn value(&self, header: &str) -> &str {
        self.headers[header].to_str().unwrap()
    }

    pub(super) fn made_to(&self, source: &Source) -> Result<Received, Rejection> {
        source.adapter().receive(&Call {
            headers: &self.headers,
            query: &self.query,
            body: &self.body,
            received_at: self.received_at,
        })
    }
}
