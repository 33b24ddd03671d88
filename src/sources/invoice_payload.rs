//! Complete invoices in a body: of callback sources and of imported files. All invalid
//! fields are reported at once, so that the sender can correct them together.

mod field_map;

use http::{HeaderName, HeaderValue};
use rust_decimal::Decimal;
use time::{Date, OffsetDateTime};

use super::{
    OutgoingWebhook, WebhookRequest,
    json_fields::{JsonFields, JsonPointers},
    mapping::InvalidSettings,
    selector::{FieldPointer, FieldSource, Selector},
};
use crate::domain::{
    Currency, Envelope, Invoice, InvoiceStatus, MappedEvent, Money, PermanentFailure, ReasonCode,
    TENANT_HEADER,
};
pub(super) use field_map::FieldMap;

/// The topic of all invoice events.
pub(super) const INVOICE_TOPIC: &str = "invoice";

/// Maximum length of a name, number or id in bytes. PostgreSQL could not index longer ones.
const MAX_NAME_BYTES: usize = 255;

/// An invoice, as a body contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvoicePayload {
    /// Empty if the source is the vendor.
    pub(super) vendor: String,
    pub(super) invoice_number: String,
    /// Present if the field map names a field for it.
    pub(super) transaction_id: Option<String>,
    pub(super) platform_status: String,
    pub(super) total: Money,
    pub(super) due_on: Option<Date>,
    pub(super) version: Option<OffsetDateTime>,
}

impl InvoicePayload {
    /// Reads an invoice.
    ///
    /// # Errors
    /// One failure per invalid field.
    fn read(from: &FieldMap, fields: &JsonFields<'_>) -> Result<Self, Vec<PermanentFailure>> {
        let mut failures = Vec::new();
        let invoice_number =
            ok_or_record(required_name(&from.invoice_number, fields), &mut failures);
        let transaction_id = match &from.transaction_id {
            Some(transaction) => {
                ok_or_record(required_name(transaction, fields), &mut failures).map(Some)
            }
            None => Some(None),
        };
        let vendor = ok_or_record(vendor(from, fields), &mut failures);
        let amount = fields.required_decimal(from.amount.as_str());
        let amount = ok_or_record(amount, &mut failures);
        let currency = ok_or_record(currency(from, fields), &mut failures);
        let due_on = ok_or_record(fields.date(from.due_on.as_str()), &mut failures);
        let platform_status = match &from.status {
            Some(status) => ok_or_record(optional_name(status, fields), &mut failures),
            None => Some(None),
        };
        let version = match &from.version {
            Some(version) => ok_or_record(fields.timestamp(version.as_str()), &mut failures),
            None => Some(None),
        };
        let total = amount.zip(currency).and_then(|(amount, currency)| {
            ok_or_record(total(from, amount, currency), &mut failures)
        });
        // A missing value has recorded its failure.
        let payload = || {
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
        payload().ok_or(failures)
    }

    /// Vendor, number and transaction, as far as given, escaped so that different invoices
    /// have different texts.
    pub(super) fn identity(&self) -> String {
        let escaped = |part: &str| part.replace('\\', r"\\").replace(':', r"\:");
        let Self { vendor, invoice_number, transaction_id, .. } = self;
        let parts = [vendor.as_str(), invoice_number, transaction_id.as_deref().unwrap_or("")];
        let given = parts.into_iter().filter(|part| !part.is_empty());
        given.map(escaped).collect::<Vec<_>>().join(":")
    }
}

/// Reads the invoices of a source: where their fields and their tenant are.
pub(super) struct InvoicePayloads {
    field_map: FieldMap,
    tenant: Option<Selector>,
    pointers: JsonPointers,
}

impl InvoicePayloads {
    /// Validates the settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub(super) fn new(
        field_map: FieldMap,
        tenant: Option<Selector>,
    ) -> Result<Self, InvalidSettings> {
        field_map.check()?;
        let tenant_pointer = tenant.as_ref().and_then(Selector::pointer);
        let pointers = JsonPointers::new(field_map.pointers().chain(tenant_pointer));
        Ok(Self { field_map, tenant, pointers })
    }

    /// Reads the invoice in a body.
    ///
    /// # Errors
    /// One failure per invalid field.
    pub(super) fn read(&self, body: &[u8]) -> Result<InvoicePayload, Vec<PermanentFailure>> {
        let fields = JsonFields::read(body, &self.pointers).map_err(|failure| vec![failure])?;
        InvoicePayload::read(&self.field_map, &fields)
    }

    /// Reads the tenant and the invoice of a request.
    ///
    /// # Errors
    /// One failure per invalid field.
    pub(super) fn read_with_tenant(
        &self,
        request: &WebhookRequest<'_>,
    ) -> Result<(String, InvoicePayload), Vec<PermanentFailure>> {
        let fields =
            JsonFields::read(request.body, &self.pointers).map_err(|failure| vec![failure])?;
        match (self.tenant(request, &fields), InvoicePayload::read(&self.field_map, &fields)) {
            (Ok(tenant), Ok(payload)) => Ok((tenant, payload)),
            (tenant, payload) => {
                Err(payload.err().into_iter().flatten().chain(tenant.err()).collect())
            }
        }
    }

    /// The tenant; required if the settings select one.
    fn tenant(
        &self,
        request: &WebhookRequest<'_>,
        fields: &JsonFields<'_>,
    ) -> Result<String, PermanentFailure> {
        let field = || self.tenant_location().unwrap_or_default();
        let tenant = match &self.tenant {
            None => return Ok(String::new()),
            Some(Selector::Constant(constant)) => return Ok(constant.clone()),
            Some(Selector::Pointer(pointer)) => name_at(pointer, fields)?,
            Some(Selector::Header(name)) => {
                trimmed_name(request.header(name).unwrap_or_default(), &field())?
            }
        };
        tenant.ok_or_else(|| PermanentFailure::missing(field()))
    }

