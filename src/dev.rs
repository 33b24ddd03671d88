//! Development: private servers.
pub mod servers;
