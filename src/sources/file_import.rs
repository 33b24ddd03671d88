//! Import: vendors' invoices out of files, each row or object of which is an
//! event of its own.
//!
//! A file is sent again, whole and corrected: what it says of an invoice tells
//! the events apart, however it is written. So the same line is a duplicate
//! for ever, and a corrected one is an update. Whoever sends it reads the
//! answer, so what is wrong with a line is told at once, field by field, under
//! the names that the settings use.

mod decimal_comma;
mod settings;
#[cfg(test)]
mod tests;

use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use time::Duration;

use super::{
    DEFAULT_REDELIVERY_WINDOW, Event, OutgoingWebhook, Platform, Rejection, WebhookRequest,
    authentication::{Authentication, AuthenticationMethod},
    invoice_payload::{INVOICE_TOPIC, InvoicePayload, InvoicePayloads},
    mapping::InvalidSettings,
    signature::{Key, Secret, Verified},
};
use crate::domain::{
    CsvDialect, Envelope, ImportFormat, InvoiceConflict, MappedEvent, PermanentFailure,
};
use settings::FieldNames;
pub use settings::{ImportSettings, OnChange};

/// A source of kind `import`, its settings checked and its pointers compiled.
pub struct ImportSource {
    authentication: Authentication,
    on_conflict: InvoiceConflict,
    on_change: OnChange,
    payloads: InvoicePayloads,
    csv_dialect: CsvDialect,
    /// Where an amount is written with a decimal comma in CSV.
    decimal_comma_pointer: Option<String>,
    field_names: FieldNames,
}

impl ImportSource {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: ImportSettings) -> Result<Self, InvalidSettings> {
        let ImportSettings { authentication, tenant, on_conflict, on_change, invoice, csv } =
            settings;
        if authentication == AuthenticationMethod::Hmac {
            let detail = "\"hmac\" signs a body, and a file is taken while it comes in: use bearer or \
                 basic";
            return Err(InvalidSettings::new("authentication", detail));
        }
        let authentication = Authentication::new(authentication, None)?;
        let columns = invoice.required_columns(tenant.as_ref());
        let form = CsvDialect { delimiter: csv.delimiter()?, required_columns: columns };
        let decimal_comma = csv.decimal_comma.then(|| invoice.amount.pointer().to_owned());
        let names = invoice.field_names();
        let bills = InvoicePayloads::new(invoice.into(), tenant)?;
        Ok(Self {
            authentication,
            on_conflict,
            on_change,
            payloads: bills,
            csv_dialect: form,
            decimal_comma_pointer: decimal_comma,
            field_names: names,
        })
    }

    /// The event that a bill in a call is.
    fn event(&self, call: &WebhookRequest<'_>) -> Result<Event, Vec<PermanentFailure>> {
        let (tenant, bill) = self
            .payloads
            .read_with_tenant(call)
            .map_err(|failures| self.with_setting_names(failures))?;
        Ok(Event {
            event_id: self.event_id(&bill),
            tenant,
            topic: INVOICE_TOPIC.to_owned(),
            version: None,
            body: call.body.clone(),
        })
    }

    /// The event that a bill in a row is whose amount has a decimal comma.
    fn event_with_decimal_comma(
        &self,
        call: &WebhookRequest<'_>,
        amount: &str,
    ) -> Result<Event, Vec<PermanentFailure>> {
        match decimal_comma::parse_decimal_comma(call.body, amount) {
            Ok(body) => self.event(&WebhookRequest { body: &body, ..*call }),
            Err(failure) => {
                // It may well be a number with a point; not so the others.
                let others = self.event(call).err().into_iter().flatten();
                let wrong = self.with_setting_names(vec![failure]);
                let told =
                    |other: &PermanentFailure| wrong.iter().all(|own| own.field != other.field);
                Err(others.filter(told).chain(wrong.clone()).collect())
            }
        }
    }

    /// Which invoice it is, and unless changes are duplicates, what is said of
    /// it.
    fn event_id(&self, bill: &InvoicePayload) -> String {
        match self.on_change {
            OnChange::Update => format!("{}:{}", bill.identity(), content_digest(bill)),
            OnChange::Duplicate => bill.identity(),
        }
    }

    /// Failures of fields under the names that the settings use.
    fn with_setting_names(&self, failures: Vec<PermanentFailure>) -> Vec<PermanentFailure> {
        failures.into_iter().map(|failure| self.field_names.renamed(failure)).collect()
    }
}

impl Platform for ImportSource {
    fn kind(&self) -> &'static str {
        "import"
    }

    fn parse_key(&self, text: &str) -> Result<Key, String> {
        self.authentication.parse_key(text)
    }

    /// The same line may stand in two files, written otherwise.
    fn redelivers_identical_body(&self) -> bool {
        false
    }

    fn redelivery_window(&self) -> std::time::Duration {
        // Whoever has the file may send it at any time. What says the same as
        // long after changes the invoice to what it is.
        DEFAULT_REDELIVERY_WINDOW
    }

    fn invoice_conflict(&self) -> InvoiceConflict {
        self.on_conflict
    }

    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(call, secrets)
    }

    /// One invoice, posted by itself.
    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let event = self.event(verified.request()).map_err(Rejection::InvalidFields)?;
        Ok(vec![event])
    }

    fn csv_dialect(&self) -> Option<&CsvDialect> {
        Some(&self.csv_dialect)
    }

    fn import_event(
        &self,
        call: &WebhookRequest<'_>,
        format: ImportFormat,
        line: u32,
    ) -> Result<Event, Vec<PermanentFailure>> {
        let event = match &self.decimal_comma_pointer {
            Some(amount) if format == ImportFormat::Csv => {
                self.event_with_decimal_comma(call, amount)
            }
            _ => self.event(call),
        }?;
        // Of two lines about one invoice the later tells how it is, whichever
        // is worked on first.
        let version = call.received_at + Duration::microseconds(line.into());
        Ok(Event { version: Some(version), ..event })
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        self.payloads.map(envelope).map_err(|failure| self.field_names.renamed(failure))
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        self.payloads.business_key(envelope)
    }

    fn tenant_location(&self) -> &'static str {
        "the configured tenant field"
    }

    fn import_tenant_location(&self) -> String {
        self.payloads.tenant_location().unwrap_or_else(|| self.tenant_location().to_owned())
    }

    fn signed_headers(
        &self,
        delivery: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        self.authentication.sign(delivery, self.payloads.tenant_headers(delivery), secret)
    }
}

/// What a bill says, however it is written: 16 hexadecimal digits.
fn content_digest(bill: &InvoicePayload) -> String {
    let InvoicePayload {
        vendor,
        invoice_number,
        transaction_id,
        platform_status,
        total,
        due_on,
        version,
    } = bill;
    let parts = [
        vendor.clone(),
        invoice_number.clone(),
        transaction_id.clone().unwrap_or_default(),
        platform_status.clone(),
        total.amount.normalize().to_string(),
        total.currency.to_string(),
        due_on.map(|day| day.to_string()).unwrap_or_default(),
        version.map(|version| version.unix_timestamp_nanos().to_string()).unwrap_or_default(),
    ];
    let mut digest = Sha256::new();
    for part in parts {
        // The length in front keeps ("ab", "c") apart from ("a", "bc").
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    data_encoding::HEXLOWER.encode(&digest.finalize()[..8])
}
