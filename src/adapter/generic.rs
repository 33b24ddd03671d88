//! Generic: any sender of JSON with an HMAC over the body, by settings alone.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    Call, Delivery, Event, Platform, Rejection, digest_of,
    fields::{Fields, Pointers, is_pointer, parse_moment},
    signature::{Algorithm, BodyHmac, Encoding, Secret, Verified},
};
use crate::domain::{
    Change, Envelope, Failure, Invoice, InvoiceStatus, Line, Mapped, Money, Order, OrderStatus,
    OrderUpdate,
};

/// The settings of a generic source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How the sender signs.
    #[serde(default)]
    pub signature: SignatureSettings,
    /// What tells events apart.
    #[serde(default)]
    pub event: EventSettings,
    /// Where an order's fields stand, if the source sends orders.
    pub order: Option<OrderFields>,
    /// Where an invoice's fields stand, if the source sends invoices.
    pub invoice: Option<InvoiceFields>,
    /// Whether a redelivery carries the same bytes (default true). If so,
    /// other bytes under a known key go to review as `conflicting_duplicate`;
    /// if not, the key alone decides.
    #[serde(default = "yes")]
    pub repeats_same_bytes: bool,
}

const fn yes() -> bool {
    true
}

/// How a generic sender signs: an HMAC over the raw body.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureSettings {
    /// The header that carries the signature; default `X-Signature`.
    pub header: String,
    /// What stands before it, such as `sha256=`; default nothing.
    pub prefix: String,
    /// `sha256` (default) or `sha512`.
    pub algorithm: Algorithm,
    /// `hex` (default) or `base64`.
    pub encoding: Encoding,
    /// How the secret's text becomes the key: `utf8` (default), `hex` or `base64`.
    pub key: KeyEncoding,
}

impl Default for SignatureSettings {
    fn default() -> Self {
        Self {
            header: "X-Signature".to_owned(),
            prefix: String::new(),
            algorithm: Algorithm::default(),
            encoding: Encoding::default(),
            key: KeyEncoding::default(),
        }
    }
}

/// How a secret's text becomes the key.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The text's own bytes.
    #[default]
    Utf8,
    /// The bytes that the hexadecimal text stands for.
    Hex,
    /// The bytes that the base64 text stands for.
    Base64,
}

/// What tells events apart.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventSettings {
    /// The event's id, the same on each redelivery. Default: the SHA-256 of
    /// the body, which only suits senders that repeat the same bytes.
    pub id: Option<Selector>,
    /// What it is about; default: no topic, everything is mapped.
    pub topic: Option<Selector>,
    /// The shop or company; default: there is only one.
    pub tenant: Option<Selector>,
    /// The version for the stale guard.
    pub version: Option<Selector>,
}

/// Where a value of a call is found: `/pointer`, `header:NAME` or `const:TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Selector {
    /// A JSON pointer into the body.
    Pointer(String),
    /// A header's name.
    Header(String),
    /// Always this.
    Constant(String),
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Some(name) = text.strip_prefix("header:") {
            let name: HeaderName =
                name.parse().map_err(|_| format!("{name:?} is no header name"))?;
            Ok(Self::Header(name.as_str().to_owned()))
        } else if let Some(constant) = text.strip_prefix("const:") {
            Ok(Self::Constant(constant.to_owned()))
        } else if is_pointer(&text) {
            Ok(Self::Pointer(text))
        } else {
            Err(format!("{text:?} is neither a JSON pointer (/id) nor header:NAME nor const:TEXT"))
        }
    }
}

/// Where a field's value is found: `/pointer` or `const:TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FieldSource(Selector);

impl TryFrom<String> for FieldSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match Selector::try_from(text)? {
            Selector::Header(name) => Err(format!(
                "header:{name} cannot be used here: a field is a JSON pointer or const:TEXT"
            )),
            selector => Ok(Self(selector)),
        }
    }
}

