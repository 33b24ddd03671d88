//! Headers of outgoing requests, and where their values come from.

use std::{fmt, path::PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::url_template::{PlaceholderValues, TextTemplate};

/// Header names and their values.
pub type SecretHeaders = Vec<(HeaderName, HeaderValueSource)>;

/// Where the value of a header comes from.
#[derive(Clone)]
pub enum HeaderValueSource {
    /// A text of the configuration, with placeholders.
    Template(TextTemplate),
    /// A secret of the environment, read at start.
    Secret(HeaderValue),
    /// A file that is read before each request, so that an expired token can be replaced.
    File {
        /// The text before the secret, such as `Bearer `.
        scheme: String,
        /// The file.
        path: PathBuf,
    },
}

/// Without the value.
impl fmt::Debug for HeaderValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderValueSource")
    }
}

/// The headers of a request. Files are read now.
///
/// # Errors
/// The first header without a valid value, and the reason. The message contains no value.
pub async fn resolve(
    headers: &SecretHeaders,
    values: &PlaceholderValues<'_>,
) -> Result<HeaderMap, String> {
    let mut resolved = HeaderMap::new();
    for (name, source) in headers {
        let value = match source {
            HeaderValueSource::Secret(value) => value.clone(),
            HeaderValueSource::Template(template) => {
                HeaderValue::try_from(template.fill(values))
                    .map_err(|error| format!("the header {name}: {error}"))?
            }
            HeaderValueSource::File { scheme, path } => {
                let file = path.display();
                let secret = tokio::fs::read_to_string(path).await.map_err(|error| {
                    format!("the header {name}: the file {file} cannot be read: {error}")
                })?;
                let secret = secret.trim_end_matches(['\r', '\n']);
                let mut value = HeaderValue::try_from(format!("{scheme}{secret}"))
                    .map_err(|error| format!("the header {name}: {file}: {error}"))?;
                value.set_sensitive(true);
                value
            }
        };
        resolved.insert(name.clone(), value);
    }
    Ok(resolved)
}
