//! Invoices, idempotency keys, and the response stored for each key.

use std::collections::{BTreeMap, HashMap};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An invoice as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invoice {
    /// `INV-000001` and so on; never reused.
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) draft: Draft,
}

/// The fields of an invoice that a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub(crate) vendor: String,
    /// The vendor's invoice number.
    pub(crate) number: String,
    pub(crate) amount: Decimal,
    /// ISO 4217.
    pub(crate) currency: String,
    /// ISO 8601 date.
    pub(crate) due: Option<String>,
}

/// One line of the log; all state changes are log entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WalEntry {
    /// A create request arrived with an idempotency key.
    Called { key: String },
    /// An invoice was created.
    Created {
        key: Option<String>,
        request: String,
        /// The response body.
        answer: String,
        invoice: Invoice,
    },
    /// An invoice was deleted.
    Deleted { id: String },
}

/// The result of a create request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CreateResult {
    /// The invoice is new.
    New {
        /// To append and apply.
        entry: Box<WalEntry>,
        /// The response body.
        answer: String,
    },
    /// The key was used before: the stored response.
    Replay(String),
    /// The key was used with another body.
    KeyReused,
    /// The vendor's invoice number exists under this id.
    AlreadyExists(String),
}

/// Requests and created invoices per idempotency key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Calls {
    /// Number of create requests.
    pub(crate) arrived: u32,
    /// Ids of created invoices; at most one.
    pub(crate) created: Vec<String>,
}

#[derive(Debug)]
struct StoredResponse {
    request: String,
    answer: String,
}

/// The state that the log's entries add up to.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Without the deleted ones.
    invoices: BTreeMap<String, Invoice>,
    /// The ids by vendor and number. More than one only where duplicates pass.
    numbers: HashMap<(String, String), Vec<String>>,
    /// Never removed: a deleted invoice keeps its stored response.
    answers: HashMap<String, StoredResponse>,
    calls: BTreeMap<String, Calls>,
    /// Invoices created so far, deleted ones included.
    count: u64,
}

impl State {
    /// Decides a create request without changing the state.
    pub(crate) fn check_create(
        &self,
        key: Option<&str>,
        request: &str,
        draft: Draft,
        duplicates_pass: bool,
    ) -> CreateResult {
        if let Some(remembered) = key.and_then(|key| self.answers.get(key)) {
            return if remembered.request == request {
                CreateResult::Replay(remembered.answer.clone())
            } else {
                CreateResult::KeyReused
            };
        }
        if !duplicates_pass && let Some(there) = self.find(&draft.vendor, &draft.number).next() {
            return CreateResult::AlreadyExists(there.id.clone());
        }
        let invoice = Invoice { id: format!("INV-{:06}", self.count + 1), draft };
        let answer = serde_json::json!(invoice).to_string();
        let entry = WalEntry::Created {
            key: key.map(str::to_owned),
            request: request.to_owned(),
            answer: answer.clone(),
            invoice,
        };
        CreateResult::New { entry: Box::new(entry), answer }
    }

    pub(crate) fn apply(&mut self, entry: WalEntry) {
        match entry {
            WalEntry::Called { key } => self.calls.entry(key).or_default().arrived += 1,
            WalEntry::Created { key, request, answer, invoice } => {
                self.count += 1;
                let id = invoice.id.clone();
                if let Some(key) = key {
                    self.calls.entry(key.clone()).or_default().created.push(id.clone());
                    self.answers.insert(key, StoredResponse { request, answer });
                }
                let Draft { vendor, number, .. } = &invoice.draft;
                let number = (vendor.clone(), number.clone());
                self.numbers.entry(number).or_default().push(id.clone());
                self.invoices.insert(id, invoice);
            }
            WalEntry::Deleted { id } => {
                if let Some(Invoice { draft, .. }) = self.invoices.remove(&id)
                    && let Some(ids) = self.numbers.get_mut(&(draft.vendor, draft.number))
                {
                    ids.retain(|other| *other != id);
                }
            }
        }
    }

    /// The invoices of a vendor with this number, without the deleted ones.
    pub(crate) fn find(&self, vendor: &str, number: &str) -> impl Iterator<Item = &Invoice> {
        let ids = self.numbers.get(&(vendor.to_owned(), number.to_owned()));
        ids.into_iter().flatten().filter_map(|id| self.invoices.get(id))
    }

    /// All invoices but the deleted ones, the oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Invoice> {
        self.invoices.values()
    }

    /// The invoice with this id, unless it was deleted.
    pub(crate) fn get(&self, id: &str) -> Option<&Invoice> {
        self.invoices.get(id)
    }

    pub(crate) fn calls(&self) -> &BTreeMap<String, Calls> {
        &self.calls
    }
}

