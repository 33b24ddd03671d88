//! Generic: any sender of JSON with an HMAC over the body, by settings alone.

mod settings;
#[cfg(test)]
mod tests;

use http::{HeaderName, HeaderValue};
use rust_decimal::Decimal;
use time::OffsetDateTime;

use super::{
    Call, Delivery, Event, Platform, Rejection, digest_of,
    fields::{Fields, Pointers, parse_moment},
    signature::{BodyHmac, Encoding, Secret, Verified},
};
use crate::domain::{
    Change, Envelope, Failure, Invoice, InvoiceStatus, Line, Mapped, Money, Order, OrderStatus,
    OrderUpdate, money::parse_decimal,
};
use settings::{
    EventSettings, FieldPointer, FieldSource, InvoiceFields, KeyEncoding, LineFields, OrderFields,
    Selector, SignatureSettings,
};
pub use settings::{InvalidSettings, Settings};

/// A source of kind `generic`, its settings checked and its pointers compiled.
pub struct Generic {
    settings: Settings,
    identity: Pointers,
    fields: Pointers,
    line: Pointers,
}

impl Generic {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let EventSettings { id, topic, tenant, version } = &settings.event;
        let identity = [id, topic, tenant, version].into_iter().flatten().filter_map(pointer_of);
        let identity = Pointers::new(identity);
        let (order, invoice) = (settings.order.as_ref(), settings.invoice.as_ref());
        let of_orders = order.into_iter().flat_map(OrderFields::pointers);
        let of_invoices = invoice.into_iter().flat_map(InvoiceFields::pointers);
        let fields = Pointers::new(of_orders.chain(of_invoices));
        let of_lines = order.into_iter().flat_map(|order| order.line.pointers());
        let line = Pointers::new(of_lines);
        Ok(Self { settings, identity, fields, line })
    }

    /// The key that a secret's text stands for.
    ///
    /// # Errors
    /// The text is not well-formed for `signature.key`.
    pub fn key(&self, text: &str) -> Result<Vec<u8>, String> {
        let decoded = match self.settings.signature.key {
            KeyEncoding::Utf8 => return Ok(text.as_bytes().to_vec()),
            KeyEncoding::Hex => Encoding::Hex.decode(text.trim()),
            KeyEncoding::Base64 => Encoding::Base64.decode(text.trim()),
        };
        decoded.ok_or_else(|| "the secret is not written as signature.key says".to_owned())
    }

    fn hmac(&self) -> BodyHmac<'_> {
        let SignatureSettings { header, prefix, algorithm, encoding, .. } =
            &self.settings.signature;
        BodyHmac { header, prefix, algorithm: *algorithm, encoding: *encoding }
    }
}

/// Whether a topic is one of these, where a `*` at the end stands for any rest.
fn matches(patterns: &[String], topic: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => topic.starts_with(start),
        None => pattern == topic,
    })
}

fn pointer_of(selector: &Selector) -> Option<&str> {
    match selector {
        Selector::Pointer(pointer) => Some(pointer),
        Selector::Header(_) | Selector::Constant(_) => None,
    }
}

