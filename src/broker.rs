//! RabbitMQ: connections that are re-established, the topology, a publisher
//! that treats a confirm of a returned message as a failure, and consumers.
//!
//! The only module that speaks AMQP. Most of its rules come from tests in
//! which messages were lost; each has its reason beside it.

mod batch;
pub mod connection;
pub mod consumer;
mod event_publisher;
mod message;
pub mod publisher;
mod supervise;
pub mod topology;

pub use batch::{Batch, BatchLimits, MAX_BATCH_BYTES, collect};
pub use connection::{BrokerConnection, BrokerError, check_url};
pub use consumer::{Consumer, Delivery};
pub use event_publisher::{EventPublisher, PublishOutcome};
pub use message::{DeathInfo, IncomingMessage, OutgoingMessage, StoredIdentity};
pub use publisher::{Confirmed, PublishError, Publisher};
pub use supervise::supervise;
pub use topology::Topology;
