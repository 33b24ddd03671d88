//! Standard Webhooks: whoever signs by that specification (and Svix, from
//! which it came), mapped by settings; and two platforms that do, `BigCommerce`
//! and Etsy, each a profile that brings its own mapping.
//!
//! Source of the rules: <https://www.standardwebhooks.com>.

mod bigcommerce;
mod etsy;
mod secret;
mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{
    Call, Delivery, Event, Platform, Rejection, UNTOLD_RESENDS,
    identity::Identity,
    mapping::{InvalidSettings, Mapping},
    moment::parse_moment,
    signature::{
        Algorithm, Encoding, Key, MOST_SIGNATURES, Secret, Verified, check_time, tolerance,
    },
};
use crate::domain::{Change, Envelope, Failure, Mapped, Reference};
pub use settings::{Profile, Settings};

/// A source of kind `standard_webhooks`, its settings checked and its
/// pointers compiled.
#[derive(Debug)]
pub struct StandardWebhooks {
    profile: Option<Profile>,
    tolerance: Duration,
    identity: Identity,
    mapping: Mapping,
    repeats_same_bytes: bool,
}

impl StandardWebhooks {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let (profile, repeats_same_bytes) = (settings.profile, settings.repeats_same_bytes());
        let tolerance = tolerance(settings.tolerance_s)?;
        let event = settings.event();
        let mapping = Mapping::new(settings.order, settings.invoice, settings.refund)?;
        let identity = Identity::new(event, &mapping)?;
        Ok(Self { profile, tolerance, identity, mapping, repeats_same_bytes })
    }

    fn signed<'a>(&self, call: &Call<'a>) -> Result<Signed<'a>, Rejection> {
        // Etsy's early documentation leaves the `v1,` out.
        Signed::read(call, self.profile == Some(Profile::Etsy))
    }
}

/// The two families of header names. A call carries one of them whole: an id
/// of one beside a signature of the other would be an id that nobody signed.
const FAMILIES: [[&str; 3]; 2] = [
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
    ["svix-id", "svix-timestamp", "svix-signature"],
];

/// What the headers say.
#[derive(Debug)]
struct Signed<'a> {
    id: &'a str,
    /// The time as it is written, which is how it is signed.
    time: &'a str,
    unix: i64,
    /// The HMACs: `v1,<base64>`.
    hmacs: Vec<Vec<u8>>,
    /// The ed25519 signatures: `v1a,<base64>`.
    ed25519: Vec<Vec<u8>>,
}

impl<'a> Signed<'a> {
    fn read(call: &Call<'a>, bare_is_hmac: bool) -> Result<Self, Rejection> {
        let whole = |[id, time, signatures]: [&str; 3]| {
            Some((call.header(id)?, call.header(time)?, call.header(signatures)?))
        };
        let [[id, time, signature], _] = FAMILIES;
        let (id, time, signatures) = FAMILIES.into_iter().find_map(whole).ok_or_else(|| {
            Rejection::Signature(format!("one of the headers {id}, {time}, {signature} is missing"))
        })?;
        let unix = time
            .parse()
            .map_err(|_| Rejection::Signature("the signed time is no number".to_owned()))?;
        let (mut hmacs, mut ed25519) = (Vec::new(), Vec::new());
        for entry in signatures.split_ascii_whitespace().take(MOST_SIGNATURES) {
            let (found, text) = match entry.split_once(',') {
                Some(("v1", text)) => (&mut hmacs, text),
                Some(("v1a", text)) => (&mut ed25519, text),
                None if bare_is_hmac => (&mut hmacs, entry),
                // A version of tomorrow stands beside one that we know.
                _ => continue,
            };
            found.extend(Encoding::Base64.decode(text));
        }
        Ok(Self { id, time, unix, hmacs, ed25519 })
    }
}

/// What is signed in front of the body.
fn head(id: &str, time: &str) -> String {
    format!("{id}.{time}.")
}

