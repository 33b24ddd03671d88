//! Targets that are told by HTTP calls: what is sent, under which key, and
//! what came of it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;

use super::{
    About, Found, Report, Told,
    answer::{self, Said},
    sample,
    template::fields,
};
pub use super::{answer::Expected, lookup::LookUp, template::Body};
use crate::{
    domain::{DocumentEvent, Failure, Reason},
    fetch::{Caller, Options, Template, Url, headers, headers::Headers, template::Place},
};

/// The places in a target's URLs.
pub const PLACES: &[Place] = &[
    // Empty where a source has no shops or companies, or an invoice no vendor.
    Place { name: "tenant", is_path: false, may_be_empty: true },
    Place { name: "vendor", is_path: false, may_be_empty: true },
    Place { name: "number", is_path: false, may_be_empty: false },
    // Ours.
    Place { name: "document_id", is_path: false, may_be_empty: false },
    Place { name: "key", is_path: false, may_be_empty: false },
];

/// Those of them that tell one document from another.
pub const TELLING: &[&str] = &["number", "document_id", "key"];

/// What an HTTP target is.
#[derive(Debug)]
pub struct Settings {
    /// The section of the configuration, for messages.
    pub path: String,
    /// Where documents are sent.
    pub url: Template,
    /// `POST` or `PUT`.
    pub method: Method,
    /// What the body is.
    pub content_type: HeaderValue,
    /// The body.
    pub body: Body,
    /// The header that carries the idempotency key, if the target knows one.
    pub idempotency_header: Option<HeaderName>,
    /// What each request carries besides.
    pub headers: Headers,
    /// What the answer tells.
    pub answer: Expected,
    /// How a document is asked for, if that can be done.
    pub look_up: Option<LookUp>,
    /// What may be called, and for how long.
    pub fetch: Options,
}

/// A target that hears of each delivery by a call.
#[derive(Debug)]
pub struct HttpTarget {
    settings: Settings,
    caller: Caller,
}