impl Platform for Generic {
    fn kind(&self) -> &'static str {
        "generic"
    }

    fn repeats_same_bytes(&self) -> bool {
        self.settings.repeats_same_bytes
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.hmac().verify(call, secrets)
    }

    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.call();
        let fields = Fields::read(call.body, &self.identity).ok();
        let select = |selector: &Option<Selector>| match selector.as_ref()? {
            Selector::Pointer(pointer) => fields.as_ref()?.text(pointer).ok().flatten(),
            Selector::Header(name) => call.header(name).map(str::to_owned),
            Selector::Constant(constant) => Some(constant.clone()),
        };
        let event = &self.settings.event;
        Ok(vec![Event {
            event_id: select(&event.id).unwrap_or_else(|| digest_of(call.body)),
            tenant: select(&event.tenant).unwrap_or_default(),
            topic: select(&event.topic).unwrap_or_default(),
            version: select(&event.version).as_deref().and_then(parse_moment),
            body: call.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        let topic = &self.topic(envelope)?;
        let read = || {
            self.check_tenant(envelope)?;
            Fields::read(&envelope.body, &self.fields).map(Reader)
        };
        if let Some(order) = &self.settings.order {
            if matches(&order.deleted_topics, topic) {
                let update = OrderUpdate::Deleted {
                    order_id: read()?.required_text(&order.id)?,
                    deleted_at: envelope.version.unwrap_or(envelope.received_at),
                };
                return Ok(Mapped::Change(Change::Order(Box::new(update))));
            }
            if matches(&order.topics, topic) {
                let update = self.order(order, &read()?, envelope)?;
                return Ok(Mapped::Change(Change::Order(Box::new(update))));
            }
        }
        match &self.settings.invoice {
            Some(invoice) if matches(&invoice.topics, topic) => {
                let invoice = map_invoice(invoice, &read()?, envelope)?;
                Ok(Mapped::Change(Change::Invoice(Box::new(invoice))))
            }
            _ => Ok(Mapped::Ignored),
        }
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        let fields = Reader(Fields::read(&envelope.body, &self.fields).ok()?);
        let order = self.settings.order.as_ref();
        let invoice = self.settings.invoice.as_ref();
        [
            order.and_then(|order| order.number.as_ref()),
            order.map(|order| &order.id),
            invoice.map(|invoice| &invoice.invoice_number),
        ]
        .into_iter()
        .flatten()
        .find_map(|from| fields.text(Some(from)).ok().flatten())
    }

    fn tenant_header(&self) -> &'static str {
        "the configured tenant field"
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        let event = &self.settings.event;
        let from_header = [
            (&event.id, delivery.event_id),
            (&event.topic, delivery.topic),
            (&event.tenant, delivery.tenant),
        ];
        let mut headers: Vec<_> = from_header
            .into_iter()
            .filter_map(|(selector, value)| match selector {
                Some(Selector::Header(name)) => Some((name.parse().ok()?, value.parse().ok()?)),
                _ => None,
            })
            .collect();
        let signature = self.hmac().sign(secret, delivery.body);
        if let (Ok(name), Ok(value)) = (self.settings.signature.header.parse(), signature.parse()) {
            headers.push((name, value));
        }
        headers
    }
}

impl Generic {
    /// A company that is told apart and cannot be read is nobody's order: it
    /// must not be taken for that of a company without a name.
    fn check_tenant(&self, envelope: &Envelope) -> Result<(), Failure> {
        match &self.settings.event.tenant {
            Some(_) if !envelope.tenant.is_empty() => Ok(()),
            Some(Selector::Pointer(pointer)) => {
                Fields::read(&envelope.body, &self.identity)?.required_text(pointer)?;
                // Another AMQP producer left it out.
                Err(Failure::missing("x-tallyhook-tenant"))
            }
            Some(Selector::Header(name)) => Err(Failure::missing(format!("header:{name}"))),
            Some(Selector::Constant(_)) | None => Ok(()),
        }
    }

    /// The topic; where the envelope has none, as the body tells it, so that
    /// a body that cannot be read is never taken for a topic nobody maps.
    fn topic(&self, envelope: &Envelope) -> Result<String, Failure> {
        match &self.settings.event.topic {
            Some(Selector::Pointer(pointer)) if envelope.topic.is_empty() => {
                let fields = Fields::read(&envelope.body, &self.identity)?;
                Ok(fields.text(pointer)?.unwrap_or_default())
            }
            _ => Ok(envelope.topic.clone()),
        }
    }

