//! Import: vendors' invoices out of files, each row or object of which is an
//! event of its own.
//!
//! A file is sent again, whole and corrected: what it says of an invoice tells
//! the events apart, however it is written. So the same line is a duplicate
//! for ever, and a corrected one is an update. Whoever sends it reads the
//! answer, so what is wrong with a line is told at once, field by field, under
//! the names that the settings use.

mod amount;
mod settings;
#[cfg(test)]
mod tests;

use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use time::Duration;

use super::{
    Call, Delivery, Event, Platform, Rejection, UNTOLD_RESENDS,
    authentication::{Authentication, Method},
    bill::{Bill, Bills, TOPIC},
    mapping::InvalidSettings,
    signature::{Key, Secret, Verified},
};
use crate::domain::{CsvForm, Envelope, Failure, ImportFormat, InvoiceConflict, Mapped};
use settings::Names;
pub use settings::{OnChange, Settings};

/// A source of kind `import`, its settings checked and its pointers compiled.
pub struct Import {
    authentication: Authentication,
    on_conflict: InvoiceConflict,
    on_change: OnChange,
    bills: Bills,
    csv: CsvForm,
    /// Where an amount is written with a decimal comma in CSV.
    decimal_comma: Option<String>,
    names: Names,
}

impl Import {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let Settings { authentication, tenant, on_conflict, on_change, invoice, csv } = settings;
        if authentication == Method::Hmac {
            let detail = "\"hmac\" signs a body, and a file is taken while it comes in: use bearer or \
                 basic";
            return Err(InvalidSettings::new("authentication", detail));
        }
        let authentication = Authentication::new(authentication, None)?;
        let columns = invoice.columns(tenant.as_ref());
        let form = CsvForm { delimiter: csv.delimiter()?, columns };
        let decimal_comma = csv.decimal_comma.then(|| invoice.amount.pointer().to_owned());
        let names = invoice.names();
        let bills = Bills::new(invoice.into(), tenant)?;
        Ok(Self { authentication, on_conflict, on_change, bills, csv: form, decimal_comma, names })
    }

    /// The event that a bill in a call is.
    fn event(&self, call: &Call<'_>) -> Result<Event, Vec<Failure>> {
        let (tenant, bill) = self.bills.take(call).map_err(|failures| self.named(failures))?;
        Ok(Event {
            event_id: self.event_id(&bill),
            tenant,
            topic: TOPIC.to_owned(),
            version: None,
            body: call.body.clone(),
        })
    }

    /// The event that a bill in a row is whose amount has a decimal comma.
    fn event_of_row(&self, call: &Call<'_>, amount: &str) -> Result<Event, Vec<Failure>> {
        match amount::with_point(call.body, amount) {
            Ok(body) => self.event(&Call { body: &body, ..*call }),
            Err(failure) => {
                // It may well be a number with a point; not so the others.
                let others = self.event(call).err().into_iter().flatten();
                let wrong = self.named(vec![failure]);
                let told = |other: &Failure| wrong.iter().all(|own| own.field != other.field);
                Err(others.filter(told).chain(wrong.clone()).collect())
            }
        }
    }

    /// Which invoice it is, and unless changes are duplicates, what is said of
    /// it.
    fn event_id(&self, bill: &Bill) -> String {
        match self.on_change {
            OnChange::Update => format!("{}:{}", bill.id(), meaning(bill)),
            OnChange::Duplicate => bill.id(),
        }
    }

    /// Failures of fields under the names that the settings use.
    fn named(&self, failures: Vec<Failure>) -> Vec<Failure> {
        failures.into_iter().map(|failure| self.names.named(failure)).collect()
    }
}

impl Platform for Import {
    fn kind(&self) -> &'static str {
        "import"
    }

    fn key(&self, text: &str) -> Result<Key, String> {
        self.authentication.key(text)
    }

    /// The same line may stand in two files, written otherwise.
    fn repeats_same_bytes(&self) -> bool {
        false
    }

    fn resends_for(&self) -> std::time::Duration {
        // Whoever has the file may send it at any time. What says the same as
        // long after changes the invoice to what it is.
        UNTOLD_RESENDS
    }

    fn invoice_conflict(&self) -> InvoiceConflict {
        self.on_conflict
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(call, secrets)
    }

    /// One invoice, posted by itself.
    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let event = self.event(verified.call()).map_err(Rejection::Invalid)?;
        Ok(vec![event])
    }

    fn csv(&self) -> Option<&CsvForm> {
        Some(&self.csv)
    }

    fn item(
        &self,
        call: &Call<'_>,
        format: ImportFormat,
        line: u32,
    ) -> Result<Event, Vec<Failure>> {
        let event = match &self.decimal_comma {
            Some(amount) if format == ImportFormat::Csv => self.event_of_row(call, amount),
            _ => self.event(call),
        }?;
        // Of two lines about one invoice the later tells how it is, whichever
        // is worked on first.
        let version = call.received_at + Duration::microseconds(line.into());
        Ok(Event { version: Some(version), ..event })
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        self.bills.map(envelope).map_err(|failure| self.names.named(failure))
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        self.bills.number(envelope)
    }

    fn tenant_header(&self) -> &'static str {
        "the configured tenant field"
    }

    fn tenant_field(&self) -> String {
        self.bills.tenant_field().unwrap_or_else(|| self.tenant_header().to_owned())
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        self.authentication.sign(delivery, self.bills.headers(delivery), secret)
    }
}

/// What a bill says, however it is written: 16 hexadecimal digits.
fn meaning(bill: &Bill) -> String {
    let Bill { vendor, invoice_number, transaction_id, platform_status, total, due_on, version } =
        bill;
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
