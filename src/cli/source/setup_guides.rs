//! What each platform needs: its settings, and the steps on its own side.
//!
//! Facts and their sources stand with the adapters; here they are told to the
//! person who sets a source up.

/// How one kind of sender is set up.
pub(super) struct Recipe {
    /// What people call it: `tallyhook source add <name>`.
    pub(super) name: &'static str,
    /// Its word in the configuration.
    pub(super) kind: &'static str,
    /// One line about it.
    pub(super) about: &'static str,
    /// The settings below `kind` and `secrets`, commented. `{name}` stands for
    /// the source's name and `{url}` for its address.
    pub(super) settings: &'static str,
    /// Further tables, which stand behind the settings.
    pub(super) tables: &'static str,
    /// What to do on the platform's side.
    pub(super) steps: &'static [&'static str],
    /// How long it waits for an answer, and how often it comes again.
    pub(super) patience: &'static str,
}

/// The recipe of this name.
pub(super) fn find(name: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.name == name)
}

pub(super) const RECIPES: [Recipe; 14] = [
    Recipe {
        name: "shopify",
        kind: "shopify",
        about: "orders and refunds of a Shopify shop",
        settings: r#"# The shops to let in; leave out for any shop with the secret.
tenants = ["my-shop.myshopify.com"]
"#,
        tables: "",
        steps: &[
            "In the shop's admin open Settings > Notifications > Webhooks and create one webhook for \
             each event: order creation, update, payment, cancellation, deletion, and refund create.",
            "Choose the format JSON, the newest API version, and the address {url}.",
            "Put the secret that this page shows (\"Your webhooks will be signed with\") into {secret}. \
             Webhooks that an app makes are signed with the app's client secret instead.",
        ],
        patience: "waits 5 s; comes again 8 times within 4 hours",
    },
    Recipe {
        name: "woocommerce",
        kind: "woocommerce",
        about: "orders of a WooCommerce shop",
        settings: r#"# The shops to let in, by their home page; leave out for any with the secret.
tenants = ["https://shop.example"]
"#,
        tables: "",
        steps: &[
            "Choose a long random secret and put it into {secret}. Without one WooCommerce signs with \
             an empty key, which is refused here.",
            "In WooCommerce > Settings > Advanced > Webhooks add one webhook for each topic: order \
             created, updated, deleted, restored. Status active, delivery URL {url}, the secret, API \
             version WP REST API v3.",
            "Saving sends a test; WordPress shows an error unless it is answered with 200.",
        ],
        patience: "waits 60 s; never comes again: what is lost is lost, and after 5 failures in a row \
                   the webhook is switched off",
    },
    Recipe {
        name: "stripe",
        kind: "stripe",
        about: "invoices, checkout sessions and refunds of a Stripe account",
        settings: r#"# Connected accounts to let in (acct_...); leave out if you do not use Connect.
# tenants = ["acct_123"]
# A signed time may be this far from now, in seconds.
tolerance_s = 300
"#,
        tables: "",
        steps: &[
            "In the dashboard's Workbench > Webhooks add an endpoint with the address {url}.",
            "Choose the events invoice.*, checkout.session.*, and refund.* or charge.refunded (or both); \
             others are kept and ignored.",
            "Put the signing secret (whsec_..., the whole text) into {secret}. While you roll it, both \
             are in use: list both.",
        ],
        patience: "waits some 20 s (not published); comes again for 3 days",
    },
    Recipe {
        name: "standard_webhooks",
        kind: "standard_webhooks",
        about: "any sender of Standard Webhooks, Svix among them",
        settings: "# A signed time may be this far from now, in seconds.\ntolerance_s = 300\n",
        tables: r#"
# Where an order's fields stand in the body, as JSON pointers.
[sources.{name}.order]
topics = ["order.*"]
id = "/data/id"
number = "/data/number"
status = "/data/status"
currency = "/data/currency"
total = "/data/total"
version = "/timestamp"
"#,
        steps: &[
            "At the sender add an endpoint with the address {url}.",
            "Put its signing secret (whsec_..., or whpk_... for a public key) into {secret}.",
            "Correct the pointers above by one of its events; `tallyhook send {name} --file event.json` \
             tries them.",
        ],
        patience: "as the sender says; the standard suggests 15 to 30 s, and 10 attempts in 3 days",
    },
    Recipe {
        name: "bigcommerce",
        kind: "standard_webhooks",
        about: "orders of a BigCommerce store: thin events",
        settings: r#"profile = "bigcommerce"
# The stores to let in.
tenants = ["stores/abc123"]
"#,
        tables: r#"
# Events only say that something changed. This fetches what it is now.
# [sources.{name}.enrich.urls]
# order = "https://api.bigcommerce.com/{tenant}/v2/orders/{id}"
# [sources.{name}.enrich.headers]
# X-Auth-Token = "env:BIGCOMMERCE_TOKEN"
"#,
        steps: &[
            "Put the API account's client secret into {secret}.",
            "Create hooks with its token: POST /stores/<hash>/v3/hooks with scope store/order/* and \
             destination {url}. Port 443 is the only one.",
        ],
        patience: "timeout not published; comes again 11 times in 48 hours, then the hook is off",
    },
    Recipe {
        name: "etsy",
        kind: "standard_webhooks",
        about: "orders of an Etsy shop: thin events",
        settings: r#"profile = "etsy"
# The shops to let in, by their id.
# tenants = ["12345678"]
"#,
        tables: "",
        steps: &[
            "Webhooks are for commercial apps: register {url} for order.paid, order.canceled, \
             order.shipped and order.delivered.",
            "Put the signing secret (whsec_...) into {secret}.",
        ],
        patience: "comes again 7 times in 38 hours",
    },
    Recipe {
        name: "square",
        kind: "square",
        about: "invoices and refunds of a Square account, and its orders as thin events",
        settings: r#"# The notification URL byte for byte as it is registered: it is part of what is signed.
url = "{url}"
# Merchants to let in, by their id.
# tenants = ["MLEFBHHSJGVHD"]
"#,
        tables: r#"
# Orders only say that something changed. This fetches what they are now.
# [sources.{name}.enrich.urls]
# order = "https://connect.squareup.com/v2/orders/{id}"
# [sources.{name}.enrich.headers]
# Authorization = "env:SQUARE_AUTHORIZATION"
"#,
        steps: &[
            "In the developer console open the application > Webhooks > Subscriptions and add one with \
             the URL {url}.",
            "Choose order.created, order.updated, refund.* and invoice.*.",
            "Put the subscription's signature key into {secret}; send the test event.",
        ],
        patience: "waits 10 s; comes again 11 times in 24 hours",
    },
    Recipe {
        name: "quickbooks",
        kind: "quickbooks",
        about: "invoices and bills of QuickBooks Online companies: thin events, both formats",
        settings: r#"# Companies to let in, by their realm id.
# tenants = ["1185883450"]
"#,
        tables: r#"
# Events only say that something changed. This fetches what it is now; another
# program keeps the access token in the file fresh.
# [sources.{name}.enrich.urls]
# invoice = "https://quickbooks.api.intuit.com/v3/company/{tenant}/invoice/{id}"
# bill = "https://quickbooks.api.intuit.com/v3/company/{tenant}/bill/{id}"
# [sources.{name}.enrich.headers]
# Authorization = "file:/run/secrets/quickbooks-authorization"
# Accept = "const:application/json"
"#,
        steps: &[
            "In the developer portal open the app > Webhooks, enter the address {url} and choose \
             Invoice and Bill.",
            "Put the verifier token into {secret}. It is the same for all companies.",
        ],
        patience: "waits 3 s; comes again after 10 s to 6 hours and holds later events back meanwhile",
    },
    Recipe {
        name: "xero",
        kind: "xero",
        about: "invoices of Xero organisations: thin events",
        settings: r#"# Organisations to let in, by their tenant id.
# tenants = ["aef86862-2015-4b6b-88bc-d89032cecc50"]
"#,
        tables: r#"
# Events only say that something changed. This fetches what it is now; another
# program keeps the access token in the file fresh.
# [sources.{name}.enrich.urls]
# invoice = "https://api.xero.com/api.xro/2.0/Invoices/{id}"
# [sources.{name}.enrich.headers]
# Authorization = "file:/run/secrets/xero-authorization"
# Xero-tenant-id = "const:{tenant}"
# Accept = "const:application/json"
"#,
        steps: &[
            "In the developer portal open the app > Webhooks, choose Invoices, enter the address {url}.",
            "Put the webhooks key into {secret} and start tallyhook before you save.",
            "Press \"Send intent to receive\": Xero sends good and bad signatures and wants 200 and 401.",
        ],
        patience: "waits 5 s; comes again for 24 hours, then the webhook is off",
    },
    Recipe {
        name: "github",
        kind: "github",
        about: "GitHub, and whoever signs as it does (X-Hub-Signature-256)",
        settings: "",
        tables: r#"
# What is mapped to orders or invoices, if anything is.
# [sources.{name}.order]
# topics = ["order"]
# id = "/order/id"
# currency = "/order/currency"
# total = "/order/total"
"#,
        steps: &[
            "In the repository's or organisation's Settings > Webhooks add one with the address {url} \
             and content type application/json.",
            "Choose a secret and put it into {secret}. The ping that saving sends is kept and ignored.",
        ],
        patience: "waits 10 s; comes again only when somebody presses Redeliver, for 3 days",
    },
    Recipe {
        name: "generic",
        kind: "generic",
        about: "anything that posts JSON with an HMAC, a bearer token or basic authentication",
        settings: "",
        tables: r#"
# How it signs. template may name {body}, {timestamp}, {id}, {url} and {header:NAME}.
[sources.{name}.signature]
header = "X-Signature"
prefix = "sha256="
algorithm = "sha256"
encoding = "hex"
# template = "{timestamp}.{body}"
# timestamp = "header:X-Timestamp"
# tolerance_s = 300

# What tells events apart.
[sources.{name}.event]
id = "/event_id"
topic = "/type"
tenant = "/company"

# Where the fields stand, as JSON pointers; const:EUR is a constant.
[sources.{name}.order]
topics = ["order.*"]
id = "/data/id"
number = "/data/number"
status = "/data/status"
currency = "/data/currency"
total = "/data/total"
version = "/data/updated_at"

[sources.{name}.invoice]
topics = ["invoice.*"]
vendor = "/data/vendor"
invoice_number = "/data/number"
transaction_id = "/data/transaction"
currency = "/data/currency"
total = "/data/total"
due_on = "/data/due_on"

[sources.{name}.refund]
topics = ["refund.*"]
id = "/data/id"
order_id = "/data/order_id"
currency = "/data/currency"
amount = "/data/amount"
"#,
        steps: &[
            "Have the sender post JSON to {url}, signed with the secret in {secret}.",
            "Correct signature and pointers by one of its events; `tallyhook send {name} --file \
             event.json` tries them.",
            "503 means \"come again\" (with Retry-After); any 2xx means that it is durable.",
        ],
        patience: "as the sender says",
    },
    Recipe {
        name: "cloudevents",
        kind: "cloudevents",
        about: "CloudEvents over HTTP: binary, structured, in batches",
        settings: r#"# bearer (Authorization, or access_token in the address), basic or hmac.
authentication = "bearer"
# Who may ask for leave to send (WebHook-Request-Origin); leave out for anybody.
# allowed_origins = ["eventemitter.example.com"]
"#,
        tables: r#"
# Where the fields stand within the event's data, as JSON pointers.
[sources.{name}.order]
topics = ["order.*"]
id = "/id"
number = "/number"
status = "/status"
currency = "/currency"
total = "/total"
"#,
        steps: &[
            "Subscribe with the sink {url} and the token in {secret}.",
            "Senders that ask for leave with OPTIONS get it.",
        ],
        patience: "as the sender says",
    },
    Recipe {
        name: "callback",
        kind: "callback",
        about: "robots that call back with an invoice and read their answer",
        settings: r#"# bearer, basic (the secret is user:password) or hmac.
authentication = "bearer"
# The same invoice number with another transaction id is never a second invoice:
# review puts both before a person, update takes the later one, duplicate the first.
on_conflict = "review"
"#,
        tables: r#"
# Where the fields stand, as JSON pointers.
[sources.{name}.invoice]
invoice_number = "/invoiceNumber"
transaction_id = "/transactionId"
amount = "/amount"
vendor = "/vendor"
currency = "/currency"
due_on = "/dueDate"
"#,
        steps: &[
            "Have the robot POST JSON to {url} with `Authorization: Bearer <the token in {secret}>`.",
            "200 {\"status\":\"success\",\"invoiceId\":...}: done, and the same bytes however often it \
             asks. 422: the fields to correct, never to be sent again as they are. 503: send it again.",
        ],
        patience: "as the robot is written: let it send again on 503 and on no answer at all",
    },
    Recipe {
        name: "import",
        kind: "import",
        about: "files of vendors' invoices: CSV, NDJSON, JSON arrays",
        settings: r#"# bearer, or basic (the secret is user:password).
authentication = "bearer"
# An invoice that comes again and says something else: update takes the later
# line, duplicate the first.
on_change = "update"
"#,
        tables: r#"
# The names of the columns, or of the members of JSON objects; "/supplier/name"
# is a JSON pointer, const:EUR is a constant.
[sources.{name}.invoice]
vendor = "vendor"
invoice_number = "invoice_number"
amount = "amount"
currency = "currency"
due_on = "due_date"

# How CSV files are written.
[sources.{name}.csv]
delimiter = ","
decimal_comma = false
"#,
        steps: &[
            "Put a long random token into {secret}.",
            "Correct the columns above by the first line of a file.",
            "`tallyhook import FILE --source {name}` sends a file and says what became of each line. \
             Single invoices may be posted to {url} as JSON, with `Authorization: Bearer <the token>`.",
        ],
        patience: "as whoever sends the file has: to send it again adds nothing twice",
    },
];
