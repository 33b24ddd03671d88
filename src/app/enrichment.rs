//! Builds the settings of an enricher from `[sources.<name>.enrich]`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;

use super::headers;
use crate::{
    config::{EnrichConfig, SecretLookup},
    net::{
        call_limiter::CallLimits,
        http_client::HttpOptions,
        url_template::{RESOURCE_PLACEHOLDERS, UrlTemplate},
    },
    worker::enrich::EnricherSettings,
};

/// # Errors
/// The first invalid key, with `path` before it.
pub(super) fn build(
    config: &EnrichConfig,
    secrets: &SecretLookup,
    path: &str,
) -> anyhow::Result<EnricherSettings> {
    let mut urls = BTreeMap::new();
    for (kind, url) in &config.urls {
        let template = UrlTemplate::parse(url, RESOURCE_PLACEHOLDERS, &["id"])
            .with_context(|| format!("{path}.urls.{kind}"))?;
        urls.insert(kind.to_ascii_lowercase(), template);
    }
    let hosts = if config.hosts.is_empty() {
        let hosts = urls.values().filter_map(|template| template.example().host_str());
        hosts.map(str::to_owned).collect()
    } else {
        config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect()
    };
    let http_options = HttpOptions {
        hosts,
        allow_private_addresses: config.allow_private_addresses,
        timeout: Duration::from_millis(config.timeout_ms),
        body_limit: config.body_limit_bytes,
    };
    for (kind, template) in &urls {
        http_options
            .check_url(template.example())
            .with_context(|| format!("{path}.urls.{kind}"))?;
    }
    Ok(EnricherSettings {
        urls,
        headers: headers::build(&config.headers, RESOURCE_PLACEHOLDERS, secrets, path)?,
        http_options,
        call_limits: CallLimits {
            max_concurrency: config.max_concurrency,
            rate_limit_per_second: config.rate_limit_per_second,
            circuit_breaker_threshold: config.circuit_breaker_threshold,
            circuit_breaker_open: Duration::from_millis(config.circuit_breaker_open_ms),
        },
    })
}

#[cfg(test)]
mod tests;
