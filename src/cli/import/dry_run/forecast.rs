//! What the worker would make of lines, one after the other: it knows what
//! the database knows, and what the lines before have told.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Books, lines::ParsedEvent};
use crate::{
    cli::import::api::ItemOutcome,
    domain::{Invoice, InvoiceConflict, Outcome, WriteKind},
    store::invoices::ExistingInvoice,
};

/// What the lines so far would have done.
pub(super) struct Forecast {
    on_conflict: InvoiceConflict,
    /// Keys that would be settled.
    settled: HashSet<Uuid>,
    /// Invoices as they would stand.
    invoices: HashMap<Uuid, ExistingInvoice>,
}

/// What would become of one line.
enum Fate {
    Applied(WriteKind),
    Other(Outcome),
    Failed(Outcome, String),
}

impl Forecast {
    /// Nothing was read yet.
    pub(super) fn new(on_conflict: InvoiceConflict) -> Self {
        Self { on_conflict, settled: HashSet::new(), invoices: HashMap::new() }
    }

    /// What would become of a line, behind those told before.
    pub(super) fn tell(
        &mut self,
        line: u32,
        event: Result<ParsedEvent, String>,
        books: &Books,
    ) -> ItemOutcome {
        let number = event.as_ref().ok().and_then(|event| event.number.clone());
        let fate = match event {
            Ok(event) => self.fate(event, books),
            Err(error) => Fate::Failed(Outcome::Rejected, error),
        };
        let (outcome, write_kind, error) = match fate {
            Fate::Applied(wrote) => (Outcome::Applied, Some(wrote), None),
            Fate::Other(outcome) => (outcome, None, None),
            Fate::Failed(outcome, error) => (outcome, None, Some(error)),
        };
        ItemOutcome {
            line,
            outcome: outcome.as_str().to_owned(),
            write_kind: write_kind.map(|wrote| wrote.as_str().to_owned()),
            business_key: number,
            error,
            receipt_id: None,
            attempts: 0,
        }
    }

    fn fate(&mut self, event: ParsedEvent, books: &Books) -> Fate {
        let ParsedEvent { key, mapped, .. } = event;
        let change = match mapped {
            Ok(change) => change,
            Err(failure) => return Fate::Failed(Outcome::Dead, failure.to_string()),
        };
        if self.settled.contains(&key) || books.settled.contains_key(&key) {
            return Fate::Other(Outcome::Duplicate);
        }
        let fate = match change {
            Some((id, invoice)) => self.invoice(id, &invoice, books),
            None => Fate::Other(Outcome::Ignored),
        };
        // What is dead settles no key: its repeats are dead too.
        if !matches!(fate, Fate::Failed(..)) {
            self.settled.insert(key);
        }
        fate
    }

    fn invoice(&mut self, id: Uuid, invoice: &Invoice, books: &Books) -> Fate {
        let known = self.invoices.get(&id).or_else(|| books.invoices.get(&id));
        let known_transaction = known.and_then(|known| known.transaction_id.clone());
        if let (Some(stands), Some(told)) = (&known_transaction, &invoice.transaction_id)
            && stands != told
        {
            match self.on_conflict {
                InvoiceConflict::Review => {
                    let number = &invoice.invoice_number;
                    return Fate::Failed(
                        Outcome::Dead,
                        format!(
                            "invoice {number} stands with transaction {stands}; this one tells \
                             transaction {told}"
                        ),
                    );
                }
                InvoiceConflict::Duplicate => return Fate::Other(Outcome::Duplicate),
                InvoiceConflict::Update => {}
            }
        }
        let is_stale = known.is_some_and(|known| {
            known.is_deleted
                || (known.sequence, known.version) > (invoice.sequence, invoice.version)
        });
        if is_stale {
            return Fate::Other(Outcome::Stale);
        }
        let wrote = if known.is_some() { WriteKind::Updated } else { WriteKind::Created };
        let stands = ExistingInvoice {
            transaction_id: invoice.transaction_id.clone().or(known_transaction),
            sequence: invoice.sequence,
            version: invoice.version,
            is_deleted: false,
        };
        self.invoices.insert(id, stands);
        Fate::Applied(wrote)
    }
}
