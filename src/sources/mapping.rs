//! Mapping by settings: JSON pointers name the fields of orders, invoices and refunds. For
//! kinds of sources whose senders choose the names of fields.

mod settings;

use rust_decimal::Decimal;
use time::OffsetDateTime;

use super::{
    json_fields::{JsonFields, JsonPointers},
    selector::{FieldPointer, FieldSource},
};
use crate::domain::{
    Envelope, Invoice, InvoiceStatus, MappedEvent, Money, Order, OrderLine, OrderStatus,
    OrderUpdate, PermanentFailure, Refund, RefundStatus, RefundTarget, money::parse_decimal,
};
pub(super) use settings::check_statuses;
pub use settings::{InvalidSettings, InvoiceFields, LineFields, OrderFields, RefundFields};

/// The mapping of a source; its pointers are compiled.
#[derive(Debug)]
pub struct Mapping {
    order: Option<OrderFields>,
    invoice: Option<InvoiceFields>,
    refund: Option<RefundFields>,
    fields: JsonPointers,
    line: JsonPointers,
}

impl Mapping {
    /// Validates the settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn new(
        order: Option<OrderFields>,
        invoice: Option<InvoiceFields>,
        refund: Option<RefundFields>,
    ) -> Result<Self, InvalidSettings> {
        check_settings(order.as_ref(), invoice.as_ref(), refund.as_ref())?;
        let of_orders = order.iter().flat_map(OrderFields::pointers);
        let of_invoices = invoice.iter().flat_map(InvoiceFields::pointers);
        let of_refunds = refund.iter().flat_map(RefundFields::pointers);
        let fields = JsonPointers::new(of_orders.chain(of_invoices).chain(of_refunds));
        let line = JsonPointers::new(order.iter().flat_map(|order| order.line.pointers()));
        Ok(Self { order, invoice, refund, fields, line })
    }

    /// Whether the mapping depends on the topic, so that events must have one.
    pub fn needs_topic(&self) -> bool {
        let Self { order, invoice, refund, .. } = self;
        order.as_ref().is_some_and(|order| {
            !matches_every_topic(&order.topics) || !order.deleted_topics.is_empty()
        }) || invoice.as_ref().is_some_and(|invoice| !matches_every_topic(&invoice.topics))
            || refund.as_ref().is_some_and(|refund| !matches_every_topic(&refund.topics))
    }

    /// Whether a topic is mapped.
    pub fn maps_topic(&self, topic: &str) -> bool {
        let Self { order, invoice, refund, .. } = self;
        order.as_ref().is_some_and(|order| {
            topic_matches(&order.deleted_topics, topic) || topic_matches(&order.topics, topic)
        }) || invoice.as_ref().is_some_and(|invoice| topic_matches(&invoice.topics, topic))
            || refund.as_ref().is_some_and(|refund| topic_matches(&refund.topics, topic))
    }

    /// Whether a topic is listed by name, not only matched by a `*`.
    pub fn lists_topic(&self, topic: &str) -> bool {
        let of_orders = self.order.iter().flat_map(|order| [&order.topics, &order.deleted_topics]);
        let of_invoices = self.invoice.iter().map(|invoice| &invoice.topics);
        let of_refunds = self.refund.iter().map(|refund| &refund.topics);
        of_orders.chain(of_invoices).chain(of_refunds).flatten().any(|listed| listed == topic)
    }

    /// Maps an event of this topic to the change that it makes.
    ///
    /// # Errors
    /// [`PermanentFailure`] with the invalid field.
    pub fn map(
        &self,
        topic: &str,
        envelope: &Envelope,
        body: &[u8],
    ) -> Result<MappedEvent, PermanentFailure> {
        let read = || JsonFields::read(body, &self.fields).map(FieldReader);
        if let Some(order) = &self.order {
            if topic_matches(&order.deleted_topics, topic) {
                return Ok(MappedEvent::from(OrderUpdate::Deleted {
                    order_id: read()?.required_text(&order.id)?,
                    deleted_at: envelope.version.unwrap_or(envelope.received_at),
                }));
            }
            if topic_matches(&order.topics, topic) {
                return Ok(MappedEvent::from(self.map_order(order, &read()?, envelope)?));
            }
        }
        if let Some(invoice) =
            self.invoice.as_ref().filter(|from| topic_matches(&from.topics, topic))
        {
            return Ok(MappedEvent::from(map_invoice(invoice, &read()?, envelope)?));
        }
        if let Some(refund) = self.refund.as_ref().filter(|from| topic_matches(&from.topics, topic))
        {
            return Ok(MappedEvent::from(map_refund(refund, &read()?, envelope)?));
        }
        Ok(MappedEvent::Ignored)
    }

    /// The document's business number, if it can be read.
    pub fn business_key(&self, body: &[u8]) -> Option<String> {
        let fields = FieldReader(JsonFields::read(body, &self.fields).ok()?);
        [
            self.order.as_ref().and_then(|order| order.number.as_ref()),
            self.order.as_ref().map(|order| &order.id),
            self.invoice.as_ref().map(|invoice| &invoice.invoice_number),
            self.refund.as_ref().map(|refund| &refund.order_id),
        ]
        .into_iter()
        .flatten()
        .find_map(|from| fields.text(Some(from)).ok().flatten())
    }

    fn map_order(
        &self,
        from: &OrderFields,
        fields: &FieldReader<'_>,
        envelope: &Envelope,
    ) -> Result<OrderUpdate, PermanentFailure> {
        let order_id = fields.required_text(&from.id)?;
        let platform_status = fields.text(from.status.as_ref())?.unwrap_or_default();
        let status = from.statuses.get(&platform_status).unwrap_or(&platform_status);
        let total = fields.money(&from.total, &from.currency, from.minor_units)?;
        let refunded = match &from.refunded {
            Some(refunded) => fields.amount(refunded, total, from.minor_units)?,
            None => None,
        };
        let order = Order {
            number: fields.text(from.number.as_ref())?.unwrap_or_else(|| order_id.clone()),
            status: OrderStatus::parse_or_other(status),
            platform_status,
            total,
            refunded: refunded.unwrap_or_default(),
            customer_ref: fields.text(from.customer.as_ref())?,
            payment_ref: None,
            sequence: 0,
            placed_at: fields.timestamp(from.placed_at.as_ref())?,
            lines: match &from.lines {
                Some(pointer) => fields
                    .0
                    .list(pointer.as_str(), &self.line)?
                    .into_iter()
                    .map(|line| map_line(&from.line, &FieldReader(line)))
                    .collect::<Result<_, _>>()?,
                None => Vec::new(),
            },
        };
        let version = fields.version(from.version.as_ref(), envelope)?;
        Ok(OrderUpdate::State { order_id, version, order: Box::new(order), restored: false })
    }
}

