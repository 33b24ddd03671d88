//! The headers that a call carries, and where their values come from.

use std::{fmt, path::PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Text, Values};

/// Headers by name.
pub type Headers = Vec<(HeaderName, HeaderText)>;

/// A header's value.
#[derive(Clone)]
pub enum HeaderText {
    /// Written in the configuration, with places.
    Written(Text),
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

impl fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderText")
    }
}

/// The headers of a call; what is read from a file is read now.
///
/// # Errors
/// The header whose value cannot be had, and why. No value is told.
pub async fn fill(headers: &Headers, values: &Values<'_>) -> Result<HeaderMap, String> {
    let mut filled = HeaderMap::new();
    for (name, text) in headers {
        let value = match text {
            HeaderText::Secret(value) => value.clone(),
            HeaderText::Written(text) => HeaderValue::try_from(text.fill(values))
                .map_err(|error| format!("the header {name}: {error}"))?,
            HeaderText::File { scheme, path } => {
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
