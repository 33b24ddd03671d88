//! The mapping of fetched orders.

use super::*;

const ORDER: &[(&str, &str)] = &[
    ("id", "\"o-1\""),
    ("version", "9007199254740993"),
    ("state", "\"OPEN\""),
    ("total_money", r#"{"amount":1999,"currency":"USD"}"#),
    ("net_amount_due_money", r#"{"amount":1999,"currency":"USD"}"#),
    ("customer_id", "\"c-1\""),
    ("created_at", "\"2026-01-01T00:00:00Z\""),
    ("updated_at", "\"2026-01-02T00:00:00Z\""),
];

fn fetched(changes: &[(&str, &str)]) -> Result<Option<Change>, PermanentFailure> {
    let change = change("order.updated", r#"{"order_updated":{"order_id":"o-1","version":3}}"#);
    let resource = format!(r#"{{"order":{}}}"#, json_object(ORDER, changes));
    square().map_resource(&change, &envelope("order.updated", ""), resource.as_bytes())
}

fn order(changes: &[(&str, &str)]) -> (String, OffsetDateTime, Order) {
    match fetched(changes) {
        Ok(Some(Change::Order(update))) => match *update {
            OrderUpdate::State { order_id, version, order, restored: false } => {
                (order_id, version, *order)
            }
            other => panic!("must be a state, is {other:?}"),
        },
        other => panic!("must be an order, is {other:?}"),
    }
}

#[test]
fn square_fetched_order_is_mapped() {
    let lines = r#"[{"uid":"l-1","catalog_object_id":"a-1","name":"Tea","quantity":"1.5",
        "base_price_money":{"amount":1000,"currency":"USD"},"total_money":{"amount":1500,"currency":"USD"}},
        {"uid":"l-2"}]"#;
    let tenders = r#"[{"id":"t-1","payment_id":"p-1"},{"payment_id":"p-2"}]"#;
    let (id, version, full) =
        order(&[("line_items", lines), ("tenders", tenders), ("reference_id", "\"A-17\"")]);
    assert_eq!(id, "o-1");
    assert_eq!(version, datetime!(2026-01-02 0:00 UTC));
    assert_eq!(full.number, "A-17");
    assert_eq!(full.total.amount.to_string(), "19.99");
    assert_eq!(full.sequence, 9_007_199_254_740_993);
    assert_eq!(full.customer_ref.as_deref(), Some("c-1"));
    assert_eq!(full.payment_ref.as_deref(), Some("p-1"));
    assert_eq!(full.placed_at, Some(datetime!(2026-01-01 0:00 UTC)));
    let expected = serde_json::json!([
        {"id": "l-1", "sku": "a-1", "title": "Tea", "quantity": "1.5", "unit_price": "10.00", "total": "15.00"},
        {"id": "l-2"},
    ]);
    assert_eq!(serde_json::to_value(&full.lines).unwrap(), expected);

    let (_, _, plain) = order(&[("tenders", r#"[{"id":"t-1"}]"#)]);
    assert_eq!((plain.number.as_str(), plain.payment_ref.as_deref()), ("o-1", Some("t-1")));
    let (_, _, yen) = order(&[
        ("total_money", r#"{"amount":1200,"currency":"JPY"}"#),
        ("net_amount_due_money", ""),
    ]);
    assert_eq!(yen.total.amount.to_string(), "1200");
}

#[test]
fn square_order_status_depends_on_due_and_refunded() {
    use OrderStatus::{
        Cancelled, Other, Paid, PartiallyPaid, PartiallyRefunded, Pending, Refunded,
    };
    let back = |amount| {
        format!(
            r#"[{{"status":"COMPLETED","amount_money":{{"amount":{amount},"currency":"USD"}}}}]"#
        )
    };
    let due = |amount| format!(r#"{{"amount":{amount},"currency":"USD"}}"#);
    for (state, due, refunds, ours) in [
        ("OPEN", due(1999), String::new(), Pending),
        ("OPEN", String::new(), String::new(), Pending),
        ("OPEN", due(1), String::new(), PartiallyPaid),
        ("OPEN", due(0), String::new(), Paid),
        ("COMPLETED", String::new(), String::new(), Paid),
        ("COMPLETED", due(0), back(1), PartiallyRefunded),
        ("COMPLETED", due(0), back(1999), Refunded),
        ("CANCELED", due(0), String::new(), Cancelled),
        ("DRAFT", due(0), String::new(), Pending),
        ("UNKNOWN", due(0), String::new(), Other),
    ] {
        let (_, _, order) = order(&[
            ("state", &format!("{state:?}")),
            ("net_amount_due_money", &due),
            ("refunds", &refunds),
        ]);
        assert_eq!(
            (order.status, order.platform_status.as_str()),
            (ours, state),
            "{due} {refunds}"
        );
    }
}

#[test]
fn square_order_counts_completed_refunds() {
    let refunds = r#"[{"status":"COMPLETED","amount_money":{"amount":100,"currency":"USD"}},
        {"status":"APPROVED","amount_money":{"amount":10,"currency":"USD"}},
        {"status":"PENDING","amount_money":{"amount":1000,"currency":"USD"}},
        {"status":"REJECTED","amount_money":{"amount":1000,"currency":"USD"}}]"#;
    assert_eq!(order(&[("refunds", refunds)]).2.refunded.to_string(), "1.10");
    let foreign = r#"[{"status":"COMPLETED","amount_money":{"amount":1,"currency":"CAD"}}]"#;
    let failure = fetched(&[("refunds", foreign)]).unwrap_err();
    assert_eq!(failure.field, "/order/refunds/0/amount_money/currency");
}

#[test]
fn square_return_order_is_not_mapped() {
    assert_eq!(fetched(&[("returns", r#"[{"source_order_id":"o-0"}]"#)]), Ok(None));
    let exchange = [("returns", "[{}]"), ("line_items", "[{}]")];
    assert!(fetched(&exchange).unwrap().is_some());
    assert_eq!(fetched(&[("id", "")]), Err(PermanentFailure::missing("/order/id")));
    assert_eq!(fetched(&[("state", "")]), Err(PermanentFailure::missing("/order/state")));
}
