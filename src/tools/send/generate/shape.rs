//! Shapes of payload: which there are, for which kind of source, and where
//! in a body the fields stand that a poison spoils.

use crate::tools::send::poison::{Anatomy, Poison};

/// A shape of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Shopify's order resource.
    Shopify,
    /// WooCommerce's order.
    WooCommerce,
    /// What the built-in source `erp` is configured for.
    Generic,
    /// What the built-in source `standard_webhooks` is configured for.
    StandardWebhooks,
    /// What the built-in source `cloudevents` is configured for: an event's
    /// data alone.
    CloudEvents,
    /// Stripe's events about invoices and checkout sessions.
    Stripe,
    /// Square's events about invoices.
    Square,
    /// A robot's invoice.
    Callback,
    /// One line of a file of invoices.
    Import,
    /// QuickBooks' events, which only name an invoice or a bill.
    QuickBooks,
    /// Xero's events, which only name an invoice.
    Xero,
    /// BigCommerce's events, which only name an order.
    BigCommerce,
    /// Etsy's events, which only name an order.
    Etsy,
}

impl Shape {
    /// The shapes that a kind of source may take, the likeliest first.
    pub const fn of_kind(kind: &str) -> &'static [Self] {
        match kind.as_bytes() {
            b"shopify" => &[Self::Shopify],
            b"woocommerce" => &[Self::WooCommerce],
            b"generic" | b"github" => &[Self::Generic],
            b"standard_webhooks" => &[Self::StandardWebhooks, Self::BigCommerce, Self::Etsy],
            b"cloudevents" => &[Self::CloudEvents],
            b"stripe" => &[Self::Stripe],
            b"square" => &[Self::Square],
            b"callback" => &[Self::Callback],
            b"import" => &[Self::Import],
            b"quickbooks" => &[Self::QuickBooks],
            b"xero" => &[Self::Xero],
            _ => &[],
        }
    }

    /// The topics that can be generated.
    pub const fn topics(self) -> &'static [&'static str] {
        match self {
            Self::Shopify => &["orders/create", "orders/updated", "orders/paid"],
            Self::WooCommerce => &["order.created", "order.updated"],
            Self::Generic | Self::StandardWebhooks | Self::CloudEvents => {
                &["order.created", "order.updated", "invoice.created", "invoice.updated"]
            }
            Self::Stripe => &["invoice.finalized", "invoice.paid", "checkout.session.completed"],
            Self::Square => &["invoice.published", "invoice.updated"],
            Self::Callback | Self::Import => &["invoice"],
            Self::QuickBooks => &["qbo.invoice.created.v1", "qbo.bill.updated.v1"],
            Self::Xero => &["invoice.create", "invoice.update"],
            Self::BigCommerce => &["store/order/created", "store/order/updated"],
            Self::Etsy => &["order.paid", "order.shipped"],
        }
    }

    /// The tenant that sends, where none is configured or asked for.
    pub const fn default_tenant(self) -> &'static str {
        match self {
            Self::Shopify => "demo.myshopify.com",
            Self::WooCommerce => "https://demo.example.com",
            Self::Generic | Self::StandardWebhooks | Self::CloudEvents => "demo",
            // One account, robot or company, that need not be told from others.
            Self::Stripe | Self::Callback | Self::Import => "",
            Self::Square => "MLDEMO0000001",
            Self::QuickBooks => "1185883450",
            Self::Xero => "0d6e5f1c-0000-4000-8000-000000000001",
            Self::BigCommerce => "stores/demo",
            Self::Etsy => "12345678",
        }
    }

    /// Whether a topic stands in a header, so that a file alone does not tell it.
    pub const fn topic_in_header(kind: &str) -> bool {
        matches!(kind.as_bytes(), b"shopify" | b"woocommerce" | b"github" | b"cloudevents")
    }

    /// Whether an event tells which state of its document it is, so that one
    /// can be late.
    pub const fn tells_version(self) -> bool {
        !matches!(self, Self::Callback | Self::Import | Self::Etsy)
    }

    /// Whether the platform's settings decide what fits, so that it must be
    /// tried.
    pub const fn is_configured(self) -> bool {
        matches!(
            self,
            Self::Generic
                | Self::StandardWebhooks
                | Self::CloudEvents
                | Self::BigCommerce
                | Self::Etsy
                | Self::Callback
                | Self::Import
        )
    }

    /// Whether what cannot be applied is refused at the door, by a receiver
    /// whose callers can mend it.
    pub const fn refuses_poison(self) -> bool {
        matches!(self, Self::Callback | Self::Import)
    }

    /// The poison of the nth event that cannot be applied, in turn.
    pub fn poison(self, nth: u32) -> Poison {
        let fit: &[Poison] = match self {
            Self::QuickBooks | Self::Xero | Self::BigCommerce | Self::Etsy => &[Poison::NotJson],
            // A checkout session without a total is no order, and no mistake.
            Self::Stripe => {
                &[Poison::NotJson, Poison::BadCurrency, Poison::NulCharacter, Poison::BadTotal]
            }
            _ => &Poison::ALL,
        };
        fit[usize::try_from(nth).unwrap_or_default() % fit.len()]
    }

    /// Where the fields stand.
    pub const fn anatomy(self) -> Anatomy {
        match self {
            Self::Shopify => Anatomy {
                total: &["/current_total_price", "/total_price"],
                currency: &["/currency"],
                number: &["/name"],
            },
            Self::WooCommerce | Self::CloudEvents => {
                Anatomy { total: &["/total"], currency: &["/currency"], number: &["/number"] }
            }
            Self::Generic | Self::StandardWebhooks => Anatomy {
                total: &["/data/total"],
                currency: &["/data/currency"],
                number: &["/data/number"],
            },
            Self::Stripe => Anatomy {
                total: &["/data/object/total", "/data/object/amount_total"],
                currency: &["/data/object/currency"],
                number: &["/data/object/number", "/data/object/client_reference_id"],
            },
            Self::Square => Anatomy {
                total: &["/data/object/invoice/payment_requests/0/computed_amount_money/amount"],
                currency: &[
                    "/data/object/invoice/payment_requests/0/computed_amount_money/currency",
                ],
                number: &["/data/object/invoice/invoice_number"],
            },
            Self::Callback => Anatomy {
                total: &["/amount"],
                currency: &["/currency"],
                number: &["/invoiceNumber"],
            },
            Self::Import => Anatomy {
                total: &["/amount"],
                currency: &["/currency"],
                number: &["/invoice_number"],
            },
            Self::QuickBooks | Self::Xero | Self::BigCommerce | Self::Etsy => {
                Anatomy { total: &[], currency: &[], number: &[] }
            }
        }
    }
}
