//! References to secrets: `env:NAME` and `file:PATH`. The configuration never holds a secret
//! itself.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::{Context as _, bail};

/// The secrets of the built-in development sources. They are public.
const DEVELOPMENT: [(&str, &str); 13] = [
    ("TALLYHOOK_DEV_SHOPIFY", "shopify-development-secret"),
    ("TALLYHOOK_DEV_WOOCOMMERCE", "woocommerce-development-secret"),
    ("TALLYHOOK_DEV_ERP", "erp-development-secret"),
    ("TALLYHOOK_DEV_STRIPE", "whsec_stripe-development-secret"),
    // In base64, as Standard Webhooks requires.
    ("TALLYHOOK_DEV_STANDARD_WEBHOOKS", "whsec_c3RhbmRhcmQtd2ViaG9va3MtZGV2ZWxvcG1lbnQ="),
    ("TALLYHOOK_DEV_SQUARE", "square-development-secret"),
    ("TALLYHOOK_DEV_QUICKBOOKS", "quickbooks-development-secret"),
    ("TALLYHOOK_DEV_XERO", "xero-development-secret"),
    ("TALLYHOOK_DEV_GITHUB", "github-development-secret"),
    ("TALLYHOOK_DEV_CLOUDEVENTS", "cloudevents-development-token"),
    ("TALLYHOOK_DEV_ROBOT", "robot-development-token"),
    // The token that the mock accounting server accepts.
    ("TALLYHOOK_DEV_ACCOUNTING", "accounting-development-token"),
    ("TALLYHOOK_DEV_VENDORS", "vendors-development-token"),
];

/// Resolves references to secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretLookup {
    use_environment: bool,
    /// Values for names that the environment does not set.
    variables: BTreeMap<String, String>,
}

impl SecretLookup {
    /// Reads the environment of the process. With `development`, the built-in development secrets
    /// stand in for variables that are not set.
    pub fn from_environment(development: bool) -> Self {
        let built_in = DEVELOPMENT.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let variables = if development { built_in.into() } else { BTreeMap::new() };
        Self { use_environment: true, variables }
    }

    /// Reads these variables only.
    pub fn from_variables(variables: BTreeMap<String, String>) -> Self {
        Self { use_environment: false, variables }
    }

    /// The secret that a reference names.
    ///
    /// # Errors
    /// The reference is not `env:NAME` or `file:PATH`, or cannot be read. The message never
    /// repeats a text that might be a secret.
    pub fn resolve(&self, reference: &str) -> anyhow::Result<String> {
        if let Some(name) = reference.strip_prefix("env:") {
            let value = if self.use_environment { std::env::var(name).ok() } else { None };
            value
                .or_else(|| self.variables.get(name).cloned())
                .with_context(|| format!("the environment variable {name} is not set"))
        } else if let Some(path) = reference.strip_prefix("file:") {
            let text = std::fs::read_to_string(Path::new(path))
                .with_context(|| format!("the file {path} cannot be read"))?;
            // Editors and `echo` end a file with a newline that is not part of the secret.
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        } else {
            bail!("secrets are references, never literals: use env:NAME or file:PATH")
        }
    }

    /// A URL, given literally or by reference.
    ///
    /// # Errors
    /// As [`SecretLookup::resolve`].
    pub fn resolve_url(&self, text: &str) -> anyhow::Result<String> {
        if text.starts_with("env:") || text.starts_with("file:") {
            self.resolve(text)
        } else {
            Ok(text.to_owned())
        }
    }
}

/// Without the values.
impl fmt::Debug for SecretLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretLookup")
    }
}
