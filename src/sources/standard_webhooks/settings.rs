//! The settings of a Standard Webhooks source, as they are written.

use serde::Deserialize;

use super::{bigcommerce, etsy};
use crate::sources::{
    event_extraction,
    mapping::{InvalidSettings, InvoiceFields, OrderFields, RefundFields},
    selector::Selector,
};

/// The settings of a Standard Webhooks source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandardWebhooksSettings {
    /// The platform, if it is one that is known here; then it tells all the
    /// rest itself.
    pub profile: Option<Profile>,
    /// How far the signed time may be from now, in s: 0 to 86400, default 300.
    pub tolerance_s: Option<u64>,
    /// What tells events apart, beside their signed id.
    pub event: Option<StandardWebhooksEventSettings>,
    /// Where an order's fields stand, if the source sends orders.
    pub order: Option<OrderFields>,
    /// Where an invoice's fields stand, if the source sends invoices.
    pub invoice: Option<InvoiceFields>,
    /// Where a refund's fields stand, if the source sends refunds.
    pub refund: Option<RefundFields>,
    /// Whether a redelivery carries the same bytes (default true). If so,
    /// other bytes under a known key go to review as `conflicting_duplicate`;
    /// if not, the key alone decides.
    pub repeats_same_bytes: Option<bool>,
}

/// A platform that signs by Standard Webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `BigCommerce`: thin events; the key is the text of the client secret.
    BigCommerce,
    /// Etsy: thin events.
    Etsy,
}

impl Profile {
    const fn as_str(self) -> &'static str {
        match self {
            Self::BigCommerce => "bigcommerce",
            Self::Etsy => "etsy",
        }
    }
}

/// What tells events apart, beside their signed id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StandardWebhooksEventSettings {
    /// What it is about; default `/type`, which the specification recommends.
    pub topic: Option<Selector>,
    /// The shop or company; default: there is only one.
    pub tenant: Option<Selector>,
    /// The version for the stale guard.
    pub version: Option<Selector>,
}

impl StandardWebhooksSettings {
    /// Whether events of several companies can be told apart.
    pub fn has_tenant_selector(&self) -> bool {
        self.event_settings().tenant.is_some()
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub(super) fn check(&self) -> Result<(), InvalidSettings> {
        let Some(profile) = self.profile else { return Ok(()) };
        let Self { event, order, invoice, refund, repeats_same_bytes, .. } = self;
        let given = [
            ("event", event.is_some()),
            ("order", order.is_some()),
            ("invoice", invoice.is_some()),
            ("refund", refund.is_some()),
            ("repeats_same_bytes", repeats_same_bytes.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((key, _)) => Err(InvalidSettings::new(
                key,
                format!("cannot stand beside the profile {}, which tells it", profile.as_str()),
            )),
        }
    }

    /// What tells events apart: as the profile has it, else as it is written.
    pub(super) fn event_settings(&self) -> event_extraction::EventSettings {
        let pointer = |pointer: &str| Some(Selector::Pointer(pointer.to_owned()));
        let told = |topic, tenant| event_extraction::EventSettings {
            topic: pointer(topic),
            tenant: pointer(tenant),
            ..Default::default()
        };
        match self.profile {
            Some(Profile::BigCommerce) => {
                told(bigcommerce::TOPIC_POINTER, bigcommerce::TENANT_POINTER)
            }
            Some(Profile::Etsy) => told(etsy::TOPIC_POINTER, etsy::TENANT_POINTER),
            None => {
                let StandardWebhooksEventSettings { topic, tenant, version } =
                    self.event.clone().unwrap_or_default();
                let topic = topic.or_else(|| pointer("/type"));
                event_extraction::EventSettings { id: None, topic, tenant, version }
            }
        }
    }

    pub(super) fn redelivers_identical_body(&self) -> bool {
        match self.profile {
            // Neither documentation says so, and a thin event tells no more
            // the second time.
            Some(Profile::BigCommerce | Profile::Etsy) => false,
            None => self.repeats_same_bytes.unwrap_or(true),
        }
    }
}
