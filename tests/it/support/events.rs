//! Events as the receiver publishes them.

use serde_json::json;
use tallyhook::domain::{Envelope, EventKey, SourceName};
use uuid::Uuid;

use super::app::now;

/// An event under this key.
fn event(source: &str, tenant: &str, topic: &str, event_id: &str, body: String) -> Envelope {
    let source: SourceName = source.parse().unwrap();
    Envelope {
        receipt_id: Uuid::now_v7(),
        key: EventKey::new(&source, tenant, event_id, 0),
        source,
        tenant: tenant.to_owned(),
        topic: topic.to_owned(),
        version: None,
        received_at: now(),
        failed_attempts: 0,
        generation: 0,
        replay_id: None,
        received_over_http: true,
        secret_label: None,
        import: None,
        body: body.into(),
    }
}

/// A Shopify order as in its webhook, `version` minutes after midnight.
pub(crate) fn shop_body(order: u64, version: u32, total: &str) -> String {
    json!({
        "id": order,
        "name": format!("#{order}"),
        "financial_status": "paid",
        "currency": "EUR",
        "current_total_price": total,
        "updated_at": moment(version),
        "line_items": [{"id": 1, "sku": "S", "title": "T", "quantity": 2, "price": "1.50"}],
    })
    .to_string()
}

/// The same as an event, with a key of its own.
pub(crate) fn shop_order(order: u64, version: u32, total: &str) -> Envelope {
    let body = shop_body(order, version, total);
    event("shop", "demo.myshopify.com", "orders/updated", &Uuid::now_v7().to_string(), body)
}

/// A Shopify order with its refunds.
pub(crate) fn shop_order_refunded(order: u64, version: u32, refunds: &[&str]) -> Envelope {
    let refunds: Vec<_> = refunds.iter().map(|amount| transactions(amount, "EUR")).collect();
    let mut body: serde_json::Value =
        serde_json::from_str(&shop_body(order, version, "100.00")).unwrap();
    body["refunds"] = refunds.into();
    let id = Uuid::now_v7().to_string();
    event("shop", "demo.myshopify.com", "orders/updated", &id, body.to_string())
}

/// A Shopify refund as in its own webhook.
pub(crate) fn shop_refund(order: u64, refund: u64, amount: &str, currency: &str) -> Envelope {
    let mut body = transactions(amount, currency);
    body["id"] = refund.into();
    body["order_id"] = order.into();
    body["processed_at"] = moment(1).into();
    let id = Uuid::now_v7().to_string();
    event("shop", "demo.myshopify.com", "refunds/create", &id, body.to_string())
}

fn transactions(amount: &str, currency: &str) -> serde_json::Value {
    json!({"transactions": [
        {"kind": "refund", "status": "success", "amount": amount, "currency": currency},
        {"kind": "refund", "status": "failure", "amount": "999.00", "currency": currency},
    ]})
}

/// A Shopify order's deletion.
pub(crate) fn shop_deletion(order: u64, version: u32) -> Envelope {
    let body = json!({"id": order}).to_string();
    let id = Uuid::now_v7().to_string();
    let mut envelope = event("shop", "demo.myshopify.com", "orders/delete", &id, body);
    envelope.version = time_of(version);
    envelope
}

/// A `WooCommerce` event of this topic.
pub(crate) fn woo(topic: &str, order: u64, version: u32) -> Envelope {
    let body = if topic == "order.deleted" {
        json!({"id": order})
    } else {
        json!({
            "id": order, "number": order.to_string(), "status": "processing", "currency": "EUR",
            "total": "10.00", "date_modified_gmt": moment(version).trim_end_matches('Z'),
        })
    };
    event("woo", "https://shop.example", topic, &Uuid::now_v7().to_string(), body.to_string())
}

/// An order from the generic source.
pub(crate) fn erp_order(order: &str, version: u32, total: &str) -> Envelope {
    let body = json!({"data": {
        "id": order, "status": "paid", "currency": "EUR", "total": total,
        "updated_at": moment(version),
    }});
    event("erp", "acme", "order.updated", &Uuid::now_v7().to_string(), body.to_string())
}

/// An invoice from the generic source.
pub(crate) fn erp_invoice(number: &str, version: u32, total: &str) -> Envelope {
    let body = json!({"data": {
        "vendor": "ACME", "number": number, "currency": "EUR", "total": total,
        "updated_at": moment(version),
    }});
    event("erp", "acme", "invoice.created", &Uuid::now_v7().to_string(), body.to_string())
}

/// A Stripe checkout session over 100.00, paid by a payment.
pub(crate) fn stripe_session(session: &str, payment: &str) -> Envelope {
    let object = json!({
        "id": session, "object": "checkout.session", "client_reference_id": session,
        "amount_total": 10_000, "currency": "eur", "payment_status": "paid", "status": "complete",
        "payment_intent": payment,
    });
    stripe("checkout.session.completed", 1, &object)
}

/// A refund of a Stripe payment, in cents, with this second.
pub(crate) fn stripe_refund(
    refund: &str,
    payment: &str,
    cents: u32,
    status: &str,
    at: i64,
) -> Envelope {
    let object = json!({
        "id": refund, "object": "refund", "amount": cents, "currency": "eur", "status": status,
        "payment_intent": payment, "charge": "ch_1",
    });
    stripe("refund.updated", at, &object)
}

/// The refunded total of a Stripe payment, in cents, as in its charge.
pub(crate) fn stripe_charge_refunded(payment: &str, cents: u32, at: i64) -> Envelope {
    let object = json!({
        "id": format!("ch_of_{payment}"), "object": "charge", "amount": 10_000,
        "amount_refunded": cents, "currency": "eur", "status": "succeeded",
        "payment_intent": payment,
    });
    stripe("charge.refunded", at, &object)
}

fn stripe(topic: &str, at: i64, object: &serde_json::Value) -> Envelope {
    let id = Uuid::now_v7().to_string();
    let body = json!({
        "id": id, "object": "event", "type": topic, "created": 1_767_323_045 + at,
        "data": {"object": object},
    });
    event("stripe", "", topic, &id, body.to_string())
}

/// An invoice from a robot: the same key for the same number and transaction.
pub(crate) fn robot_invoice(number: &str, transaction: &str, amount: &str) -> Envelope {
    let body = json!({
        "invoiceNumber": number, "transactionId": transaction, "amount": amount,
        "vendor": "ACME", "currency": "EUR",
    });
    event("robot", "", "invoice", &format!("{number}:{transaction}"), body.to_string())
}

/// The same event with another receipt, as a platform redelivers it.
pub(crate) fn again(envelope: &Envelope) -> Envelope {
    Envelope { receipt_id: Uuid::now_v7(), ..envelope.clone() }
}

fn moment(minute: u32) -> String {
    format!("2026-01-02T{:02}:{:02}:00Z", minute / 60, minute % 60)
}

fn time_of(minute: u32) -> Option<time::OffsetDateTime> {
    tallyhook::sources::timestamp::parse_timestamp(&moment(minute))
}
