//! Callback: robots that post an invoice and wait for its id.
//!
//! The answer is lost now and then, and the robot posts again: it must get
//! the same answer, byte for byte, and there must be one invoice. So the id
//! is derived from what the body says, and never looked up; and the body is
//! checked here, where the robot can still be told what is wrong with it.

mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{
    Answers, Call, Delivery, Event, Platform, Rejection, UNTOLD_RESENDS,
    authentication::Authentication,
    bill::{Bill, Bills, TOPIC},
    mapping::InvalidSettings,
    signature::{Key, Secret, Verified},
};
use crate::domain::{Envelope, Failure, InvoiceConflict, Mapped, SourceName, invoice::invoice_id};
pub use settings::Settings;

/// A source of kind `callback`, its settings checked and its pointers compiled.
pub struct Callback {
    authentication: Authentication,
    on_conflict: InvoiceConflict,
    repeats_same_bytes: bool,
    bills: Bills,
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
        let bills = Bills::new(invoice.into(), tenant)?;
        let authentication = Authentication::new(authentication, signature)?;
        Ok(Self { authentication, on_conflict, repeats_same_bytes, bills })
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

    fn resends_for(&self) -> Duration {
        // As the robot is written.
        UNTOLD_RESENDS
    }

    fn answers(&self) -> Answers {
        Answers::Callback
    }

    fn invoice_conflict(&self) -> InvoiceConflict {
        self.on_conflict
    }

    fn acceptance(&self, source: &SourceName, event: &Event) -> Option<Bytes> {
        let Bill { vendor, invoice_number, .. } = self.bills.read(&event.body).ok()?;
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
        let (tenant, bill) = self.bills.take(call).map_err(Rejection::Invalid)?;
        Ok(vec![Event {
            event_id: bill.id(),
            tenant,
            topic: TOPIC.to_owned(),
            version: None,
            body: call.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        self.bills.map(envelope)
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        self.bills.number(envelope)
    }

    fn tenant_header(&self) -> &'static str {
        "the configured tenant field"
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        self.authentication.sign(delivery, self.bills.headers(delivery), secret)
    }
}
