//! Values at pointers, and the errors of invalid ones.

use proptest::prelude::*;

use super::*;

fn with<T>(body: &str, pointers: &[&str], check: impl FnOnce(&JsonFields<'_>) -> T) -> T {
    let pointers = JsonPointers::new(pointers);
    check(&JsonFields::read(body.as_bytes(), &pointers).unwrap())
}

#[test]
fn json_literals_are_exact() {
    let body = r#"{"id": 820982911946154508, "a": {"b": [0, {"c~/": 0.10}]}, "x": [[[]]]}"#;
    with(body, &["/id", "/a/b/1/c~0~1", "/a/b", "/none"], |fields| {
        assert_eq!(fields.required_text("/id").unwrap(), "820982911946154508");
        assert_eq!(fields.required_decimal("/a/b/1/c~0~1").unwrap().to_string(), "0.10");
        assert_eq!(fields.text("/none").unwrap(), None);
    });
}

#[test]
fn json_pointer_may_extend_another() {
    with(r#"{"a": {"b": 1}}"#, &["/a", "/a/b"], |fields| {
        assert_eq!(fields.required_text("/a/b").unwrap(), "1");
        assert!(fields.raw("/a").is_some());
    });
}

#[test]
fn json_text_missing_null_and_empty_are_missing() {
    with(r#"{"a": null, "b": ""}"#, &["/a", "/b", "/c", "/a/x"], |fields| {
        for pointer in ["/a", "/b", "/c", "/a/x"] {
            assert_eq!(fields.required_text(pointer), Err(PermanentFailure::missing(pointer)));
        }
    });
}

#[test]
fn json_text_that_postgresql_cannot_store_is_rejected() {
    let body = r#"{"nul": "a\u0000b", "half": "\ud800", "list": [1], "n": "12x"}"#;
    with(body, &["/nul", "/half", "/list", "/n"], |fields| {
        for pointer in ["/nul", "/half", "/list"] {
            let failure = fields.text(pointer).unwrap_err();
            assert_eq!(
                (failure.reason, failure.field.as_str()),
                (ReasonCode::InvalidValue, pointer)
            );
        }
        assert_eq!(fields.decimal("/n").unwrap_err().field, "/n");
    });
}

#[test]
fn json_list_errors_contain_the_index() {
    let line = JsonPointers::new(["/price"]);
    with(r#"{"lines": [{"price": "1"}, {"price": "x"}]}"#, &["/lines"], |fields| {
        let lines = fields.list("/lines", &line).unwrap();
        assert_eq!(lines[0].required_decimal("/price").unwrap().to_string(), "1");
        assert_eq!(lines[1].decimal("/price").unwrap_err().field, "/lines/1/price");
    });
}

#[test]
fn json_elements_keep_their_raw_bytes() {
    let element = JsonPointers::new(["/id"]);
    with(r#" [ {"id" : 1.0} ,2,null ] "#, &[""], |fields| {
        let elements = fields.list("", &element).unwrap();
        let literals: Vec<_> = elements.iter().map(JsonFields::raw_json).collect();
        assert_eq!(literals, [r#"{"id" : 1.0}"#, "2", "null"]);
        assert!(elements[0].has("/id") && !elements[1].has("/id"));
        assert_eq!(fields.count(""), Ok(3));
    });
}

#[test]
fn json_integer_rejects_fractions() {
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
fn json_malformed_body_is_rejected() {
    let pointers = JsonPointers::new(["/a"]);
    for body in [&b"{\"a\": "[..], b"", b"{} x", b"\xff\xfe", b"<order/>"] {
        let failure = JsonFields::read(body, &pointers).unwrap_err();
        assert_eq!(failure.reason, ReasonCode::InvalidJson);
    }
}

#[test]
fn json_deep_nesting_needs_no_stack() {
    let body = format!(r#"{{"deep": {}{}, "a": 1}}"#, "[".repeat(100_000), "]".repeat(100_000));
    with(&body, &["/a"], |fields| assert_eq!(fields.required_text("/a").unwrap(), "1"));
}

#[test]
fn json_dates_before_year_one_are_rejected() {
    with(
        r#"{"a":"-5000-01-01","b":-300000000000,"c":"0001-01-01"}"#,
        &["/a", "/b", "/c"],
        |fields| {
            assert_eq!(fields.date("/a").unwrap_err().field, "/a");
            assert_eq!(fields.date("/b").unwrap_err().field, "/b");
            assert!(fields.date("/c").unwrap().is_some());
        },
    );
}

#[test]
fn json_dates_and_timestamps_are_trimmed() {
    with(
        r#"{"a":" 2026-03-01 ","b":" ","c":" 2026-03-01T00:00:00Z"}"#,
        &["/a", "/b", "/c"],
        |fields| {
            assert!(fields.date("/a").unwrap().is_some());
            assert!(fields.date("/c").unwrap().is_some());
            assert!(fields.timestamp("/c").unwrap().is_some());
            assert_eq!(fields.date("/b"), Ok(None));
            assert_eq!(fields.timestamp("/b"), Ok(None));
        },
    );
}

proptest! {
    #[test]
    fn json_random_body_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let pointers = JsonPointers::new(["/a", "/a/b", "/0"]);
        let _ = JsonFields::read(&body, &pointers);
    }
}
