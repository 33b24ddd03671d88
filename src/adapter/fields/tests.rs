//! Literals found at pointers, and what is told where they are not right.

use proptest::prelude::*;
use time::macros::datetime;

use super::*;

fn with<T>(body: &str, pointers: &[&str], check: impl FnOnce(&Fields<'_>) -> T) -> T {
    let pointers = Pointers::new(pointers);
    check(&Fields::read(body.as_bytes(), &pointers).unwrap())
}

#[test]
fn literals_stay_exact() {
    let body = r#"{"id": 820982911946154508, "a": {"b": [0, {"c~/": 0.10}]}, "x": [[[]]]}"#;
    with(body, &["/id", "/a/b/1/c~0~1", "/a/b", "/none"], |fields| {
        assert_eq!(fields.required_text("/id").unwrap(), "820982911946154508");
        assert_eq!(fields.required_decimal("/a/b/1/c~0~1").unwrap().to_string(), "0.10");
        assert_eq!(fields.text("/none").unwrap(), None);
    });
}

#[test]
fn a_pointer_may_lead_through_another() {
    with(r#"{"a": {"b": 1}}"#, &["/a", "/a/b"], |fields| {
        assert_eq!(fields.required_text("/a/b").unwrap(), "1");
        assert!(fields.raw("/a").is_some());
    });
}

#[test]
fn missing_null_and_empty_are_alike() {
    with(r#"{"a": null, "b": ""}"#, &["/a", "/b", "/c", "/a/x"], |fields| {
        for pointer in ["/a", "/b", "/c", "/a/x"] {
            assert_eq!(fields.required_text(pointer), Err(Failure::missing(pointer)));
        }
    });
}

#[test]
fn what_the_database_could_not_store_is_refused_here() {
    let body = r#"{"nul": "a\u0000b", "half": "\ud800", "list": [1], "n": "12x"}"#;
    with(body, &["/nul", "/half", "/list", "/n"], |fields| {
        for pointer in ["/nul", "/half", "/list"] {
            let failure = fields.text(pointer).unwrap_err();
            assert_eq!((failure.reason, failure.field.as_str()), (Reason::InvalidValue, pointer));
        }
        assert_eq!(fields.decimal("/n").unwrap_err().field, "/n");
    });
}

#[test]
fn elements_of_a_list_are_named_by_their_place() {
    let line = Pointers::new(["/price"]);
    with(r#"{"lines": [{"price": "1"}, {"price": "x"}]}"#, &["/lines"], |fields| {
        let lines = fields.list("/lines", &line).unwrap();
        assert_eq!(lines[0].required_decimal("/price").unwrap().to_string(), "1");
        assert_eq!(lines[1].decimal("/price").unwrap_err().field, "/lines/1/price");
    });
}

#[test]
fn a_document_knows_its_own_bytes() {
    let element = Pointers::new(["/id"]);
    with(r#" [ {"id" : 1.0} ,2,null ] "#, &[""], |fields| {
        let elements = fields.list("", &element).unwrap();
        let literals: Vec<_> = elements.iter().map(Fields::literal).collect();
        assert_eq!(literals, [r#"{"id" : 1.0}"#, "2", "null"]);
        assert!(elements[0].has("/id") && !elements[1].has("/id"));
        assert_eq!(fields.count(""), Ok(3));
    });
}

#[test]
fn whole_numbers_are_no_fractions() {
    let body =
        r#"{"a": "7", "b": 9223372036854775807, "c": 1.0, "d": "x", "e": 9223372036854775808}"#;
    with(body, &["/a", "/b", "/c", "/d", "/e", "/f"], |fields| {
        assert_eq!(fields.integer("/a"), Ok(Some(7)));
        assert_eq!(fields.integer("/b"), Ok(Some(i64::MAX)));
        assert_eq!(fields.integer("/f"), Ok(None));
        for pointer in ["/c", "/d", "/e"] {
            assert_eq!(fields.integer(pointer).unwrap_err().field, pointer);
        }
    });
}

#[test]
fn what_is_not_json_is_told_with_its_place() {
    let pointers = Pointers::new(["/a"]);
    for body in [&b"{\"a\": "[..], b"", b"{} x", b"\xff\xfe", b"<order/>"] {
        let failure = Fields::read(body, &pointers).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidJson);
    }
}

#[test]
fn deep_nesting_beside_the_pointers_costs_no_stack() {
    let body = format!(r#"{{"deep": {}{}, "a": 1}}"#, "[".repeat(100_000), "]".repeat(100_000));
    with(&body, &["/a"], |fields| assert_eq!(fields.required_text("/a").unwrap(), "1"));
}

#[test]
fn moments_are_read_as_senders_write_them() {
    for (text, expected) in [
        ("2026-01-02T03:04:05-05:00", datetime!(2026-01-02 8:04:05 UTC)),
        ("2026-01-02T03:04:05Z", datetime!(2026-01-02 3:04:05 UTC)),
        ("2026-01-02T03:04:05", datetime!(2026-01-02 3:04:05 UTC)),
        ("2026-01-02 03:04:05.250", datetime!(2026-01-02 3:04:05.25 UTC)),
        ("1767323045", datetime!(2026-01-02 3:04:05 UTC)),
        ("Fri, 02 Jan 2026 03:04:05 +0000", datetime!(2026-01-02 3:04:05 UTC)),
        ("2 Jan 2026 03:04:05 -0500", datetime!(2026-01-02 8:04:05 UTC)),
        // QuickBooks.
        ("2015-10-05T14:42:19-0700", datetime!(2015-10-05 21:42:19 UTC)),
        ("2015-10-05T14:42:19.5+0530", datetime!(2015-10-05 9:12:19.5 UTC)),
        // Xero.
        ("/Date(1573755038314)/", datetime!(2019-11-14 18:10:38.314 UTC)),
        ("/Date(1573755038314+0000)/", datetime!(2019-11-14 18:10:38.314 UTC)),
        ("/Date(1573755038314-0800)/", datetime!(2019-11-14 18:10:38.314 UTC)),
        ("/Date(-1000+0000)/", datetime!(1969-12-31 23:59:59 UTC)),
    ] {
        assert_eq!(parse_moment(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "yesterday",
        "2026-13-01T00:00:00Z",
        "99999999999999999999",
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59-2359",
        "2015-10-05T14:42:19-07",
        "/Date()/",
        "/Date(+0000)/",
        "/Date(-300000000000000+0000)/",
        "-300000000000",
        "-5000-01-01T00:00:00",
        "0000-12-31T23:59:59Z",
        "/Date(9223372036854775807)/",
        "/Date(1573755038314",
        "Date(1573755038314)",
    ] {
        assert_eq!(parse_moment(text), None, "{text}");
    }
}

#[test]
fn days_before_our_era_are_none() {
    with(
        r#"{"a":"-5000-01-01","b":-300000000000,"c":"0001-01-01"}"#,
        &["/a", "/b", "/c"],
        |fields| {
            assert_eq!(fields.day("/a").unwrap_err().field, "/a");
            assert_eq!(fields.day("/b").unwrap_err().field, "/b");
            assert!(fields.day("/c").unwrap().is_some());
        },
    );
}

proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let pointers = Pointers::new(["/a", "/a/b", "/0"]);
        let _ = Fields::read(&body, &pointers);
    }
}
