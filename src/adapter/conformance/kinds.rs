//! The rows of the suite, one file a kind.

mod generic;
mod shopify;
mod woocommerce;

use super::kind::Kind;

/// Every row.
pub(super) fn all() -> impl Iterator<Item = &'static Kind> {
    [shopify::ROWS, woocommerce::ROWS, generic::ROWS].into_iter().flatten()
}
