//! The headers of calls, as they are configured for enrichment and targets.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use http::{HeaderName, HeaderValue};

use super::SecretLookup;
use crate::net::{
    http_client::TextTemplate,
    secret_headers::{HeaderValueSource, SecretHeaders},
    url_template::Placeholder,
};

/// Reads and checks a table of headers, the section's key `headers`. What is
/// written out may have these places.
///
/// # Errors
/// The first that is wrong, with `path` and its name.
pub(super) fn headers(
    table: BTreeMap<String, String>,
    places: &'static [Placeholder],
    secrets: &SecretLookup,
    path: &str,
) -> anyhow::Result<SecretHeaders> {
    let header = |(name, text): (String, String)| {
        let at = || format!("{path}.headers.{name}");
        let header = name.parse::<HeaderName>().with_context(at)?;
        let text = header_text(&text, places, secrets).with_context(at)?;
        Ok((header, text))
    };
    table.into_iter().map(header).collect()
}

/// `const:TEXT` with places, or a secret's name with at most one word before
/// it: `env:NAME`, `Bearer file:PATH`.
fn header_text(
    text: &str,
    places: &'static [Placeholder],
    secrets: &SecretLookup,
) -> anyhow::Result<HeaderValueSource> {
    if let Some(written) = text.strip_prefix("const:") {
        let written = TextTemplate::parse(written, places)?;
        return Ok(HeaderValueSource::Template(written));
    }
    let is_name = |text: &str| text.starts_with("env:") || text.starts_with("file:");
    let (scheme, reference) = match text.split_once(' ') {
        Some((word, reference)) if !is_name(text) && is_name(reference) => {
            (format!("{word} "), reference)
        }
        _ => (String::new(), text),
    };
    if !is_name(reference) {
        bail!(
            "a header's value is env:NAME, file:PATH, either of them after a word such as \
             Bearer, or const:TEXT for what is no secret"
        );
    }
    // A file is read now as well: better now than at the first event.
    let secret = secrets.resolve(reference)?;
    ensure!(!secret.is_empty(), "it is empty");
    let mut value = HeaderValue::try_from(format!("{scheme}{secret}"))
        .ok()
        .context("it holds what no header may hold, such as a line break")?;
    value.set_sensitive(true);
    Ok(match reference.strip_prefix("file:") {
        Some(path) => HeaderValueSource::File { scheme, path: path.into() },
        None => HeaderValueSource::Secret(value),
    })
}