impl Platform for StandardWebhooks {
    fn kind(&self) -> &'static str {
        "standard_webhooks"
    }

    fn key(&self, text: &str) -> Result<Key, String> {
        match self.profile {
            // BigCommerce signs with the text of the client secret itself.
            Some(Profile::BigCommerce) => Ok(Key::Shared(text.as_bytes().to_vec())),
            Some(Profile::Etsy) | None => secret::key(text),
        }
    }

    fn repeats_same_bytes(&self) -> bool {
        self.repeats_same_bytes
    }

    fn resends_for(&self) -> Duration {
        match self.profile {
            // Until the webhook is turned off: developer.bigcommerce.com, webhooks.
            Some(Profile::BigCommerce) => Duration::from_hours(48),
            // 8 tries within 38 hours: developers.etsy.com, webhooks.
            Some(Profile::Etsy) => Duration::from_hours(38),
            // The specification's example takes three days and more.
            None => UNTOLD_RESENDS,
        }
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        let signed = self.signed(call)?;
        let head = head(signed.id, signed.time);
        // ed25519 takes a message in one piece.
        let message = if signed.ed25519.is_empty() {
            Vec::new()
        } else {
            [head.as_bytes(), call.body].concat()
        };
        let index = secrets
            .iter()
            .position(|secret| match secret.key() {
                Key::Shared(_) => {
                    secret.made_one(Algorithm::Sha256, &[head.as_bytes(), call.body], &signed.hmacs)
                }
                Key::Public(_) | Key::Seed(_) => secret.made_one_ed25519(&message, &signed.ed25519),
            })
            .ok_or_else(Rejection::forged)?;
        // Behind the signature, so that only the sender is told of its clock.
        check_time(call, signed.unix, self.tolerance)?;
        Ok(index)
    }

    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.call();
        let signed = self.signed(call)?;
        let mut event = self.identity.event(call, Some(signed.id));
        if self.profile == Some(Profile::Etsy) {
            // Its bodies tell no time.
            event.version = parse_moment(signed.time);
        }
        Ok(vec![event])
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        let read = match self.profile {
            None => return self.identity.map(envelope, &self.mapping),
            Some(Profile::BigCommerce) => bigcommerce::reference,
            Some(Profile::Etsy) => etsy::reference,
        };
        let Some(reference) = read(&self.identity.topic(envelope)?, envelope)? else {
            return Ok(Mapped::Ignored);
        };
        self.identity.check_tenant(envelope)?;
        Ok(Mapped::from(reference))
    }

    fn map_resource(
        &self,
        reference: &Reference,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, Failure> {
        let read = match self.profile {
            Some(Profile::BigCommerce) => bigcommerce::order,
            Some(Profile::Etsy) => etsy::order,
            None => return Ok(None),
        };
        if reference.kind != ORDER {
            return Ok(None);
        }
        Ok(Some(Change::Order(Box::new(read(reference, resource)?))))
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        match self.profile {
            None => self.mapping.number(&envelope.body),
            Some(Profile::BigCommerce) => bigcommerce::number(&envelope.body),
            Some(Profile::Etsy) => etsy::number(&envelope.body),
        }
    }

    fn tenant_header(&self) -> &'static str {
        match self.profile {
            None => "the configured tenant field",
            Some(Profile::BigCommerce) => bigcommerce::TENANT,
            Some(Profile::Etsy) => etsy::TENANT,
        }
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        let time = delivery.sent_at.unix_timestamp().to_string();
        let head = head(delivery.event_id, &time);
        let parts = [head.as_bytes(), delivery.body];
        let (version, signature) = match secret.key() {
            Key::Shared(_) => ("v1", secret.hmac(Algorithm::Sha256, &parts)),
            Key::Public(_) | Key::Seed(_) => ("v1a", secret.ed25519(&parts.concat())),
        };
        let signature = format!("{version},{}", Encoding::Base64.encode(&signature));
        let mut headers = self.identity.headers(delivery);
        headers.extend(
            FAMILIES[0].into_iter().zip([delivery.event_id, &time, &signature]).filter_map(
                |(name, value)| Some((HeaderName::from_static(name), value.parse().ok()?)),
            ),
        );
        headers
    }
}

/// What both platforms' references name.
const ORDER: &str = "order";
