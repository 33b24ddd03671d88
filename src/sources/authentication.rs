//! Authentication by settings: a signature of each request, a bearer token, or a user and a
//! password.

mod settings;
mod signature_scheme;
mod signature_template;
#[cfg(test)]
mod tests;

use data_encoding::BASE64;
use http::{HeaderName, HeaderValue, header};
use secrecy::ExposeSecret as _;

use super::{
    OutgoingWebhook, Rejection, WebhookRequest,
    mapping::InvalidSettings,
    signature::{Algorithm, Encoding, Key, Secret},
};
pub use settings::{AuthenticationMethod, KeyEncoding, SignatureSettings, TimestampUnit};
use signature_scheme::SignatureScheme;

/// How the senders of a source authenticate.
pub struct Authentication(Scheme);

enum Scheme {
    /// An HMAC of each request.
    Hmac { scheme: Box<SignatureScheme>, key_encoding: KeyEncoding },
    /// The secret itself: in `Authorization`, else in this query parameter.
    BearerToken { query_parameter: Option<&'static str> },
    /// A user and a password in `Authorization`.
    BasicAuth,
}

impl Authentication {
    /// Validates `authentication` and the table `signature`.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn new(
        method: AuthenticationMethod,
        signature: Option<SignatureSettings>,
    ) -> Result<Self, InvalidSettings> {
        if method != AuthenticationMethod::Hmac && signature.is_some() {
            let detail = "describes a signature, which requires authentication = \"hmac\"";
            return Err(InvalidSettings::new("signature", detail));
        }
        Ok(Self(match method {
            AuthenticationMethod::Hmac => {
                let settings = signature.unwrap_or_default();
                Scheme::Hmac {
                    key_encoding: settings.key,
                    scheme: Box::new(SignatureScheme::new(settings)?),
                }
            }
            AuthenticationMethod::Bearer => Scheme::BearerToken { query_parameter: None },
            AuthenticationMethod::Basic => Scheme::BasicAuth,
        }))
    }

    /// Also accepts the bearer token in this query parameter.
    #[must_use]
    pub fn allow_in_query(self, parameter: &'static str) -> Self {
        Self(match self.0 {
            Scheme::BearerToken { .. } => Scheme::BearerToken { query_parameter: Some(parameter) },
            other => other,
        })
    }

    /// Decodes the text of a secret.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    pub fn parse_key(&self, text: &str) -> Result<Key, String> {
        let as_key = || Key::shared(text);
        match &self.0 {
            Scheme::Hmac { key_encoding, .. } => {
                let decoded = match key_encoding {
                    KeyEncoding::Utf8 => return Ok(as_key()),
                    KeyEncoding::Hex => Encoding::Hex.decode(text.trim()),
                    KeyEncoding::Base64 => Encoding::Base64.decode(text.trim()),
                };
                let invalid = || "the secret is not encoded as signature.key says".to_owned();
                decoded.map(Key::shared).ok_or_else(invalid)
            }
            Scheme::BearerToken { .. } if text.contains(char::is_whitespace) => {
                Err("a bearer token cannot contain white space".to_owned())
            }
            // An empty text is rejected like any empty secret.
            Scheme::BasicAuth if !text.is_empty() => match text.split_once(':') {
                Some((_, "")) => Err("the password is empty".to_owned()),
                Some(_) => Ok(as_key()),
                None => Err("the secret must be user:password".to_owned()),
            },
            Scheme::BearerToken { .. } | Scheme::BasicAuth => Ok(as_key()),
        }
    }

    /// Whether the scheme authenticates the body, and not only the sender.
    pub fn is_signature(&self) -> bool {
        matches!(self.0, Scheme::Hmac { .. })
    }

    /// The index of the secret that authenticates the request.
    ///
    /// # Errors
    /// [`Rejection::InvalidSignature`] if there is none.
    pub fn verify(
        &self,
        request: &WebhookRequest<'_>,
        secrets: &[Secret],
    ) -> Result<usize, Rejection> {
        match &self.0 {
            Scheme::Hmac { scheme, .. } => scheme.verify(request, secrets),
            Scheme::BearerToken { query_parameter } => {
                let in_query = || query_value(request.query, (*query_parameter)?);
                let token = match request.header(header::AUTHORIZATION.as_str()) {
                    None => in_query().ok_or_else(missing_authorization)?,
                    Some(_) => {
                        authorization_credentials(request, "bearer", "a bearer token")?.to_owned()
                    }
                };
                find_secret(secrets, token.as_bytes(), "no configured secret is this token")
            }
            Scheme::BasicAuth => {
                let text = authorization_credentials(request, "basic", "a user and a password")?;
                let decoded = BASE64.decode(text.as_bytes()).map_err(|_| {
                    let detail = "the header Authorization is not base64";
                    Rejection::InvalidSignature(detail.to_owned())
                })?;
                find_secret(secrets, &decoded, "no configured secret is this user and password")
            }
        }
    }

    /// The headers of a webhook, with the header that authenticates it added.
    pub fn sign(
        &self,
        webhook: &OutgoingWebhook<'_>,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let Key::Shared(key) = secret.key() else { return headers };
        let authorization = match &self.0 {
            Scheme::Hmac { scheme, .. } => return scheme.sign(webhook, headers, secret),
            Scheme::BearerToken { .. } => [b"Bearer ", key.expose_secret()].concat(),
            Scheme::BasicAuth => {
                format!("Basic {}", BASE64.encode(key.expose_secret())).into_bytes()
            }
        };
        if let Ok(mut value) = HeaderValue::from_bytes(&authorization) {
            value.set_sensitive(true);
            headers.push((header::AUTHORIZATION, value));
        }
        headers
    }
}

fn missing_authorization() -> Rejection {
    Rejection::InvalidSignature("the header Authorization is missing or empty".to_owned())
}

/// The credentials after the scheme's name in `Authorization`; the name is case-insensitive
/// (RFC 9110, 11.1).
fn authorization_credentials<'a>(
    request: &WebhookRequest<'a>,
    scheme: &str,
    expected: &str,
) -> Result<&'a str, Rejection> {
    let value = request.header(header::AUTHORIZATION.as_str()).ok_or_else(missing_authorization)?;
    value
        .split_once(' ')
        .filter(|(name, _)| name.eq_ignore_ascii_case(scheme))
        .map(|(_, text)| text.trim())
        .ok_or_else(|| {
            Rejection::InvalidSignature(format!("the header Authorization is not {expected}"))
        })
}

/// The first query parameter of this name; `None` if it is empty.
fn query_value(query: &str, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.find(|(key, _)| key == name)?;
    (!value.is_empty()).then(|| value.into_owned())
}

/// The index of the secret whose bytes were presented.
fn find_secret(secrets: &[Secret], presented: &[u8], error: &str) -> Result<usize, Rejection> {
    secrets
        .iter()
        .position(|secret| equals_secret(secret, presented))
        .ok_or_else(|| Rejection::InvalidSignature(error.to_owned()))
}

/// Whether these are the secret's bytes. Comparing the HMACs of both takes constant time.
fn equals_secret(secret: &Secret, presented: &[u8]) -> bool {
    let Key::Shared(key) = secret.key() else { return false };
    let digest = secret.hmac(Algorithm::Sha256, &[presented]);
    secret.verifies(Algorithm::Sha256, &[key.expose_secret()], &digest)
}
