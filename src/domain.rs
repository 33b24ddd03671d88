//! The model: what an event is, what it changes, and how it can fail.
//! Pure: no input or output, no clock, no randomness, nothing of ours imported.

pub mod change;
pub mod delivery;
pub mod envelope;
pub mod event_key;
pub mod failure;
pub mod import;
pub mod invoice;
pub mod money;
pub mod order;
pub mod outcome;
pub mod reference;
pub mod refund;
pub mod refused_call;
pub mod source_name;

pub use change::{Change, Mapped};
pub use delivery::{DeliveryName, DeliveryState, DocumentEvent};
pub use envelope::Envelope;
pub use event_key::EventKey;
pub use failure::{Failure, Reason};
pub use import::{CsvForm, ImportFormat, ImportItem, ImportNote, ImportState};
pub use invoice::{DeletedInvoice, Invoice, InvoiceConflict, InvoiceStatus};
pub use money::{Currency, Money};
pub use order::{Line, Order, OrderStatus, OrderUpdate};
pub use outcome::{Outcome, Wrote};
pub use reference::Reference;
pub use refund::{Refund, RefundStatus, Refunded};
pub use refused_call::{Head, RefusedCall};
pub use source_name::SourceName;
