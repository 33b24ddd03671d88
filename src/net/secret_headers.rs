//! The headers that a call carries, and where their values come from.

use std::{fmt, path::PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::http_client::{PlaceholderValues, TextTemplate};

/// Headers by name.
pub type SecretHeaders = Vec<(HeaderName, HeaderValueSource)>;

/// A header's value.
#[derive(Clone)]
pub enum HeaderValueSource {
    /// Written in the configuration, with places.
    Template(TextTemplate),
    /// From the environment, read once.
    Secret(HeaderValue),
    /// Read from a file before each call: tokens expire, and whoever renews
    /// them writes the file.
    File {
        /// What stands before it, such as `Bearer `.
        scheme: String,
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Debug for HeaderValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderText")
    }
}

/// The headers of a call; what is read from a file is read now.
///
/// # Errors
/// The header whose value cannot be had, and why. No value is told.
pub async fn resolve(
    headers: &SecretHeaders,
    values: &PlaceholderValues<'_>,
) -> Result<HeaderMap, String> {
    let mut filled = HeaderMap::new();
    for (name, text) in headers {
        let value = match text {
            HeaderValueSource::Secret(value) => value.clone(),
            HeaderValueSource::Template(text) => HeaderValue::try_from(text.fill(values))
                .map_err(|error| format!("the header {name}: {error}"))?,
            HeaderValueSource::File { scheme, path } => {
                let path_told = path.display();
                let secret = tokio::fs::read_to_string(path).await.map_err(|error| {
                    format!("the header {name}: the file {path_told} cannot be read: {error}")
                })?;
                let secret = secret.trim_end_matches(['\r', '\n']);
                let mut value = HeaderValue::try_from(format!("{scheme}{secret}"))
                    .map_err(|error| format!("the header {name}: {path_told}: {error}"))?;
                value.set_sensitive(true);
                value
            }
        };
        filled.insert(name.clone(), value);
    }
    Ok(filled)
}
