//! Maps the objects in Stripe's events.

use time::OffsetDateTime;

use crate::{
    domain::{
        Currency, Invoice, InvoiceStatus, Money, Order, OrderStatus, OrderUpdate, PermanentFailure,
        Refund, RefundStatus, RefundTarget,
    },
    sources::json_fields::JsonFields,
};

/// Pointers to the fields that the mappings read.
pub(super) const POINTERS: [&str; 18] = [
    "/data/object/object",
    "/data/object/id",
    "/data/object/currency",
    "/data/object/status",
    "/data/object/created",
    "/data/object/number",
    "/data/object/account_name",
    "/data/object/total",
    "/data/object/due_date",
    "/data/object/amount_total",
    "/data/object/payment_status",
    "/data/object/payment_intent",
    "/data/object/client_reference_id",
    "/data/object/customer",
    "/data/object/customer_details/email",
    "/data/object/charge",
    "/data/object/amount",
    "/data/object/amount_refunded",
];

/// Currencies whose minor unit at Stripe differs from ISO 4217, with their number of
/// decimals. For all others [`Currency::minor_digits`] applies.
///
/// Stripe's page on currencies lists those without decimals (including MGA) and those with
/// three (BHD, JOD, KWD, OMR, TND). All others have two; ISK and UGX are listed as
/// exceptions for backward compatibility.
const MINOR_DIGITS: [(&str, u32); 8] = [
    ("CLF", 2),
    ("IQD", 2),
    ("ISK", 2),
    ("LYD", 2),
    ("MGA", 0),
    ("UGX", 2),
    ("UYI", 2),
    ("UYW", 2),
];

/// Number of decimals of Stripe's amounts in a currency.
pub(super) fn stripe_minor_digits(currency: Currency) -> u32 {
    MINOR_DIGITS
        .iter()
        .find(|(code, _)| *code == currency.as_str())
        .map_or_else(|| currency.minor_digits(), |(_, digits)| *digits)
}

fn money(fields: &JsonFields<'_>, pointer: &'static str) -> Result<Money, PermanentFailure> {
    let count = fields.required_decimal(pointer)?;
    let currency = fields.required_currency("/data/object/currency")?;
    Money::from_minor_units(count, currency, stripe_minor_digits(currency))
        .map_err(|error| PermanentFailure::invalid(pointer, format!("is {error}")))
}

/// Maps an invoice.
///
/// Stripe's times do not order states, but the status does: draft, open, uncollectible,
/// then paid or void, which are final. An unknown status ranks with open, and the time of
/// the event decides.
pub(super) fn invoice(
    topic: &str,
    fields: &JsonFields<'_>,
    version: OffsetDateTime,
) -> Result<Invoice, PermanentFailure> {
    let document_id = fields.required_text("/data/object/id")?;
    // Only drafts can be deleted; the event contains the last state, `draft`.
    let platform_status = match topic {
        "invoice.deleted" => "deleted".to_owned(),
        _ => fields.required_text("/data/object/status")?,
    };
    let status = match platform_status.as_str() {
        "deleted" => InvoiceStatus::Void,
        word => InvoiceStatus::parse_or_other(word),
    };
    let sequence = match status {
        InvoiceStatus::Draft => 0,
        InvoiceStatus::Open | InvoiceStatus::Other => 1,
        InvoiceStatus::Uncollectible => 2,
        InvoiceStatus::Paid | InvoiceStatus::Void => 3,
    };
    Ok(Invoice {
        vendor: fields.text("/data/object/account_name")?.unwrap_or_default(),
        // A draft has no number.
        invoice_number: fields.text("/data/object/number")?.unwrap_or_else(|| document_id.clone()),
        document_id: Some(document_id),
        transaction_id: None,
        status,
        platform_status,
        total: money(fields, "/data/object/total")?,
        due_on: fields.date("/data/object/due_date")?,
        sequence,
        version,
    })
}

