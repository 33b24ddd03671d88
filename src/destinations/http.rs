//! Targets that are told by HTTP calls: what is sent, under which key, and
//! what came of it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;

use super::{
    AttemptReport, AttemptResult, DeliveryPayload, LookupResult, body_template::template_fields,
    response, response::ResponseClass, sample_documents,
};
pub use super::{body_template::BodyTemplate, lookup::LookupRules, response::ResponseRules};
use crate::{
    domain::{DocumentEvent, PermanentFailure, ReasonCode},
    net::{
        http_client::{HttpCaller, HttpOptions, Url},
        secret_headers,
        secret_headers::SecretHeaders,
        url_template::{Placeholder, UrlTemplate},
    },
};

/// The places in a target's URLs.
pub const URL_PLACEHOLDERS: &[Placeholder] = &[
    // Empty where a source has no shops or companies, or an invoice no vendor.
    Placeholder { name: "tenant", allows_slashes: false, may_be_empty: true },
    Placeholder { name: "vendor", allows_slashes: false, may_be_empty: true },
    Placeholder { name: "number", allows_slashes: false, may_be_empty: false },
    // Ours.
    Placeholder { name: "document_id", allows_slashes: false, may_be_empty: false },
    Placeholder { name: "key", allows_slashes: false, may_be_empty: false },
];

/// Those of them that tell one document from another.
pub const IDENTIFYING_PLACEHOLDERS: &[&str] = &["number", "document_id", "key"];

/// What an HTTP target is.
#[derive(Debug)]
pub struct HttpDestinationSettings {
    /// The section of the configuration, for messages.
    pub config_path: String,
    /// Where documents are sent.
    pub url: UrlTemplate,
    /// `POST` or `PUT`.
    pub method: Method,
    /// What the body is.
    pub content_type: HeaderValue,
    /// The body.
    pub body: BodyTemplate,
    /// The header that carries the idempotency key, if the target knows one.
    pub idempotency_header: Option<HeaderName>,
    /// What each request carries besides.
    pub headers: SecretHeaders,
    /// What the answer tells.
    pub response_rules: ResponseRules,
    /// How a document is asked for, if that can be done.
    pub lookup: Option<LookupRules>,
    /// What may be called, and for how long.
    pub client_options: HttpOptions,
}

/// A target that hears of each delivery by a call.
#[derive(Debug)]
pub struct HttpDestination {
    settings: HttpDestinationSettings,
    client: HttpCaller,
}

