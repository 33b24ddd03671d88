//! Import: vendors' invoices in files, in which each row or object is an event.
//!
//! A file may be sent again, corrected. The content of an invoice identifies the event,
//! however it is formatted: an unchanged line is a duplicate, and a corrected one is an
//! update. All invalid fields of a line are reported at once, under the names that the
//! settings use.

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

/// A source of kind `import`; its pointers are compiled.
pub struct ImportSource {
    authentication: Authentication,
    on_conflict: InvoiceConflict,
    on_change: OnChange,
    payloads: InvoicePayloads,
    csv_dialect: CsvDialect,
    /// Pointer to an amount with a decimal comma in CSV.
    decimal_comma_pointer: Option<String>,
    field_names: FieldNames,
}

impl ImportSource {
    /// Validates the settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn new(settings: ImportSettings) -> Result<Self, InvalidSettings> {
        let ImportSettings { authentication, tenant, on_conflict, on_change, invoice, csv } =
            settings;
        if authentication == AuthenticationMethod::Hmac {
            let detail = "\"hmac\" signs a body, but a file is processed while it is uploaded; use bearer or \
                 basic";
            return Err(InvalidSettings::new("authentication", detail));
        }
        let authentication = Authentication::new(authentication, None)?;
        let columns = invoice.required_columns(tenant.as_ref());
        let csv_dialect = CsvDialect { delimiter: csv.delimiter()?, required_columns: columns };
        let decimal_comma = csv.decimal_comma.then(|| invoice.amount.pointer().to_owned());
        let names = invoice.field_names();
        let payloads = InvoicePayloads::new(invoice.into(), tenant)?;
        Ok(Self {
            authentication,
            on_conflict,
            on_change,
            payloads,
            csv_dialect,
            decimal_comma_pointer: decimal_comma,
            field_names: names,
        })
    }

    /// The event of an invoice in a request.
    fn event(&self, request: &WebhookRequest<'_>) -> Result<Event, Vec<PermanentFailure>> {
        let (tenant, payload) = self
            .payloads
            .read_with_tenant(request)
            .map_err(|failures| self.with_setting_names(failures))?;
        Ok(Event {
            event_id: self.event_id(&payload),
            tenant,
            topic: INVOICE_TOPIC.to_owned(),
            version: None,
            body: request.body.clone(),
        })
    }

    /// The event of a row whose amount has a decimal comma.
    fn event_with_decimal_comma(
        &self,
        request: &WebhookRequest<'_>,
        amount: &str,
    ) -> Result<Event, Vec<PermanentFailure>> {
        match decimal_comma::parse_decimal_comma(request.body, amount) {
            Ok(body) => self.event(&WebhookRequest { body: &body, ..*request }),
            Err(failure) => {
                // Report the other invalid fields too, but not the amount twice.
                let others = self.event(request).err().into_iter().flatten();
                let renamed = self.with_setting_names(vec![failure]);
                let is_other = |other: &PermanentFailure| {
                    renamed.iter().all(|invalid| invalid.field != other.field)
                };
                Err(others.filter(is_other).chain(renamed.clone()).collect())
            }
        }
    }

    /// The identity of the invoice and, unless changes are duplicates, a digest of its
    /// content.
    fn event_id(&self, payload: &InvoicePayload) -> String {
        match self.on_change {
            OnChange::Update => format!("{}:{}", payload.identity(), content_digest(payload)),
            OnChange::Duplicate => payload.identity(),
        }
    }

    /// Renames the fields of failures to the names that the settings use.
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

    /// The same line may be in two files, formatted differently.
    fn redelivers_identical_body(&self) -> bool {
        false
    }

    fn redelivery_window(&self) -> std::time::Duration {
        // A file may be sent again at any time. After the window, an unchanged line sets
        // the invoice to the state that it already has.
        DEFAULT_REDELIVERY_WINDOW
    }

    fn invoice_conflict(&self) -> InvoiceConflict {
        self.on_conflict
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(request, secrets)
    }

    /// One invoice, posted as a single request.
    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let event = self.event(verified.request()).map_err(Rejection::InvalidFields)?;
        Ok(vec![event])
    }

    fn csv_dialect(&self) -> Option<&CsvDialect> {
        Some(&self.csv_dialect)
    }

    fn import_event(
        &self,
        request: &WebhookRequest<'_>,
        format: ImportFormat,
        line: u32,
    ) -> Result<Event, Vec<PermanentFailure>> {
        let event = match &self.decimal_comma_pointer {
            Some(amount) if format == ImportFormat::Csv => {
                self.event_with_decimal_comma(request, amount)
            }
            _ => self.event(request),
        }?;
        // Of two lines about one invoice, the later one wins, in whatever order they are
        // processed.
        let version = request.received_at + Duration::microseconds(line.into());
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
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        self.authentication.sign(webhook, self.payloads.tenant_headers(webhook), secret)
    }
}

/// A digest of an invoice's content, independent of its formatting: 16 hexadecimal digits.
fn content_digest(payload: &InvoicePayload) -> String {
    let InvoicePayload {
        vendor,
        invoice_number,
        transaction_id,
        platform_status,
        total,
        due_on,
        version,
    } = payload;
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