fn check_settings(
    order: Option<&OrderFields>,
    invoice: Option<&InvoiceFields>,
    refund: Option<&RefundFields>,
) -> Result<(), InvalidSettings> {
    // The kind that is matched first must not match every topic.
    let detail = "a source with several kinds of documents must list the topics of each";
    if order.is_some_and(|order| matches_every_topic(&order.topics))
        && (invoice.is_some() || refund.is_some())
    {
        return Err(InvalidSettings::new("order.topics", detail));
    }
    if invoice.is_some_and(|invoice| matches_every_topic(&invoice.topics)) && refund.is_some() {
        return Err(InvalidSettings::new("invoice.topics", detail));
    }
    if let Some(order) = order {
        let words = OrderStatus::ALL.map(OrderStatus::as_str);
        settings::check_statuses("order.statuses", &order.statuses, &words)?;
    }
    if let Some(invoice) = invoice {
        let words = InvoiceStatus::ALL.map(InvoiceStatus::as_str);
        settings::check_statuses("invoice.statuses", &invoice.statuses, &words)?;
    }
    if let Some(refund) = refund {
        let words = RefundStatus::ALL.map(RefundStatus::as_str);
        settings::check_statuses("refund.statuses", &refund.statuses, &words)?;
    }
    Ok(())
}

fn matches_every_topic(topics: &[String]) -> bool {
    topics.iter().any(|topic| topic == "*")
}

/// Whether a topic matches one of the patterns; a `*` at the end matches any rest.
fn topic_matches(patterns: &[String], topic: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => topic.starts_with(start),
        None => pattern == topic,
    })
}

fn map_line(from: &LineFields, fields: &FieldReader<'_>) -> Result<OrderLine, PermanentFailure> {
    Ok(OrderLine {
        id: fields.text(from.id.as_ref())?,
        sku: fields.text(from.sku.as_ref())?,
        title: fields.text(from.title.as_ref())?,
        quantity: fields.decimal(from.quantity.as_ref())?,
        unit_price: fields.decimal(from.unit_price.as_ref())?,
        total: fields.decimal(from.total.as_ref())?,
    })
}