    fn order(
        &self,
        from: &OrderFields,
        fields: &Reader<'_>,
        envelope: &Envelope,
    ) -> Result<OrderUpdate, Failure> {
        let order_id = fields.required_text(&from.id)?;
        let platform_status = fields.text(from.status.as_ref())?.unwrap_or_default();
        let word = from.statuses.get(&platform_status).unwrap_or(&platform_status);
        let order = Order {
            number: fields.text(from.number.as_ref())?.unwrap_or_else(|| order_id.clone()),
            status: OrderStatus::from_word(word),
            platform_status,
            total: fields.money(&from.total, &from.currency)?,
            refunded: fields.decimal(from.refunded.as_ref())?.unwrap_or_default(),
            customer_ref: fields.text(from.customer.as_ref())?,
            placed_at: fields.moment(from.placed_at.as_ref())?,
            lines: match &from.lines {
                Some(pointer) => fields
                    .0
                    .list(&pointer.0, &self.line)?
                    .into_iter()
                    .map(|line| map_line(&from.line, &Reader(line)))
                    .collect::<Result<_, _>>()?,
                None => Vec::new(),
            },
        };
        let version = fields
            .moment(from.version.as_ref())?
            .or(envelope.version)
            .unwrap_or(envelope.received_at);
        Ok(OrderUpdate::State { order_id, version, order: Box::new(order), restored: false })
    }
}

fn map_line(from: &LineFields, fields: &Reader<'_>) -> Result<Line, Failure> {
    Ok(Line {
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
    fields: &Reader<'_>,
    envelope: &Envelope,
) -> Result<Invoice, Failure> {
    let platform_status = fields.text(from.status.as_ref())?.unwrap_or_else(|| "open".to_owned());
    let word = from.statuses.get(&platform_status).unwrap_or(&platform_status);
    Ok(Invoice {
        vendor: fields.text(from.vendor.as_ref())?.unwrap_or_default(),
        invoice_number: fields.required_text(&from.invoice_number)?,
        transaction_id: fields.text(from.transaction_id.as_ref())?,
        status: InvoiceStatus::from_word(word),
        platform_status,
        total: fields.money(&from.total, &from.currency)?,
        due_on: from.due_on.as_ref().map_or(Ok(None), |pointer| fields.0.day(&pointer.0))?,
        version: fields
            .moment(from.version.as_ref())?
            .or(envelope.version)
            .unwrap_or(envelope.received_at),
    })
}

/// Reads configured fields: pointers from the body, constants as they are.
struct Reader<'a>(Fields<'a>);

impl Reader<'_> {
    fn text(&self, from: Option<&FieldSource>) -> Result<Option<String>, Failure> {
        match from {
            Some(FieldSource::Pointer(pointer)) => self.0.text(pointer),
            Some(FieldSource::Constant(constant)) => Ok(Some(constant.clone())),
            None => Ok(None),
        }
    }

    fn required_text(&self, from: &FieldSource) -> Result<String, Failure> {
        self.text(Some(from))?.ok_or_else(|| Failure::missing(from.name()))
    }

    fn decimal(&self, from: Option<&FieldSource>) -> Result<Option<Decimal>, Failure> {
        match from {
            // Names the field by its place, also within a line.
            Some(FieldSource::Pointer(pointer)) => self.0.decimal(pointer),
            Some(from @ FieldSource::Constant(constant)) => parse_decimal(constant.trim())
                .map(Some)
                .map_err(|error| Failure::invalid(from.name(), format!("is {error}"))),
            None => Ok(None),
        }
    }

    fn money(&self, amount: &FieldSource, currency: &FieldSource) -> Result<Money, Failure> {
        Ok(Money {
            amount: self.decimal(Some(amount))?.ok_or_else(|| Failure::missing(amount.name()))?,
            currency: self
                .required_text(currency)?
                .parse()
                .map_err(|error| Failure::invalid(currency.name(), format!("{error}")))?,
        })
    }

    fn moment(&self, from: Option<&FieldPointer>) -> Result<Option<OffsetDateTime>, Failure> {
        from.map_or(Ok(None), |pointer| self.0.moment(&pointer.0))
    }
}
