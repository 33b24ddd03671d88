//! Domain types: events, the changes they make, and permanent failures. Pure: no I/O, no
//! clock, no randomness, and no import from another module of this crate.

mod string_enum;

pub mod audit_action;
pub mod change;
pub mod dead_letter;
pub mod delivery;
pub mod envelope;
pub mod event_key;
pub mod failure;
pub mod import;
pub mod invoice;
pub mod money;
pub mod order;
pub mod outcome;
pub mod refund;
pub mod rejected_request;
pub mod resource_change;
pub mod source_name;

pub use audit_action::AuditAction;
pub use change::{Change, MappedEvent};
pub use dead_letter::DeadLetter;
pub use delivery::{DeliveryIdentity, DeliveryState, DocumentEvent};
pub use envelope::{Envelope, TENANT_HEADER};
pub use event_key::EventKey;
pub use failure::{PermanentFailure, ReasonCode};
pub use import::{CsvDialect, ImportFormat, ImportPosition, ImportProgress, ImportState};
pub use invoice::{DeletedInvoice, Invoice, InvoiceConflict, InvoiceStatus};
pub use money::{Currency, Money};
pub use order::{Order, OrderLine, OrderStatus, OrderUpdate};
pub use outcome::{Outcome, WriteKind};
pub use refund::{Refund, RefundStatus, RefundTarget};
pub use rejected_request::{RejectedRequest, RequestHead};
pub use resource_change::ResourceChange;
pub use source_name::SourceName;
pub use string_enum::UnknownWord;
use string_enum::string_enum;
