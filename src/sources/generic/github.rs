//! GitHub, and senders with the same signature scheme: `generic` with other defaults.
//!
//! Rules: docs.github.com, "Validating webhook deliveries" and "Webhook events and
//! payloads".

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{Generic, GenericSettings};
use crate::sources::{
    authentication::AuthenticationMethod, mapping::InvalidSettings, selector::Selector,
};

impl Generic {
    /// A source of kind `github`: GitHub's values are the defaults of the settings.
    /// `X-Hub-Signature`, which is SHA-1, is ignored.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn github(mut settings: GenericSettings) -> Result<Self, InvalidSettings> {
        if settings.authentication == AuthenticationMethod::Hmac {
            let signature = settings.signature.get_or_insert_default();
            signature.header.get_or_insert_with(|| "x-hub-signature-256".to_owned());
            signature.prefix.get_or_insert_with(|| "sha256=".to_owned());
        }
        let event = &mut settings.event;
        let header = |name: &str| Selector::Header(name.to_owned());
        // Equal on redelivery.
        event.id.get_or_insert_with(|| header("x-github-delivery"));
        event.topic.get_or_insert_with(|| header("x-github-event"));
        // A webhook may be configured to send forms; the signature covers the form.
        settings.form.get_or_insert_with(|| "payload".to_owned());
        let generic = Self::new(settings)?;
        // GitHub does not retry; a person may redeliver for three days: docs.github.com,
        // "Redelivering webhooks".
        let resends_for = Duration::from_hours(3 * 24);
        Ok(Self {
            kind: "github",
            test_topic: Some("ping"),
            redelivery_window: resends_for,
            ..generic
        })
    }
}
