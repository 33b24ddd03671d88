//! Orders as WooCommerce sends them: some 2.4 kB.
//!
//! Fields: <https://woocommerce.github.io/woocommerce-rest-api-docs/#order-properties>.

use serde_json::{Value, json};
use time::{
    OffsetDateTime, UtcOffset,
    macros::{format_description, offset},
};

use super::basket::{Basket, Customer, Line, money};

/// The order.
pub(super) fn order(basket: &Basket) -> Value {
    let paid_at = basket.paid.then_some(basket.updated_at);
    let mut order = dates(basket, paid_at);
    if let (Value::Object(order), Value::Object(rest)) = (&mut order, amounts(basket)) {
        order.extend(rest);
    }
    order
}

/// WooCommerce writes no zone: the shop's own time, or UTC in `_gmt` fields.
fn moment(at: OffsetDateTime, zone: UtcOffset) -> String {
    let zoneless = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    at.to_offset(zone).format(&zoneless).unwrap_or_default()
}

fn dates(basket: &Basket, paid_at: Option<OffsetDateTime>) -> Value {
    let local = |at| moment(at, offset!(+1));
    let gmt = |at| moment(at, UtcOffset::UTC);
    json!({
        "id": basket.id,
        "parent_id": 0,
        "number": basket.number.to_string(),
        "order_key": format!("wc_order_{:013x}", basket.id),
        "created_via": "checkout",
        "version": "9.9.3",
        "status": if basket.paid { "processing" } else { "pending" },
        "date_created": local(basket.created_at),
        "date_created_gmt": gmt(basket.created_at),
        "date_modified": local(basket.updated_at),
        "date_modified_gmt": gmt(basket.updated_at),
        "date_paid": paid_at.map(local),
        "date_paid_gmt": paid_at.map(gmt),
        "date_completed": null,
        "date_completed_gmt": null,
        "billing": address(&basket.customer, true),
        "shipping": address(&basket.customer, false),
        "customer_id": basket.customer.id % 100_000,
        "customer_ip_address": "192.0.2.17",
        "customer_user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0",
        "customer_note": "",
        "cart_hash": format!("{:032x}", basket.id.rotate_left(29)),
    })
}

fn amounts(basket: &Basket) -> Value {
    json!({
        "currency": basket.currency,
        "currency_symbol": "",
        "discount_total": money(basket.discount),
        "discount_tax": "0.00",
        "shipping_total": money(basket.shipping),
        "shipping_tax": "0.00",
        "cart_tax": money(basket.tax()),
        "total": money(basket.total()),
        "total_tax": money(basket.tax()),
        "prices_include_tax": false,
        "payment_method": "bacs",
        "payment_method_title": "Direct bank transfer",
        "transaction_id": "",
        "meta_data": [{"id": basket.number * 10, "key": "is_vat_exempt", "value": "no"}],
        "line_items": basket.lines.iter().map(line).collect::<Vec<_>>(),
        "tax_lines": [{
            "id": basket.number * 10 + 1,
            "rate_code": "SALES TAX",
            "rate_id": 75,
            "label": "Sales tax",
            "compound": false,
            "tax_total": money(basket.tax()),
            "shipping_tax_total": "0.00",
            "meta_data": [],
        }],
        "shipping_lines": [{
            "id": basket.number * 10 + 2,
            "method_title": "Flat rate",
            "method_id": "flat_rate",
            "total": money(basket.shipping),
            "total_tax": "0.00",
            "taxes": [],
            "meta_data": [],
        }],
        "fee_lines": [],
        "coupon_lines": [],
        "refunds": [],
    })
}

fn address(customer: &Customer, billing: bool) -> Value {
    let mut address = json!({
        "first_name": customer.first_name,
        "last_name": customer.last_name,
        "company": "",
        "address_1": customer.street,
        "address_2": "",
        "city": customer.place.city,
        "state": customer.place.province_code,
        "postcode": customer.postcode,
        "country": customer.place.country_code,
        "phone": customer.phone,
    });
    if let (true, Value::Object(address)) = (billing, &mut address) {
        address.insert("email".to_owned(), json!(customer.email));
    }
    address
}

fn line(line: &Line) -> Value {
    json!({
        "id": line.id % 10_000_000,
        "name": format!("{} - {}", line.title, line.colour),
        "product_id": line.product_id % 100_000,
        "variation_id": line.variant_id % 100_000,
        "quantity": line.quantity,
        "tax_class": "",
        "subtotal": money(line.total()),
        "subtotal_tax": money(line.tax),
        "total": money(line.total()),
        "total_tax": money(line.tax),
        "taxes": [{"id": 75, "total": money(line.tax), "subtotal": money(line.tax)}],
        "meta_data": [{"id": line.id % 1_000_000, "key": "pa_colour", "value": line.colour}],
        "sku": line.sku,
        // A number here, and only here.
        "price": serde_json::from_str::<Value>(&money(line.price)).unwrap_or_default(),
    })
}
