//! Builds a destination from its `[destinations.<name>]` section.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::{HeaderName, HeaderValue, Method, header};

use super::headers;
use crate::{
    config::{
        DeliveryPolicyConfig, DestinationConfig, HttpDestinationConfig, LookupConfig,
        ResponseConfig, SecretLookup, TransportConfig,
    },
    destinations::{
        DeliveryPolicy, Destination, Transport,
        http::{
            BodyTemplate, HttpDestination, HttpDestinationSettings, IDENTIFYING_PLACEHOLDERS,
            LookupRules, ResponseRules, URL_PLACEHOLDERS,
        },
    },
    domain::DocumentEvent,
    net::{http_client::HttpOptions, url_template::UrlTemplate},
    sources::json_fields::is_json_pointer,
};

/// The most of a response body that is read, in bytes. The description of one document is far
/// smaller.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// Headers that the HTTP client sets, or that would change the meaning of the request.
const RESERVED_HEADERS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TRANSFER_ENCODING,
];

/// # Errors
/// The first invalid key, with its path.
pub(super) fn build(
    name: &str,
    config: &DestinationConfig,
    secrets: &SecretLookup,
) -> anyhow::Result<Destination> {
    let path = &format!("destinations.{name}");
    let (transport, policy) = match &config.transport {
        TransportConfig::Http(http) => {
            let destination = build_http(http, &config.events, secrets, path)?;
            (Transport::Http(Box::new(destination)), policy(&http.policy))
        }
        TransportConfig::Rabbitmq(rabbitmq) => {
            let transport = Transport::Amqp {
                exchange: rabbitmq.exchange.clone(),
                routing_key: rabbitmq.routing_key.clone(),
            };
            // Attempts at an exchange are not counted: only the concurrency, which is the size of
            // a batch, has an effect.
            let batches = DeliveryPolicyConfig {
                max_concurrency: rabbitmq.batch_size,
                ..DeliveryPolicyConfig::default()
            };
            (transport, policy(&batches))
        }
    };
    Ok(Destination {
        name: name.to_owned(),
        events: config.events.clone(),
        sources: config.sources.clone(),
        policy,
        transport,
    })
}

fn policy(config: &DeliveryPolicyConfig) -> DeliveryPolicy {
    DeliveryPolicy {
        max_concurrency: config.max_concurrency,
        rate_limit_per_second: config.rate_limit_per_second,
        max_attempts: config.max_attempts,
        initial_delay: Duration::from_millis(config.initial_delay_ms),
        max_delay: Duration::from_millis(config.max_delay_ms),
        circuit_breaker_threshold: config.circuit_breaker_threshold,
        circuit_breaker_open: Duration::from_millis(config.circuit_breaker_open_ms),
        timeout: Duration::from_millis(config.timeout_ms),
    }
}

/// Builds an HTTP destination and renders samples of the events, to find mistakes in the
/// templates at start.
fn build_http(
    config: &HttpDestinationConfig,
    events: &[DocumentEvent],
    secrets: &SecretLookup,
    path: &str,
) -> anyhow::Result<HttpDestination> {
    let method = match config.method.as_str() {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        other => bail!("{path}.method: {other:?} is not one of POST, PUT"),
    };
    let url = UrlTemplate::parse(&config.url, URL_PLACEHOLDERS, &[])
        .with_context(|| format!("{path}.url"))?;
    let content_type = HeaderValue::try_from(&config.content_type)
        .with_context(|| format!("{path}.content_type"))?;
    let body = BodyTemplate::compile(format!("{path}.body"), &config.body, &content_type)?;
    let idempotency_header = idempotency_header(config, path)?;
    let headers = headers::build(&config.headers, &[], secrets, path)?;
    for (name, _) in &headers {
        let is_reserved = RESERVED_HEADERS.contains(name)
            || *name == header::CONTENT_TYPE
            || idempotency_header.as_ref() == Some(name);
        ensure!(!is_reserved, "{path}.headers.{name}: Tallyhook sets this header itself");
    }
    let response_rules = response_rules(&config.response, &format!("{path}.response"))?;
    let lookup = config
        .lookup
        .as_ref()
        .map(|lookup| lookup_rules(lookup, &format!("{path}.lookup")))
        .transpose()?;

    let urls = [("url", Some(&url)), ("lookup.url", lookup.as_ref().map(|lookup| &lookup.url))];
    let hosts = urls.iter().filter_map(|(_, url)| url.as_ref()?.example().host_str());
    let client_options = HttpOptions {
        hosts: hosts.map(str::to_owned).collect(),
        allow_private_addresses: config.allow_private_addresses,
        timeout: Duration::from_millis(config.policy.timeout_ms),
        body_limit: MAX_RESPONSE_BYTES,
    };
    for (key, url) in urls {
        if let Some(url) = url {
            client_options.check_url(url.example()).with_context(|| format!("{path}.{key}"))?;
        }
    }
    let destination = HttpDestination::new(HttpDestinationSettings {
        config_path: path.to_owned(),
        url,
        method,
        content_type,
        body,
        idempotency_header,
        headers,
        response_rules,
        lookup,
        client_options,
    })
    .with_context(|| path.to_owned())?;
    destination.validate(events)?;
    Ok(destination)
}

/// The header of the idempotency key. Without idempotency keys, a lost response would lead to a
/// duplicate unless the destination has a look-up.
fn idempotency_header(
    config: &HttpDestinationConfig,
    path: &str,
) -> anyhow::Result<Option<HeaderName>> {
    if config.idempotency_header.is_empty() {
        ensure!(
            config.lookup.is_some(),
            "{path}.idempotency_header may be empty only with {path}.lookup: without a key, only a \
             look-up shows whether a request without a response was applied"
        );
        return Ok(None);
    }
    let key = || format!("{path}.idempotency_header");
    let name: HeaderName = config.idempotency_header.parse().with_context(key)?;
    let is_reserved = RESERVED_HEADERS.contains(&name) || name == header::CONTENT_TYPE;
    ensure!(!is_reserved, "{}: {name} has another use", key());
    Ok(Some(name))
}

fn response_rules(config: &ResponseConfig, path: &str) -> anyhow::Result<ResponseRules> {
    if let Some(id) = &config.id {
        ensure!(is_json_pointer(id), "{path}.id: {id:?} is not a JSON pointer (/id)");
    }
    ensure!(
        config.already_exists.iter().all(|text| !text.trim().is_empty()),
        "{path}.already_exists: an empty text is part of every response"
    );
    Ok(ResponseRules {
        id_pointer: config.id.clone(),
        already_exists: config.already_exists.clone(),
    })
}

fn lookup_rules(config: &LookupConfig, path: &str) -> anyhow::Result<LookupRules> {
    let LookupConfig { url, id, matches } = config;
    let url = UrlTemplate::parse(url, URL_PLACEHOLDERS, IDENTIFYING_PLACEHOLDERS)
        .with_context(|| format!("{path}.url"))?;
    ensure!(is_json_pointer(id), "{path}.id: {id:?} is not a JSON pointer (/0/id)");
    if let Some(pointer) = matches.keys().find(|pointer| !is_json_pointer(pointer)) {
        bail!("{path}.matches.{pointer}: this is not a JSON pointer (/0/vendor)");
    }
    let matches = matches.iter().map(|(pointer, field)| (pointer.clone(), field.clone())).collect();
    Ok(LookupRules { url, id_pointer: id.clone(), matches })
}

#[cfg(test)]
mod tests;
