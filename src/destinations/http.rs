//! HTTP destinations: renders requests, sends them with an idempotency key, and
//! looks documents up.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;

use super::{
    AttemptReport, AttemptResult, DeliveryPayload, LookupResult,
    body_template::template_fields,
    response,
    response::ResponseClass,
    sample_documents::{full_sample, minimal_sample, sample_payload},
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

/// The placeholders of a destination's URLs.
pub const URL_PLACEHOLDERS: &[Placeholder] = &[
    // Some sources have no tenants, and some invoices no vendor.
    Placeholder { name: "tenant", allows_slashes: false, may_be_empty: true },
    Placeholder { name: "vendor", allows_slashes: false, may_be_empty: true },
    Placeholder { name: "number", allows_slashes: false, may_be_empty: false },
    // Our id of the document.
    Placeholder { name: "document_id", allows_slashes: false, may_be_empty: false },
    Placeholder { name: "key", allows_slashes: false, may_be_empty: false },
];

/// The placeholders that identify a document.
pub const IDENTIFYING_PLACEHOLDERS: &[&str] = &["number", "document_id", "key"];

/// The settings of an HTTP destination.
#[derive(Debug)]
pub struct HttpDestinationSettings {
    /// The section of the configuration, for error messages.
    pub config_path: String,
    /// The URL that documents are sent to.
    pub url: UrlTemplate,
    /// `POST` or `PUT`.
    pub method: Method,
    /// The request's `Content-Type`.
    pub content_type: HeaderValue,
    /// The template of the request's body.
    pub body: BodyTemplate,
    /// The header with the idempotency key, if the destination supports one.
    pub idempotency_header: Option<HeaderName>,
    /// Further headers of each request.
    pub headers: SecretHeaders,
    /// How responses are read.
    pub response_rules: ResponseRules,
    /// How documents are looked up, if the destination supports it.
    pub lookup: Option<LookupRules>,
    /// Timeouts, sizes and allowed addresses of requests.
    pub client_options: HttpOptions,
}

/// A destination that gets each delivery as an HTTP request.
#[derive(Debug)]
pub struct HttpDestination {
    settings: HttpDestinationSettings,
    client: HttpCaller,
}

impl HttpDestination {
    /// Creates the HTTP client.
    ///
    /// # Errors
    /// The client cannot be set up.
    pub fn new(settings: HttpDestinationSettings) -> anyhow::Result<Self> {
        let client = HttpCaller::new(settings.client_options.clone())?;
        Ok(Self { settings, client })
    }

    /// Renders sample documents of these events, so that a misspelt field is
    /// found at start. Sends nothing.
    ///
    /// # Errors
    /// The setting that does not fit, with its key and the event.
    pub fn validate(&self, events: &[DocumentEvent]) -> Result<(), PermanentFailure> {
        let HttpDestinationSettings { config_path, body, lookup, .. } = &self.settings;
        let known_fields: Vec<_> = events
            .iter()
            .map(|event| template_fields(&sample_payload(*event, &full_sample(*event))))
            .collect();
        let is_known = |name: &str| known_fields.iter().any(|fields| fields.contains_key(name));
        let unknown = body.variables().iter().find(|name| !is_known(name));
        if let (Some(unknown), Some(fields)) = (unknown, known_fields.first()) {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            return Err(PermanentFailure::invalid(
                body.config_key(),
                format!("there is no field {unknown}; there are {}", names.join(", ")),
            ));
        }
        for event in events {
            let with_event = |failure: PermanentFailure, sample: &str| PermanentFailure {
                detail: format!("{} (tried on {sample} of {event})", failure.detail),
                ..failure
            };
            let full = full_sample(*event);
            let payload = sample_payload(*event, &full);
            self.render(&payload).map_err(|failure| with_event(failure, "a sample"))?;
            body.render(&sample_payload(*event, &minimal_sample(*event)))
                .map_err(|failure| with_event(failure, "a sample without optional fields"))?;
            let Some(lookup) = lookup else { continue };
            fill_url(&lookup.url, &payload).map_err(|detail| {
                let failure =
                    PermanentFailure::invalid(format!("{config_path}.lookup.url"), detail);
                with_event(failure, "a sample")
            })?;
            let unknown = lookup.matches.iter().find(|(_, field)| full.get(field).is_none());
            if let Some((pointer, field)) = unknown {
                return Err(PermanentFailure::invalid(
                    format!("{config_path}.lookup.matches.{pointer}"),
                    format!("{event} has no field {field}"),
                ));
            }
        }
        Ok(())
    }

    /// The body of the request for a delivery.
    ///
    /// # Errors
    /// The document does not fit into the body or the URL; names the
    /// configuration's key.
    pub fn render(&self, payload: &DeliveryPayload<'_>) -> Result<String, PermanentFailure> {
        let HttpDestinationSettings { config_path, url, body, .. } = &self.settings;
        fill_url(url, payload)
            .map_err(|detail| PermanentFailure::invalid(format!("{config_path}.url"), detail))?;
        body.render(payload)
    }

    /// Sends a request that [`render`](Self::render) made, now or for an earlier
    /// attempt, with the delivery's idempotency key.
    ///
    /// If the destination responds that the document exists already, it is
    /// looked up, where the destination supports it.
    pub async fn send(&self, payload: &DeliveryPayload<'_>, request: &str) -> AttemptReport {
        let HttpDestinationSettings { config_path, url, method, .. } = &self.settings;
        let without_response = |result| AttemptReport { result, response: None };
        let url = match fill_url(url, payload) {
            Ok(url) => url,
            Err(detail) => {
                let failure = PermanentFailure::invalid(format!("{config_path}.url"), detail);
                let error = failure.to_string();
                return without_response(AttemptResult::Rejected { reason: failure.reason, error });
            }
        };
        let headers = match self.request_headers(payload).await {
            Ok(headers) => headers,
            // A missing secret is not the delivery's fault.
            Err(error) => {
                return without_response(AttemptResult::RetryLater {
                    error,
                    retry_after: None,
                    counts_as_attempt: false,
                });
            }
        };
        let body = Bytes::copy_from_slice(request.as_bytes());
        match self.client.send(method, &url, headers, Some(body)).await {
            Err(error) => without_response(response::classify_transport_error(error)),
            Ok(response) => {
                let result = match self.settings.response_rules.classify(&response) {
                    ResponseClass::Final(result) => result,
                    ResponseClass::AlreadyExists { status, remote_id } => {
                        self.resolve_existing(payload, status, remote_id).await
                    }
                };
                AttemptReport { result, response: Some(response::stored_response(&response)) }
            }
        }
    }

    /// Whether documents can be looked up.
    pub fn supports_lookup(&self) -> bool {
        self.settings.lookup.is_some()
    }

    /// Looks up the document of a delivery.
    ///
    /// # Errors
    /// The request failed, or its response is inconclusive.
    pub async fn look_up_document(
        &self,
        payload: &DeliveryPayload<'_>,
    ) -> Result<LookupResult, String> {
        let Some(lookup) = &self.settings.lookup else {
            return Err("no look-up is configured".to_owned());
        };
        let url = fill_url(&lookup.url, payload)?;
        let headers = secret_headers::resolve(&self.settings.headers, &[]).await?;
        let response = self
            .client
            .send(&Method::GET, &url, headers, None)
            .await
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        lookup.evaluate(&response, payload.document)
    }

    async fn request_headers(&self, payload: &DeliveryPayload<'_>) -> Result<HeaderMap, String> {
        let HttpDestinationSettings { content_type, idempotency_header, headers, .. } =
            &self.settings;
        let mut headers = secret_headers::resolve(headers, &[]).await?;
        headers.insert(header::CONTENT_TYPE, content_type.clone());
        if let Some(name) = idempotency_header {
            let key = HeaderValue::try_from(payload.idempotency_key.to_string());
            let key = key.map_err(|error| format!("the header {name}: {error}"))?;
            headers.insert(name.clone(), key);
        }
        Ok(headers)
    }

    /// The result when the destination reports that the document exists.
    async fn resolve_existing(
        &self,
        payload: &DeliveryPayload<'_>,
        status: u16,
        remote_id: Option<String>,
    ) -> AttemptResult {
        let delivered = |remote_id| AttemptResult::Delivered {
            remote_id,
            warning: Some(format!("answered {status}: it was there already")),
        };
        if !self.supports_lookup() {
            return delivered(remote_id);
        }
        match self.look_up_document(payload).await {
            Ok(LookupResult::Found { remote_id: found_id }) => delivered(found_id.or(remote_id)),
            // A destination may also answer 409 while another request with the
            // same key is in progress.
            Ok(LookupResult::NotFound) if status == 409 => AttemptResult::Unknown(
                "answered 409, and the look-up does not find it: another request may be in progress"
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

/// The URL for a delivery.
fn fill_url(url: &UrlTemplate, payload: &DeliveryPayload<'_>) -> Result<Url, String> {
    let key = payload.idempotency_key.to_string();
    let vendor = payload.document.get("vendor").and_then(Value::as_str);
    // A vendor may be empty, but orders have none at all.
    if vendor.is_none() && url.has_placeholder("vendor") {
        return Err("{vendor}: the document has none".to_owned());
    }
    let values = [
        ("tenant", payload.tenant),
        ("vendor", vendor.unwrap_or_default()),
        ("number", payload.document_number.unwrap_or_default()),
        ("document_id", payload.document_id),
        ("key", &key),
    ];
    url.fill(&values).map_err(|invalid| format!("{{{}}}: {invalid}", invalid.placeholder))
}

#[cfg(test)]
mod tests;
