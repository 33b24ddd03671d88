//! The books: invoices, keys, and what was answered under each.

use std::collections::{BTreeMap, HashMap};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An invoice, as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invoice {
    /// `INV-000001` and so on; none is given twice.
    pub(crate) id: String,
    /// What it says.
    #[serde(flatten)]
    pub(crate) draft: Draft,
}

/// What a caller says of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draft {
    /// Who sent it.
    pub(crate) vendor: String,
    /// The vendor's number of it.
    pub(crate) number: String,
    /// How much.
    pub(crate) amount: Decimal,
    /// ISO 4217.
    pub(crate) currency: String,
    /// ISO 8601, where it is told.
    pub(crate) due: Option<String>,
}

/// One line of the journal: all that ever changes the books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A call to create something came with a key.
    Called {
        /// The key.
        key: String,
    },
    /// An invoice was created.
    Created {
        /// The key, if the call had one.
        key: Option<String>,
        /// The call's body.
        request: String,
        /// The answer's body.
        answer: String,
        /// What was created.
        invoice: Invoice,
    },
    /// Somebody deleted an invoice.
    Deleted {
        /// Its id.
        id: String,
    },
}

/// What becomes of a call to create an invoice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// It is to be created, by this entry, and answered so.
    New {
        /// For the journal, then for the books.
        entry: Box<Entry>,
        /// The answer's body.
        answer: String,
    },
    /// It was, under this key: the answer that was given then.
    Known(String),
    /// The key stands for another body.
    OtherBody,
    /// The vendor's number is there, with this id.
    Exists(String),
}

/// How often a key came, and what it made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Calls {
    /// How often a call to create something came with it.
    pub(crate) arrived: u32,
    /// The ids of what was created under it: one, at most.
    pub(crate) created: Vec<String>,
}

#[derive(Debug)]
struct Remembered {
    request: String,
    answer: String,
}

/// Everything that the journal tells.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Without the deleted ones.
    invoices: BTreeMap<String, Invoice>,
    /// The ids by vendor and number. More than one only where duplicates pass.
    numbers: HashMap<(String, String), Vec<String>>,
    /// For ever: deleting an invoice forgets no answer.
    answers: HashMap<String, Remembered>,
    calls: BTreeMap<String, Calls>,
    /// How many were ever created.
    count: u64,
}

impl Books {
    /// What a call to create an invoice comes to. Changes nothing.
    pub(crate) fn weigh(
        &self,
        key: Option<&str>,
        request: &str,
        draft: Draft,
        duplicates_pass: bool,
    ) -> Creation {
        if let Some(remembered) = key.and_then(|key| self.answers.get(key)) {
            return if remembered.request == request {
                Creation::Known(remembered.answer.clone())
            } else {
                Creation::OtherBody
            };
        }
        if !duplicates_pass && let Some(there) = self.find(&draft.vendor, &draft.number).next() {
            return Creation::Exists(there.id.clone());
        }
        let invoice = Invoice { id: format!("INV-{:06}", self.count + 1), draft };
        let answer = serde_json::json!(invoice).to_string();
        let entry = Entry::Created {
            key: key.map(str::to_owned),
            request: request.to_owned(),
            answer: answer.clone(),
            invoice,
        };
        Creation::New { entry: Box::new(entry), answer }
    }

    /// Takes in what stands in the journal.
    pub(crate) fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Called { key } => self.calls.entry(key).or_default().arrived += 1,
            Entry::Created { key, request, answer, invoice } => {
                self.count += 1;
                let id = invoice.id.clone();
                if let Some(key) = key {
                    self.calls.entry(key.clone()).or_default().created.push(id.clone());
                    self.answers.insert(key, Remembered { request, answer });
                }
                let Draft { vendor, number, .. } = &invoice.draft;
                let number = (vendor.clone(), number.clone());
                self.numbers.entry(number).or_default().push(id.clone());
                self.invoices.insert(id, invoice);
            }
            Entry::Deleted { id } => {
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

    /// Every key that came.
    pub(crate) fn calls(&self) -> &BTreeMap<String, Calls> {
        &self.calls
    }
}

/// A call's body, read as leniently as it can be complained of.
#[derive(Deserialize)]
struct Body<'a> {
    vendor: Option<String>,
    number: Option<String>,
    // A text or a number; never by way of a float.
    #[serde(borrow)]
    amount: Option<&'a RawValue>,
    currency: Option<String>,
    due: Option<String>,
}