impl HttpDestination {
    /// Prepares the client.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub fn new(settings: HttpDestinationSettings) -> anyhow::Result<Self> {
        let caller = HttpCaller::new(settings.client_options.clone())?;
        Ok(Self { settings, client: caller })
    }

    /// Tries everything but the calls on samples of the documents that these
    /// events are about, so that what is misspelt is found before it is sent.
    ///
    /// # Errors
    /// What does not fit, with the key and the event.
    pub fn validate(&self, events: &[DocumentEvent]) -> Result<(), PermanentFailure> {
        let HttpDestinationSettings { config_path: path, body, lookup: look_up, .. } =
            &self.settings;
        let known: Vec<_> = events
            .iter()
            .map(|event| {
                template_fields(&sample_documents::sample_payload(
                    *event,
                    &sample_documents::full_sample(*event),
                ))
            })
            .collect();
        let unknown = body
            .variables()
            .iter()
            .find(|name| !known.iter().any(|known| known.contains_key(*name)));
        if let (Some(unknown), Some(known)) = (unknown, known.first()) {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(PermanentFailure::invalid(
                body.config_key(),
                format!("there is no field {unknown}; there are {}", names.join(", ")),
            ));
        }
        for event in events {
            let of = |failure: PermanentFailure, document: &str| PermanentFailure {
                detail: format!("{} (tried on {document} of {event})", failure.detail),
                ..failure
            };
            let full = sample_documents::full_sample(*event);
            let about = sample_documents::sample_payload(*event, &full);
            self.render(&about).map_err(|failure| of(failure, "a sample"))?;
            let sparse = sample_documents::minimal_sample(*event);
            let rendered = body.render(&sample_documents::sample_payload(*event, &sparse));
            rendered.map_err(|failure| of(failure, "a sample without what may be null"))?;
            if let Some(look_up) = look_up {
                fill_url(&look_up.url, &about)
                    .map_err(|detail| {
                        PermanentFailure::invalid(format!("{path}.lookup.url"), detail)
                    })
                    .map_err(|failure| of(failure, "a sample"))?;
                let unknown = look_up.matches.iter().find(|(_, field)| full.get(field).is_none());
                if let Some((pointer, field)) = unknown {
                    let key = format!("{path}.lookup.matches.{pointer}");
                    return Err(PermanentFailure::invalid(
                        key,
                        format!("{event} has no field {field}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// What is sent: the body of the request.
    ///
    /// # Errors
    /// The document does not fit into the body or the URL; names the key.
    pub fn render(&self, about: &DeliveryPayload<'_>) -> Result<String, PermanentFailure> {
        let HttpDestinationSettings { config_path: path, url, body, .. } = &self.settings;
        fill_url(url, about)
            .map_err(|detail| PermanentFailure::invalid(format!("{path}.url"), detail))?;
        body.render(about)
    }

    /// Sends a request that was [rendered](Self::render) now or for an
    /// earlier attempt, under the delivery's key.
    ///
    /// If the target says that it has one already, it is asked to show it,
    /// where it can be asked.
    pub async fn send(&self, about: &DeliveryPayload<'_>, request: &str) -> AttemptReport {
        let HttpDestinationSettings { config_path: path, url, method, .. } = &self.settings;
        let unanswered = |told| AttemptReport { result: told, response: None };
        let url = match fill_url(url, about) {
            Ok(url) => url,
            Err(detail) => {
                let failure = PermanentFailure::invalid(format!("{path}.url"), detail);
                let error = failure.to_string();
                return unanswered(AttemptResult::Rejected { reason: failure.reason, error });
            }
        };
        let headers = match self.request_headers(about).await {
            Ok(headers) => headers,
            // Nobody's fault but ours, and mended without the delivery.
            Err(error) => {
                return unanswered(AttemptResult::RetryLater {
                    error,
                    retry_after: None,
                    counts_as_attempt: false,
                });
            }
        };
        let body = Bytes::copy_from_slice(request.as_bytes());
        match self.client.send(method, &url, headers, Some(body)).await {
            Err(error) => unanswered(response::classify_transport_error(error)),
            Ok(answer) => {
                let told = match self.settings.response_rules.classify(&answer) {
                    ResponseClass::Final(told) => told,
                    ResponseClass::AlreadyExists { status, remote_id } => {
                        self.resolve_existing(about, status, remote_id).await
                    }
                };
                AttemptReport { result: told, response: Some(response::stored_response(&answer)) }
            }
        }
    }

    /// Whether it can be asked for a document.
    pub fn supports_lookup(&self) -> bool {
        self.settings.lookup.is_some()
    }

    /// Asks for the document of a delivery.
    ///
    /// # Errors
    /// What went wrong, or why the answer tells nothing.
    pub async fn look_up_document(
        &self,
        about: &DeliveryPayload<'_>,
    ) -> Result<LookupResult, String> {
        let Some(look_up) = &self.settings.lookup else {
            return Err("no look-up is configured".to_owned());
        };
        let url = fill_url(&look_up.url, about)?;
        let headers = secret_headers::resolve(&self.settings.headers, &[]).await?;
        let answer = self
            .client
            .send(&Method::GET, &url, headers, None)
            .await
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        look_up.evaluate(&answer, about.document)
    }

    async fn request_headers(&self, about: &DeliveryPayload<'_>) -> Result<HeaderMap, String> {
        let HttpDestinationSettings { content_type, idempotency_header, headers, .. } =
            &self.settings;
        let mut headers = secret_headers::resolve(headers, &[]).await?;
        headers.insert(header::CONTENT_TYPE, content_type.clone());
        if let Some(name) = idempotency_header {
            let key = HeaderValue::try_from(about.idempotency_key.to_string());
            let key = key.map_err(|error| format!("the header {name}: {error}"))?;
            headers.insert(name.clone(), key);
        }
        Ok(headers)
    }

    /// What it means that the target says it has one already.
    async fn resolve_existing(
        &self,
        about: &DeliveryPayload<'_>,
        status: u16,
        remote_id: Option<String>,
    ) -> AttemptResult {
        let has = |remote_id| AttemptResult::Delivered {
            remote_id,
            warning: Some(format!("answered {status}: it was there already")),
        };
        if !self.supports_lookup() {
            return has(remote_id);
        }
        match self.look_up_document(about).await {
            Ok(LookupResult::Found { remote_id: found }) => has(found.or(remote_id)),
            // So a target also answers while a call under the same key is
            // still under way.
            Ok(LookupResult::NotFound) if status == 409 => AttemptResult::Unknown(
                "answered 409, and the look-up does not find it: another call may be under way"
                    .to_owned(),
            ),
            Ok(LookupResult::NotFound) => AttemptResult::Rejected {
                reason: ReasonCode::DeliveryGone,
                error: format!(
                    "answered {status} that it exists already, and the look-up does not find it"
                ),
            },
            Err(error) => {
                AttemptResult::Unknown(format!("answered {status} that it exists already; {error}"))
            }
        }
    }
}

/// A URL for a delivery.
fn fill_url(url: &UrlTemplate, about: &DeliveryPayload<'_>) -> Result<Url, String> {
    let key = about.idempotency_key.to_string();
    let vendor = about.document.get("vendor").and_then(Value::as_str);
    // Empty is one thing, and none at all another: orders have no vendors.
    if vendor.is_none() && url.has_placeholder("vendor") {
        return Err("{vendor}: the document has none".to_owned());
    }
    let values = [
        ("tenant", about.tenant),
        ("vendor", vendor.unwrap_or_default()),
        ("number", about.document_number.unwrap_or_default()),
        ("document_id", about.document_id),
        ("key", &key),
    ];
    url.fill(&values).map_err(|unfit| format!("{{{}}}: {unfit}", unfit.placeholder))
}

#[cfg(test)]
mod tests;