fn map_invoice(
    from: &InvoiceFields,
    fields: &FieldReader<'_>,
    envelope: &Envelope,
) -> Result<Invoice, PermanentFailure> {
    let platform_status = fields.text(from.status.as_ref())?.unwrap_or_else(|| "open".to_owned());
    let status = from.statuses.get(&platform_status).unwrap_or(&platform_status);
    Ok(Invoice {
        document_id: fields.text(from.document_id.as_ref())?,
        vendor: fields.text(from.vendor.as_ref())?.unwrap_or_default(),
        invoice_number: fields.required_text(&from.invoice_number)?,
        transaction_id: fields.text(from.transaction_id.as_ref())?,
        status: InvoiceStatus::parse_or_other(status),
        platform_status,
        total: fields.money(&from.total, &from.currency, from.minor_units)?,
        due_on: from.due_on.as_ref().map_or(Ok(None), |pointer| fields.0.date(pointer.as_str()))?,
        sequence: 0,
        version: fields.version(from.version.as_ref(), envelope)?,
    })
}

fn map_refund(
    from: &RefundFields,
    fields: &FieldReader<'_>,
    envelope: &Envelope,
) -> Result<Refund, PermanentFailure> {
    let platform_status =
        fields.text(from.status.as_ref())?.unwrap_or_else(|| "succeeded".to_owned());
    let status = from.statuses.get(&platform_status).unwrap_or(&platform_status);
    Ok(Refund {
        refund_id: fields.required_text(&from.id)?,
        target: RefundTarget::Order(fields.required_text(&from.order_id)?),
        status: RefundStatus::parse_or_other(status),
        platform_status,
        amount: fields.money(&from.amount, &from.currency, from.minor_units)?,
        cumulative: false,
        version: fields.version(from.version.as_ref(), envelope)?,
    })
}

/// Reads configured fields: pointers from the body, or constants.
struct FieldReader<'a>(JsonFields<'a>);

impl FieldReader<'_> {
    fn text(&self, from: Option<&FieldSource>) -> Result<Option<String>, PermanentFailure> {
        match from {
            Some(FieldSource::Pointer(pointer)) => self.0.text(pointer),
            Some(FieldSource::Constant(constant)) => Ok(Some(constant.clone())),
            None => Ok(None),
        }
    }

    fn required_text(&self, from: &FieldSource) -> Result<String, PermanentFailure> {
        self.text(Some(from))?.ok_or_else(|| PermanentFailure::missing(from.label()))
    }

    fn decimal(&self, from: Option<&FieldSource>) -> Result<Option<Decimal>, PermanentFailure> {
        match from {
            // The error contains the full pointer, also within a line.
            Some(FieldSource::Pointer(pointer)) => self.0.decimal(pointer),
            Some(from @ FieldSource::Constant(constant)) => parse_decimal(constant.trim())
                .map(Some)
                .map_err(|error| PermanentFailure::invalid(from.label(), format!("is {error}"))),
            None => Ok(None),
        }
    }

    fn money(
        &self,
        amount: &FieldSource,
        currency: &FieldSource,
        minor_units: bool,
    ) -> Result<Money, PermanentFailure> {
        let money = Money {
            amount: self
                .decimal(Some(amount))?
                .ok_or_else(|| PermanentFailure::missing(amount.label()))?,
            currency: self
                .required_text(currency)?
                .parse()
                .map_err(|error| PermanentFailure::invalid(currency.label(), format!("{error}")))?,
        };
        if minor_units { from_minor_units(money, amount) } else { Ok(money) }
    }

    /// Another amount in the same currency.
    fn amount(
        &self,
        from: &FieldSource,
        of: Money,
        minor_units: bool,
    ) -> Result<Option<Decimal>, PermanentFailure> {
        match self.decimal(Some(from))? {
            Some(amount) if minor_units => {
                from_minor_units(Money { amount, ..of }, from).map(|money| Some(money.amount))
            }
            amount => Ok(amount),
        }
    }

    fn timestamp(
        &self,
        from: Option<&FieldPointer>,
    ) -> Result<Option<OffsetDateTime>, PermanentFailure> {
        from.map_or(Ok(None), |pointer| self.0.timestamp(pointer.as_str()))
    }

    fn version(
        &self,
        from: Option<&FieldPointer>,
        envelope: &Envelope,
    ) -> Result<OffsetDateTime, PermanentFailure> {
        Ok(self.timestamp(from)?.or(envelope.version).unwrap_or(envelope.received_at))
    }
}

/// Converts an amount in minor units.
fn from_minor_units(money: Money, from: &FieldSource) -> Result<Money, PermanentFailure> {
    let digits = money.currency.minor_digits();
    Money::from_minor_units(money.amount, money.currency, digits)
        .map_err(|error| PermanentFailure::invalid(from.label(), format!("is {error}")))
}
