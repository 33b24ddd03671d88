//! Invoices as Square sends them: some 1 kB.
//!
//! Fields: <https://developer.squareup.com/reference/square/invoices-api/webhooks>.

use serde_json::{Value, json};
use time::{Duration, format_description::well_known::Rfc3339};

use super::basket::Basket;

/// The event.
pub(super) fn event(basket: &Basket, event_id: &str, topic: &str, merchant: &str) -> Value {
    let money = json!({"amount": basket.total(), "currency": basket.currency});
    let updated_at = basket.updated_at.format(&Rfc3339).unwrap_or_default();
    let id = format!("inv:0-{:x}", basket.id);
    // Square counts versions; ours are the minutes, so that an older one is less.
    let version = basket.updated_at.unix_timestamp() / 60;
    json!({
        "merchant_id": merchant,
        "location_id": "LDEMO",
        "type": topic,
        "event_id": event_id,
        "created_at": updated_at,
        "data": {
            "type": "invoice",
            "id": id,
            "object": {"invoice": {
                "id": id,
                "version": version,
                "location_id": "LDEMO",
                "order_id": format!("ord{:x}", basket.id),
                "invoice_number": format!("SQ-{:x}", basket.id),
                "title": "Order",
                "status": if basket.paid { "PAID" } else { "UNPAID" },
                "primary_recipient": {
                    "customer_id": basket.customer.id.to_string(),
                    "email_address": basket.customer.email,
                },
                "payment_requests": [{
                    "uid": format!("pr{:x}", basket.id),
                    "request_type": "BALANCE",
                    "due_date": (basket.created_at + Duration::days(30)).date().to_string(),
                    "computed_amount_money": money,
                    "total_completed_amount_money": {
                        "amount": if basket.paid { basket.total() } else { 0 },
                        "currency": basket.currency,
                    },
                }],
                "created_at": basket.created_at.format(&Rfc3339).unwrap_or_default(),
                "updated_at": updated_at,
            }},
        },
    })
}