impl Draft {
    /// Reads a call's body.
    ///
    /// # Errors
    /// All that is wrong with it, in words.
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

    /// Carries a call out; the id that was created, or what became of it.
    fn create(books: &mut Books, key: &str, body: &str) -> Result<String, Creation> {
        match books.weigh(Some(key), body, Draft::read(body).unwrap(), false) {
            Creation::New { entry, .. } => {
                let Entry::Created { invoice, .. } = &*entry else { unreachable!() };
                let id = invoice.id.clone();
                books.enter(*entry);
                Ok(id)
            }
            other => Err(other),
        }
    }

    #[test]
    fn a_key_stands_for_one_body_and_its_answer_for_ever() {
        let mut books = Books::default();
        assert_eq!(create(&mut books, "a", ONE).unwrap(), "INV-000001");
        let Err(Creation::Known(answer)) = create(&mut books, "a", ONE) else { unreachable!() };
        assert!(answer.contains("INV-000001"), "{answer}");
        books.enter(Entry::Deleted { id: "INV-000001".to_owned() });
        assert_eq!(create(&mut books, "a", ONE), Err(Creation::Known(answer)));
        assert_eq!(books.find("ACME", "1").count(), 0);
        let other = ONE.replace("12.50", "12.5");
        assert_eq!(create(&mut books, "a", &other), Err(Creation::OtherBody));
    }

    #[test]
    fn a_number_is_taken_until_it_is_deleted() {
        let mut books = Books::default();
        create(&mut books, "a", ONE).unwrap();
        assert_eq!(create(&mut books, "b", ONE), Err(Creation::Exists("INV-000001".to_owned())));
        // Another vendor's is another one.
        create(&mut books, "c", &ONE.replace("ACME", "Other")).unwrap();
        books.enter(Entry::Deleted { id: "INV-000001".to_owned() });
        // The number of a deleted one is never given again.
        assert_eq!(create(&mut books, "b", ONE).unwrap(), "INV-000003");
        assert_eq!(books.all().count(), 2);
    }

    #[test]
    fn duplicates_pass_where_nobody_looks() {
        let mut books = Books::default();
        for key in ["a", "b"] {
            let draft = Draft::read(ONE).unwrap();
            let Creation::New { entry, .. } = books.weigh(Some(key), ONE, draft, true) else {
                unreachable!()
            };
            books.enter(*entry);
        }
        assert_eq!(books.find("ACME", "1").count(), 2);
    }

    #[test]
    fn everything_that_is_wrong_with_a_body_is_told() {
        let told =
            Draft::read(r#"{"vendor":" ","amount":"x","currency":"euro","due":"2026-02-30"}"#)
                .unwrap_err();
        for word in ["vendor", "number", "amount", "currency", "due"] {
            assert!(told.contains(word), "{word} is not in {told:?}");
        }
        Draft::read("[]").unwrap_err();
        Draft::read("{").unwrap_err();
    }

    #[test]
    fn amounts_may_be_texts_or_numbers_and_keep_their_digits() {
        for written in ["0.1", "\"0.1\"", "-7", "12345678901234567890.12"] {
            let body = ONE.replace("\"12.50\"", written);
            let amount = Draft::read(&body).unwrap().amount;
            assert_eq!(amount.to_string(), written.trim_matches('"'));
        }
    }
}
