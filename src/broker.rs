//! RabbitMQ: connections that come back by themselves, the topology, a
//! publisher that is never taken in by a confirm, and consumers.
//!
//! The only place that speaks AMQP. Why each thing is done the way it is
//! stands beside it; most of it was found out by losing messages.

mod announcer;
pub mod connection;
pub mod consumer;
pub mod publisher;
pub mod topology;
pub mod wire;

pub use announcer::{EventPublisher, PublishOutcome};
pub use connection::{BrokerConnection, BrokerError, check_url};
pub use consumer::{Consumer, Delivery};
pub use publisher::{Confirmed, PublishError, Publisher};
pub use topology::Topology;
pub use wire::{DeathInfo, IncomingMessage, OutgoingMessage};
