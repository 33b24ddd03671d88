//! Builds a source from its `[sources.<name>]` section.

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

use crate::{
    config::{SecretLookup, SourceConfig},
    sources::{
        Platform, Source,
        callback::{Callback, CallbackSettings},
        cloudevents::{CloudEvents, CloudEventsSettings},
        file_import::{ImportSettings, ImportSource},
        generic::{Generic, GenericSettings},
        mapping::InvalidSettings,
        quickbooks::QuickBooks,
        shopify::Shopify,
        signature::Secret,
        square::{Square, SquareSettings},
        standard_webhooks::{StandardWebhooks, StandardWebhooksSettings},
        stripe::{Stripe, StripeSettings},
        woocommerce::WooCommerce,
        xero::Xero,
    },
};

/// # Errors
/// The first invalid key, with `path` before it.
pub(super) fn build(
    config: &SourceConfig,
    secrets: &SecretLookup,
    path: &str,
) -> anyhow::Result<Source> {
    let platform = build_platform(config, path)?;
    let secrets = config
        .secrets
        .iter()
        .map(|reference| {
            let text = secrets.resolve(reference)?;
            let key = platform.parse_key(&text).map_err(anyhow::Error::msg)?;
            Ok(Secret::new(reference, key)?)
        })
        .collect::<anyhow::Result<Vec<_>>>()
        .with_context(|| format!("{path}.secrets"))?;
    let tenants = config
        .tenants
        .iter()
        // As the source reads them from requests: host names are lowercase, the URL of a shop may
        // end with a slash, and Xero's tenants are UUIDs. All others are compared as they are.
        .map(|tenant| match config.kind.as_str() {
            "shopify" | "woocommerce" | "xero" => tenant.trim_end_matches('/').to_ascii_lowercase(),
            _ => tenant.clone(),
        })
        .collect();
    Ok(Source::new(platform, secrets, tenants).with_quarantine_limit(config.quarantine_limit))
}

fn build_platform(config: &SourceConfig, path: &str) -> anyhow::Result<Box<dyn Platform>> {
    // `tenants` needs to know where a request names its tenant.
    let require_tenant = |is_known: bool, key: &str| {
        if !config.tenants.is_empty() && !is_known {
            bail!("{path}.{key} is needed to check {path}.tenants");
        }
        Ok(())
    };
    Ok(match config.kind.as_str() {
        "shopify" => Box::new(kind_settings::<Shopify>(config, path)?),
        "woocommerce" => Box::new(kind_settings::<WooCommerce>(config, path)?),
        "quickbooks" => Box::new(kind_settings::<QuickBooks>(config, path)?),
        "xero" => Box::new(kind_settings::<Xero>(config, path)?),
        "square" => {
            let settings: SquareSettings = kind_settings(config, path)?;
            Box::new(Square::new(settings).map_err(|error| at(path, &error))?)
        }
        "stripe" => {
            let settings: StripeSettings = kind_settings(config, path)?;
            Box::new(Stripe::new(&settings).map_err(|error| at(path, &error))?)
        }
        "standard_webhooks" => {
            let settings: StandardWebhooksSettings = kind_settings(config, path)?;
            require_tenant(settings.has_tenant_selector(), "event.tenant")?;
            Box::new(StandardWebhooks::new(settings).map_err(|error| at(path, &error))?)
        }
        kind @ ("generic" | "github") => {
            let settings: GenericSettings = kind_settings(config, path)?;
            require_tenant(settings.event.tenant.is_some(), "event.tenant")?;
            let source = match kind {
                "github" => Generic::github(settings),
                _ => Generic::new(settings),
            };
            Box::new(source.map_err(|error| at(path, &error))?)
        }
        "cloudevents" => {
            let settings: CloudEventsSettings = kind_settings(config, path)?;
            require_tenant(settings.event.tenant.is_some(), "event.tenant")?;
            Box::new(CloudEvents::new(settings).map_err(|error| at(path, &error))?)
        }
        "callback" => {
            let settings: CallbackSettings = kind_settings(config, path)?;
            require_tenant(settings.tenant.is_some(), "tenant")?;
            Box::new(Callback::new(settings).map_err(|error| at(path, &error))?)
        }
        "import" => {
            let settings: ImportSettings = kind_settings(config, path)?;
            require_tenant(settings.tenant.is_some(), "tenant")?;
            Box::new(ImportSource::new(settings).map_err(|error| at(path, &error))?)
        }
        other => bail!("{path}.kind: {other:?} is not a kind of source"),
    })
}

/// The kind's own keys.
fn kind_settings<S: DeserializeOwned>(config: &SourceConfig, path: &str) -> anyhow::Result<S> {
    config.settings.clone().try_deserialize().with_context(|| path.to_owned())
}

/// Settings that contradict each other, with the path of the key.
fn at(path: &str, error: &InvalidSettings) -> anyhow::Error {
    anyhow::anyhow!("{path}.{}: {}", error.field, error.detail)
}
