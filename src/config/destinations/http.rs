//! The settings of kind `http`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail, ensure};
use config::Value;
use http::{HeaderName, HeaderValue, Method, header};
use serde::Deserialize;

use crate::{
    config::{SecretLookup, headers},
    destinations::http::{
        BodyTemplate, HttpDestination, HttpDestinationSettings, IDENTIFYING_PLACEHOLDERS,
        LookupRules, ResponseRules, URL_PLACEHOLDERS,
    },
    domain::DocumentEvent,
    net::http_client::{HttpOptions, UrlTemplate},
    sources::json_fields::is_json_pointer,
};

/// The most of an answer that is read, in bytes. What a target tells of one
/// document is far smaller.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// What is set by us, or would make another request of it.
const RESERVED_HEADERS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TRANSFER_ENCODING,
];

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: String,
    #[serde(default = "Raw::method")]
    method: String,
    #[serde(default = "Raw::content_type")]
    content_type: String,
    body: String,
    #[serde(default = "Raw::idempotency_header")]
    idempotency_header: String,
    #[serde(default)]
    allow_private_addresses: bool,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    response: RawAnswer,
    lookup: Option<RawLookUp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAnswer {
    id: Option<String>,
    already_exists: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLookUp {
    url: String,
    id: String,
    #[serde(default)]
    matches: BTreeMap<String, String>,
}

impl Raw {
    fn method() -> String {
        "POST".to_owned()
    }

    fn content_type() -> String {
        "application/json".to_owned()
    }

    fn idempotency_header() -> String {
        "Idempotency-Key".to_owned()
    }
}

impl Default for RawAnswer {
    fn default() -> Self {
        Self { id: None, already_exists: vec!["already exists".to_owned()] }
    }
}

/// Reads and checks what a target's section has of this kind, and tries it on
/// samples of the documents that these events are about.
///
/// # Errors
/// The first thing that is wrong, with `path` and the key within it.
pub(super) fn build_http_destination(
    section: Value,
    events: &[DocumentEvent],
    timeout: Duration,
    secrets: &SecretLookup,
    path: &str,
) -> anyhow::Result<HttpDestination> {
    let raw: Raw = section.try_deserialize().with_context(|| path.to_owned())?;
    let method = match raw.method.as_str() {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        other => bail!("{path}.method: {other:?} is not one of POST, PUT"),
    };
    let url = UrlTemplate::parse(&raw.url, URL_PLACEHOLDERS, &[])
        .with_context(|| format!("{path}.url"))?;
    let content_type =
        HeaderValue::try_from(&raw.content_type).with_context(|| format!("{path}.content_type"))?;
    let body = BodyTemplate::compile(format!("{path}.body"), &raw.body, &content_type)?;
    let idempotency_header = idempotency_header(&raw, path)?;
    let headers = headers::headers(raw.headers, &[], secrets, path)?;
    for (name, _) in &headers {
        let taken = RESERVED_HEADERS.contains(name)
            || *name == header::CONTENT_TYPE
            || idempotency_header.as_ref() == Some(name);
        ensure!(!taken, "{path}.headers.{name}: this header is set by Tallyhook itself");
    }
    let answer = expected(raw.response, &format!("{path}.response"))?;
    let look_up = raw.lookup.map(|raw| look_up(raw, &format!("{path}.lookup"))).transpose()?;

    let urls = [("url", Some(&url)), ("lookup.url", look_up.as_ref().map(|it| &it.url))];
    let named = urls.iter().filter_map(|(_, url)| url.as_ref()?.example().host_str());
    let fetch = HttpOptions {
        hosts: named.map(str::to_owned).collect(),
        allow_private_addresses: raw.allow_private_addresses,
        timeout,
        body_limit: MAX_RESPONSE_BYTES,
    };
    for (key, url) in urls {
        if let Some(url) = url {
            fetch.check_url(url.example()).with_context(|| format!("{path}.{key}"))?;
        }
    }
    let target = HttpDestination::new(HttpDestinationSettings {
        config_path: path.to_owned(),
        url,
        method,
        content_type,
        body,
        idempotency_header,
        headers,
        response_rules: answer,
        lookup: look_up,
        client_options: fetch,
    })
    .with_context(|| path.to_owned())?;
    target.validate(events)?;
    Ok(target)
}

/// The header of the key. A target that knows none must be able to tell what
/// it has: with neither, an answer that is lost makes a duplicate.
fn idempotency_header(raw: &Raw, path: &str) -> anyhow::Result<Option<HeaderName>> {
    if raw.idempotency_header.is_empty() {
        ensure!(
            raw.lookup.is_some(),
            "{path}.idempotency_header may be empty only with {path}.lookup: without a key, only \
             a look-up tells whether a call whose answer was lost has worked"
        );
        return Ok(None);
    }
    let at = || format!("{path}.idempotency_header");
    let name: HeaderName = raw.idempotency_header.parse().with_context(at)?;
    let taken = RESERVED_HEADERS.contains(&name) || name == header::CONTENT_TYPE;
    ensure!(!taken, "{}: {name} carries something else", at());
    Ok(Some(name))
}

fn expected(raw: RawAnswer, path: &str) -> anyhow::Result<ResponseRules> {
    if let Some(id) = &raw.id {
        ensure!(is_json_pointer(id), "{path}.id: {id:?} is not a JSON pointer (/id)");
    }
    ensure!(
        raw.already_exists.iter().all(|text| !text.trim().is_empty()),
        "{path}.already_exists: an empty text stands in every answer"
    );
    Ok(ResponseRules { id_pointer: raw.id, already_exists: raw.already_exists })
}

fn look_up(raw: RawLookUp, path: &str) -> anyhow::Result<LookupRules> {
    let url = UrlTemplate::parse(&raw.url, URL_PLACEHOLDERS, IDENTIFYING_PLACEHOLDERS)
        .with_context(|| format!("{path}.url"))?;
    ensure!(is_json_pointer(&raw.id), "{path}.id: {:?} is not a JSON pointer (/0/id)", raw.id);
    if let Some(pointer) = raw.matches.keys().find(|pointer| !is_json_pointer(pointer)) {
        bail!("{path}.matches.{pointer}: it is not a JSON pointer (/0/vendor)");
    }
    Ok(LookupRules { url, id_pointer: raw.id, matches: raw.matches.into_iter().collect() })
}

#[cfg(test)]
mod tests;
