//! Orders and invoices in the shape that the built-in sources `erp`,
//! `standard_webhooks`, `cloudevents`, `robot` and `vendors` are configured for
//! (`config/development.toml`).

use serde_json::{Value, json};
use time::{Duration, format_description::well_known::Rfc3339};

use super::basket::{Basket, money};

/// The event: an invoice if its topic says so, else an order.
pub(super) fn event(basket: &Basket, event_id: &str, topic: &str, company: &str) -> Value {
    let data = data(basket, topic);
    json!({"event_id": event_id, "type": topic, "company": company, "data": data})
}

/// The event as Standard Webhooks recommends it; its id stands in a header.
pub(super) fn standard(basket: &Basket, topic: &str, company: &str) -> Value {
    let timestamp = basket.updated_at.format(&Rfc3339).unwrap_or_default();
    json!({"type": topic, "timestamp": timestamp, "company": company, "data": data(basket, topic)})
}

/// The document alone.
pub(super) fn data(basket: &Basket, topic: &str) -> Value {
    if topic.starts_with("invoice.") { invoice(basket) } else { order(basket) }
}

/// What a robot calls back with.
pub(super) fn callback(basket: &Basket) -> Value {
    json!({
        "invoiceNumber": format!("RB-{}", basket.id),
        "transactionId": format!("T{:x}", basket.id),
        "vendor": format!("Vendor {}", basket.customer.last_name),
        "amount": money(basket.total()),
        "currency": basket.currency,
        "dueDate": (basket.created_at + Duration::days(30)).date().to_string(),
    })
}

/// What stands in one line of a file.
pub(super) fn import(basket: &Basket) -> Value {
    json!({
        "vendor": format!("Vendor {}", basket.customer.last_name),
        "invoice_number": format!("VI-{}", basket.id),
        "amount": money(basket.total()),
        "currency": basket.currency,
        "due_date": (basket.created_at + Duration::days(30)).date().to_string(),
    })
}

fn order(basket: &Basket) -> Value {
    let customer = &basket.customer;
    let lines: Vec<_> = basket
        .lines
        .iter()
        .map(|line| {
            json!({
                "id": line.id,
                "sku": line.sku,
                "title": format!("{} ({})", line.title, line.colour),
                "quantity": line.quantity,
                "price": money(line.price),
            })
        })
        .collect();
    json!({
        "id": basket.id,
        "number": format!("SO-{}", basket.number),
        "status": if basket.paid { "paid" } else { "pending" },
        "currency": basket.currency,
        "total": money(basket.total()),
        "customer": customer.id,
        "customer_name": format!("{} {}", customer.first_name, customer.last_name),
        "customer_email": customer.email,
        "placed_at": basket.created_at.format(&Rfc3339).unwrap_or_default(),
        "updated_at": basket.updated_at.format(&Rfc3339).unwrap_or_default(),
        "lines": lines,
    })
}

fn invoice(basket: &Basket) -> Value {
    json!({
        // The number is the invoice's identity, so it must differ between runs.
        "number": format!("INV-{}", basket.id),
        "vendor": format!("Vendor {}", basket.customer.last_name),
        "transaction": format!("T{:x}", basket.id),
        "status": if basket.paid { "paid" } else { "open" },
        "currency": basket.currency,
        "total": money(basket.total()),
        "due_on": (basket.created_at + Duration::days(30)).date().to_string(),
        "updated_at": basket.updated_at.format(&Rfc3339).unwrap_or_default(),
        "contact_email": basket.customer.email,
    })
}
