//! The kinds of payload that can be generated, and the kinds of source that
//! accept them.

use crate::tools::send::poison::Poison;

/// A kind of payload.
#[derive(Debug)]
pub(crate) struct PayloadKind {
    /// Kinds of source that may accept it.
    source_kinds: &'static [&'static str],
    pub(super) template: &'static str,
    pub(in crate::tools::send) topics: &'static [&'static str],
    /// The tenant, unless one is configured or requested.
    pub(in crate::tools::send) default_tenant: &'static str,
    /// Whether events have a version, so that one can be late.
    pub(in crate::tools::send) has_version: bool,
    /// Whether the source's settings decide if it is accepted.
    pub(in crate::tools::send) is_configurable: bool,
    /// Whether the receiver rejects invalid events with 422.
    pub(in crate::tools::send) rejects_poison: bool,
    poisons: &'static [Poison],
    /// JSON pointers to the fields that a poison changes.
    pub(in crate::tools::send) total: &'static [&'static str],
    pub(in crate::tools::send) currency: &'static [&'static str],
    pub(in crate::tools::send) number: &'static [&'static str],
}

/// A platform with its own format of complete documents.
const DOCUMENT: PayloadKind = PayloadKind {
    source_kinds: &[],
    template: "",
    topics: &["order.created", "order.updated", "invoice.created", "invoice.updated"],
    default_tenant: "demo",
    has_version: true,
    is_configurable: false,
    rejects_poison: false,
    poisons: &Poison::ALL,
    total: &["/data/total"],
    currency: &["/data/currency"],
    number: &["/data/number"],
};

/// A platform whose events only name the changed document.
const CHANGE_NOTIFICATION: PayloadKind =
    PayloadKind { poisons: &[Poison::NotJson], total: &[], currency: &[], number: &[], ..DOCUMENT };

/// All kinds, the most likely one of a kind of source first.
pub(super) const PAYLOAD_KINDS: &[PayloadKind] = &[
    PayloadKind {
        source_kinds: &["shopify"],
        template: "shopify.json",
        topics: &["orders/create", "orders/updated", "orders/paid"],
        default_tenant: "demo.myshopify.com",
        total: &["/current_total_price", "/total_price"],
        currency: &["/currency"],
        number: &["/name"],
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["woocommerce"],
        template: "woocommerce.json",
        topics: &["order.created", "order.updated"],
        default_tenant: "https://demo.example.com",
        total: &["/total"],
        currency: &["/currency"],
        number: &["/number"],
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["generic", "github"],
        template: "generic.json",
        is_configurable: true,
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["standard_webhooks"],
        template: "standard_webhooks.json",
        is_configurable: true,
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["cloudevents"],
        template: "document.json",
        is_configurable: true,
        total: &["/total"],
        currency: &["/currency"],
        number: &["/number"],
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["stripe"],
        template: "stripe.json",
        topics: &["invoice.finalized", "invoice.paid", "checkout.session.completed"],
        default_tenant: "",
        // A checkout session without a total is valid; it is no order.
        poisons: &[Poison::NotJson, Poison::BadCurrency, Poison::NulCharacter, Poison::BadTotal],
        total: &["/data/object/total", "/data/object/amount_total"],
        currency: &["/data/object/currency"],
        number: &["/data/object/number", "/data/object/client_reference_id"],
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["square"],
        template: "square.json",
        topics: &["invoice.published", "invoice.updated"],
        default_tenant: "MLDEMO0000001",
        total: &["/data/object/invoice/payment_requests/0/computed_amount_money/amount"],
        currency: &["/data/object/invoice/payment_requests/0/computed_amount_money/currency"],
        number: &["/data/object/invoice/invoice_number"],
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["callback"],
        template: "callback.json",
        topics: &["invoice"],
        default_tenant: "",
        has_version: false,
        is_configurable: true,
        rejects_poison: true,
        total: &["/amount"],
        currency: &["/currency"],
        number: &["/invoiceNumber"],
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["import"],
        template: "import_line.json",
        topics: &["invoice"],
        default_tenant: "",
        has_version: false,
        is_configurable: true,
        rejects_poison: true,
        total: &["/amount"],
        currency: &["/currency"],
        number: &["/invoice_number"],
        ..DOCUMENT
    },
    PayloadKind {
        source_kinds: &["quickbooks"],
        template: "quickbooks.json",
        topics: &["qbo.invoice.created.v1", "qbo.bill.updated.v1"],
        default_tenant: "1185883450",
        ..CHANGE_NOTIFICATION
    },
    PayloadKind {
        source_kinds: &["xero"],
        template: "xero.json",
        topics: &["invoice.create", "invoice.update"],
        default_tenant: "0d6e5f1c-0000-4000-8000-000000000001",
        ..CHANGE_NOTIFICATION
    },
    PayloadKind {
        source_kinds: &["standard_webhooks"],
        template: "bigcommerce.json",
        topics: &["store/order/created", "store/order/updated"],
        default_tenant: "stores/demo",
        is_configurable: true,
        ..CHANGE_NOTIFICATION
    },
    PayloadKind {
        source_kinds: &["standard_webhooks"],
        template: "etsy.json",
        topics: &["order.paid", "order.shipped"],
        default_tenant: "12345678",
        has_version: false,
        is_configurable: true,
        ..CHANGE_NOTIFICATION
    },
];

impl PayloadKind {
    /// The kinds that a kind of source may accept, the most likely first.
    pub(in crate::tools::send) fn of_source_kind(
        source_kind: &str,
    ) -> impl Iterator<Item = &'static Self> {
        PAYLOAD_KINDS.iter().filter(move |kind| kind.source_kinds.contains(&source_kind))
    }

    /// The poison of the nth invalid event; they alternate.
    pub(in crate::tools::send) fn poison(&self, nth: u32) -> Poison {
        self.poisons[usize::try_from(nth).unwrap_or_default() % self.poisons.len()]
    }
}

/// Whether webhooks of a kind of source have their topic in a header, so that
/// a body alone does not contain it.
pub(in crate::tools::send) fn topic_in_header(source_kind: &str) -> bool {
    matches!(source_kind, "shopify" | "woocommerce" | "github" | "cloudevents")
}
