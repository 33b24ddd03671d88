//! The settings of a generic source, as they are written.

use std::collections::BTreeMap;

use http::HeaderName;
use serde::Deserialize;

use crate::{
    adapter::{
        fields::is_pointer,
        signature::{Algorithm, Encoding},
    },
    domain::{InvoiceStatus, OrderStatus},
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
pub enum FieldSource {
    /// A JSON pointer into the body.
    Pointer(String),
    /// Always this.
    Constant(String),
}

impl TryFrom<String> for FieldSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match Selector::try_from(text)? {
            Selector::Pointer(pointer) => Ok(Self::Pointer(pointer)),
            Selector::Constant(constant) => Ok(Self::Constant(constant)),
            Selector::Header(name) => Err(format!(
                "header:{name} cannot be used here: a field is a JSON pointer or const:TEXT"
            )),
        }
    }
}

impl FieldSource {
    /// The pointer, if it is one.
    pub(super) fn pointer(&self) -> Option<&str> {
        match self {
            Self::Pointer(pointer) => Some(pointer),
            Self::Constant(_) => None,
        }
    }

    /// How it is named to people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Pointer(pointer) => pointer.clone(),
            Self::Constant(constant) => format!("const:{constant}"),
        }
    }
}

/// Where a value is found that differs from event to event: `/pointer` only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FieldPointer(pub(super) String);

impl TryFrom<String> for FieldPointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_pointer(&text) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not a JSON pointer (/data/updated_at)"))
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
    pub placed_at: Option<FieldPointer>,
    /// The version for the stale guard: a time. Default: the event's
    /// version, else when it was received.
    pub version: Option<FieldPointer>,
    /// The list of lines.
    pub lines: Option<FieldPointer>,
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
    pub due_on: Option<FieldPointer>,
    /// The version for the stale guard: a time. Default: the event's
    /// version, else when it was received.
    pub version: Option<FieldPointer>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
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

impl InvalidSettings {
    fn new(field: &str, detail: impl Into<String>) -> Self {
        Self { field: field.to_owned(), detail: detail.into() }
    }
}

impl Settings {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub(super) fn check(&self) -> Result<(), InvalidSettings> {
        if self.signature.header.parse::<HeaderName>().is_err() {
            return Err(InvalidSettings::new("signature.header", "is no header name"));
        }
        let (order, invoice) = (self.order.as_ref(), self.invoice.as_ref());
        let everything = |topics: &[String]| topics.iter().any(|topic| topic == "*");
        if let (Some(order), Some(_)) = (order, invoice)
            // Orders are looked for first, so that no invoice would be found.
            && everything(&order.topics)
        {
            return Err(InvalidSettings::new(
                "order.topics",
                "a source with orders and invoices must say which topics are which",
            ));
        }
        let told_apart = order
            .is_some_and(|order| !everything(&order.topics) || !order.deleted_topics.is_empty())
            || invoice.is_some_and(|invoice| !everything(&invoice.topics));
        if told_apart && self.event.topic.is_none() {
            let detail = "is needed to tell the topics apart";
            return Err(InvalidSettings::new("event.topic", detail));
        }
        if let Some(order) = order {
            let words = OrderStatus::ALL.map(OrderStatus::as_str);
            check_statuses("order.statuses", &order.statuses, &words)?;
        }
        if let Some(invoice) = invoice {
            let words = InvoiceStatus::ALL.map(InvoiceStatus::as_str);
            check_statuses("invoice.statuses", &invoice.statuses, &words)?;
        }
        Ok(())
    }
}

fn check_statuses(
    key: &str,
    statuses: &BTreeMap<String, String>,
    words: &[&str],
) -> Result<(), InvalidSettings> {
    match statuses.iter().find(|(_, ours)| !words.contains(&ours.as_str())) {
        None => Ok(()),
        Some((theirs, ours)) => Err(InvalidSettings::new(
            &format!("{key}.{theirs}"),
            format!("{ours:?} is not one of {}", words.join(", ")),
        )),
    }
}

impl OrderFields {
    /// Every pointer into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { id, number, status, currency, total, refunded, customer, .. } = self;
        let values = [Some(id), Some(currency), Some(total)].into_iter();
        let values = values.chain([number, status, refunded, customer].map(Option::as_ref));
        let moving = [&self.placed_at, &self.version, &self.lines].into_iter().flatten();
        values.flatten().filter_map(FieldSource::pointer).chain(moving.map(|one| one.0.as_str()))
    }
}

impl LineFields {
    /// Every pointer into a line.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { id, sku, title, quantity, unit_price, total } = self;
        let values = [id, sku, title, quantity, unit_price, total].into_iter().flatten();
        values.filter_map(FieldSource::pointer)
    }
}

impl InvoiceFields {
    /// Every pointer into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { vendor, invoice_number, transaction_id, status, currency, total, .. } = self;
        let values = [Some(invoice_number), Some(currency), Some(total)].into_iter();
        let values = values.chain([vendor, transaction_id, status].map(Option::as_ref));
        let moving = [&self.due_on, &self.version].into_iter().flatten();
        values.flatten().filter_map(FieldSource::pointer).chain(moving.map(|one| one.0.as_str()))
    }
}
