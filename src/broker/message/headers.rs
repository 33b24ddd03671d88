//! The AMQP headers and markers of the message contract.
//!
//! Every header that Tallyhook writes or reads is named here. `encode` writes
//! them, `decode` reads them; nothing else spells them out.

/// `app_id` of messages that the receiver took over HTTP.
pub(super) const RECEIVER_APP_ID: &str = "tallyhook-receiver";
/// `type` of a message that reports the progress of an import.
pub(super) const IMPORT_PROGRESS_TYPE: &str = "import";

/// What the names of our own headers start with.
pub(super) const PREFIX: &str = "x-tallyhook-";

// An event in an inbound queue or a retry queue.
pub(super) const SOURCE: &str = "x-tallyhook-source";
pub(super) const TENANT: &str = crate::domain::TENANT_HEADER;
/// The receipt id, a UUID.
pub(super) const RECEIPT: &str = "x-tallyhook-receipt";
/// How many attempts have failed. A header of ours, because RabbitMQ's own
/// counters differ between 3.x and 4.x.
pub(super) const ATTEMPT: &str = "x-tallyhook-attempt";
/// The issue number: 0 until a document is re-issued.
pub(super) const GENERATION: &str = "x-tallyhook-generation";
/// The id of the replay that published the message.
pub(super) const REPLAY: &str = "x-tallyhook-replay";
/// The version for the stale guard, RFC 3339.
pub(super) const VERSION: &str = "x-tallyhook-version";
/// The label of the secret that verified the request.
pub(super) const SECRET: &str = "x-tallyhook-secret";
/// The id of the import that contained the event.
pub(super) const IMPORT: &str = "x-tallyhook-import";
/// The line of the import's file on which the event begins.
pub(super) const LINE: &str = "x-tallyhook-line";
/// When the first attempt failed, RFC 3339.
pub(super) const FIRST_FAILED: &str = "x-tallyhook-first-failed-at";

// A dead letter.
pub(super) const LAST_FAILED: &str = "x-tallyhook-last-failed-at";
/// The reason code.
pub(super) const REASON: &str = "x-tallyhook-reason";
pub(super) const ERROR: &str = "x-tallyhook-error";
pub(super) const BUSINESS_KEY: &str = "x-tallyhook-business-key";

// A rejected request.
/// The HTTP status that answered the request.
pub(super) const STATUS: &str = "x-tallyhook-status";
pub(super) const RECEIVED: &str = "x-tallyhook-received-at";
pub(super) const HTTP_HEADERS: &str = "x-tallyhook-http-headers";
pub(super) const HTTP_QUERY: &str = "x-tallyhook-http-query";
