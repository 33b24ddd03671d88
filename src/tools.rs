//! Development tools in the binary: private servers, a webhook sender and the
//! benchmark. The service imports none of them.

pub mod bench;
pub mod dev;
pub mod send;
