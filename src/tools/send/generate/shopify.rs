//! Orders as Shopify sends them: the whole REST order resource, some 17 kB.
//!
//! Fields: <https://shopify.dev/docs/api/admin-rest/latest/resources/order>.

mod articles;

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::offset};

use super::basket::{Basket, Customer, money};
use articles::{fulfillments, lines, refunds, shipped};

/// The order; webhooks carry it bare, not within `order`.
pub(super) fn order(basket: &Basket, shop: &str) -> Value {
    let mut order = Map::new();
    for part in [
        identity(basket, shop),
        origin(basket, shop),
        current_amounts(basket),
        amounts(basket),
        people(basket),
        extras(basket),
        lines(basket),
        fulfillments(basket),
        refunds(basket),
    ] {
        if let Value::Object(part) = part {
            order.extend(part);
        }
    }
    Value::Object(order)
}

fn moment(at: OffsetDateTime) -> String {
    at.to_offset(offset!(+1)).format(&Rfc3339).unwrap_or_default()
}

fn money_set(hundredths: i64, currency: &str) -> Value {
    let amount = json!({"amount": money(hundredths), "currency_code": currency});
    json!({"shop_money": amount, "presentment_money": amount})
}

fn global_id(kind: &str, id: u64) -> String {
    format!("gid://shopify/{kind}/{id}")
}

/// Looks like the tokens that Shopify gives to carts and checkouts.
fn token(basket: &Basket, salt: u64) -> String {
    format!("{:016x}{:016x}", basket.id.wrapping_mul(salt), basket.id.rotate_left(17) ^ salt)
}

fn identity(basket: &Basket, shop: &str) -> Value {
    let token = token(basket, 0x9e37_79b9_7f4a_7c15);
    json!({
        "id": basket.id,
        "admin_graphql_api_id": global_id("Order", basket.id),
        "name": format!("#{}", basket.number),
        "number": basket.number - 1000,
        "order_number": basket.number,
        "confirmation_number": token[..9].to_uppercase(),
        "confirmed": true,
        "test": false,
        "token": token,
        "order_status_url":
            format!("https://{shop}/71234567890/orders/{token}/authenticate?key={}", &token[4..28]),
        "created_at": moment(basket.created_at),
        "processed_at": moment(basket.created_at),
        "updated_at": moment(basket.updated_at),
        "cancelled_at": null,
        "cancel_reason": null,
        "closed_at": null,
        "financial_status": if basket.paid { "paid" } else { "pending" },
        "fulfillment_status": if shipped(basket) > 0 { json!("partial") } else { Value::Null },
        "po_number": null,
        "reference": null,
        "tags": "webshop, gift-wrap, returning-customer, newsletter-autumn, zone-2, pick-wave-b",
        "note": "Please ring twice and leave the parcel with the neighbours if nobody is in.",
    })
}

fn origin(basket: &Basket, shop: &str) -> Value {
    let campaign = "utm_source=newsletter&utm_medium=email&utm_campaign=autumn-collection\
                    &utm_content=hero-banner&utm_term=home-and-kitchen";
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/126.0.0.0 Safari/537.36";
    json!({
        "app_id": 580_111,
        "browser_ip": "192.0.2.17",
        "cart_token": token(basket, 0xd1b5_4a32_d192_ed03),
        "checkout_id": 35_000_000_000_000 + basket.number,
        "checkout_token": token(basket, 0x94d0_49bb_1331_11eb),
        "client_details": {
            "accept_language": "en-GB,en;q=0.9,de;q=0.7",
            "browser_height": null,
            "browser_ip": "192.0.2.17",
            "browser_width": null,
            "session_hash": null,
            "user_agent": agent,
        },
        "customer_locale": "en-GB",
        "device_id": null,
        "landing_site":
            format!("/collections/kitchen?{campaign}&click_id={}", token(basket, 0x2545_f491_4f6c_dd1d)),
        "landing_site_ref": null,
        "location_id": null,
        "merchant_business_entity_id": "MTcxMjM0NTY3ODkw",
        "merchant_of_record_app_id": null,
        "note_attributes": note_attributes(basket, shop, campaign, agent),
        "referring_site": format!("https://{shop}/blogs/journal/a-table-for-eight"),
        "source_identifier": null,
        "source_name": "web",
        "source_url": null,
        "user_id": null,
    })
}

