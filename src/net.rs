//! HTTP building blocks without knowledge of webhooks: the server, the client
//! with its limits, and protection against requests to internal addresses.

pub mod call_limiter;
pub(crate) mod circuit_breaker;
pub mod http_client;
pub mod http_server;
pub(crate) mod rate_limiter;
pub(crate) mod resolver;
pub mod secret_headers;
pub(crate) mod ssrf_guard;
pub mod tls;
pub mod url_template;
