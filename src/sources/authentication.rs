//! Authentication: how the callers of a source that is made of settings prove
//! who they are. By a signature of each call, a bearer token or a password.

mod settings;
mod signature_scheme;
#[cfg(test)]
mod tests;

use data_encoding::BASE64;
use http::{HeaderName, HeaderValue, header};

use super::{
    OutgoingWebhook, Rejection, WebhookRequest,
    mapping::InvalidSettings,
    signature::{Algorithm, Encoding, Key, Secret},
};
pub use settings::{AuthenticationMethod, KeyEncoding, SignatureSettings, TimestampUnit};
use signature_scheme::SignatureScheme;

/// How a source's callers prove who they are, its settings checked.
pub struct Authentication(Scheme);

enum Scheme {
    /// An HMAC of each call.
    Hmac { scheme: Box<SignatureScheme>, key_encoding: KeyEncoding },
    /// The secret itself: in `Authorization`, else in this parameter of the
    /// query.
    BearerToken { query_parameter: Option<&'static str> },
    /// A user and a password in `Authorization`.
    BasicAuth,
}

impl Authentication {
    /// Checks settings: `authentication`, and the table `signature` if it is
    /// there.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(
        method: AuthenticationMethod,
        signature: Option<SignatureSettings>,
    ) -> Result<Self, InvalidSettings> {
        if method != AuthenticationMethod::Hmac && signature.is_some() {
            let detail = "says how calls are signed, which only authentication = \"hmac\" asks";
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

    /// Lets a bearer token also stand in this parameter of the query.
    #[must_use]
    pub fn allow_in_query(self, parameter: &'static str) -> Self {
        Self(match self.0 {
            Scheme::BearerToken { .. } => Scheme::BearerToken { query_parameter: Some(parameter) },
            other => other,
        })
    }

    /// The key that a secret's text stands for.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    pub fn parse_key(&self, text: &str) -> Result<Key, String> {
        let own = || Key::Shared(text.as_bytes().to_vec());
        match &self.0 {
            Scheme::Hmac { key_encoding: key, .. } => {
                let decoded = match key {
                    KeyEncoding::Utf8 => return Ok(own()),
                    KeyEncoding::Hex => Encoding::Hex.decode(text.trim()),
                    KeyEncoding::Base64 => Encoding::Base64.decode(text.trim()),
                };
                let wrong = || "the secret is not written as signature.key says".to_owned();
                decoded.map(Key::Shared).ok_or_else(wrong)
            }
            Scheme::BearerToken { .. } if text.contains(char::is_whitespace) => {
                Err("a bearer token has no white space".to_owned())
            }
            // Empty as a whole is refused like any empty secret.
            Scheme::BasicAuth if !text.is_empty() => match text.split_once(':') {
                Some((_, "")) => Err("the password is empty".to_owned()),
                Some(_) => Ok(own()),
                None => Err("the secret must be user:password".to_owned()),
            },
            Scheme::BearerToken { .. } | Scheme::BasicAuth => Ok(own()),
        }
    }

    /// Whether a call proves its own bytes, and not only who sent it.
    pub fn is_signature(&self) -> bool {
        matches!(self.0, Scheme::Hmac { .. })
    }

    /// Finds the secret by which the call is authentic; its index.
    ///
    /// # Errors
    /// [`RejectedField::Signature`].
    pub fn verify(
        &self,
        call: &WebhookRequest<'_>,
        secrets: &[Secret],
    ) -> Result<usize, Rejection> {
        match &self.0 {
            Scheme::Hmac { scheme: signed, .. } => signed.verify(call, secrets),
            Scheme::BearerToken { query_parameter: parameter } => {
                let in_query = || query_value(call.query, (*parameter)?);
                let token = match call.header(header::AUTHORIZATION.as_str()) {
                    None => in_query().ok_or_else(missing_authorization)?,
                    Some(_) => {
                        authorization_credentials(call, "bearer", "a bearer token")?.to_owned()
                    }
                };
                find_secret(secrets, token.as_bytes(), "no configured secret is this token")
            }
            Scheme::BasicAuth => {
                let text = authorization_credentials(call, "basic", "a user and a password")?;
                let decoded = BASE64.decode(text.as_bytes()).map_err(|_| {
                    let detail = "the header Authorization is not written in base64";
                    Rejection::InvalidSignature(detail.to_owned())
                })?;
                find_secret(secrets, &decoded, "no configured secret is this user and password")
            }
        }
    }

    /// The dressed headers of a delivery, and with them what proves it.
    pub fn sign(
        &self,
        delivery: &OutgoingWebhook<'_>,
        mut dressed: Vec<(HeaderName, HeaderValue)>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let Key::Shared(key) = secret.key() else { return dressed };
        let authorization = match &self.0 {
            Scheme::Hmac { scheme: signed, .. } => return signed.sign(delivery, dressed, secret),
            Scheme::BearerToken { .. } => [b"Bearer ", &key[..]].concat(),
            Scheme::BasicAuth => format!("Basic {}", BASE64.encode(key)).into_bytes(),
        };
        if let Ok(mut value) = HeaderValue::from_bytes(&authorization) {
            value.set_sensitive(true);
            dressed.push((header::AUTHORIZATION, value));
        }
        dressed
    }
}

fn missing_authorization() -> Rejection {
    Rejection::InvalidSignature("the header Authorization is missing or empty".to_owned())
}

/// What stands behind the scheme's name in `Authorization`; the name knows no
/// case (RFC 9110, 11.1).
fn authorization_credentials<'a>(
    call: &WebhookRequest<'a>,
    scheme: &str,
    told: &str,
) -> Result<&'a str, Rejection> {
    let value = call.header(header::AUTHORIZATION.as_str()).ok_or_else(missing_authorization)?;
    value
        .split_once(' ')
        .filter(|(name, _)| name.eq_ignore_ascii_case(scheme))
        .map(|(_, text)| text.trim())
        .ok_or_else(|| {
            Rejection::InvalidSignature(format!("the header Authorization is not {told}"))
        })
}

/// The first parameter of this name in a query; `None` if it is empty.
fn query_value(query: &str, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.find(|(key, _)| key == name)?;
    (!value.is_empty()).then(|| value.into_owned())
}

/// The secret whose own bytes were presented; its index.
fn find_secret(secrets: &[Secret], presented: &[u8], otherwise: &str) -> Result<usize, Rejection> {
    secrets
        .iter()
        .position(|secret| equals_secret(secret, presented))
        .ok_or_else(|| Rejection::InvalidSignature(otherwise.to_owned()))
}

/// Whether these are the secret's own bytes. The HMACs of both are compared,
/// which takes the same time whatever the bytes.
fn equals_secret(secret: &Secret, presented: &[u8]) -> bool {
    let Key::Shared(own) = secret.key() else { return false };
    let told = secret.hmac(Algorithm::Sha256, &[presented]);
    secret.verifies(Algorithm::Sha256, &[own], &told)
}
