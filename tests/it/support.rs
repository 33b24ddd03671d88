//! What the tests share: servers, a rig of the product's own parts, events,
//! HTTP, and a second, independent look at the broker and the database.

pub(crate) mod aging;
pub(crate) mod broker;
pub(crate) mod economy;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod proxy;
pub(crate) mod rig;
pub(crate) mod shared;

use std::time::{Duration, Instant};

pub(crate) use broker::Raw;
pub(crate) use economy::Economy;
pub(crate) use events::{erp_invoice, erp_order, shop_order};
pub(crate) use http::Front;
pub(crate) use rig::{ERP, Rig, SHOP, WHSEC, WOO};

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
