//! What the tests share: servers, the product's parts put together, events, HTTP, and an AMQP
//! client and SQL queries that do not go through the product.

pub(crate) mod amqp;
pub(crate) mod app;
pub(crate) mod backdating;
pub(crate) mod events;
pub(crate) mod http;
pub(crate) mod import_files;
pub(crate) mod mock_accounting;
pub(crate) mod operator;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod servers;
pub(crate) mod start_barrier;

use std::time::{Duration, Instant};

pub(crate) use amqp::RawAmqpClient;
pub(crate) use app::{ERP, SHOP, TestApp, WHSEC, WOO};
pub(crate) use events::{erp_invoice, erp_order, shop_order};
pub(crate) use http::TestServer;
pub(crate) use mock_accounting::MockAccounting;

/// Waits for something that cannot be stepped.
pub(crate) async fn eventually<F>(what: &str, limit: Duration, mut done: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let deadline = Instant::now() + limit;
    while !done().await {
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
