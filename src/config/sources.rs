//! One `[sources.<name>]` section: a kind, its secrets and tenants, and the
//! kind's own settings.

use anyhow::{Context as _, bail};
use config::Value;
use serde::{Deserialize, de::DeserializeOwned};

use super::SecretLookup;
use crate::sources::{
    Platform, Source, callback,
    callback::Callback,
    cloudevents,
    cloudevents::CloudEvents,
    file_import,
    file_import::ImportSource,
    generic::{Generic, GenericSettings},
    mapping::InvalidSettings,
    quickbooks::QuickBooks,
    shopify::Shopify,
    signature::Secret,
    square,
    square::Square,
    standard_webhooks,
    standard_webhooks::StandardWebhooks,
    stripe,
    stripe::Stripe,
    woocommerce::WooCommerce,
    xero::Xero,
};

/// The kinds of source there are.
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

/// The most forged calls that a source may keep.
const MAX_QUARANTINE_LIMIT: u32 = 10_000;

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrList {
    Text(String),
    List(Vec<String>),
}

impl TextOrList {
    fn into_vec(self) -> Vec<String> {
        match self {
            // From the environment, where there are no lists.
            Self::Text(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
            Self::List(texts) => texts,
        }
    }
}

/// Turns a section into the source's adapter.
///
/// # Errors
/// The first thing that is wrong, with `path` and the key within it.
pub fn build_source(section: Value, secrets: &SecretLookup, path: &str) -> anyhow::Result<Source> {
    let mut table = section.into_table().with_context(|| format!("{path} must be a section"))?;
    let mut take = |key: &str| table.remove(key);
    let kind = take("kind")
        .with_context(|| format!("{path}.kind is missing; one of {}", SOURCE_KINDS.join(", ")))?
        .into_string()
        .with_context(|| format!("{path}.kind"))?;
    let references = parse_list(take("secrets"), path, "secrets")?;
    let tenants = parse_list(take("tenants"), path, "tenants")?;
    let quarantine = quarantine(take("quarantine_limit"), path)?;
    let rest = Value::new(None, config::ValueKind::Table(table));

    let settled = |result: Result<(), config::ConfigError>| result.with_context(|| path.to_owned());
    let platform: Box<dyn Platform> = match kind.as_str() {
        "shopify" => {
            settled(rest.try_deserialize::<Shopify>().map(drop))?;
            Box::new(Shopify {})
        }
        "woocommerce" => {
            settled(rest.try_deserialize::<WooCommerce>().map(drop))?;
            Box::new(WooCommerce {})
        }
        "square" => {
            let settings: square::SquareSettings = read(rest, path)?;
            Box::new(Square::new(settings).map_err(|error| at(path, &error))?)
        }
        "quickbooks" => {
            settled(rest.try_deserialize::<QuickBooks>().map(drop))?;
            Box::new(QuickBooks {})
        }
        "xero" => {
            settled(rest.try_deserialize::<Xero>().map(drop))?;
            Box::new(Xero {})
        }
        "stripe" => {
            let settings: stripe::StripeSettings = read(rest, path)?;
            Box::new(Stripe::new(&settings).map_err(|error| at(path, &error))?)
        }
        "standard_webhooks" => {
            let settings: standard_webhooks::StandardWebhooksSettings = read(rest, path)?;
            if !tenants.is_empty() && !settings.has_tenant_selector() {
                bail!("{path}.event.tenant is needed to tell whether a call is of {path}.tenants");
            }
            Box::new(StandardWebhooks::new(settings).map_err(|error| at(path, &error))?)
        }
        "generic" | "github" => {
            let settings: GenericSettings = read(rest, path)?;
            if !tenants.is_empty() && settings.event.tenant.is_none() {
                bail!("{path}.event.tenant is needed to tell whether a call is of {path}.tenants");
            }
            let adapter = match kind.as_str() {
                "github" => Generic::github(settings),
                _ => Generic::new(settings),
            };
            Box::new(adapter.map_err(|error| at(path, &error))?)
        }
        "cloudevents" => {
            let settings: cloudevents::CloudEventsSettings = read(rest, path)?;
            if !tenants.is_empty() && settings.event.tenant.is_none() {
                bail!("{path}.event.tenant is needed to tell whether a call is of {path}.tenants");
            }
            Box::new(CloudEvents::new(settings).map_err(|error| at(path, &error))?)
        }
        "callback" => {
            let settings: callback::CallbackSettings = read(rest, path)?;
            if !tenants.is_empty() && settings.tenant.is_none() {
                bail!("{path}.tenant is needed to tell whether a call is of {path}.tenants");
            }
            Box::new(Callback::new(settings).map_err(|error| at(path, &error))?)
        }
        "import" => {
            let settings: file_import::ImportSettings = read(rest, path)?;
            if !tenants.is_empty() && settings.tenant.is_none() {
                bail!("{path}.tenant is needed to tell whether a file is of {path}.tenants");
            }
            Box::new(ImportSource::new(settings).map_err(|error| at(path, &error))?)
        }
        other => bail!("{path}.kind: {other:?} is not one of {}", SOURCE_KINDS.join(", ")),
    };
    if references.is_empty() {
        bail!("{path}.secrets: at least one is needed, such as [\"env:SHOP_SECRET\"]");
    }
    let secrets = references
        .iter()
        .map(|reference| {
            let text = secrets.resolve(reference)?;
            let key = platform.parse_key(&text).map_err(anyhow::Error::msg)?;
            Ok(Secret::new(reference, key)?)
        })
        .collect::<anyhow::Result<Vec<_>>>()
        .with_context(|| format!("{path}.secrets"))?;
    let tenants = tenants
        .into_iter()
        // As the adapters write them: hosts know no case, and a shop's home
        // page comes with a slash; Xero's are UUIDs. All others' are their own.
        .map(|tenant| match kind.as_str() {
            "shopify" | "woocommerce" | "xero" => tenant.trim_end_matches('/').to_ascii_lowercase(),
            _ => tenant,
        })
        .collect();
    Ok(Source::new(platform, secrets, tenants).with_quarantine_limit(quarantine))
}

/// A kind's own settings.
fn read<S: DeserializeOwned>(section: Value, path: &str) -> anyhow::Result<S> {
    section.try_deserialize().with_context(|| path.to_owned())
}

/// Settings that contradict themselves, with the whole path of the key.
fn at(path: &str, error: &InvalidSettings) -> anyhow::Error {
    anyhow::anyhow!("{path}.{}: {}", error.field, error.detail)
}

/// How many forged calls are kept.
fn quarantine(value: Option<Value>, path: &str) -> anyhow::Result<u32> {
    let Some(value) = value else {
        return Ok(0);
    };
    let count = value.into_int().ok().and_then(|count| u32::try_from(count).ok());
    count
        .filter(|count| *count <= MAX_QUARANTINE_LIMIT)
        .with_context(|| format!("{path}.quarantine_limit must be 0 to {MAX_QUARANTINE_LIMIT}"))
}

/// A list of texts; empty if there is no such key.
///
/// # Errors
/// It is something else.
pub(super) fn parse_list(
    value: Option<Value>,
    path: &str,
    key: &str,
) -> anyhow::Result<Vec<String>> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let list: TextOrList = value
        .try_deserialize()
        .map_err(|_| anyhow::anyhow!("{path}.{key} must be a list of texts"))?;
    Ok(list.into_vec())
}
