//! What becomes of an order's articles: lines, parcels, refunds.

use serde_json::{Value, json};

use super::{global_id, moment, money_set, taxes};
use crate::tools::send::generate::basket::{Basket, Line, money};

pub(super) fn lines(basket: &Basket) -> Value {
    json!({"line_items": basket.lines.iter().map(|l| line(basket, l)).collect::<Vec<_>>()})
}

fn line(basket: &Basket, line: &Line) -> Value {
    let currency = basket.currency;
    let share = if basket.discount > 0 { 100 } else { 0 };
    json!({
        "id": line.id,
        "admin_graphql_api_id": global_id("LineItem", line.id),
        "attributed_staffs": [],
        "current_quantity": line.quantity,
        "discount_allocations": [{
            "amount": money(share),
            "amount_set": money_set(share, currency),
            "discount_application_index": 0,
        }],
        "duties": [],
        "fulfillable_quantity": line.quantity,
        "fulfillment_service": "manual",
        "fulfillment_status": null,
        "gift_card": false,
        "grams": 400,
        "name": format!("{} - {}", line.title, line.colour),
        "price": money(line.price),
        "price_set": money_set(line.price, currency),
        "product_exists": true,
        "product_id": line.product_id,
        "properties": [
            {"name": "Colour", "value": line.colour},
            {"name": "Gift wrap", "value": "no"},
            {"name": "_bundle", "value": format!("set-{:08x}", line.id & 0xffff_ffff)},
            {"name": "_found_by", "value": "/collections/kitchen?sort_by=best-selling&page=2"},
        ],
        "quantity": line.quantity,
        "requires_shipping": true,
        "sales_line_item_group_id": null,
        "sku": line.sku,
        "tax_lines": taxes(line.tax, currency),
        "taxable": true,
        "title": line.title,
        "total_discount": money(share),
        "total_discount_set": money_set(share, currency),
        "variant_id": line.variant_id,
        "variant_inventory_management": "shopify",
        "variant_title": line.colour,
        "vendor": "Tallyhook Home",
    })
}

/// How many of the lines are in a parcel: in one order of three, up to three.
pub(super) fn shipped(basket: &Basket) -> usize {
    if basket.paid && basket.luck < 33 { basket.lines.len().min(3) } else { 0 }
}

pub(super) fn fulfillments(basket: &Basket) -> Value {
    let parcel: Vec<_> =
        basket.lines.iter().take(shipped(basket)).map(|l| line(basket, l)).collect();
    if parcel.is_empty() {
        return json!({"fulfillments": []});
    }
    let id = basket.id.wrapping_mul(16);
    let tracking = format!("TH{:012}", basket.number);
    json!({"fulfillments": [{
        "id": id,
        "admin_graphql_api_id": global_id("Fulfillment", id),
        "created_at": moment(basket.updated_at),
        "updated_at": moment(basket.updated_at),
        "location_id": 80_123_456_789_u64,
        "name": format!("#{}.1", basket.number),
        "order_id": basket.id,
        "origin_address": {},
        "receipt": {},
        "service": "manual",
        "shipment_status": "in_transit",
        "status": "success",
        "tracking_company": "Example Post",
        "tracking_number": tracking,
        "tracking_numbers": [tracking],
        "tracking_url": format!("https://tracking.example.com/{tracking}"),
        "tracking_urls": [format!("https://tracking.example.com/{tracking}")],
        "line_items": parcel,
    }]})
}

/// One paid order in twenty has its first article paid back.
pub(super) fn refunds(basket: &Basket) -> Value {
    let refunded = basket.lines.first().filter(|_| basket.paid && basket.luck >= 95);
    let Some(first) = refunded else {
        return json!({"refunds": []});
    };
    let id = basket.id.wrapping_mul(32);
    let at = moment(basket.updated_at);
    json!({"refunds": [{
        "id": id,
        "admin_graphql_api_id": global_id("Refund", id),
        "created_at": at,
        "processed_at": at,
        "note": "Arrived with a chipped rim",
        "order_id": basket.id,
        "restock": false,
        "user_id": null,
        "duties": [],
        "order_adjustments": [],
        "transactions": [{
            "id": id + 1,
            "admin_graphql_api_id": global_id("OrderTransaction", id + 1),
            "amount": money(first.price),
            "created_at": at,
            "currency": basket.currency,
            "gateway": "shopify_payments",
            "kind": "refund",
            "order_id": basket.id,
            "parent_id": id + 2,
            "processed_at": at,
            "receipt": {},
            "source_name": "web",
            "status": "success",
            "test": false,
        }],
        "refund_line_items": [{
            "id": id + 3,
            "line_item_id": first.id,
            "line_item": line(basket, first),
            "location_id": null,
            "quantity": 1,
            "restock_type": "no_restock",
            "subtotal_set": money_set(first.price, basket.currency),
            "total_tax_set": money_set(0, basket.currency),
        }],
    }]})
}
