//! RabbitMQ: connections that come back by themselves, the topology, a
//! publisher that is never taken in by a confirm, and consumers.
//!
//! The only place that speaks AMQP. Why each thing is done the way it is
//! stands beside it; most of it was found out by losing messages.

pub mod connection;
pub mod consumer;
mod event_publisher;
pub mod message;
pub mod publisher;
pub mod topology;

pub use connection::{BrokerConnection, BrokerError, check_url};
pub use consumer::{Consumer, Delivery};
pub use event_publisher::{EventPublisher, PublishOutcome};
pub use message::{DeathInfo, IncomingMessage, OutgoingMessage};
pub use publisher::{Confirmed, PublishError, Publisher};
pub use topology::Topology;
