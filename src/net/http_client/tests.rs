use super::*;

fn options(hosts: &[&str], allow_private_addresses: bool) -> HttpOptions {
    HttpOptions {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        allow_private_addresses,
        timeout: Duration::from_secs(5),
        body_limit: 1000,
    }
}

#[test]
fn http_options_url_is_checked_by_scheme_host_and_address() {
    let hosts = ["api.example.com", "127.0.0.1", "10.0.0.1", "[::1]", "8.8.8.8"];
    for (url, strict, loose) in [
        ("https://api.example.com/x", "", ""),
        ("https://api.example.com:8443/x", "", ""),
        ("http://api.example.com/x", "https", "https"),
        ("https://evil.example.com/x", "evil.example.com", "evil.example.com"),
        ("https://api.example.com.evil.example/x", "allowed hosts", "allowed hosts"),
        ("https://8.8.8.8/x", "", ""),
        ("https://127.0.0.1/x", "private", ""),
        ("https://10.0.0.1/x", "private", ""),
        ("http://127.0.0.1:1/x", "https", ""),
        ("http://127.1:1/x", "https", ""),
        ("http://[::1]:1/x", "https", ""),
        ("http://10.0.0.1/x", "https", "https"),
        ("http://localhost/x", "https", "https"),
        ("ftp://api.example.com/x", "https", "https"),
    ] {
        for (allow_private_addresses, expected) in [(false, strict), (true, loose)] {
            let result = options(&hosts, allow_private_addresses).check_url(&url.parse().unwrap());
            let message = result.err().map(|violation| violation.to_string()).unwrap_or_default();
            assert!(
                message.contains(expected) && message.is_empty() == expected.is_empty(),
                "{url} {message}"
            );
        }
    }
}

#[test]
fn fetch_error_location_has_no_query() {
    let url = "https://api.example.com:8443/orders/7?token=hunter2".parse().unwrap();
    assert_eq!(redacted_location(&url), "api.example.com:8443/orders/7");
}

#[test]
fn fetch_error_retry_after_is_seconds_or_date() {
    let now = time::macros::datetime!(2026-01-02 03:04:05 UTC);
    for (text, seconds) in [
        ("0", Some(0)),
        ("120", Some(120)),
        (" 7 ", Some(7)),
        ("Fri, 02 Jan 2026 03:05:05 GMT", Some(60)),
        ("Fri, 02 Jan 2026 03:00:05 GMT", Some(0)),
        ("-1", None),
        ("soon", None),
        ("", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text:?}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
}

#[test]
fn fetch_error_outage_depends_on_kind() {
    let status = |code, seconds: Option<u64>| FetchErrorKind::Status {
        status: StatusCode::from_u16(code).unwrap(),
        retry_after: seconds.map(Duration::from_secs),
    };
    for (kind, outage, wait) in [
        (FetchErrorKind::Unreachable, true, None),
        (FetchErrorKind::Timeout(Duration::from_secs(1)), true, None),
        (FetchErrorKind::Interrupted, true, None),
        (status(500, Some(9)), true, None),
        (status(503, Some(9)), true, Some(9)),
        (status(429, Some(9)), true, Some(9)),
        (status(429, None), true, None),
        (status(404, Some(9)), false, None),
        (status(401, None), false, None),
        (status(302, None), false, None),
        (FetchErrorKind::TooLarge(1), false, None),
        (FetchErrorKind::Blocked, false, None),
    ] {
        let error =
            FetchError { method: Method::GET, location: "a/b".to_owned(), kind, source: None };
        assert_eq!(error.is_outage(), outage, "{error}");
        assert_eq!(error.retry_after(), wait.map(Duration::from_secs), "{error}");
    }
}

#[tokio::test]
async fn http_fetcher_name_at_private_address_is_blocked() {
    let url: Url = "https://localhost:1/orders/7?token=hunter2".parse().unwrap();
    let guarded = HttpFetcher::new(options(&["localhost"], false)).unwrap();
    let error = guarded.get(&url, HeaderMap::new()).await.unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Blocked);
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("GET localhost:1/orders/7") && text.contains("private"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");

    let open = HttpFetcher::new(options(&["localhost"], true)).unwrap();
    let error = open.get(&url, HeaderMap::new()).await.unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Unreachable);
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(!text.contains("hunter2"), "{text}");
}
