//! Standard Webhooks: senders that sign by that specification (and by Svix, its origin),
//! mapped by settings. `BigCommerce` and Etsy sign by it too; each is a profile with its
//! own mapping.
//!
//! Rules: <https://www.standardwebhooks.com>.

mod bigcommerce;
mod etsy;
mod secret;
mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{
    DEFAULT_REDELIVERY_WINDOW, Event, OutgoingWebhook, Platform, Rejection, WebhookRequest,
    event_extraction::EventExtractor,
    mapping::{InvalidSettings, Mapping},
    signature::{
        Algorithm, Encoding, Key, MAX_SIGNATURES, Secret, Verified, check_timestamp,
        parse_tolerance,
    },
    timestamp::parse_timestamp,
};
use crate::domain::{Change, Envelope, MappedEvent, PermanentFailure, ResourceChange};
pub use settings::{Profile, StandardWebhooksSettings};

/// A source of kind `standard_webhooks`; its pointers are compiled.
#[derive(Debug)]
pub struct StandardWebhooks {
    profile: Option<Profile>,
    tolerance: Duration,
    extractor: EventExtractor,
    mapping: Mapping,
    redelivers_identical_body: bool,
}

impl StandardWebhooks {
    /// Validates the settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn new(settings: StandardWebhooksSettings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let (profile, redelivers_identical_body) =
            (settings.profile, settings.redelivers_identical_body());
        let tolerance = parse_tolerance(settings.tolerance_s)?;
        let event = settings.event_settings();
        let mapping = Mapping::new(settings.order, settings.invoice, settings.refund)?;
        let extractor = EventExtractor::new(event, &mapping)?;
        Ok(Self { profile, tolerance, extractor, mapping, redelivers_identical_body })
    }

    fn signed_headers_of<'a>(
        &self,
        request: &WebhookRequest<'a>,
    ) -> Result<SignedHeaders<'a>, Rejection> {
        // Etsy's early documentation omits the `v1,`.
        SignedHeaders::read(request, self.profile == Some(Profile::Etsy))
    }
}

/// The two families of header names. A request must contain one of them completely: an id
/// of one beside a signature of the other would be unsigned.
const HEADER_FAMILIES: [[&str; 3]; 2] = [
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
    ["svix-id", "svix-timestamp", "svix-signature"],
];

/// The signature headers.
#[derive(Debug)]
struct SignedHeaders<'a> {
    id: &'a str,
    /// The timestamp as text, which is signed.
    timestamp: &'a str,
    unix: i64,
    /// The HMACs: `v1,<base64>`.
    hmacs: Vec<Vec<u8>>,
    /// The ed25519 signatures: `v1a,<base64>`.
    ed25519: Vec<Vec<u8>>,
}

impl<'a> SignedHeaders<'a> {
    fn read(request: &WebhookRequest<'a>, bare_is_hmac: bool) -> Result<Self, Rejection> {
        let read_family = |[id, timestamp, signatures]: [&str; 3]| {
            Some((request.header(id)?, request.header(timestamp)?, request.header(signatures)?))
        };
        let [[id, timestamp, signature], _] = HEADER_FAMILIES;
        let (id, timestamp, signatures) =
            HEADER_FAMILIES.into_iter().find_map(read_family).ok_or_else(|| {
                Rejection::InvalidSignature(format!(
                    "one of the headers {id}, {timestamp}, {signature} is missing"
                ))
            })?;
        let unix = timestamp.parse().map_err(|_| {
            Rejection::InvalidSignature("the signed timestamp is not a number".to_owned())
        })?;
        let (mut hmacs, mut ed25519) = (Vec::new(), Vec::new());
        for entry in signatures.split_ascii_whitespace().take(MAX_SIGNATURES) {
            let (signatures_of_version, text) = match entry.split_once(',') {
                Some(("v1", text)) => (&mut hmacs, text),
                Some(("v1a", text)) => (&mut ed25519, text),
                None if bare_is_hmac => (&mut hmacs, entry),
                // An unknown version may accompany a known one.
                _ => continue,
            };
            signatures_of_version.extend(Encoding::Base64.decode(text));
        }
        Ok(Self { id, timestamp, unix, hmacs, ed25519 })
    }
}

/// The signed text before the body.
fn signed_prefix(id: &str, timestamp: &str) -> String {
    format!("{id}.{timestamp}.")
}