    /// Where the tenant is, if the settings select one.
    pub(super) fn tenant_location(&self) -> Option<String> {
        match self.tenant.as_ref()? {
            Selector::Pointer(pointer) => Some(pointer.clone()),
            Selector::Header(name) => Some(format!("header:{name}")),
            Selector::Constant(constant) => Some(format!("const:{constant}")),
        }
    }

    /// Maps an event to the change that it makes.
    ///
    /// # Errors
    /// [`PermanentFailure`] with the invalid field.
    pub(super) fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        // Other AMQP producers may omit the topic or send another.
        if !matches!(envelope.topic.as_str(), INVOICE_TOPIC | "") {
            return Ok(MappedEvent::Ignored);
        }
        let payload = self.read(&envelope.body).map_err(first_failure)?;
        let is_required = matches!(self.tenant, Some(Selector::Pointer(_) | Selector::Header(_)));
        if is_required && envelope.tenant.is_empty() {
            // Only another AMQP producer can have omitted it.
            return Err(PermanentFailure::missing(TENANT_HEADER));
        }
        let word = self.field_map.statuses.get(&payload.platform_status);
        Ok(MappedEvent::from(Invoice {
            document_id: None,
            status: InvoiceStatus::parse_or_other(word.unwrap_or(&payload.platform_status)),
            vendor: payload.vendor,
            invoice_number: payload.invoice_number,
            transaction_id: payload.transaction_id,
            platform_status: payload.platform_status,
            total: payload.total,
            due_on: payload.due_on,
            sequence: 0,
            version: payload.version.or(envelope.version).unwrap_or(envelope.received_at),
        }))
    }

    /// The invoice number, if it can be read.
    pub(super) fn business_key(&self, envelope: &Envelope) -> Option<String> {
        let fields = JsonFields::read(&envelope.body, &self.pointers).ok()?;
        name_at(self.field_map.invoice_number.as_str(), &fields).ok().flatten()
    }

    /// The header that carries the tenant, if one does.
    pub(super) fn tenant_headers(
        &self,
        webhook: &OutgoingWebhook<'_>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        match &self.tenant {
            Some(Selector::Header(name)) => {
                name.parse().ok().zip(webhook.tenant.parse().ok()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The first failure; there is at least one.
fn first_failure(failures: Vec<PermanentFailure>) -> PermanentFailure {
    let unread = || PermanentFailure::new(ReasonCode::InvalidValue, "the invoice cannot be read");
    failures.into_iter().next().unwrap_or_else(unread)
}

/// The value; an error is added to the failures.
fn ok_or_record<T>(
    read: Result<T, PermanentFailure>,
    failures: &mut Vec<PermanentFailure>,
) -> Option<T> {
    read.map_err(|failure| failures.push(failure)).ok()
}

/// The name at a pointer.
fn name_at(pointer: &str, fields: &JsonFields<'_>) -> Result<Option<String>, PermanentFailure> {
    fields.text(pointer)?.map_or(Ok(None), |text| trimmed_name(&text, pointer))
}

/// A name without surrounding white space, which does not make it another name; `None` if
/// nothing is left.
fn trimmed_name(text: &str, field: &str) -> Result<Option<String>, PermanentFailure> {
    let text = text.trim();
    if text.len() > MAX_NAME_BYTES {
        return Err(PermanentFailure::invalid(
            field,
            format!("is longer than {MAX_NAME_BYTES} bytes"),
        ));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn optional_name(
    from: &FieldSource,
    fields: &JsonFields<'_>,
) -> Result<Option<String>, PermanentFailure> {
    match from {
        FieldSource::Pointer(pointer) => name_at(pointer, fields),
        FieldSource::Constant(constant) => Ok(Some(constant.clone())),
    }
}

fn required_name(from: &FieldPointer, fields: &JsonFields<'_>) -> Result<String, PermanentFailure> {
    let pointer = from.as_str();
    name_at(pointer, fields)?.ok_or_else(|| PermanentFailure::missing(pointer))
}

/// The vendor; empty if the body has none and the source may be the vendor.
fn vendor(from: &FieldMap, fields: &JsonFields<'_>) -> Result<String, PermanentFailure> {
    match optional_name(&from.vendor, fields)? {
        Some(vendor) => Ok(vendor),
        None if from.requires_vendor_and_currency => {
            Err(PermanentFailure::missing(from.vendor.label()))
        }
        None => Ok(String::new()),
    }
}

/// The currency; [`Currency::NONE`] if the body has none, unless the amount needs one.
fn currency(from: &FieldMap, fields: &JsonFields<'_>) -> Result<Currency, PermanentFailure> {
    match optional_name(&from.currency, fields)? {
        Some(code) => code
            .parse()
            .map_err(|error| PermanentFailure::invalid(from.currency.label(), format!("{error}"))),
        None if from.minor_units || from.requires_vendor_and_currency => {
            Err(PermanentFailure::missing(from.currency.label()))
        }
        None => Ok(Currency::NONE),
    }
}

fn total(from: &FieldMap, amount: Decimal, currency: Currency) -> Result<Money, PermanentFailure> {
    if !from.minor_units {
        return Ok(Money { amount, currency });
    }
    Money::from_minor_units(amount, currency, currency.minor_digits())
        .map_err(|error| PermanentFailure::invalid(from.amount.as_str(), format!("is {error}")))
}