impl HttpTarget {
    /// Prepares the client.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let caller = Caller::new(settings.fetch.clone())?;
        Ok(Self { settings, caller })
    }

    /// Tries everything but the calls on samples of the documents that these
    /// events are about, so that what is misspelt is found before it is sent.
    ///
    /// # Errors
    /// What does not fit, with the key and the event.
    pub fn rehearse(&self, events: &[DocumentEvent]) -> Result<(), Failure> {
        let Settings { path, body, look_up, .. } = &self.settings;
        let known: Vec<_> = events
            .iter()
            .map(|event| fields(&sample::about(*event, &sample::full(*event))))
            .collect();
        let unknown =
            body.names().iter().find(|name| !known.iter().any(|known| known.contains_key(*name)));
        if let (Some(unknown), Some(known)) = (unknown, known.first()) {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(Failure::invalid(
                body.key(),
                format!("there is no field {unknown}; there are {}", names.join(", ")),
            ));
        }
        for event in events {
            let of = |failure: Failure, document: &str| Failure {
                detail: format!("{} (tried on {document} of {event})", failure.detail),
                ..failure
            };
            let full = sample::full(*event);
            let about = sample::about(*event, &full);
            self.render(&about).map_err(|failure| of(failure, "a sample"))?;
            let sparse = sample::sparse(*event);
            let rendered = body.render(&sample::about(*event, &sparse));
            rendered.map_err(|failure| of(failure, "a sample without what may be null"))?;
            if let Some(look_up) = look_up {
                fill(&look_up.url, &about)
                    .map_err(|detail| Failure::invalid(format!("{path}.lookup.url"), detail))
                    .map_err(|failure| of(failure, "a sample"))?;
                let unknown = look_up.matches.iter().find(|(_, field)| full.get(field).is_none());
                if let Some((pointer, field)) = unknown {
                    let key = format!("{path}.lookup.matches.{pointer}");
                    return Err(Failure::invalid(key, format!("{event} has no field {field}")));
                }
            }
        }
        Ok(())
    }

    /// What is sent: the body of the request.
    ///
    /// # Errors
    /// The document does not fit into the body or the URL; names the key.
    pub fn render(&self, about: &About<'_>) -> Result<String, Failure> {
        let Settings { path, url, body, .. } = &self.settings;
        fill(url, about).map_err(|detail| Failure::invalid(format!("{path}.url"), detail))?;
        body.render(about)
    }

    /// Sends a request that was [rendered](Self::render) now or for an
    /// earlier attempt, under the delivery's key.
    ///
    /// If the target says that it has one already, it is asked to show it,
    /// where it can be asked.
    pub async fn send(&self, about: &About<'_>, request: &str) -> Report {
        let Settings { path, url, method, .. } = &self.settings;
        let unanswered = |told| Report { told, answer: None };
        let url = match fill(url, about) {
            Ok(url) => url,
            Err(detail) => {
                let failure = Failure::invalid(format!("{path}.url"), detail);
                let error = failure.to_string();
                return unanswered(Told::Refused { reason: failure.reason, error });
            }
        };
        let headers = match self.headers(about).await {
            Ok(headers) => headers,
            // Nobody's fault but ours, and mended without the delivery.
            Err(error) => {
                return unanswered(Told::NotNow { error, retry_after: None, counts: false });
            }
        };
        let body = Bytes::copy_from_slice(request.as_bytes());
        match self.caller.send(method, &url, headers, Some(body)).await {
            Err(error) => unanswered(answer::lost(error)),
            Ok(answer) => {
                let told = match self.settings.answer.read(&answer) {
                    Said::Plainly(told) => told,
                    Said::Exists { status, remote_id } => {
                        self.exists(about, status, remote_id).await
                    }
                };
                Report { told, answer: Some(answer::kept(&answer)) }
            }
        }
    }

    /// Whether it can be asked for a document.
    pub fn offers_look_up(&self) -> bool {
        self.settings.look_up.is_some()
    }

    /// Asks for the document of a delivery.
    ///
    /// # Errors
    /// What went wrong, or why the answer tells nothing.
    pub async fn look_up(&self, about: &About<'_>) -> Result<Found, String> {
        let Some(look_up) = &self.settings.look_up else {
            return Err("no look-up is configured".to_owned());
        };
        let url = fill(&look_up.url, about)?;
        let headers = headers::fill(&self.settings.headers, &[]).await?;
        let answer = self
            .caller
            .send(&Method::GET, &url, headers, None)
            .await
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        look_up.read(&answer, about.document)
    }

    async fn headers(&self, about: &About<'_>) -> Result<HeaderMap, String> {
        let Settings { content_type, idempotency_header, headers, .. } = &self.settings;
        let mut headers = headers::fill(headers, &[]).await?;
        headers.insert(header::CONTENT_TYPE, content_type.clone());
        if let Some(name) = idempotency_header {
            let key = HeaderValue::try_from(about.key.to_string());
            let key = key.map_err(|error| format!("the header {name}: {error}"))?;
            headers.insert(name.clone(), key);
        }
        Ok(headers)
    }

    /// What it means that the target says it has one already.
    async fn exists(&self, about: &About<'_>, status: u16, remote_id: Option<String>) -> Told {
        let has = |remote_id| Told::Has {
            remote_id,
            warning: Some(format!("answered {status}: it was there already")),
        };
        if !self.offers_look_up() {
            return has(remote_id);
        }
        match self.look_up(about).await {
            Ok(Found::There { remote_id: found }) => has(found.or(remote_id)),
            // So a target also answers while a call under the same key is
            // still under way.
            Ok(Found::Nowhere) if status == 409 => Told::Unknown(
                "answered 409, and the look-up does not find it: another call may be under way"
                    .to_owned(),
            ),
            Ok(Found::Nowhere) => Told::Refused {
                reason: Reason::DeliveryGone,
                error: format!(
                    "answered {status} that it exists already, and the look-up does not find it"
                ),
            },
            Err(error) => {
                Told::Unknown(format!("answered {status} that it exists already; {error}"))
            }
        }
    }
}

/// A URL for a delivery.
fn fill(url: &Template, about: &About<'_>) -> Result<Url, String> {
    let key = about.key.to_string();
    let vendor = about.document.get("vendor").and_then(Value::as_str);
    // Empty is one thing, and none at all another: orders have no vendors.
    if vendor.is_none() && url.has("vendor") {
        return Err("{vendor}: the document has none".to_owned());
    }
    let values = [
        ("tenant", about.tenant),
        ("vendor", vendor.unwrap_or_default()),
        ("number", about.document_number.unwrap_or_default()),
        ("document_id", about.document_id),
        ("key", &key),
    ];
    url.fill(&values).map_err(|unfit| format!("{{{}}}: {unfit}", unfit.place))
}

#[cfg(test)]
mod tests;
