//! `[sources.<name>]`: a platform that sends webhooks.

use anyhow::{Context as _, ensure};
use config::{Value, ValueKind};
use serde::Deserialize;

use super::EnrichConfig;

/// The kinds of source.
pub const SOURCE_KINDS: [&str; 12] = [
    "shopify",
    "woocommerce",
    "stripe",
    "standard_webhooks",
    "square",
    "quickbooks",
    "xero",
    "github",
    "generic",
    "cloudevents",
    "callback",
    "import",
];

/// The largest `quarantine_limit`.
const MAX_QUARANTINE_LIMIT: u32 = 10_000;

/// One `[sources.<name>]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceConfig {
    /// One of [`SOURCE_KINDS`].
    pub kind: String,
    /// References to the secrets, any of which may verify a request; at least one.
    pub secrets: Vec<String>,
    /// The shops or companies that are accepted; empty accepts all.
    pub tenants: Vec<String>,
    /// How many requests with an invalid signature are kept in the quarantine; 0 to 10000,
    /// default 0.
    pub quarantine_limit: u32,
    /// How the resources that thin events name are fetched, if they are.
    pub enrich: Option<EnrichConfig>,
    /// The keys of the kind, as a table.
    pub settings: Value,
}

impl SourceConfig {
    /// # Errors
    /// The first invalid key, with `path` before it.
    pub(super) fn parse(section: Value, path: &str) -> anyhow::Result<Self> {
        let mut table =
            section.into_table().with_context(|| format!("{path} must be a section"))?;
        let kinds = || SOURCE_KINDS.join(", ");
        let kind = table
            .remove("kind")
            .with_context(|| format!("{path}.kind is missing; one of {}", kinds()))?
            .into_string()
            .with_context(|| format!("{path}.kind"))?;
        ensure!(
            SOURCE_KINDS.contains(&kind.as_str()),
            "{path}.kind: {kind:?} is not one of {}",
            kinds()
        );
        let secrets = parse_list(table.remove("secrets"), path, "secrets")?;
        ensure!(
            !secrets.is_empty(),
            "{path}.secrets: at least one is needed, such as [\"env:SHOP_SECRET\"]"
        );
        let tenants = parse_list(table.remove("tenants"), path, "tenants")?;
        let quarantine_limit = parse_quarantine_limit(table.remove("quarantine_limit"), path)?;
        let enrich = table.remove("enrich");
        let enrich = enrich
            .map(|section| EnrichConfig::parse(section, &format!("{path}.enrich")))
            .transpose()?;
        let settings = Value::new(None, ValueKind::Table(table));
        Ok(Self { kind, secrets, tenants, quarantine_limit, enrich, settings })
    }
}

fn parse_quarantine_limit(value: Option<Value>, path: &str) -> anyhow::Result<u32> {
    let Some(value) = value else {
        return Ok(0);
    };
    let limit = value.into_int().ok().and_then(|limit| u32::try_from(limit).ok());
    limit
        .filter(|limit| *limit <= MAX_QUARANTINE_LIMIT)
        .with_context(|| format!("{path}.quarantine_limit must be 0 to {MAX_QUARANTINE_LIMIT}"))
}

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrList {
    Text(String),
    List(Vec<String>),
}

/// A list of texts; empty without the key.
///
/// # Errors
/// The value is something else.
pub(super) fn parse_list(
    value: Option<Value>,
    path: &str,
    key: &str,
) -> anyhow::Result<Vec<String>> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let value: TextOrList = value
        .try_deserialize()
        .map_err(|_| anyhow::anyhow!("{path}.{key} must be a list of texts"))?;
    Ok(match value {
        // Environment variables have no lists.
        TextOrList::Text(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        TextOrList::List(texts) => texts,
    })
}
