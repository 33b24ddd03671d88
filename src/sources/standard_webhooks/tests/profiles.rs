//! `BigCommerce` and Etsy: thin events, and the orders of their APIs.

use rust_decimal::Decimal;

use super::*;
use crate::domain::{Order, OrderLine, OrderStatus};

fn source(profile: &str) -> Components {
    let secret = if profile == "etsy" { SECRET } else { "client secret" };
    load(&format!("profile = {profile:?}"), secret).unwrap()
}

/// Received and mapped, as receiver and worker do it.
fn receive_and_map(
    profile: &str,
    base: &[(&str, &str)],
    changes: &[(&str, &str)],
) -> (Event, Result<MappedEvent, PermanentFailure>) {
    let config = source(profile);
    let source = config.sources.values().next().unwrap();
    let body = Bytes::from(json_object(base, changes));
    let headers = signed_headers(source, &body);
    let request = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
    let Ok(Received::Events { events, .. }) = source.receive(&request) else {
        panic!("{changes:?}")
    };
    let event = events[0].clone();
    let envelope = Envelope {
        tenant: event.tenant.clone(),
        version: event.version,
        ..envelope(&event.topic, event.body.clone())
    };
    (event, source.map(&envelope))
}

fn change(profile: &str, base: &[(&str, &str)], changes: &[(&str, &str)]) -> ResourceChange {
    match receive_and_map(profile, base, changes).1 {
        Ok(MappedEvent::Change(Change::ResourceChanged(change))) => *change,
        other => panic!("{changes:?}: {other:?}"),
    }
}