impl Platform for StandardWebhooks {
    fn kind(&self) -> &'static str {
        "standard_webhooks"
    }

    fn parse_key(&self, text: &str) -> Result<Key, String> {
        match self.profile {
            // BigCommerce signs with the text of the client secret.
            Some(Profile::BigCommerce) => Ok(Key::shared(text)),
            Some(Profile::Etsy) | None => secret::parse_key(text),
        }
    }

    fn redelivers_identical_body(&self) -> bool {
        self.redelivers_identical_body
    }

    fn redelivery_window(&self) -> Duration {
        match self.profile {
            // Until the webhook is disabled: developer.bigcommerce.com, webhooks.
            Some(Profile::BigCommerce) => Duration::from_hours(48),
            // 8 attempts within 38 hours: developers.etsy.com, webhooks.
            Some(Profile::Etsy) => Duration::from_hours(38),
            // The specification's example takes more than three days.
            None => DEFAULT_REDELIVERY_WINDOW,
        }
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        let signed = self.signed_headers_of(request)?;
        let head = signed_prefix(signed.id, signed.timestamp);
        // ed25519 needs the message in one piece.
        let message = if signed.ed25519.is_empty() {
            Vec::new()
        } else {
            [head.as_bytes(), request.body].concat()
        };
        let index = secrets
            .iter()
            .position(|secret| match secret.key() {
                Key::Shared(_) => secret.verifies_any(
                    Algorithm::Sha256,
                    &[head.as_bytes(), request.body],
                    &signed.hmacs,
                ),
                Key::Public(_) | Key::Seed(_) => {
                    secret.verifies_any_ed25519(&message, &signed.ed25519)
                }
            })
            .ok_or_else(Rejection::invalid_signature)?;
        // After the signature, so that only an authentic sender learns about our clock.
        check_timestamp(request, signed.unix, self.tolerance)?;
        Ok(index)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let request = verified.request();
        let signed = self.signed_headers_of(request)?;
        let mut event = self.extractor.extract(request, Some(signed.id));
        if self.profile == Some(Profile::Etsy) {
            // Its bodies contain no timestamp.
            event.version = parse_timestamp(signed.timestamp);
        }
        Ok(vec![event])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let read = match self.profile {
            None => return self.extractor.map(envelope, &self.mapping),
            Some(Profile::BigCommerce) => bigcommerce::resource_change,
            Some(Profile::Etsy) => etsy::resource_change,
        };
        let Some(change) = read(&self.extractor.topic(envelope)?, envelope)? else {
            return Ok(MappedEvent::Ignored);
        };
        self.extractor.require_tenant(envelope)?;
        Ok(MappedEvent::from(change))
    }

    fn map_resource(
        &self,
        change: &ResourceChange,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        let read = match self.profile {
            Some(Profile::BigCommerce) => bigcommerce::order,
            Some(Profile::Etsy) => etsy::order,
            None => return Ok(None),
        };
        if change.kind != ORDER {
            return Ok(None);
        }
        Ok(Some(Change::Order(Box::new(read(change, resource)?))))
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        match self.profile {
            None => self.mapping.business_key(&envelope.body),
            Some(Profile::BigCommerce) => bigcommerce::business_key(&envelope.body),
            Some(Profile::Etsy) => etsy::business_key(&envelope.body),
        }
    }

    fn tenant_location(&self) -> &'static str {
        match self.profile {
            None => "the configured tenant field",
            Some(Profile::BigCommerce) => bigcommerce::TENANT_POINTER,
            Some(Profile::Etsy) => etsy::TENANT_POINTER,
        }
    }

    fn signed_headers(
        &self,
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let timestamp = webhook.sent_at.unix_timestamp().to_string();
        let head = signed_prefix(webhook.event_id, &timestamp);
        let parts = [head.as_bytes(), webhook.body];
        let (version, signature) = match secret.key() {
            Key::Shared(_) => ("v1", secret.hmac(Algorithm::Sha256, &parts)),
            Key::Public(_) | Key::Seed(_) => ("v1a", secret.ed25519(&parts.concat())),
        };
        let signature = format!("{version},{}", Encoding::Base64.encode(&signature));
        let mut headers = self.extractor.event_headers(webhook);
        headers.extend(
            HEADER_FAMILIES[0]
                .into_iter()
                .zip([webhook.event_id, &timestamp, &signature])
                .filter_map(|(name, value)| {
                    Some((HeaderName::from_static(name), value.parse().ok()?))
                }),
        );
        headers
    }
}

/// The resource kind that both profiles map.
const ORDER: &str = "order";
