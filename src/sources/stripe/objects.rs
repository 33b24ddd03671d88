//! The objects that Stripe's events carry, as rows of the books.

use time::OffsetDateTime;

use crate::{
    domain::{
        Currency, Invoice, InvoiceStatus, Money, Order, OrderStatus, OrderUpdate, PermanentFailure,
        Refund, RefundStatus, RefundTarget,
    },
    sources::json_fields::JsonFields,
};

/// Where the fields stand that the mappings read.
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

/// Currencies that Stripe counts in other units than ISO 4217 has, with the
/// decimals that an amount of Stripe's has. Where the two agree,
/// [`Currency::stripe_minor_digits`] tells.
///
/// Stripe's page on currencies lists those without decimals (MGA among them)
/// and those with three (BHD, JOD, KWD, OMR, TND); all others have two, ISK
/// and UGX by name, for the sake of what was written for them before.
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

/// How many decimals an amount of Stripe's in this currency has.
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

/// An invoice's state.
///
/// Time tells no order at Stripe, but the status does: draft, open, given up,
/// then paid or void for good. A status of tomorrow ranks with open: it ends
/// nothing, and the time of the event decides.
pub(super) fn invoice(
    topic: &str,
    fields: &JsonFields<'_>,
    version: OffsetDateTime,
) -> Result<Invoice, PermanentFailure> {
    let document_id = fields.required_text("/data/object/id")?;
    // Only drafts can be deleted; the invoice tells its last state, `draft`.
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
        // A draft has none.
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

/// A checkout session as an order, if it is about money: a session that only
/// saves a card has no total.
///
/// The platform's word is the payment's (`paid`, `unpaid`,
/// `no_payment_required`) once the customer is through; before that, and where
/// they never got there, it is the session's own (`open`, `expired`). A
/// payment that failed later shows in neither: there it is the topic's.
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
    // What comes later never takes back what a later state of the session
    // told: paid, failed and expired are final, whenever they come in.
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
        // Refunds tell themselves, by the payment.
        refunded: rust_decimal::Decimal::ZERO,
        customer_ref,
        payment_ref: fields.text("/data/object/payment_intent")?,
        sequence,
        placed_at: fields.timestamp("/data/object/created")?,
        // Stripe does not send them with the session.
        lines: Vec::new(),
    };
    Ok(Some(OrderUpdate::State { order_id, version, order: Box::new(order), restored: false }))
}

/// A refund's state.
pub(super) fn refund(
    fields: &JsonFields<'_>,
    version: OffsetDateTime,
) -> Result<Refund, PermanentFailure> {
    let refund_id = fields.required_text("/data/object/id")?;
    let payment = match fields.text("/data/object/payment_intent")? {
        Some(payment) => payment,
        // A charge that was made without an intent is the payment itself.
        None => fields.required_text("/data/object/charge")?,
    };
    let platform_status = fields.text("/data/object/status")?.unwrap_or_default();
    let status = match platform_status.as_str() {
        "canceled" => RefundStatus::Cancelled,
        // The customer must say where to.
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

/// What went back of a charge so far; `None` if nothing has. A refund that
/// fails afterwards is taken back here by the charge's next event only.
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