fn fetched(
    profile: &str,
    base: &[(&str, &str)],
    changes: &[(&str, &str)],
) -> Result<(String, OffsetDateTime, Order), PermanentFailure> {
    let config = source(profile);
    let source = config.sources.values().next().unwrap();
    let change = ResourceChange {
        platform: "either",
        kind: "order".to_owned(),
        id: "250".to_owned(),
        version: None,
        changed_at: AT,
        action: "created".to_owned(),
    };
    let resource = json_object(base, changes);
    match source.map_resource(&change, &envelope("", ""), resource.as_bytes())? {
        Some(Change::Order(update)) => match *update {
            OrderUpdate::State { order_id, version, order, restored: false } => {
                Ok((order_id, version, *order))
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

const HOOK: &[(&str, &str)] = &[
    ("scope", "\"store/order/statusUpdated\""),
    ("store_id", "\"1025646\""),
    (
        "data",
        r#"{"type":"order","id":9007199254740993,"status":{"previous_status_id":0,"new_status_id":11}}"#,
    ),
    ("hash", "\"3f9ea420af83450d7ef9f78b08c8af25b2213637\""),
    ("created_at", "1767355205"),
    ("producer", "\"stores/AbC123\""),
];

#[test]
fn bigcommerce_secret_is_not_decoded() {
    // openssl dgst -sha256 -hmac 'client secret' -binary | base64
    let signature = "v1,XcEdqo5EY11/9LPlbe2j66ZT7Qlj8NTplglJ/2yqkW0=";
    let given = [(NAMES[0], "hook-1"), (NAMES[1], TIME), (NAMES[2], signature)];
    let settings = ("profile = 'bigcommerce'", "client secret");
    assert!(is_accepted(&receive_at(settings, &given, BODY, AT)));
    let bare = [(NAMES[0], "hook-1"), (NAMES[1], TIME), (NAMES[2], &signature[3..])];
    assert!(!is_accepted(&receive_at(settings, &bare, BODY, AT)));
}

#[test]
fn bigcommerce_event_names_an_order() {
    let (event, _) = receive_and_map("bigcommerce", HOOK, &[]);
    assert_eq!(event.event_id, "msg_1");
    assert_eq!(
        (event.topic.as_str(), event.tenant.as_str()),
        ("store/order/statusUpdated", "stores/AbC123")
    );
    let expected = ResourceChange {
        platform: "bigcommerce",
        kind: "order".to_owned(),
        id: "9007199254740993".to_owned(),
        version: None,
        changed_at: datetime!(2026-01-02 12:00:05 UTC),
        action: "status_updated".to_owned(),
    };
    assert_eq!(change("bigcommerce", HOOK, &[]), expected);
    for (scope, action) in [
        ("created", "created"),
        ("updated", "updated"),
        ("archived", "archived"),
        ("refund/created", "refund_created"),
        ("transaction/updated", "transaction_updated"),
    ] {
        let scope = format!("\"store/order/{scope}\"");
        assert_eq!(change("bigcommerce", HOOK, &[("scope", &scope)]).action, action);
    }
    for scope in ["store/product/updated", "store/order/message/created", "store/cart/created", "x"]
    {
        let scope = format!("{scope:?}");
        assert_eq!(
            receive_and_map("bigcommerce", HOOK, &[("scope", &scope)]).1,
            Ok(MappedEvent::Ignored)
        );
    }
    let other = [("data", r#"{"type":"shipment","id":1}"#)];
    assert_eq!(receive_and_map("bigcommerce", HOOK, &other).1, Ok(MappedEvent::Ignored));
    let untimed = change("bigcommerce", HOOK, &[("created_at", "")]);
    assert_eq!(untimed.changed_at, envelope("", "").received_at);
    for (change, field) in [
        (("data", r#"{"type":"order"}"#), "/data/id"),
        (("producer", "null"), "/producer"),
        (("created_at", "\"x\""), "/created_at"),
    ] {
        assert_eq!(receive_and_map("bigcommerce", HOOK, &[change]).1.unwrap_err().field, field);
    }
}

const BIG_ORDER: &[(&str, &str)] = &[
    ("id", "250"),
    ("status", "\"Awaiting Fulfillment\""),
    ("status_id", "11"),
    ("payment_status", "\"captured\""),
    ("currency_code", "\"USD\""),
    ("total_inc_tax", "\"598.9400\""),
    ("refunded_amount", "\"0.0000\""),
    ("customer_id", "11"),
    ("date_created", "\"Fri, 02 Jan 2026 12:00:05 +0000\""),
    ("date_modified", "\"Sat, 03 Jan 2026 12:00:05 +0000\""),
];

#[test]
fn bigcommerce_fetched_order_is_mapped() {
    let (id, version, order) = fetched("bigcommerce", BIG_ORDER, &[]).unwrap();
    assert_eq!((id.as_str(), order.number.as_str()), ("250", "250"));
    assert_eq!(version, datetime!(2026-01-03 12:00:05 UTC));
    assert_eq!(order.placed_at, Some(datetime!(2026-01-02 12:00:05 UTC)));
    assert_eq!(order.total.amount.to_string(), "598.9400");
    assert_eq!(order.customer_ref.as_deref(), Some("11"));
    assert_eq!(order.platform_status, "Awaiting Fulfillment");
    let least = [
        ("customer_id", "0"),
        ("date_modified", ""),
        ("date_created", ""),
        ("refunded_amount", ""),
    ];
    let (_, version, order) = fetched("bigcommerce", BIG_ORDER, &least).unwrap();
    assert_eq!((version, order.placed_at, order.customer_ref), (AT, None, None));
    assert_eq!(order.refunded, Decimal::ZERO);
    for (change, field) in [
        (("id", ""), "/id"),
        (("total_inc_tax", "null"), "/total_inc_tax"),
        (("currency_code", "\"US\""), "/currency_code"),
        (("date_modified", "\"soon\""), "/date_modified"),
    ] {
        assert_eq!(fetched("bigcommerce", BIG_ORDER, &[change]).unwrap_err().field, field);
    }
}

#[test]
fn bigcommerce_status_depends_on_payment() {
    for (word, payment, status) in [
        ("Incomplete", "", OrderStatus::Pending),
        ("Pending", "", OrderStatus::Pending),
        ("Awaiting Payment", "", OrderStatus::Pending),
        ("Cancelled", "captured", OrderStatus::Cancelled),
        ("Declined", "", OrderStatus::Cancelled),
        ("Refunded", "refunded", OrderStatus::Refunded),
        ("Partially Refunded", "", OrderStatus::PartiallyRefunded),
        ("Awaiting Fulfillment", "", OrderStatus::Paid),
        ("Awaiting Shipment", "authorized", OrderStatus::Authorized),
        ("Awaiting Pickup", "capture pending", OrderStatus::Authorized),
        ("Shipped", "an unknown word", OrderStatus::Paid),
        ("Partially Shipped", "partially refunded", OrderStatus::PartiallyRefunded),
        ("Completed", "declined", OrderStatus::Failed),
        ("Completed", "void", OrderStatus::Cancelled),
        ("completed", "paid", OrderStatus::Paid),
        ("Manual Verification Required", "", OrderStatus::Other),
        ("Manual Verification Required", "held for review", OrderStatus::Pending),
        ("Disputed", "captured", OrderStatus::Other),
        ("An Unknown Word", "captured", OrderStatus::Other),
    ] {
        let changes =
            [("status", &*format!("{word:?}")), ("payment_status", &format!("{payment:?}"))];
        let (_, _, order) = fetched("bigcommerce", BIG_ORDER, &changes).unwrap();
        assert_eq!((order.status, order.platform_status.as_str()), (status, word), "{payment}");
    }
}

const ETSY: &[(&str, &str)] = &[
    ("event_type", "\"order.paid\""),
    (
        "resource_url",
        "\"https://openapi.etsy.com/v3/application/shops/12/receipts/9007199254740993\"",
    ),
    ("shop_id", "12"),
];

#[test]
fn etsy_event_names_a_receipt() {
    let (event, _) = receive_and_map("etsy", ETSY, &[]);
    assert_eq!((event.topic.as_str(), event.tenant.as_str()), ("order.paid", "12"));
    assert_eq!(event.version, Some(AT), "the signed time");
    let expected = ResourceChange {
        platform: "etsy",
        kind: "order".to_owned(),
        id: "9007199254740993".to_owned(),
        version: None,
        changed_at: AT,
        action: "paid".to_owned(),
    };
    assert_eq!(change("etsy", ETSY, &[]), expected);
    assert_eq!(receive_and_map("etsy", ETSY, &[("shop_id", "\"12\"")]).0.tenant, "12");
    for (url, id) in [
        ("https://x/v3/shops/12/receipts/34/", "34"),
        ("https://x/v3/shops/12/receipts/34?includes=5#6", "34"),
        ("/v3/shops/12/receipts/34/transactions", "34"),
    ] {
        let url = format!("{url:?}");
        assert_eq!(change("etsy", ETSY, &[("resource_url", &url)]).id, id);
    }
    for (change, field) in [
        (("resource_url", "\"https://x/v3/receipts\""), "/resource_url"),
        (("resource_url", "null"), "/resource_url"),
        (("shop_id", "null"), "/shop_id"),
    ] {
        assert_eq!(receive_and_map("etsy", ETSY, &[change]).1.unwrap_err().field, field);
    }
    let listing = [("event_type", "\"listing.updated\"")];
    assert_eq!(receive_and_map("etsy", ETSY, &listing).1, Ok(MappedEvent::Ignored));
}

#[test]
fn etsy_signature_version_is_optional() {
    let bare = V1.strip_prefix("v1,").unwrap();
    let given = [(NAMES[0], ID), (NAMES[1], TIME), (NAMES[2], bare)];
    for (settings, expected) in [("", false), ("profile = 'etsy'", true)] {
        assert_eq!(is_accepted(&receive_at((settings, SECRET), &given, BODY, AT)), expected);
    }
}

const RECEIPT: &[(&str, &str)] = &[
    ("receipt_id", "3021745515"),
    ("status", "\"Paid\""),
    ("is_paid", "true"),
    ("grandtotal", r#"{"amount":11250,"divisor":100,"currency_code":"USD"}"#),
    ("buyer_user_id", "102574536"),
    ("create_timestamp", "1767268805"),
    ("created_timestamp", "1767268805"),
    ("update_timestamp", "1767355205"),
    ("updated_timestamp", "1767355205"),
    (
        "transactions",
        r#"[{"transaction_id":7,"sku":"S","title":"Mug","quantity":3,"price":{"amount":3750,"divisor":100,"currency_code":"USD"}},
            {"price":{"amount":1,"divisor":1,"currency_code":"JPY"}}, {}]"#,
    ),
];

#[test]
fn etsy_fetched_receipt_is_mapped() {
    let (id, version, order) = fetched("etsy", RECEIPT, &[]).unwrap();
    assert_eq!((id.as_str(), order.number.as_str()), ("3021745515", "3021745515"));
    assert_eq!(version, datetime!(2026-01-02 12:00:05 UTC));
    assert_eq!(order.placed_at, Some(datetime!(2026-01-01 12:00:05 UTC)));
    assert_eq!(
        (order.total.amount.to_string().as_str(), order.total.currency.as_str()),
        ("112.50", "USD")
    );
    assert_eq!(order.customer_ref.as_deref(), Some("102574536"));
    let empty_line = OrderLine {
        id: None,
        sku: None,
        title: None,
        quantity: None,
        unit_price: None,
        total: None,
    };
    let mug = OrderLine {
        id: Some("7".to_owned()),
        sku: Some("S".to_owned()),
        title: Some("Mug".to_owned()),
        quantity: Some(Decimal::from(3)),
        unit_price: Some(Decimal::new(3750, 2)),
        total: Some(Decimal::new(11250, 2)),
    };
    assert_eq!(order.lines, [mug, empty_line.clone(), empty_line]);
    let one_name = [("created_timestamp", ""), ("updated_timestamp", "")];
    let (_, version, order) = fetched("etsy", RECEIPT, &one_name).unwrap();
    assert_eq!(version, datetime!(2026-01-02 12:00:05 UTC));
    assert_eq!(order.placed_at, Some(datetime!(2026-01-01 12:00:05 UTC)));
    let yen = [("grandtotal", r#"{"amount":11250,"divisor":1,"currency_code":"JPY"}"#)];
    assert_eq!(fetched("etsy", RECEIPT, &yen).unwrap().2.total.amount.to_string(), "11250");
    for (change, field) in [
        (("receipt_id", "null"), "/receipt_id"),
        (("grandtotal", "null"), "/grandtotal/amount"),
        (("grandtotal", r#"{"amount":1,"currency_code":"USD"}"#), "/grandtotal/divisor"),
        (
            ("grandtotal", r#"{"amount":1,"divisor":0,"currency_code":"USD"}"#),
            "/grandtotal/divisor",
        ),
        (
            ("grandtotal", r#"{"amount":1,"divisor":60,"currency_code":"USD"}"#),
            "/grandtotal/divisor",
        ),
        (
            ("grandtotal", r#"{"amount":1.5,"divisor":100,"currency_code":"USD"}"#),
            "/grandtotal/amount",
        ),
        (("grandtotal", r#"{"amount":1,"divisor":100}"#), "/grandtotal/currency_code"),
        (("transactions", r#"[{"quantity":"x"}]"#), "/transactions/0/quantity"),
        (("update_timestamp", "\"x\""), "/update_timestamp"),
    ] {
        assert_eq!(fetched("etsy", RECEIPT, &[change]).unwrap_err().field, field, "{change:?}");
    }
}

#[test]
fn etsy_statuses_are_normalized() {
    for (word, paid, status) in [
        ("Open", "false", OrderStatus::Pending),
        ("Payment Processing", "false", OrderStatus::Pending),
        ("Paid", "true", OrderStatus::Paid),
        ("paid", "null", OrderStatus::Paid),
        ("Completed", "false", OrderStatus::Pending),
        ("completed", "true", OrderStatus::Paid),
        ("Canceled", "true", OrderStatus::Cancelled),
        ("Fully Refunded", "true", OrderStatus::Refunded),
        ("Partially Refunded", "true", OrderStatus::PartiallyRefunded),
        ("An Unknown Word", "true", OrderStatus::Other),
    ] {
        let changes = [("status", &*format!("{word:?}")), ("is_paid", paid)];
        let (_, _, order) = fetched("etsy", RECEIPT, &changes).unwrap();
        assert_eq!((order.status, order.platform_status.as_str()), (status, word), "{paid}");
    }
}

#[test]
fn profiles_map_only_orders() {
    for profile in ["etsy", "bigcommerce"] {
        let config = source(profile);
        let source = config.sources.values().next().unwrap();
        let change = ResourceChange {
            platform: "either",
            kind: "listing".to_owned(),
            id: "1".to_owned(),
            version: None,
            changed_at: AT,
            action: "updated".to_owned(),
        };
        assert_eq!(source.map_resource(&change, &envelope("", ""), b"{}"), Ok(None));
    }
}

#[test]
fn profiles_business_key_is_the_resource_id() {
    for (profile, base) in [("bigcommerce", HOOK), ("etsy", ETSY)] {
        let config = source(profile);
        let source = config.sources.values().next().unwrap();
        let number = source.business_key(&envelope("", json_object(base, &[])));
        assert_eq!(number.as_deref(), Some("9007199254740993"));
        assert_eq!(source.business_key(&envelope("", "<x/>")), None);
    }
}
