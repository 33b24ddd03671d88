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
        shopify::CASES,
        woocommerce::CASES,
        stripe::CASES,
        standard_webhooks::CASES,
        square::CASES,
        quickbooks::CASES,
        xero::CASES,
        generic::CASES,
        github::CASES,
        cloudevents::CASES,
        callback::CASES,
        import::CASES,
    ]
    .into_iter()
    .flatten()
}
