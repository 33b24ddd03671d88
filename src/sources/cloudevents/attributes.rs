//! The attributes and data of an event, in headers or in a JSON document.

use std::collections::HashMap;

use bytes::Bytes;
use data_encoding::BASE64;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::sources::{Rejection, WebhookRequest};

/// Maximum number of events in a batch.
const MAX_EVENTS: usize = 1000;

/// The attributes of one event.
pub(super) enum Attributes<'a> {
    /// In headers that begin with `ce-`; the body is the data.
    Headers(WebhookRequest<'a>),
    /// In a JSON document at this pointer within the body.
    Document { location: String, members: HashMap<String, &'a RawValue> },
}

/// Parses a batch.
///
/// # Errors
/// [`Rejection::Malformed`] if it is not a list of objects, or too long.
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
    /// Parses a JSON document.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] if it is not an object.
    pub(super) fn from_json(json: &'a [u8], location: String) -> Result<Self, Rejection> {
        let members = serde_json::from_slice(json).map_err(|error| {
            let document = if location.is_empty() { "the body" } else { &location };
            Rejection::Malformed(format!("{document} is not an event in JSON: {error}"))
        })?;
        Ok(Self::Document { location, members })
    }

    /// The location of an attribute, for error messages.
    pub(super) fn location_of(&self, name: &str) -> String {
        match self {
            Self::Headers(_) => format!("the header ce-{name}"),
            Self::Document { location, .. } => format!("{location}/{name}"),
        }
    }

    fn malformed(&self, name: &str, detail: &str) -> Rejection {
        Rejection::Malformed(format!("{} {detail}", self.location_of(name)))
    }

    /// An attribute; `None` if it is missing or empty.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] if it is not a text, number or boolean.
    pub(super) fn get(&self, name: &str) -> Result<Option<String>, Rejection> {
        let text = match self {
            Self::Headers(request) => {
                let Some(value) = request.header(&format!("ce-{name}")) else { return Ok(None) };
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

    /// A required attribute.
    ///
    /// # Errors
    /// As [`Attributes::get`], and if it is missing.
    pub(super) fn required(&self, name: &str) -> Result<String, Rejection> {
        self.get(name)?.ok_or_else(|| self.malformed(name, "is missing or empty"))
    }

    /// The data of the event: a slice of the body if it is there literally; `null` if there
    /// is none.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] for invalid base64, and for two kinds of data.
    pub(super) fn data(&self, body: &Bytes) -> Result<Bytes, Rejection> {
        let members = match self {
            Self::Headers(_) => return Ok(body.clone()),
            Self::Document { members, .. } => members,
        };
        let present = |name: &str| members.get(name).filter(|raw| raw.get() != "null");
        match (present("data"), present("data_base64")) {
            (Some(_), Some(_)) => {
                Err(self.malformed("data_base64", "cannot be combined with data"))
            }
            (Some(raw), None) => Ok(body.slice_ref(raw.get().as_bytes())),
            (None, Some(raw)) => serde_json::from_str::<String>(raw.get())
                .ok()
                .and_then(|text| BASE64.decode(text.as_bytes()).ok())
                .map(Bytes::from)
                .ok_or_else(|| self.malformed("data_base64", "is not base64")),
            (None, None) => Ok(Bytes::from_static(b"null")),
        }
    }
}

/// Unquotes a header value; an unquoted one is returned unchanged.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut escaped = false;
    let is_content = |character: &char| {
        escaped = *character == '\\' && !escaped;
        !escaped
    };
    inner.chars().filter(is_content).collect()
}
