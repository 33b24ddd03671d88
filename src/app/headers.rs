//! Headers of outgoing requests: `[sources.<name>.enrich.headers]` and
//! `[destinations.<name>.headers]`.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use http::{HeaderName, HeaderValue};

use crate::{
    config::SecretLookup,
    net::{
        secret_headers::{HeaderValueSource, SecretHeaders},
        url_template::{Placeholder, TextTemplate},
    },
};

/// Builds the headers of a section. Values written as `const:TEXT` may contain `placeholders`.
///
/// # Errors
/// The first invalid header, with `path` and its name.
pub(super) fn build(
    headers: &BTreeMap<String, String>,
    placeholders: &'static [Placeholder],
    secrets: &SecretLookup,
    path: &str,
) -> anyhow::Result<SecretHeaders> {
    headers
        .iter()
        .map(|(name, value)| {
            let key = || format!("{path}.headers.{name}");
            let header = name.parse::<HeaderName>().with_context(key)?;
            let value = build_value(value, placeholders, secrets).with_context(key)?;
            Ok((header, value))
        })
        .collect()
}

/// `const:TEXT`, or a reference to a secret after at most one word: `env:NAME`,
/// `Bearer file:PATH`.
fn build_value(
    text: &str,
    placeholders: &'static [Placeholder],
    secrets: &SecretLookup,
) -> anyhow::Result<HeaderValueSource> {
    if let Some(template) = text.strip_prefix("const:") {
        let template = TextTemplate::parse(template, placeholders)?;
        return Ok(HeaderValueSource::Template(template));
    }
    let is_reference = |text: &str| text.starts_with("env:") || text.starts_with("file:");
    let (scheme, reference) = match text.split_once(' ') {
        Some((word, rest)) if !is_reference(text) && is_reference(rest) => {
            (format!("{word} "), rest)
        }
        _ => (String::new(), text),
    };
    if !is_reference(reference) {
        bail!(
            "a header's value is env:NAME, file:PATH, either of them after a word such as Bearer, \
             or const:TEXT for a value that is not secret"
        );
    }
    // A file is read at each request. It is read now too, to find mistakes at start.
    let secret = secrets.resolve(reference)?;
    ensure!(!secret.is_empty(), "the secret is empty");
    let mut value = HeaderValue::try_from(format!("{scheme}{secret}"))
        .ok()
        .context("the secret has characters that no header may contain, such as a line break")?;
    value.set_sensitive(true);
    Ok(match reference.strip_prefix("file:") {
        Some(path) => HeaderValueSource::File { scheme, path: path.into() },
        None => HeaderValueSource::Secret(value),
    })
}
