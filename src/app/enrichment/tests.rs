use super::*;
use crate::{app::Components, net::secret_headers::HeaderValueSource};

const URLS: &str = "[sources.shop.enrich.urls]\norder = 'https://api.example.com/o/{id}'\n";

fn load(enrich: &str) -> Result<EnricherSettings, String> {
    let variables = BTreeMap::from([
        ("S".to_owned(), "secret".to_owned()),
        ("TOKEN".to_owned(), "hunter2".to_owned()),
        ("LINES".to_owned(), "hunter2\nhunter2".to_owned()),
        ("EMPTY".to_owned(), String::new()),
    ]);
    let text = format!(
        "[sources.shop]\nkind = 'shopify'\nsecrets = ['env:S']\n[sources.shop.enrich]\n{enrich}"
    );
    let components =
        Components::from_toml(&text, &variables).map_err(|error| format!("{error:#}"))?;
    Ok(components.enrichments.values().next().unwrap().clone())
}

#[test]
fn enrichment_urls_are_enough() {
    let settings = load(URLS).unwrap();
    assert_eq!(settings.http_options.hosts, ["api.example.com"]);
    assert_eq!(settings.http_options.timeout, Duration::from_secs(5));
    assert_eq!(settings.http_options.body_limit, 4 << 20);
    assert!(!settings.http_options.allow_private_addresses);
    let expected = CallLimits {
        max_concurrency: 4,
        rate_limit_per_second: 5,
        circuit_breaker_threshold: 5,
        circuit_breaker_open: Duration::from_secs(30),
    };
    assert_eq!(settings.call_limits, expected);
    assert!(settings.headers.is_empty());
}

#[test]
fn enrichment_headers_are_secrets_or_templates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a token");
    std::fs::write(&path, "hunter2\n").unwrap();
    let path = path.display();
    let settings = load(&format!(
        "{URLS}[sources.shop.enrich.headers]\nA = 'env:TOKEN'\nB = 'Bearer env:TOKEN'\n\
         C = 'file:{path}'\nD = 'Bearer file:{path}'\nE = 'const:x {{tenant}}'\n"
    ))
    .unwrap();
    let headers: Vec<(&str, String)> = settings
        .headers
        .iter()
        .map(|(name, value)| {
            let value = match value {
                HeaderValueSource::Template(template) => format!("{template:?}"),
                HeaderValueSource::Secret(value) => value.to_str().unwrap().to_owned(),
                HeaderValueSource::File { scheme, path } => format!("{scheme}{}", path.display()),
            };
            (name.as_str(), value)
        })
        .collect();
    assert_eq!(headers[..2], [("a", "hunter2".to_owned()), ("b", "Bearer hunter2".to_owned())]);
    assert_eq!(headers[2..4], [("c", path.to_string()), ("d", format!("Bearer {path}"))]);
    assert!(headers[4].1.contains("tenant"));
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn enrichment_invalid_value_names_key() {
    let url = |url: &str| format!("[sources.shop.enrich.urls]\norder = '{url}'\n");
    let header =
        |value: &str| format!("{URLS}[sources.shop.enrich.headers]\nAuthorization = '{value}'\n");
    for (text, expected) in [
        (String::new(), "sources.shop.enrich"),
        ("[sources.shop.enrich.urls]\n".to_owned(), "enrich.urls"),
        (format!("color = 'red'\n{URLS}"), "color"),
        (url("https://{tenant}/{id}"), "enrich.urls.order: the host"),
        (url("https://api.example.com/"), "enrich.urls.order: it must contain one of {id}"),
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
        (header("env:EMPTY"), "enrich.headers.Authorization: the secret is empty"),
        (header("env:LINES"), "enrich.headers.Authorization: the secret has"),
        (header("const:{shop}"), "{shop}"),
        (format!("{URLS}[retry]\nmax_retries = 0\n"), "retry.max_retries"),
        (format!("{URLS}[sources.shop.enrich.headers]\n'a b' = 'env:S'\n"), "headers.a b"),
    ] {
        let error = load(&text).err().unwrap_or_default();
        assert!(error.contains(expected), "{text:?} must name {expected:?}, says {error:?}");
        assert!(!error.contains("hunter2"), "a secret is shown: {error}");
    }
}
