//! `[sources.<name>.enrich]`: from where, and how, what a thin event names is
//! fetched.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use config::Value;
use serde::Deserialize;

use super::{SecretLookup, headers, sources};
use crate::net::{
    http_client::{HttpOptions, UrlTemplate},
    secret_headers::SecretHeaders,
    url_template::RESOURCE_PLACEHOLDERS,
};

/// How one source's thin events are enriched.
#[derive(Clone, Debug)]
pub struct EnrichmentSettings {
    /// Where each kind of resource is.
    pub urls: BTreeMap<String, UrlTemplate>,
    /// What each request carries.
    pub headers: SecretHeaders,
    /// What may be fetched, and for how long.
    pub http_options: HttpOptions,
    /// The most fetches in a second.
    pub rate_limit_per_second: u32,
    /// The most fetches at once.
    pub max_concurrency: usize,
    /// So many outage-like failures in a row open the breaker.
    pub circuit_breaker_threshold: u32,
    /// How long it is open at first.
    pub circuit_breaker_open: Duration,
}

/// The largest body that may be allowed: it is held in memory.
const MAX_BODY_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    urls: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    allow_private_addresses: bool,
    #[serde(default = "Raw::timeout_ms")]
    timeout_ms: u64,
    #[serde(default = "Raw::body_limit_bytes")]
    body_limit_bytes: usize,
    #[serde(default = "Raw::rate_limit_per_second")]
    rate_limit_per_second: u32,
    #[serde(default = "Raw::max_concurrency")]
    max_concurrency: usize,
    #[serde(default = "Raw::circuit_breaker_threshold")]
    circuit_breaker_threshold: u32,
    #[serde(default = "Raw::circuit_breaker_open_ms")]
    circuit_breaker_open_ms: u64,
}

impl Raw {
    const fn timeout_ms() -> u64 {
        5000
    }

    const fn body_limit_bytes() -> usize {
        4 * 1024 * 1024
    }

    const fn rate_limit_per_second() -> u32 {
        5
    }

    const fn max_concurrency() -> usize {
        4
    }

    const fn circuit_breaker_threshold() -> u32 {
        5
    }

    const fn circuit_breaker_open_ms() -> u64 {
        30_000
    }

    fn check(&self, path: &str) -> anyhow::Result<()> {
        ensure!(
            !self.urls.is_empty(),
            "{path}.urls: at least one kind of resource is needed, such as \
             order = \"https://api.example.com/orders/{{id}}\""
        );
        for (key, value, longest) in [
            ("timeout_ms", self.timeout_ms, 60_000),
            ("circuit_breaker_open_ms", self.circuit_breaker_open_ms, 300_000),
        ] {
            ensure!((100..=longest).contains(&value), "{path}.{key} must be 100 to {longest}");
        }
        ensure!(
            (1..=MAX_BODY_LIMIT_BYTES).contains(&self.body_limit_bytes),
            "{path}.body_limit_bytes must be 1 to {MAX_BODY_LIMIT_BYTES}"
        );
        ensure!(
            (1..=1000).contains(&self.rate_limit_per_second),
            "{path}.rate_limit_per_second must be 1 to 1000"
        );
        ensure!((1..=64).contains(&self.max_concurrency), "{path}.max_concurrency must be 1 to 64");
        ensure!(
            (1..=1000).contains(&self.circuit_breaker_threshold),
            "{path}.circuit_breaker_threshold must be 1 to 1000"
        );
        Ok(())
    }
}

/// Takes the `enrich` section out of a source's, if there is one.
///
/// # Errors
/// The source is no section.
pub(super) fn split(section: Value, path: &str) -> anyhow::Result<(Value, Option<Value>)> {
    let mut table = section.into_table().with_context(|| format!("{path} must be a section"))?;
    let enrich = table.remove("enrich");
    Ok((Value::new(None, config::ValueKind::Table(table)), enrich))
}

