//! Request headers as JSON and back, so that a quarantined request can be verified again
//! once its secret was corrected.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Value, json};

/// Headers that no signature covers and that must not be stored.
const NEVER_STORED: [HeaderName; 2] = [header::COOKIE, header::PROXY_AUTHORIZATION];

/// Words in the names of headers that hold a credential. Unless the scheme is an HMAC, such
/// a value is as good as the secret.
const CREDENTIAL_WORDS: [&str; 9] =
    ["auth", "token", "secret", "key", "password", "credential", "cookie", "session", "jwt"];

/// Stores headers as JSON, in their order, without cookies.
pub fn to_json(headers: &HeaderMap) -> Value {
    let stored = headers.iter().filter(|(name, _)| !NEVER_STORED.contains(name));
    stored
        .map(|(name, value)| {
            if let Ok(text) = std::str::from_utf8(value.as_bytes()) {
                return json!({"name": name.as_str(), "value": text});
            }
            // Not UTF-8; a company may be called Müller in Latin-1.
            let base64 = data_encoding::BASE64.encode(value.as_bytes());
            json!({"name": name.as_str(), "base64": base64})
        })
        .collect()
}

/// Reads headers that [`to_json`] stored; entries that are not valid headers are skipped.
pub fn from_json(stored: &Value) -> HeaderMap {
    let header = |field: &Value| {
        let name: HeaderName = field["name"].as_str()?.parse().ok()?;
        let bytes = match field["value"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => data_encoding::BASE64.decode(field["base64"].as_str()?.as_bytes()).ok()?,
        };
        Some((name, HeaderValue::from_bytes(&bytes).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in stored.as_array().into_iter().flatten().filter_map(header) {
        headers.append(name, value);
    }
    headers
}

/// Stored headers without the values of credentials, for display.
pub fn redacted(stored: &Value) -> Value {
    let fields = stored.as_array().into_iter().flatten();
    fields
        .map(|field| {
            let name = field["name"].as_str().unwrap_or_default().to_ascii_lowercase();
            if CREDENTIAL_WORDS.iter().any(|word| name.contains(word)) {
                json!({"name": name, "hidden": true})
            } else {
                field.clone()
            }
        })
        .collect()
}

/// The names of the query parameters; their values may be credentials.
pub fn query_parameter_names(query: &str) -> Vec<&str> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split('=').next().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_headers_round_trip_without_cookies() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-signature", b"sha256=00".as_slice()),
            ("authorization", b"Bearer hunter2"),
            ("x-company", b"M\xfcller"),
            ("x-company", "Müller".as_bytes()),
        ] {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let expected = headers.clone();
        headers.append(header::COOKIE, HeaderValue::from_static("session=1"));
        assert_eq!(from_json(&to_json(&headers)), expected);
    }

    #[test]
    fn stored_headers_redacted_hides_credentials() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "x-gitlab-token",
            "x-api-key",
            // Added by proxies.
            "cf-access-jwt-assertion",
            "x-session-id",
            "x-original-cookie",
            "x-signature",
        ] {
            headers.append(name, HeaderValue::from_static("hunter2"));
        }
        let shown = redacted(&to_json(&headers)).to_string();
        assert_eq!(shown.matches("hunter2").count(), 1, "{shown}");
        assert!(shown.contains("x-gitlab-token"), "{shown}");
        assert_eq!(query_parameter_names("token=hunter2&shop&a=b=c"), ["token", "shop", "a"]);
    }

    #[test]
    fn stored_headers_invalid_entries_are_skipped() {
        let stored = json!([{"name": "a b", "value": "1"}, {"name": "x", "value": "a\nb"}, 7,
                          {"name": "y"}, {"name": "z", "value": "1"}]);
        assert_eq!(from_json(&stored).len(), 1);
        assert!(from_json(&json!("text")).is_empty());
    }
}