/// Maps a checkout session to an order. `None` for a session without a total, which only
/// saves a card.
///
/// The platform status is the payment's (`paid`, `unpaid`, `no_payment_required`) once the
/// session is complete; else it is the session's (`open`, `expired`). A payment that fails
/// later appears in neither, only in the topic.
pub(super) fn order(
    topic: &str,
    fields: &JsonFields<'_>,
    version: OffsetDateTime,
) -> Result<Option<OrderUpdate>, PermanentFailure> {
    if fields.decimal("/data/object/amount_total")?.is_none() {
        return Ok(None);
    }
    let order_id = fields.required_text("/data/object/id")?;
    let payment = fields.text("/data/object/payment_status")?.unwrap_or_default();
    let platform_status = match fields.text("/data/object/status")? {
        _ if topic == "checkout.session.async_payment_failed" => "async_payment_failed".to_owned(),
        Some(session) if session != "complete" => session,
        _ => payment,
    };
    // Paid, failed and expired are final, so their rank is higher, in whatever order the
    // events arrive.
    let (status, sequence) = match platform_status.as_str() {
        "open" => (OrderStatus::Pending, 0),
        "unpaid" => (OrderStatus::Pending, 1),
        "async_payment_failed" => (OrderStatus::Failed, 2),
        "expired" => (OrderStatus::Cancelled, 2),
        "paid" | "no_payment_required" => (OrderStatus::Paid, 3),
        _ => (OrderStatus::Other, 1),
    };
    let customer_ref = match fields.text("/data/object/customer")? {
        Some(customer) => Some(customer),
        None => fields.text("/data/object/customer_details/email")?,
    };
    let order = Order {
        number: fields
            .text("/data/object/client_reference_id")?
            .unwrap_or_else(|| order_id.clone()),
        status,
        platform_status,
        total: money(fields, "/data/object/amount_total")?,
        // Refunds arrive as events of their own and name the payment.
        refunded: rust_decimal::Decimal::ZERO,
        customer_ref,
        payment_ref: fields.text("/data/object/payment_intent")?,
        sequence,
        placed_at: fields.timestamp("/data/object/created")?,
        // Stripe does not send the lines with the session.
        lines: Vec::new(),
    };
    Ok(Some(OrderUpdate::State { order_id, version, order: Box::new(order), restored: false }))
}

/// Maps a refund.
pub(super) fn refund(
    fields: &JsonFields<'_>,
    version: OffsetDateTime,
) -> Result<Refund, PermanentFailure> {
    let refund_id = fields.required_text("/data/object/id")?;
    let payment = match fields.text("/data/object/payment_intent")? {
        Some(payment) => payment,
        // A charge without a payment intent is the payment itself.
        None => fields.required_text("/data/object/charge")?,
    };
    let platform_status = fields.text("/data/object/status")?.unwrap_or_default();
    let status = match platform_status.as_str() {
        "canceled" => RefundStatus::Cancelled,
        // Waits for the customer's bank details.
        "requires_action" => RefundStatus::Pending,
        word => RefundStatus::parse_or_other(word),
    };
    Ok(Refund {
        refund_id,
        target: RefundTarget::Payment(payment),
        status,
        platform_status,
        amount: money(fields, "/data/object/amount")?,
        cumulative: false,
        version,
    })
}

/// Maps the refunded total of a charge; `None` if it is zero. If a refund fails afterwards,
/// only the next event of the charge corrects it.
pub(super) fn charge_refund(
    fields: &JsonFields<'_>,
    version: OffsetDateTime,
) -> Result<Option<Refund>, PermanentFailure> {
    let charge = fields.required_text("/data/object/id")?;
    let amount = money(fields, "/data/object/amount_refunded")?;
    if amount.amount.is_zero() {
        return Ok(None);
    }
    let payment = fields.text("/data/object/payment_intent")?;
    Ok(Some(Refund {
        target: RefundTarget::Payment(payment.unwrap_or_else(|| charge.clone())),
        refund_id: charge,
        status: RefundStatus::Succeeded,
        platform_status: fields.text("/data/object/status")?.unwrap_or_default(),
        amount,
        cumulative: true,
        version,
    }))
}