/// Reads and checks a source's `enrich` section.
///
/// # Errors
/// The first thing that is wrong, with `path` and the key within it.
pub(super) fn build_enrichment(
    section: Value,
    secrets: &SecretLookup,
    path: &str,
) -> anyhow::Result<EnrichmentSettings> {
    let mut table = section.into_table().with_context(|| format!("{path} must be a section"))?;
    let hosts = sources::parse_list(table.remove("hosts"), path, "hosts")?;
    let rest = Value::new(None, config::ValueKind::Table(table));
    let raw: Raw = rest.try_deserialize().with_context(|| path.to_owned())?;
    raw.check(path)?;

    let mut urls = BTreeMap::new();
    for (kind, url) in &raw.urls {
        let template = UrlTemplate::parse(url, RESOURCE_PLACEHOLDERS, &["id"])
            .with_context(|| format!("{path}.urls.{kind}"))?;
        urls.insert(kind.to_ascii_lowercase(), template);
    }
    let named = || urls.values().filter_map(|template| template.example().host_str());
    let hosts: Vec<String> = if hosts.is_empty() {
        named().map(str::to_owned).collect()
    } else {
        hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect()
    };
    let fetch = HttpOptions {
        hosts,
        allow_private_addresses: raw.allow_private_addresses,
        timeout: Duration::from_millis(raw.timeout_ms),
        body_limit: raw.body_limit_bytes,
    };
    for (kind, template) in &urls {
        fetch.check_url(template.example()).with_context(|| format!("{path}.urls.{kind}"))?;
    }
    let headers = headers::headers(raw.headers, RESOURCE_PLACEHOLDERS, secrets, path)?;
    Ok(EnrichmentSettings {
        urls,
        headers,
        http_options: fetch,
        rate_limit_per_second: raw.rate_limit_per_second,
        max_concurrency: raw.max_concurrency,
        circuit_breaker_threshold: raw.circuit_breaker_threshold,
        circuit_breaker_open: Duration::from_millis(raw.circuit_breaker_open_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, net::secret_headers::HeaderValueSource};

    fn load(enrich: &str) -> Result<EnrichmentSettings, String> {
        let variables = BTreeMap::from([
            ("S".to_owned(), "secret".to_owned()),
            ("TOKEN".to_owned(), "hunter2".to_owned()),
            ("LINES".to_owned(), "hunter2\nhunter2".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]);
        let text = format!(
            "[sources.shop]\nkind = 'shopify'\nsecrets = ['env:S']\n[sources.shop.enrich]\n{enrich}"
        );
        let config = Config::from_toml(&text, &variables).map_err(|error| format!("{error:#}"))?;
        Ok(config.enrichments.values().next().unwrap().clone())
    }

    const URLS: &str = "[sources.shop.enrich.urls]\norder = 'https://api.example.com/o/{id}'\n";

    #[test]
    fn urls_are_enough() {
        let enrichment = load(URLS).unwrap();
        assert_eq!(enrichment.http_options.hosts, ["api.example.com"]);
        assert_eq!(enrichment.http_options.timeout, Duration::from_secs(5));
        assert_eq!(enrichment.http_options.body_limit, 4 << 20);
        assert!(!enrichment.http_options.allow_private_addresses);
        assert_eq!((enrichment.rate_limit_per_second, enrichment.max_concurrency), (5, 4));
        assert_eq!(enrichment.circuit_breaker_threshold, 5);
        assert_eq!(enrichment.circuit_breaker_open, Duration::from_secs(30));
        assert!(enrichment.headers.is_empty());
    }

    #[test]
    fn headers_are_secrets_or_written_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a token");
        std::fs::write(&path, "hunter2\n").unwrap();
        let path = path.display();
        let enrichment = load(&format!(
            "{URLS}[sources.shop.enrich.headers]\nA = 'env:TOKEN'\nB = 'Bearer env:TOKEN'\n\
             C = 'file:{path}'\nD = 'Bearer file:{path}'\nE = 'const:x {{tenant}}'\n"
        ))
        .unwrap();
        let told: Vec<(&str, String)> = enrichment
            .headers
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    HeaderValueSource::Template(text) => format!("{text:?}"),
                    HeaderValueSource::Secret(value) => value.to_str().unwrap().to_owned(),
                    HeaderValueSource::File { scheme, path } => {
                        format!("{scheme}{}", path.display())
                    }
                };
                (name.as_str(), value)
            })
            .collect();
        assert_eq!(told[..2], [("a", "hunter2".to_owned()), ("b", "Bearer hunter2".to_owned())]);
        assert_eq!(told[2..4], [("c", path.to_string()), ("d", format!("Bearer {path}"))]);
        assert!(told[4].1.contains("tenant"));
        assert!(!format!("{enrichment:?}").contains("hunter2"));
    }

    #[test]
    fn each_mistake_names_its_key() {
        let url = |url: &str| format!("[sources.shop.enrich.urls]\norder = '{url}'\n");
        let header = |value: &str| {
            format!("{URLS}[sources.shop.enrich.headers]\nAuthorization = '{value}'\n")
        };
        for (text, expected) in [
            (String::new(), "sources.shop.enrich"),
            ("[sources.shop.enrich.urls]\n".to_owned(), "enrich.urls"),
            (format!("color = 'red'\n{URLS}"), "color"),
            (url("https://{tenant}/{id}"), "enrich.urls.order: its host"),
            (url("https://api.example.com/"), "enrich.urls.order: it has no {id}"),
            (url("http://api.example.com/{id}"), "enrich.urls.order: only https"),
            (url("https://192.168.0.1/{id}"), "enrich.urls.order: 192.168.0.1"),
            (url("http://127.0.0.1/{id}"), "enrich.urls.order: only https"),
            (format!("hosts = ['b.example']\n{URLS}"), "enrich.urls.order: the host"),
            (format!("timeout_ms = 1\n{URLS}"), "enrich.timeout_ms"),
            (format!("body_limit_bytes = 0\n{URLS}"), "enrich.body_limit_bytes"),
            (format!("rate_limit_per_second = 0\n{URLS}"), "enrich.rate_limit_per_second"),
            (format!("max_concurrency = 0\n{URLS}"), "enrich.max_concurrency"),
            (format!("circuit_breaker_threshold = 0\n{URLS}"), "enrich.circuit_breaker_threshold"),
            (format!("circuit_breaker_open_ms = 300001\n{URLS}"), "enrich.circuit_breaker_open_ms"),
            (header("hunter2"), "enrich.headers.Authorization: a header's value"),
            (header("Bearer hunter2"), "enrich.headers.Authorization: a header's value"),
            (header("env:NONE"), "NONE"),
            (header("env:EMPTY"), "enrich.headers.Authorization: it is empty"),
            (header("env:LINES"), "enrich.headers.Authorization: it holds"),
            (header("const:{shop}"), "{shop}"),
            (format!("{URLS}[retry]\nmax_retries = 0\n"), "retry.max_retries"),
            (format!("{URLS}[sources.shop.enrich.headers]\n'a b' = 'env:S'\n"), "headers.a b"),
        ] {
            let error = load(&text).err().unwrap_or_default();
            assert!(error.contains(expected), "{text:?} must name {expected:?}, says {error:?}");
            assert!(!error.contains("hunter2"), "a secret is shown: {error}");
        }
    }
}
