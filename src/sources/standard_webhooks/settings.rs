//! Settings of a Standard Webhooks source.

use serde::Deserialize;

use super::{bigcommerce, etsy};
use crate::sources::{
    event_extraction,
    mapping::{InvalidSettings, InvoiceFields, OrderFields, RefundFields},
    selector::Selector,
};

/// Settings of a Standard Webhooks source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandardWebhooksSettings {
    /// A known platform, which determines all other settings but the tolerance.
    pub profile: Option<Profile>,
    /// Maximum difference of the signed timestamp from now, in seconds: 0 to 86400, default
    /// 300.
    pub tolerance_s: Option<u64>,
    /// Where the properties of an event are, beside its signed id.
    pub event: Option<StandardWebhooksEventSettings>,
    /// Where the fields of an order are, if the source sends orders.
    pub order: Option<OrderFields>,
    /// Where the fields of an invoice are, if the source sends invoices.
    pub invoice: Option<InvoiceFields>,
    /// Where the fields of a refund are, if the source sends refunds.
    pub refund: Option<RefundFields>,
    /// Whether a redelivery repeats the same bytes (default true). If so, other bytes under
    /// a known key are dead-lettered as `conflicting_duplicate`; if not, they are a
    /// duplicate.
    pub redelivers_identical_body: Option<bool>,
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

/// Where the properties of an event are, beside its signed id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StandardWebhooksEventSettings {
    /// The event type; default `/type`, which the specification recommends.
    pub topic: Option<Selector>,
    /// The tenant: a shop or a company. Default: the source has only one.
    pub tenant: Option<Selector>,
    /// The version for the stale check.
    pub version: Option<Selector>,
}

impl StandardWebhooksSettings {
    /// Whether the settings select a tenant.
    pub fn has_tenant_selector(&self) -> bool {
        self.event_settings().tenant.is_some()
    }

    /// Validates what the types do not.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub(super) fn check(&self) -> Result<(), InvalidSettings> {
        let Some(profile) = self.profile else { return Ok(()) };
        let Self { event, order, invoice, refund, redelivers_identical_body, .. } = self;
        let given = [
            ("event", event.is_some()),
            ("order", order.is_some()),
            ("invoice", invoice.is_some()),
            ("refund", refund.is_some()),
            ("redelivers_identical_body", redelivers_identical_body.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((key, _)) => Err(InvalidSettings::new(
                key,
                format!("cannot be combined with the profile {}", profile.as_str()),
            )),
        }
    }

    /// Where the properties of an event are: by the profile, else by the settings.
    pub(super) fn event_settings(&self) -> event_extraction::EventSettings {
        let pointer = |pointer: &str| Some(Selector::Pointer(pointer.to_owned()));
        let at_pointers = |topic, tenant| event_extraction::EventSettings {
            topic: pointer(topic),
            tenant: pointer(tenant),
            ..Default::default()
        };
        match self.profile {
            Some(Profile::BigCommerce) => {
                at_pointers(bigcommerce::TOPIC_POINTER, bigcommerce::TENANT_POINTER)
            }
            Some(Profile::Etsy) => at_pointers(etsy::TOPIC_POINTER, etsy::TENANT_POINTER),
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
            // Neither platform documents it, and a redelivered thin event has no more
            // information.
            Some(Profile::BigCommerce | Profile::Etsy) => false,
            None => self.redelivers_identical_body.unwrap_or(true),
        }
    }
}
