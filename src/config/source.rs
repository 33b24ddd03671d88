//! One `[sources.<name>]` section: a kind, its secrets and tenants, and the
//! kind's own settings.

use anyhow::{Context as _, bail};
use config::Value;
use serde::Deserialize;

use super::SecretLookup;
use crate::adapter::{
    Adapter, Platform,
    generic::{Generic, Settings},
    mapping::InvalidSettings,
    shopify::Shopify,
    signature::Secret,
    standard_webhooks::{self, StandardWebhooks},
    stripe::{self, Stripe},
    woocommerce::WooCommerce,
};

/// The kinds of source there are.
pub const KINDS: [&str; 5] = ["shopify", "woocommerce", "stripe", "standard_webhooks", "generic"];

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            // From the environment, where there are no lists.
            Self::One(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
            Self::Many(texts) => texts,
        }
    }
}

/// Turns a section into the source's adapter.
///
/// # Errors
/// The first thing that is wrong, with `path` and the key within it.
pub fn adapter(section: Value, secrets: &SecretLookup, path: &str) -> anyhow::Result<Adapter> {
    let mut table = section.into_table().with_context(|| format!("{path} must be a section"))?;
    let mut take = |key: &str| table.remove(key);
    let kind = take("kind")
        .with_context(|| format!("{path}.kind is missing; one of {}", KINDS.join(", ")))?
        .into_string()
        .with_context(|| format!("{path}.kind"))?;
    let references = list(take("secrets"), path, "secrets")?;
    let tenants = list(take("tenants"), path, "tenants")?;
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
        "stripe" => {
            let settings: stripe::Settings =
                rest.try_deserialize().with_context(|| path.to_owned())?;
            Box::new(Stripe::new(&settings).map_err(|error| at(path, &error))?)
        }
        "standard_webhooks" => {
            let settings: standard_webhooks::Settings =
                rest.try_deserialize().with_context(|| path.to_owned())?;
            if !tenants.is_empty() && !settings.tells_tenant() {
                bail!("{path}.event.tenant is needed to tell whether a call is of {path}.tenants");
            }
            Box::new(StandardWebhooks::new(settings).map_err(|error| at(path, &error))?)
        }
        "generic" => {
            let settings: Settings = rest.try_deserialize().with_context(|| path.to_owned())?;
            if !tenants.is_empty() && settings.event.tenant.is_none() {
                bail!("{path}.event.tenant is needed to tell whether a call is of {path}.tenants");
            }
            Box::new(Generic::new(settings).map_err(|error| at(path, &error))?)
        }
        other => bail!("{path}.kind: {other:?} is not one of {}", KINDS.join(", ")),
    };
    if references.is_empty() {
        bail!("{path}.secrets: at least one is needed, such as [\"env:SHOP_SECRET\"]");
    }
    let secrets = references
        .iter()
        .map(|reference| {
            let text = secrets.resolve(reference)?;
            let key = platform.key(&text).map_err(anyhow::Error::msg)?;
            Ok(Secret::new(reference, key)?)
        })
        .collect::<anyhow::Result<Vec<_>>>()
        .with_context(|| format!("{path}.secrets"))?;
    let tenants = tenants
        .into_iter()
        // As the adapters write them: hosts know no case, and a shop's home
        // page comes with a slash. All others' names are their own.
        .map(|tenant| match kind.as_str() {
            "shopify" | "woocommerce" => tenant.trim_end_matches('/').to_ascii_lowercase(),
            _ => tenant,
        })
        .collect();
    Ok(Adapter::new(platform, secrets, tenants))
}

/// Settings that contradict themselves, with the whole path of the key.
fn at(path: &str, error: &InvalidSettings) -> anyhow::Error {
    anyhow::anyhow!("{path}.{}: {}", error.field, error.detail)
}

fn list(value: Option<Value>, path: &str, key: &str) -> anyhow::Result<Vec<String>> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let list: OneOrMany = value
        .try_deserialize()
        .map_err(|_| anyhow::anyhow!("{path}.{key} must be a list of texts"))?;
    Ok(list.into_vec())
}
