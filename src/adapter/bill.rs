//! Invoices that are told whole, in a body of their own: by robots that call
//! back, and in files. Every field that is wrong is told: whoever reads the
//! answer shall mend them all at once.

mod layout;

use http::{HeaderName, HeaderValue};
use rust_decimal::Decimal;
use time::{Date, OffsetDateTime};

use super::{
    Call, Delivery,
    fields::{Fields, Pointers},
    mapping::InvalidSettings,
    selector::{FieldPointer, FieldSource, Selector},
};
use crate::domain::{Currency, Envelope, Failure, Invoice, InvoiceStatus, Mapped, Money, Reason};
pub(super) use layout::Layout;

/// What all events are about that are invoices.
pub(super) const TOPIC: &str = "invoice";

/// Longer names are no numbers or ids; and the index of the invoices would
/// not take all of them.
const LONGEST_NAME: usize = 255;

/// An invoice as a body tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bill {
    /// Empty where the source is the vendor.
    pub(super) vendor: String,
    pub(super) invoice_number: String,
    /// There, unless no layout says where it stands.
    pub(super) transaction_id: Option<String>,
    pub(super) platform_status: String,
    pub(super) total: Money,
    pub(super) due_on: Option<Date>,
    pub(super) version: Option<OffsetDateTime>,
}

impl Bill {
    /// Reads an invoice.
    ///
    /// # Errors
    /// What is wrong, field by field.
    fn read(from: &Layout, fields: &Fields<'_>) -> Result<Self, Vec<Failure>> {
        let mut failures = Vec::new();
        let invoice_number = kept(required_name(&from.invoice_number, fields), &mut failures);
        let transaction_id = match &from.transaction_id {
            Some(transaction) => kept(required_name(transaction, fields), &mut failures).map(Some),
            None => Some(None),
        };
        let vendor = kept(vendor(from, fields), &mut failures);
        let amount = fields.required_decimal(from.amount.as_str());
        let amount = kept(amount, &mut failures);
        let currency = kept(currency(from, fields), &mut failures);
        let due_on = kept(fields.day(from.due_on.as_str()), &mut failures);
        let platform_status = match &from.status {
            Some(status) => kept(name(status, fields), &mut failures),
            None => Some(None),
        };
        let version = match &from.version {
            Some(version) => kept(fields.moment(version.as_str()), &mut failures),
            None => Some(None),
        };
        let total = amount
            .zip(currency)
            .and_then(|(amount, currency)| kept(total(from, amount, currency), &mut failures));
        // One that was not kept has left its failure.
        let whole = || {
            Some(Self {
                vendor: vendor?,
                invoice_number: invoice_number?,
                transaction_id: transaction_id?,
                platform_status: platform_status?.unwrap_or_else(|| "open".to_owned()),
                total: total?,
                due_on: due_on?,
                version: version?,
            })
        };
        whole().ok_or(failures)
    }
}

impl Bill {
    /// Vendor (if one is told), number and transaction (if one is told), so
    /// written that no others share the text.
    pub(super) fn id(&self) -> String {
        let escaped = |part: &str| part.replace('\\', r"\\").replace(':', r"\:");
        let Self { vendor, invoice_number, transaction_id, .. } = self;
        let parts = [vendor.as_str(), invoice_number, transaction_id.as_deref().unwrap_or("")];
        let told = parts.into_iter().filter(|part| !part.is_empty());
        told.map(escaped).collect::<Vec<_>>().join(":")
    }
}

/// A source's bills: where their fields stand, and whose they are.
pub(super) struct Bills {
    layout: Layout,
    tenant: Option<Selector>,
    fields: Pointers,
}

impl Bills {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub(super) fn new(layout: Layout, tenant: Option<Selector>) -> Result<Self, InvalidSettings> {
        layout.check()?;
        let of_tenant = tenant.as_ref().and_then(Selector::pointer);
        let fields = Pointers::new(layout.pointers().chain(of_tenant));
        Ok(Self { layout, tenant, fields })
    }

    /// The bill in a body.
    ///
    /// # Errors
    /// What is wrong, field by field.
    pub(super) fn read(&self, body: &[u8]) -> Result<Bill, Vec<Failure>> {
        let fields = Fields::read(body, &self.fields).map_err(|failure| vec![failure])?;
        Bill::read(&self.layout, &fields)
    }

    /// The bill in a call, and whose it is.
    ///
    /// # Errors
    /// What is wrong, field by field.
    pub(super) fn take(&self, call: &Call<'_>) -> Result<(String, Bill), Vec<Failure>> {
        let fields = Fields::read(call.body, &self.fields).map_err(|failure| vec![failure])?;
        match (self.tenant(call, &fields), Bill::read(&self.layout, &fields)) {
            (Ok(tenant), Ok(bill)) => Ok((tenant, bill)),
            (tenant, bill) => Err(bill.err().into_iter().flatten().chain(tenant.err()).collect()),
        }
    }

