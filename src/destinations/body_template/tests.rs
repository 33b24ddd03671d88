use serde_json::json;
use uuid::Uuid;

use super::*;

const JSON: &str = "application/json";

fn compile(text: &str, content_type: &str) -> Result<BodyTemplate, String> {
    let content_type = HeaderValue::try_from(content_type).unwrap();
    BodyTemplate::compile("destinations.x.body".to_owned(), text, &content_type)
        .map_err(|failure| failure.to_string())
}

/// Renders an invoice with this vendor and no due date.
fn render(text: &str, content_type: &str, vendor: &str) -> Result<String, String> {
    let document = json!({
        "vendor": vendor, "number": "A/1", "total": "12.50", "due_on": null,
        "lines": [{"sku": "a"}, {"sku": null}, {}],
    });
    let payload = DeliveryPayload {
        document: &document,
        event: "invoice.created",
        source: "vendors",
        tenant: "north",
        document_id: "32d02f0b-c140-5d1b-8b80-5c04c9bbee3d",
        document_number: Some("A/1"),
        issue: 2,
        idempotency_key: Uuid::nil(),
    };
    compile(text, content_type)?.render(&payload).map_err(|failure| failure.to_string())
}

#[test]
fn render_json_escapes_values() {
    for (text, expected) in [
        ("{{ vendor }}", json!("Ann")),
        ("{{ vendor|tojson }}", json!("Ann")),
        ("[{{ due_on }}, {{ due_on|tojson }}]", json!([null, null])),
        ("{{ total }}", json!("12.50")),
        ("{{ total|safe }}", json!(12.5)),
        ("{{ ('Invoice ' ~ number)|tojson }}", json!("Invoice A/1")),
        ("{{ 'Invoice ' ~ number }}", json!("Invoice A/1")),
        (
            "[{{ event }}, {{ source }}, {{ tenant }}, {{ issue }}, {{ idempotency_key }}]",
            json!([
                "invoice.created",
                "vendors",
                "north",
                2,
                "00000000-0000-0000-0000-000000000000"
            ]),
        ),
        (
            "[{% for line in lines %}{{ line.sku|default('-') }}{% if not loop.last %},{% endif %}{% endfor %}]",
            json!(["a", null, "-"]),
        ),
        ("[{% for i in range(3) %}{% if i %}, {% endif %}{{ i }}{% endfor %}]", json!([0, 1, 2])),
        ("{% if due_on %}1{% else %}2{% endif %}", json!(2)),
    ] {
        let rendered = render(text, JSON, "Ann").unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&rendered).unwrap(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn render_value_cannot_become_markup() {
    for vendor in [
        "\", \"total\": \"0",
        "Müller & \"Söhne\" <GmbH>\n",
        "\\",
        "'; --",
        "{{ total }}",
        "</v><v>",
    ] {
        for text in ["{\"v\": {{ vendor }}}", "{\"v\": {{ vendor|tojson }}}"] {
            let rendered = render(text, "application/vnd.x+json; charset=utf-8", vendor).unwrap();
            let parsed: serde_json::Value = serde_json::from_str(&rendered).unwrap();
            assert_eq!(parsed, json!({ "v": vendor }), "{rendered}");
        }
        let rendered = render("<v>{{ vendor }}</v>", "text/xml", vendor).unwrap();
        assert_eq!(rendered.matches('<').count(), 2, "{rendered}");
    }
    assert_eq!(
        render("<v>{{ vendor }}</v>", "application/xml", "a & b").unwrap(),
        "<v>a &amp; b</v>"
    );
}

#[test]
fn render_error_names_key_and_cause() {
    for (text, content_type, expected) in [
        ("{{ vendr }}", JSON, "there is no field vendr (line 1)"),
        ("1\n{{ vendr|tojson }}", JSON, "there is no field vendr (line 2)"),
        ("{{ vendr|upper }}", JSON, "there is no field vendr"),
        ("{{ vendr.name }}", JSON, "there is no field vendr"),
        ("{% if vendr %}1{% endif %}", JSON, "there is no field vendr"),
        ("{% for x in vendr %}1{% endfor %}", JSON, "there is no field vendr"),
        (
            "[{% for line in lines %}{{ line.skuu|tojson }}{% endfor %}]",
            JSON,
            "undefined value (line 1)",
        ),
        ("{\"v\": \"{{ vendor }}\"}", JSON, "is not JSON: "),
        ("{\"v\": {{ vendor }},}", JSON, "line 1 column 13"),
        ("", JSON, "is not JSON"),
        ("{{ due_on + 1 }}", JSON, "(line 1)"),
        ("<v>{{ due_on }}</v>", "text/xml", "null"),
        ("\0", "text/xml", "NUL"),
        ("{{ vendor", JSON, "syntax error"),
        ("{{ vendor|shout }}", JSON, "unknown filter"),
        ("{{ vendor }}", "text/plain", "JSON or an XML"),
        ("{{ vendor }}", "json", "JSON or an XML"),
        (
            "{% for i in range(10000) %}{% for j in range(10000) %}{{ j }}{% endfor %}{% endfor %}",
            JSON,
            "fuel",
        ),
    ] {
        let error = render(text, content_type, "Ann").unwrap_err();
        assert!(error.starts_with("destinations.x.body: "), "{error}");
        assert!(error.contains(expected), "{text:?} must say {expected:?}, says {error:?}");
    }
}

#[test]
fn variables_lists_undeclared_names() {
    let body =
        compile("{% set a = b %}{{ a }}{% for c in d %}{{ c }}{% endfor %}{{ range(1) }}", JSON);
    assert_eq!(body.unwrap().variables(), ["b", "d"]);
}
