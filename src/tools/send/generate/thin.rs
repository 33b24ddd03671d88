//! Events that only name what changed: a few hundred bytes.

use serde_json::{Value, json};
use time::{
    OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description,
};
use uuid::Uuid;

use super::basket::Basket;

/// QuickBooks' newer format: a list of CloudEvents.
/// <https://developer.intuit.com/app/developer/qbo/docs/develop/webhooks>
pub(super) fn quickbooks(basket: &Basket, event_id: &str, topic: &str, realm: &str) -> Value {
    json!([{
        "specversion": "1.0",
        "id": event_id,
        "source": "intuit.demo",
        "type": topic,
        "datacontenttype": "application/json",
        "time": basket.updated_at.format(&Rfc3339).unwrap_or_default(),
        "intuitentityid": basket.id.to_string(),
        "intuitaccountid": realm,
        "data": {},
    }])
}

/// Xero's events. <https://developer.xero.com/documentation/guides/webhooks/overview/>
pub(super) fn xero(basket: &Basket, topic: &str, organisation: &str) -> Value {
    let id = Uuid::from_u64_pair(basket.id, 0x8000_0000_0000_0001);
    let sequence = basket.number;
    json!({
        "events": [{
            "resourceUrl": format!("https://api.xero.com/api.xro/2.0/Invoices/{id}"),
            "resourceId": id,
            "tenantId": organisation,
            "tenantType": "ORGANISATION",
            "eventCategory": "INVOICE",
            "eventType": topic.rsplit('.').next().unwrap_or_default().to_ascii_uppercase(),
            "eventDateUtc": zoneless(basket.updated_at),
        }],
        "firstEventSequence": sequence,
        "lastEventSequence": sequence,
        "entropy": format!("{:020X}", basket.id),
    })
}

/// BigCommerce's callbacks. <https://developer.bigcommerce.com/docs/webhooks>
pub(super) fn bigcommerce(basket: &Basket, topic: &str, producer: &str) -> Value {
    json!({
        "scope": topic,
        "store_id": "1001",
        "data": {"type": "order", "id": basket.id},
        "hash": format!("{:040x}", basket.id),
        "created_at": basket.updated_at.unix_timestamp(),
        "producer": producer,
    })
}

/// Etsy's events. <https://developers.etsy.com/documentation/essentials/webhooks>
pub(super) fn etsy(basket: &Basket, topic: &str, shop: &str) -> Value {
    json!({
        "event_type": topic,
        "resource_url":
            format!("https://openapi.etsy.com/v3/application/shops/{shop}/receipts/{}", basket.id),
        "shop_id": shop,
    })
}

/// A time in UTC, written without saying so.
fn zoneless(at: OffsetDateTime) -> String {
    let form =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]");
    at.to_offset(UtcOffset::UTC).format(&form).unwrap_or_default()
}
