//! Events as Stripe sends them: some 1 to 2 kB.
//!
//! Fields: <https://docs.stripe.com/api/events/object>, and the objects within.

use serde_json::{Value, json};
use time::Duration;

use super::basket::Basket;

/// The event: a checkout session if its topic says so, else an invoice.
pub(super) fn event(basket: &Basket, event_id: &str, topic: &str, account: &str) -> Value {
    let object =
        if topic.starts_with("checkout.") { session(basket) } else { invoice(basket, topic) };
    let mut event = json!({
        "id": format!("evt_{event_id}"),
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": basket.updated_at.unix_timestamp(),
        "type": topic,
        "livemode": false,
        "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null},
        "data": {"object": object},
    });
    // Only events of connected accounts name one.
    if !account.is_empty() {
        event["account"] = account.into();
    }
    event
}

fn invoice(basket: &Basket, topic: &str) -> Value {
    let paid = basket.paid || topic == "invoice.paid";
    let total = basket.total();
    let lines: Vec<Value> = basket
        .lines
        .iter()
        .map(|line| {
            json!({
                "id": format!("il_{:x}", line.id),
                "object": "line_item",
                "amount": line.total(),
                "currency": basket.currency.to_ascii_lowercase(),
                "description": line.title,
                "quantity": line.quantity,
            })
        })
        .collect();
    json!({
        "id": format!("in_{:x}", basket.id),
        "object": "invoice",
        "account_name": "Demo Ltd.",
        "number": format!("DEMO-{:x}", basket.id),
        "currency": basket.currency.to_ascii_lowercase(),
        "customer": format!("cus_{}", basket.customer.id),
        "customer_email": basket.customer.email,
        "status": if paid { "paid" } else { "open" },
        "total": total,
        "amount_due": total,
        "amount_paid": if paid { total } else { 0 },
        "amount_remaining": if paid { 0 } else { total },
        "created": basket.created_at.unix_timestamp(),
        "due_date": (basket.created_at + Duration::days(30)).unix_timestamp(),
        "lines": {"object": "list", "data": lines, "has_more": false},
        "livemode": false,
        "metadata": {},
    })
}

fn session(basket: &Basket) -> Value {
    json!({
        "id": format!("cs_test_{:x}", basket.id),
        "object": "checkout.session",
        "client_reference_id": format!("WEB-{}", basket.number),
        "amount_total": basket.total(),
        "currency": basket.currency.to_ascii_lowercase(),
        "payment_status": if basket.paid { "paid" } else { "unpaid" },
        "status": "complete",
        "mode": "payment",
        "customer": null,
        "customer_details": {"email": basket.customer.email},
        "payment_intent": format!("pi_{:x}", basket.id),
        "created": basket.created_at.unix_timestamp(),
        "livemode": false,
        "metadata": {},
    })
}
