//! Callback: robots that post an invoice and wait for its id.
//!
//! The answer is lost now and then, and the robot posts again: it must get
//! the same answer, byte for byte, and there must be one invoice. So the id
//! is derived from what the body says, and never looked up; and the body is
//! checked here, where the robot can still be told what is wrong with it.

mod bill;
mod settings;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{
    Answers, Call, Delivery, Event, Platform, Rejection,
    authentication::Authentication,
    fields::{Fields, Pointers},
    mapping::InvalidSettings,
    selector::Selector,
    signature::{Key, Secret, Verified},
};
use crate::domain::{
    Envelope, Failure, Invoice, InvoiceConflict, InvoiceStatus, Mapped, Reason, SourceName,
    invoice::invoice_id,
};
use bill::Bill;
use settings::InvoiceSettings;
pub use settings::Settings;

/// What all its events are about.
const TOPIC: &str = "invoice";

/// A source of kind `callback`, its settings checked and its pointers compiled.
pub struct Callback {
    authentication: Authentication,
    tenant: Option<Selector>,
    on_conflict: InvoiceConflict,
    repeats_same_bytes: bool,
    invoice: InvoiceSettings,
    fields: Pointers,
}

impl Callback {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let Settings {
            authentication,
            signature,
            tenant,
            on_conflict,
            repeats_same_bytes,
            invoice,
        } = settings;
        invoice.check()?;
        let authentication = Authentication::new(authentication, signature)?;
        let of_tenant = tenant.as_ref().and_then(Selector::pointer);
        let fields = Pointers::new(invoice.pointers().chain(of_tenant));
        Ok(Self { authentication, tenant, on_conflict, repeats_same_bytes, invoice, fields })
    }

    fn read(&self, body: &[u8]) -> Result<Bill, Vec<Failure>> {
        let fields = Fields::read(body, &self.fields).map_err(|failure| vec![failure])?;
        Bill::read(&self.invoice, &fields)
    }

    /// The company; it must be told where companies are told apart.
    fn tenant(&self, call: &Call<'_>, fields: &Fields<'_>) -> Result<String, Failure> {
        let (told, name) = match &self.tenant {
            None => return Ok(String::new()),
            Some(Selector::Constant(constant)) => return Ok(constant.clone()),
            Some(Selector::Pointer(pointer)) => (bill::name_at(pointer, fields)?, pointer.clone()),
            Some(Selector::Header(name)) => {
                let field = format!("header:{name}");
                (bill::checked(call.header(name).unwrap_or_default(), &field)?, field)
            }
        };
        told.ok_or_else(|| Failure::missing(name))
    }
}

impl Platform for Callback {
    fn kind(&self) -> &'static str {
        "callback"
    }

    fn key(&self, text: &str) -> Result<Key, String> {
        self.authentication.key(text)
    }

    fn repeats_same_bytes(&self) -> bool {
        self.repeats_same_bytes
    }

    fn answers(&self) -> Answers {
        Answers::Callback
    }

    fn invoice_conflict(&self) -> InvoiceConflict {
        self.on_conflict
    }

    fn acceptance(&self, source: &SourceName, event: &Event) -> Option<Bytes> {
        let Bill { vendor, invoice_number, .. } = self.read(&event.body).ok()?;
        let id = invoice_id(source, &event.tenant, &vendor, &invoice_number, 0);
        let body =
            format!(r#"{{"status":"success","invoiceId":"{id}","message":"Invoice processed"}}"#);
        Some(Bytes::from(body))
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(call, secrets)
    }

    /// One invoice, checked whole: what the worker would bury is refused here.
    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.call();
        let fields = Fields::read(call.body, &self.fields)
            .map_err(|failure| Rejection::Invalid(vec![failure]))?;
        let (tenant, bill) = match (self.tenant(call, &fields), Bill::read(&self.invoice, &fields))
        {
            (Ok(tenant), Ok(bill)) => (tenant, bill),
            (tenant, bill) => {
                let failures = bill.err().into_iter().flatten().chain(tenant.err());
                return Err(Rejection::Invalid(failures.collect()));
            }
        };
        Ok(vec![Event {
            event_id: event_id(&bill),
            tenant,
            topic: TOPIC.to_owned(),
            version: None,
            body: call.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
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
        let word = self.invoice.statuses.get(&bill.platform_status);
        Ok(Mapped::from(Invoice {
            document_id: None,
            status: InvoiceStatus::from_word(word.unwrap_or(&bill.platform_status)),
            vendor: bill.vendor,
            invoice_number: bill.invoice_number,
            transaction_id: Some(bill.transaction_id),
            platform_status: bill.platform_status,
            total: bill.total,
            due_on: bill.due_on,
            sequence: 0,
            version: bill.version.or(envelope.version).unwrap_or(envelope.received_at),
        }))
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        let fields = Fields::read(&envelope.body, &self.fields).ok()?;
        bill::name_at(self.invoice.invoice_number.as_str(), &fields).ok().flatten()
    }

    fn tenant_header(&self) -> &'static str {
        "the configured tenant field"
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        let dressed = match &self.tenant {
            Some(Selector::Header(name)) => {
                name.parse().ok().zip(delivery.tenant.parse().ok()).into_iter().collect()
            }
            _ => Vec::new(),
        };
        self.authentication.sign(delivery, dressed, secret)
    }
}

/// What failed first; a body that cannot be read fails at something.
fn first(failures: Vec<Failure>) -> Failure {
    let unread = || Failure::new(Reason::InvalidValue, "the invoice cannot be read");
    failures.into_iter().next().unwrap_or_else(unread)
}

/// Vendor (if one is told), number and transaction, so written that no others
/// share the text.
fn event_id(bill: &Bill) -> String {
    let escaped = |part: &str| part.replace('\\', r"\\").replace(':', r"\:");
    let parts = [&bill.vendor, &bill.invoice_number, &bill.transaction_id];
    let told = parts.into_iter().filter(|part| !part.is_empty());
    told.map(|part| escaped(part)).collect::<Vec<_>>().join(":")
}