/// Where an order's fields stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderFields {
    /// The topics that carry a whole order; a `*` at the end stands for any
    /// rest. Default: all.
    #[serde(default = "all")]
    pub topics: Vec<String>,
    /// The topics that tell of a deletion; of the body, only the id is read.
    #[serde(default)]
    pub deleted_topics: Vec<String>,
    /// The sender's id of the order.
    pub id: FieldSource,
    /// The number that people know it by; default: the id.
    pub number: Option<FieldSource>,
    /// The sender's word for its state.
    pub status: Option<FieldSource>,
    /// Our word for each of the sender's; a word that is not listed and not
    /// one of ours is `other`.
    #[serde(default)]
    pub statuses: BTreeMap<String, String>,
    /// The currency, ISO 4217.
    pub currency: FieldSource,
    /// What it costs.
    pub total: FieldSource,
    /// How much of it was paid back; default: nothing.
    pub refunded: Option<FieldSource>,
    /// The sender's reference to the customer.
    pub customer: Option<FieldSource>,
    /// When it was placed.
    pub placed_at: Option<FieldSource>,
    /// The version for the stale guard: a time. Default: the event's
    /// version, else when it was received.
    pub version: Option<FieldSource>,
    /// The list of lines.
    pub lines: Option<FieldSource>,
    /// Where a line's fields stand within it.
    #[serde(default)]
    pub line: LineFields,
}

/// Where a line's fields stand, as pointers within the line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineFields {
    /// The sender's id of the line.
    pub id: Option<FieldSource>,
    /// The article number.
    pub sku: Option<FieldSource>,
    /// What the customer was shown.
    pub title: Option<FieldSource>,
    /// How many.
    pub quantity: Option<FieldSource>,
    /// Price of one.
    pub unit_price: Option<FieldSource>,
    /// Price of all.
    pub total: Option<FieldSource>,
}

/// Where an invoice's fields stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoiceFields {
    /// The topics that carry an invoice; a `*` at the end stands for any
    /// rest. Default: all.
    #[serde(default = "all")]
    pub topics: Vec<String>,
    /// The vendor; default: the source is the vendor.
    pub vendor: Option<FieldSource>,
    /// The vendor's number for the invoice.
    pub invoice_number: FieldSource,
    /// The sender's id of the transaction behind it.
    pub transaction_id: Option<FieldSource>,
    /// The sender's word for its state; default `open`.
    pub status: Option<FieldSource>,
    /// Our word for each of the sender's; a word that is not listed and not
    /// one of ours is `other`.
    #[serde(default)]
    pub statuses: BTreeMap<String, String>,
    /// The currency, ISO 4217.
    pub currency: FieldSource,
    /// What it is over.
    pub total: FieldSource,
    /// The day by which it is to be paid.
    pub due_on: Option<FieldSource>,
    /// The version for the stale guard: a time. Default: the event's
    /// version, else when it was received.
    pub version: Option<FieldSource>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Whether a topic is one of these, where a `*` at the end stands for any rest.
fn matches(patterns: &[String], topic: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => topic.starts_with(start),
        None => pattern == topic,
    })
}

/// A source of kind `generic`, its settings checked and its pointers compiled.
pub struct Generic {
    settings: Settings,
    identity: Pointers,
    fields: Pointers,
    line: Pointers,
}

/// The settings contradict themselves.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct InvalidSettings {
    /// The key within the source.
    pub field: String,
    /// What is wrong.
    pub detail: String,
}