    /// The company; it must be told where companies are told apart.
    fn tenant(&self, call: &Call<'_>, fields: &Fields<'_>) -> Result<String, Failure> {
        let field = || self.tenant_field().unwrap_or_default();
        let told = match &self.tenant {
            None => return Ok(String::new()),
            Some(Selector::Constant(constant)) => return Ok(constant.clone()),
            Some(Selector::Pointer(pointer)) => name_at(pointer, fields)?,
            Some(Selector::Header(name)) => {
                checked(call.header(name).unwrap_or_default(), &field())?
            }
        };
        told.ok_or_else(|| Failure::missing(field()))
    }

    /// What tells the company, if something does.
    pub(super) fn tenant_field(&self) -> Option<String> {
        match self.tenant.as_ref()? {
            Selector::Pointer(pointer) => Some(pointer.clone()),
            Selector::Header(name) => Some(format!("header:{name}")),
            Selector::Constant(constant) => Some(format!("const:{constant}")),
        }
    }

    /// What an event changes in the books.
    ///
    /// # Errors
    /// [`Failure`] that names the field.
    pub(super) fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        // Other AMQP producers may leave the topic out, or send another.
        if !matches!(envelope.topic.as_str(), TOPIC | "") {
            return Ok(Mapped::Ignored);
        }
        let bill = self.read(&envelope.body).map_err(first)?;
        let told_apart = matches!(self.tenant, Some(Selector::Pointer(_) | Selector::Header(_)));
        if told_apart && envelope.tenant.is_empty() {
            // Only another AMQP producer can have left it out.
            return Err(Failure::missing("x-tallyhook-tenant"));
        }
        let word = self.layout.statuses.get(&bill.platform_status);
        Ok(Mapped::from(Invoice {
            document_id: None,
            status: InvoiceStatus::from_word(word.unwrap_or(&bill.platform_status)),
            vendor: bill.vendor,
            invoice_number: bill.invoice_number,
            transaction_id: bill.transaction_id,
            platform_status: bill.platform_status,
            total: bill.total,
            due_on: bill.due_on,
            sequence: 0,
            version: bill.version.or(envelope.version).unwrap_or(envelope.received_at),
        }))
    }

    /// The number, where it can be read.
    pub(super) fn number(&self, envelope: &Envelope) -> Option<String> {
        let fields = Fields::read(&envelope.body, &self.fields).ok()?;
        name_at(self.layout.invoice_number.as_str(), &fields).ok().flatten()
    }

    /// The header that tells the company, where one does.
    pub(super) fn headers(&self, delivery: &Delivery<'_>) -> Vec<(HeaderName, HeaderValue)> {
        match &self.tenant {
            Some(Selector::Header(name)) => {
                name.parse().ok().zip(delivery.tenant.parse().ok()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What failed first; a body that cannot be read fails at something.
fn first(failures: Vec<Failure>) -> Failure {
    let unread = || Failure::new(Reason::InvalidValue, "the invoice cannot be read");
    failures.into_iter().next().unwrap_or_else(unread)
}

/// The value, if there is one; else its failure is kept.
fn kept<T>(read: Result<T, Failure>, failures: &mut Vec<Failure>) -> Option<T> {
    read.map_err(|failure| failures.push(failure)).ok()
}

/// The name that a pointer leads to.
fn name_at(pointer: &str, fields: &Fields<'_>) -> Result<Option<String>, Failure> {
    fields.text(pointer)?.map_or(Ok(None), |text| checked(&text, pointer))
}

/// A name without the white space around it, which makes no other invoice;
/// `None` if nothing is left.
fn checked(text: &str, field: &str) -> Result<Option<String>, Failure> {
    let text = text.trim();
    if text.len() > LONGEST_NAME {
        return Err(Failure::invalid(field, format!("is longer than {LONGEST_NAME} bytes")));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn name(from: &FieldSource, fields: &Fields<'_>) -> Result<Option<String>, Failure> {
    match from {
        FieldSource::Pointer(pointer) => name_at(pointer, fields),
        FieldSource::Constant(constant) => Ok(Some(constant.clone())),
    }
}

fn required_name(from: &FieldPointer, fields: &Fields<'_>) -> Result<String, Failure> {
    let pointer = from.as_str();
    name_at(pointer, fields)?.ok_or_else(|| Failure::missing(pointer))
}

/// The vendor; empty if none is told and the source may be the vendor.
fn vendor(from: &Layout, fields: &Fields<'_>) -> Result<String, Failure> {
    match name(&from.vendor, fields)? {
        Some(vendor) => Ok(vendor),
        None if from.is_complete => Err(Failure::missing(from.vendor.name())),
        None => Ok(String::new()),
    }
}

/// The currency; [`Currency::NONE`] if none is told, unless the amount means
/// nothing without one.
fn currency(from: &Layout, fields: &Fields<'_>) -> Result<Currency, Failure> {
    match name(&from.currency, fields)? {
        Some(code) => {
            code.parse().map_err(|error| Failure::invalid(from.currency.name(), format!("{error}")))
        }
        None if from.minor_units || from.is_complete => Err(Failure::missing(from.currency.name())),
        None => Ok(Currency::NONE),
    }
}

fn total(from: &Layout, amount: Decimal, currency: Currency) -> Result<Money, Failure> {
    if !from.minor_units {
        return Ok(Money { amount, currency });
    }
    Money::from_minor(amount, currency, currency.minor_digits())
        .map_err(|error| Failure::invalid(from.amount.as_str(), format!("is {error}")))
}
