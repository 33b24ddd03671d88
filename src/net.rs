//! HTTP building blocks that know nothing about webhooks: the server, the client and its limits,
//! and protection against requests to private networks.

pub mod call_limiter;
mod circuit_breaker;
pub mod http_client;
pub mod http_server;
mod rate_limiter;
pub mod secret_headers;
mod ssrf_guard;
pub mod tls;
pub mod url_template;