impl Generic {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let refuse = |field: &str, detail: &str| InvalidSettings {
            field: field.to_owned(),
            detail: detail.to_owned(),
        };
        if settings.signature.header.parse::<HeaderName>().is_err() {
            return Err(refuse("signature.header", "is no header name"));
        }
        let event = &settings.event;
        if let (Some(order), Some(invoice)) = (&settings.order, &settings.invoice) {
            let catches_all = |topics: &[String]| topics.iter().any(|topic| topic == "*");
            if catches_all(&order.topics) && catches_all(&invoice.topics) {
                return Err(refuse(
                    "order.topics",
                    "a source with orders and invoices must say which topics are which",
                ));
            }
        }
        let narrowed = |topics: &[String]| topics.iter().all(|topic| topic != "*");
        let needs_topic = settings
            .order
            .as_ref()
            .is_some_and(|order| narrowed(&order.topics) || !order.deleted_topics.is_empty())
            || settings.invoice.as_ref().is_some_and(|invoice| narrowed(&invoice.topics));
        if needs_topic && event.topic.is_none() {
            return Err(refuse("event.topic", "is needed to tell the topics apart"));
        }
        if let Some(order) = &settings.order {
            check_statuses(&order.statuses, "order", &OrderStatus::ALL.map(OrderStatus::as_str))?;
        }
        if let Some(invoice) = &settings.invoice {
            let words = InvoiceStatus::ALL.map(InvoiceStatus::as_str);
            check_statuses(&invoice.statuses, "invoice", &words)?;
        }
        let identity = Pointers::new(
            [&event.id, &event.topic, &event.tenant, &event.version]
                .into_iter()
                .flatten()
                .filter_map(pointer_of),
        );
        let mut fields = Vec::new();
        let mut line = Vec::new();
        if let Some(order) = &settings.order {
            fields.extend([Some(&order.id), Some(&order.currency), Some(&order.total)]);
            fields.extend([
                order.number.as_ref(),
                order.status.as_ref(),
                order.refunded.as_ref(),
                order.customer.as_ref(),
                order.placed_at.as_ref(),
                order.version.as_ref(),
                order.lines.as_ref(),
            ]);
            let LineFields { id, sku, title, quantity, unit_price, total } = &order.line;
            line.extend([id, sku, title, quantity, unit_price, total].into_iter().flatten());
        }
        if let Some(invoice) = &settings.invoice {
            fields.extend([&invoice.invoice_number, &invoice.currency, &invoice.total].map(Some));
            fields.extend([
                invoice.vendor.as_ref(),
                invoice.transaction_id.as_ref(),
                invoice.status.as_ref(),
                invoice.due_on.as_ref(),
                invoice.version.as_ref(),
            ]);
        }
        let compile = |sources: Vec<&FieldSource>| {
            Pointers::new(sources.into_iter().filter_map(|source| pointer_of(&source.0)))
        };
        let fields = compile(fields.into_iter().flatten().collect());
        let line = compile(line);
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

fn check_statuses(
    statuses: &BTreeMap<String, String>,
    section: &str,
    words: &[&str],
) -> Result<(), InvalidSettings> {
    match statuses.iter().find(|(_, ours)| !words.contains(&ours.as_str())) {
        None => Ok(()),
        Some((theirs, ours)) => Err(InvalidSettings {
            field: format!("{section}.statuses.{theirs}"),
            detail: format!("{ours:?} is not one of {}", words.join(", ")),
        }),
    }
}

fn pointer_of(selector: &Selector) -> Option<&str> {
    match selector {
        Selector::Pointer(pointer) => Some(pointer),
        Selector::Header(_) | Selector::Constant(_) => None,
    }
}

impl Platform for Generic {
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
        let topic = &envelope.topic;
        let read = || Fields::read(&envelope.body, &self.fields).map(Reader);
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
                Some(FieldSource(Selector::Pointer(pointer))) => fields
                    .0
                    .list(pointer, &self.line)?
                    .into_iter()
                    .map(|line| map_line(&from.line, &Reader(line)))
                    .collect::<Result<_, _>>()?,
                _ => Vec::new(),
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
        due_on: match &from.due_on {
            Some(FieldSource(Selector::Pointer(pointer))) => fields.0.day(pointer)?,
            _ => None,
        },
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
            Some(FieldSource(Selector::Pointer(pointer))) => self.0.text(pointer),
            Some(FieldSource(Selector::Constant(constant))) => Ok(Some(constant.clone())),
            Some(FieldSource(Selector::Header(_))) | None => Ok(None),
        }
    }

    fn required_text(&self, from: &FieldSource) -> Result<String, Failure> {
        self.text(Some(from))?.ok_or_else(|| Failure::missing(name_of(from)))
    }

    fn decimal(
        &self,
        from: Option<&FieldSource>,
    ) -> Result<Option<rust_decimal::Decimal>, Failure> {
        let Some(from) = from else { return Ok(None) };
        let Some(text) = self.text(Some(from))? else {
            return Ok(None);
        };
        crate::domain::money::parse_decimal(text.trim())
            .map(Some)
            .map_err(|error| Failure::invalid(name_of(from), format!("is {error}")))
    }

    fn money(&self, amount: &FieldSource, currency: &FieldSource) -> Result<Money, Failure> {
        Ok(Money {
            amount: self.decimal(Some(amount))?.ok_or_else(|| Failure::missing(name_of(amount)))?,
            currency: self
                .required_text(currency)?
                .parse()
                .map_err(|error| Failure::invalid(name_of(currency), format!("{error}")))?,
        })
    }

    fn moment(&self, from: Option<&FieldSource>) -> Result<Option<time::OffsetDateTime>, Failure> {
        match from {
            Some(FieldSource(Selector::Pointer(pointer))) => self.0.moment(pointer),
            _ => Ok(None),
        }
    }
}

fn name_of(from: &FieldSource) -> String {
    match &from.0 {
        Selector::Pointer(pointer) => pointer.clone(),
        Selector::Header(name) => name.clone(),
        Selector::Constant(constant) => format!("const:{constant}"),
    }
}
