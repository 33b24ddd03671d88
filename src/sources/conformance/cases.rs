//! The cases of the suite, one file per kind.

mod callback;
mod cloudevents;
mod generic;
mod github;
mod import;
mod quickbooks;
mod shopify;
mod square;
mod standard_webhooks;
mod stripe;
mod woocommerce;
mod xero;

use super::case::Case;

/// All cases.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    [
        shopify::ROWS,
        woocommerce::ROWS,
        stripe::ROWS,
        standard_webhooks::ROWS,
        square::ROWS,
        quickbooks::ROWS,
        xero::ROWS,
        generic::ROWS,
        github::ROWS,
        cloudevents::ROWS,
        callback::ROWS,
        import::ROWS,
    ]
    .into_iter()
    .flatten()
}