const PAGES: &str = "/, /collections/kitchen, /collections/kitchen?sort_by=best-selling&page=2, \
    /products/stoneware-bowl, /products/stoneware-bowl?variant=44100000001024, /pages/delivery, \
    /pages/care-of-stoneware, /blogs/journal/a-table-for-eight, /products/walnut-tray, /cart, \
    /policies/refund-policy, /cart?updated=1, /checkout";

/// Apps like to write JSON into a text.
const CHOICES: &str = r#"{"necessary":{"granted":true,"at":"2026-01-02T08:15:00Z","source":"banner"},"preferences":{"granted":true,"at":"2026-01-02T08:15:00Z","source":"banner"},"analytics":{"granted":false,"at":"2026-01-02T08:15:00Z","source":"settings"},"marketing":{"granted":false,"at":"2026-01-02T08:15:00Z","source":"settings"}}"#;

/// Where real orders carry what the shop's other apps leave behind: much of
/// their size.
fn note_attributes(basket: &Basket, shop: &str, campaign: &str, agent: &str) -> Value {
    let (visit, click) =
        (token(basket, 0xbf58_476d_1ce4_e5b9), token(basket, 0x2545_f491_4f6c_dd1d));
    let first_page =
        format!("https://{shop}/collections/kitchen?{campaign}&click_id={click}{visit}");
    let last_page =
        format!("https://{shop}/products/stoneware-bowl?{campaign}&variant=44100000001024");
    let sessions = format!("{visit},{click},{visit}{click},{click}{visit}");
    let attributes = [
        ("delivery_window", "weekday mornings"),
        ("gift_message", "With love from all of us – see you in spring!"),
        ("consent_version", "2025-03"),
        (
            "consent_text",
            "I agree that my order is processed as the terms and the privacy notice say.",
        ),
        ("loyalty_tier", "silver"),
        ("visit_id", &visit),
        ("visit_first_page", &first_page),
        ("visit_last_page", &last_page),
        ("visit_user_agent", agent),
        ("visit_referrer", "https://news.example.com/2026/ten-tables-worth-a-visit?ref=home"),
        ("click_id", &click),
        ("carbon_offset", "declined"),
        ("packaging", "reused cardboard, paper tape, no filling"),
        ("invoice_language", "en"),
        (
            "experiment_groups",
            "checkout-2:b, banner-7:control, search-3:c, shipping-estimate-5:a, bundle-1:off",
        ),
        ("visit_sessions", &sessions),
        ("visit_pages", PAGES),
        ("cookie_choices", CHOICES),
    ];
    attributes.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn current_amounts(basket: &Basket) -> Value {
    let set = |amount| money_set(amount, basket.currency);
    json!({
        "currency": basket.currency,
        "presentment_currency": basket.currency,
        "current_shipping_price_set": set(basket.shipping),
        "current_subtotal_price": money(basket.subtotal()),
        "current_subtotal_price_set": set(basket.subtotal()),
        "current_total_additional_fees_set": null,
        "current_total_discounts": money(basket.discount),
        "current_total_discounts_set": set(basket.discount),
        "current_total_duties_set": null,
        "current_total_price": money(basket.total()),
        "current_total_price_set": set(basket.total()),
        "current_total_tax": money(basket.tax()),
        "current_total_tax_set": set(basket.tax()),
        "original_total_additional_fees_set": null,
        "original_total_duties_set": null,
        "total_cash_rounding_payment_adjustment_set": set(0),
        "total_cash_rounding_refund_adjustment_set": set(0),
    })
}

fn amounts(basket: &Basket) -> Value {
    let set = |amount| money_set(amount, basket.currency);
    let goods = basket.subtotal() + basket.discount;
    json!({
        "subtotal_price": money(basket.subtotal()),
        "subtotal_price_set": set(basket.subtotal()),
        "tax_exempt": false,
        "tax_lines": taxes(basket.tax(), basket.currency),
        "taxes_included": false,
        "estimated_taxes": false,
        "duties_included": false,
        "total_discounts": money(basket.discount),
        "total_discounts_set": set(basket.discount),
        "total_line_items_price": money(goods),
        "total_line_items_price_set": set(goods),
        "total_outstanding": money(if basket.paid { 0 } else { basket.total() }),
        "total_price": money(basket.total()),
        "total_price_set": set(basket.total()),
        "total_shipping_price_set": set(basket.shipping),
        "total_tax": money(basket.tax()),
        "total_tax_set": set(basket.tax()),
        "total_tip_received": "0.00",
        "total_weight": 1_200,
    })
}

/// What a state takes, and what a county would.
fn taxes(amount: i64, currency: &str) -> Value {
    let line = |title, rate, amount| {
        json!({
            "channel_liable": false,
            "price": money(amount),
            "price_set": money_set(amount, currency),
            "rate": rate,
            "title": title,
        })
    };
    json!([line("Sales tax", 0.06, amount), line("County tax", 0.0, 0)])
}

fn address(customer: &Customer) -> Value {
    json!({
        "first_name": customer.first_name,
        "last_name": customer.last_name,
        "name": format!("{} {}", customer.first_name, customer.last_name),
        "company": null,
        "address1": customer.street,
        "address2": "Second floor, left",
        "city": customer.place.city,
        "zip": customer.postcode,
        "province": customer.place.province,
        "province_code": customer.place.province_code,
        "country": customer.place.country,
        "country_code": customer.place.country_code,
        "phone": customer.phone,
        "latitude": null,
        "longitude": null,
    })
}

fn people(basket: &Basket) -> Value {
    let customer = &basket.customer;
    let mut home = address(customer);
    if let Value::Object(home) = &mut home {
        home.insert("id".to_owned(), json!(customer.id + 1));
        home.insert("customer_id".to_owned(), json!(customer.id));
        home.insert("country_name".to_owned(), json!(customer.place.country));
        home.insert("default".to_owned(), json!(true));
    }
    let since = moment(basket.created_at - time::Duration::days(200));
    json!({
        "billing_address": address(customer),
        "shipping_address": address(customer),
        "buyer_accepts_marketing": false,
        "contact_email": customer.email,
        "email": customer.email,
        "phone": customer.phone,
        "customer": {
            "id": customer.id,
            "admin_graphql_api_id": global_id("Customer", customer.id),
            "created_at": since,
            "updated_at": moment(basket.created_at),
            "first_name": customer.first_name,
            "last_name": customer.last_name,
            "email": customer.email,
            "phone": customer.phone,
            "currency": basket.currency,
            "state": "enabled",
            "note": null,
            "tags": "newsletter, silver",
            "verified_email": true,
            "multipass_identifier": null,
            "tax_exempt": false,
            "tax_exemptions": [],
            "email_marketing_consent": {
                "state": "subscribed",
                "opt_in_level": "confirmed_opt_in",
                "consent_updated_at": since,
            },
            "sms_marketing_consent": {
                "state": "not_subscribed",
                "opt_in_level": "single_opt_in",
                "consent_updated_at": null,
                "consent_collected_from": "SHOPIFY",
            },
            "default_address": home,
        },
    })
}

fn extras(basket: &Basket) -> Value {
    let discounted = basket.discount > 0;
    let code = json!({"code": "AUTUMN", "amount": money(basket.discount), "type": "fixed_amount"});
    let application = json!({
        "allocation_method": "across",
        "code": "AUTUMN",
        "target_selection": "all",
        "target_type": "line_item",
        "type": "discount_code",
        "value": money(basket.discount),
        "value_type": "fixed_amount",
    });
    json!({
        "discount_applications": if discounted { vec![application] } else { Vec::new() },
        "discount_codes": if discounted { vec![code] } else { Vec::new() },
        "payment_gateway_names": ["shopify_payments"],
        "payment_terms": null,
        "shipping_lines": [{
            "id": basket.id.wrapping_mul(8),
            "carrier_identifier": "650f1a14fa979ec5c74d063e968411d4",
            "code": "Standard",
            "discounted_price": money(basket.shipping),
            "discounted_price_set": money_set(basket.shipping, basket.currency),
            "current_discounted_price_set": money_set(basket.shipping, basket.currency),
            "is_removed": false,
            "phone": null,
            "price": money(basket.shipping),
            "price_set": money_set(basket.shipping, basket.currency),
            "requested_fulfillment_service_id": null,
            "source": "shopify",
            "title": "Standard (2–4 working days)",
            "tax_lines": taxes(0, basket.currency),
            "discount_allocations": [],
        }],
    })
}