/// A create request's body; missing fields are reported by [`Draft::read`].
#[derive(Deserialize)]
struct Body<'a> {
    vendor: Option<String>,
    number: Option<String>,
    // A string or a number, parsed without a float.
    #[serde(borrow)]
    amount: Option<&'a RawValue>,
    currency: Option<String>,
    due: Option<String>,
}

impl Draft {
    /// Reads a create request's body; the error lists everything that is wrong with it.
    pub(crate) fn read(body: &str) -> Result<Self, String> {
        let Body { vendor, number, amount, currency, due } =
            serde_json::from_str(body).map_err(|error| error.to_string())?;
        let mut wrong = Vec::new();
        let mut text = |name: &str, value: Option<String>| {
            let value = value.unwrap_or_default();
            if value.trim().is_empty() {
                wrong.push(format!("{name} is missing"));
            }
            value
        };
        let (vendor, number, currency) =
            (text("vendor", vendor), text("number", number), text("currency", currency));
        let written = amount.map_or("", RawValue::get).trim_matches('"');
        let amount = written.parse::<Decimal>().ok();
        if amount.is_none() {
            wrong.push("amount is not a decimal number".to_owned());
        }
        if !currency.is_empty()
            && (currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            wrong.push("currency is not an ISO 4217 code".to_owned());
        }
        let date = time::macros::format_description!("[year]-[month]-[day]");
        if due.as_ref().is_some_and(|due| time::Date::parse(due, date).is_err()) {
            wrong.push("due is not an ISO 8601 date".to_owned());
        }
        match amount {
            Some(amount) if wrong.is_empty() => Ok(Self { vendor, number, amount, currency, due }),
            _ => Err(wrong.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::*;

    const ONE: &str = r#"{"vendor":"ACME","number":"1","amount":"12.50","currency":"EUR"}"#;

    /// Executes a create request.
    fn create(state: &mut State, key: &str, body: &str) -> Result<String, CreateResult> {
        match state.check_create(Some(key), body, Draft::read(body).unwrap(), false) {
            CreateResult::New { entry, .. } => {
                let WalEntry::Created { invoice, .. } = &*entry else { unreachable!() };
                let id = invoice.id.clone();
                state.apply(*entry);
                Ok(id)
            }
            other => Err(other),
        }
    }

    #[test]
    fn key_reuse_replays_the_stored_response() {
        let mut state = State::default();
        assert_eq!(create(&mut state, "a", ONE).unwrap(), "INV-000001");
        let Err(CreateResult::Replay(answer)) = create(&mut state, "a", ONE) else {
            unreachable!()
        };
        assert!(answer.contains("INV-000001"), "{answer}");
        state.apply(WalEntry::Deleted { id: "INV-000001".to_owned() });
        assert_eq!(create(&mut state, "a", ONE), Err(CreateResult::Replay(answer)));
        assert_eq!(state.find("ACME", "1").count(), 0);
        let other = ONE.replace("12.50", "12.5");
        assert_eq!(create(&mut state, "a", &other), Err(CreateResult::KeyReused));
    }

    #[test]
    fn invoice_number_is_unique_until_deleted() {
        let mut state = State::default();
        create(&mut state, "a", ONE).unwrap();
        assert_eq!(
            create(&mut state, "b", ONE),
            Err(CreateResult::AlreadyExists("INV-000001".to_owned()))
        );
        // Another vendor may use the same number.
        create(&mut state, "c", &ONE.replace("ACME", "Other")).unwrap();
        state.apply(WalEntry::Deleted { id: "INV-000001".to_owned() });
        // Ids of deleted invoices are not reused.
        assert_eq!(create(&mut state, "b", ONE).unwrap(), "INV-000003");
        assert_eq!(state.all().count(), 2);
    }

    #[test]
    fn duplicates_pass_creates_second_invoice() {
        let mut state = State::default();
        for key in ["a", "b"] {
            let draft = Draft::read(ONE).unwrap();
            let CreateResult::New { entry, .. } = state.check_create(Some(key), ONE, draft, true)
            else {
                unreachable!()
            };
            state.apply(*entry);
        }
        assert_eq!(state.find("ACME", "1").count(), 2);
    }

    #[test]
    fn create_invalid_body_lists_every_error() {
        let error =
            Draft::read(r#"{"vendor":" ","amount":"x","currency":"euro","due":"2026-02-30"}"#)
                .unwrap_err();
        for word in ["vendor", "number", "amount", "currency", "due"] {
            assert!(error.contains(word), "{word} is not in {error:?}");
        }
        Draft::read("[]").unwrap_err();
        Draft::read("{").unwrap_err();
    }

    #[test]
    fn amount_text_or_number_keeps_digits() {
        for written in ["0.1", "\"0.1\"", "-7", "12345678901234567890.12"] {
            let body = ONE.replace("\"12.50\"", written);
            let amount = Draft::read(&body).unwrap().amount;
            assert_eq!(amount.to_string(), written.trim_matches('"'));
        }
    }
}
