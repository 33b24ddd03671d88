//! An event's attributes and data, wherever the call carries them.

use std::collections::HashMap;

use bytes::Bytes;
use data_encoding::BASE64;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::sources::{Rejection, WebhookRequest};

/// More events are not taken in one call.
const MAX_EVENTS: usize = 1000;

/// The attributes of one event.
pub(super) enum Attributes<'a> {
    /// In headers that begin with `ce-`; the body is the data.
    Headers(WebhookRequest<'a>),
    /// In a JSON document, which stands at this place of the body.
    Document { location: String, members: HashMap<String, &'a RawValue> },
}

/// The events of a batch.
///
/// # Errors
/// [`RejectedField::Unreadable`] if it is no list of objects, or too long.
pub(super) fn parse_batch(body: &[u8]) -> Result<Vec<Attributes<'_>>, Rejection> {
    let elements: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
        Rejection::Malformed(format!("the body is not a JSON list of events: {error}"))
    })?;
    if elements.len() > MAX_EVENTS {
        let detail = format!("the batch has more than {MAX_EVENTS} events");
        return Err(Rejection::Malformed(detail));
    }
    elements
        .into_iter()
        .enumerate()
        .map(|(index, element)| {
            Attributes::from_json(element.get().as_bytes(), format!("/{index}"))
        })
        .collect()
}

impl<'a> Attributes<'a> {
    /// Those of a JSON document.
    ///
    /// # Errors
    /// [`RejectedField::Unreadable`] if it is no object.
    pub(super) fn from_json(json: &'a [u8], place: String) -> Result<Self, Rejection> {
        let members = serde_json::from_slice(json).map_err(|error| {
            let what = if place.is_empty() { "the body" } else { &place };
            Rejection::Malformed(format!("{what} is not an event in JSON: {error}"))
        })?;
        Ok(Self::Document { location: place, members })
    }

    /// How an attribute is named to people.
    pub(super) fn location_of(&self, name: &str) -> String {
        match self {
            Self::Headers(_) => format!("the header ce-{name}"),
            Self::Document { location: place, .. } => format!("{place}/{name}"),
        }
    }

    fn malformed(&self, name: &str, detail: &str) -> Rejection {
        Rejection::Malformed(format!("{} {detail}", self.location_of(name)))
    }

    /// An attribute; `None` if it is missing or empty.
    ///
    /// # Errors
    /// [`RejectedField::Unreadable`] if it is no text, number or boolean.
    pub(super) fn get(&self, name: &str) -> Result<Option<String>, Rejection> {
        let text = match self {
            Self::Headers(call) => {
                let Some(value) = call.header(&format!("ce-{name}")) else { return Ok(None) };
                percent_decode_str(&unquoted(value))
                    .decode_utf8()
                    .map_err(|_| self.malformed(name, "is not UTF-8"))?
                    .into_owned()
            }
            Self::Document { members, .. } => {
                let Some(raw) = members.get(name) else { return Ok(None) };
                match raw.get().as_bytes().first() {
                    Some(b'"') => serde_json::from_str(raw.get())
                        .map_err(|_| self.malformed(name, "is not a readable text"))?,
                    Some(b'{' | b'[') => return Err(self.malformed(name, "is a list or an object")),
                    _ if raw.get() == "null" => return Ok(None),
                    _ => raw.get().to_owned(),
                }
            }
        };
        Ok((!text.is_empty()).then_some(text))
    }

    /// An attribute that every event has.
    ///
    /// # Errors
    /// As [`Attributes::fetch`], and if it is not there.
    pub(super) fn required(&self, name: &str) -> Result<String, Rejection> {
        self.get(name)?.ok_or_else(|| self.malformed(name, "is missing or empty"))
    }

    /// The event's data: a part of the body where it stands there as it is;
    /// `null` if there is none.
    ///
    /// # Errors
    /// [`RejectedField::Unreadable`] for base64 that is none, and for two data.
    pub(super) fn data(&self, body: &Bytes) -> Result<Bytes, Rejection> {
        let members = match self {
            Self::Headers(_) => return Ok(body.clone()),
            Self::Document { members, .. } => members,
        };
        let there = |name: &str| members.get(name).filter(|raw| raw.get() != "null");
        match (there("data"), there("data_base64")) {
            (Some(_), Some(_)) => Err(self.malformed("data_base64", "stands beside other data")),
            (Some(raw), None) => Ok(body.slice_ref(raw.get().as_bytes())),
            (None, Some(raw)) => serde_json::from_str::<String>(raw.get())
                .ok()
                .and_then(|text| BASE64.decode(text.as_bytes()).ok())
                .map(Bytes::from)
                .ok_or_else(|| self.malformed("data_base64", "is not written in base64")),
            (None, None) => Ok(Bytes::from_static(b"null")),
        }
    }
}

/// What a quoted header value stands for; any other is as it is.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut escaped = false;
    let keep = |character: &char| {
        escaped = *character == '\\' && !escaped;
        !escaped
    };
    inner.chars().filter(keep).collect()
}
