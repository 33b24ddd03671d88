//! What the readers return for a file, with line numbers.

mod memory;
mod random;

use super::*;

const LIMIT: usize = 1000;

fn form(columns: &[&str]) -> CsvDialect {
    CsvDialect {
        delimiter: b',',
        required_columns: columns.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// One line per item: `7 {"a":"1"}`, `7 ! error`, and `7 !! error` for the error that ends
/// reading.
fn read_all(format: ImportFormat, csv: &CsvDialect, file: &[u8]) -> Vec<String> {
    FileReader::new(file, format, csv, LIMIT)
        .map(|read| match read {
            Ok(FileItem { line, body: Ok(body), .. }) => {
                format!("{line} {}", String::from_utf8(body.to_vec()).unwrap())
            }
            Ok(FileItem { line, body: Err(failure), .. }) => format!("{line} ! {failure}"),
            Err(broken) => format!("{} !! {}", broken.line, broken.message),
        })
        .collect()
}

fn newlines(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.split(|byte| *byte == b'\n').skip(1).count()).unwrap()
}

fn check(format: ImportFormat, csv: &CsvDialect, cases: &[(&[u8], &[&str])]) {
    for (file, expected) in cases {
        let shown = String::from_utf8_lossy(file);
        assert_eq!(read_all(format, csv, file), *expected, "{shown:?}");
    }
}

#[test]
fn csv_rows_become_objects_of_texts() {
    check(
        ImportFormat::Csv,
        &form(&["b"]),
        &[
            (b"a,b\n1,2\n3,4\n", &[r#"2 {"a":"1","b":"2"}"#, r#"3 {"a":"3","b":"4"}"#]),
            (b"a,b\n1,2", &[r#"2 {"a":"1","b":"2"}"#]),
            (b"a,b\r\n1,2\r\n3,4\r\n", &[r#"2 {"a":"1","b":"2"}"#, r#"3 {"a":"3","b":"4"}"#]),
            (b"\xef\xbb\xbfa,b\n1,2\n", &[r#"2 {"a":"1","b":"2"}"#]),
            (b"\xef\xbb\xbf\"a\",b\n1,2\n", &[r#"2 {"a":"1","b":"2"}"#]),
            // Order of the file, trimmed names, unchanged values.
            (b"b , a\n 2 ,1\n", &[r#"2 {"b":" 2 ","a":"1"}"#]),
            // Blank lines are not rows; lines of empty fields are.
            (b"\n\na,b\n\n1,2\n  \r\n,\n\n", &[r#"5 {"a":"1","b":"2"}"#, r#"7 {"a":"","b":""}"#]),
            // Delimiters, quotes and line ends within quotes.
            (b"a,b\n\"1,1\",\"say \"\"x\"\"\"\n", &[r#"2 {"a":"1,1","b":"say \"x\""}"#]),
            (
                b"a,b\n\"1\n\r\n2\",x\n3,4\n",
                &[r#"2 {"a":"1\n\r\n2","b":"x"}"#, r#"5 {"a":"3","b":"4"}"#],
            ),
            (b"a,b\n\"\",\"\"\n", &[r#"2 {"a":"","b":""}"#]),
            (b"\"a\n1\",b\n1,2\n", &[r#"3 {"a\n1":"1","b":"2"}"#]),
            // A bare quote is text, as in inches.
            (b"a,b\n5\" pipe,2\n", &[r#"2 {"a":"5\" pipe","b":"2"}"#]),
            ("a,b\nü€,\u{1f600}\n".as_bytes(), &["2 {\"a\":\"ü€\",\"b\":\"\u{1f600}\"}"]),
            (b"a,b\n\x00,\x01\n", &[r#"2 {"a":"\u0000","b":"\u0001"}"#]),
            (b"a,b\n1\r2,3\n", &[r#"2 {"a":"1\r2","b":"3"}"#]),
            (b"b\n1\n", &[r#"2 {"b":"1"}"#]),
            (b"a,b\n", &[]),
            (b"a,b", &[]),
        ],
    );
    let tabs = CsvDialect { delimiter: b'\t', required_columns: vec!["b".to_owned()] };
    let rows: &[&str] = &[r#"2 {"a":"1,1","b":"2"}"#, r#"3 {"a":"","b":""}"#];
    check(ImportFormat::Csv, &tabs, &[(b"a\tb\n1,1\t2\n\t\n \n", rows)]);
}

#[test]
fn csv_malformed_row_is_reported_alone() {
    let good = |line: u32| format!(r#"{line} {{"a":"1","b":"2"}}"#);
    for (rows, lines) in [
        (&b"1\n"[..], &["3 ! has 1 field, the header has 2"][..]),
        (b"1,2,3\n", &["3 ! has 3 fields, the header has 2"]),
        (b"\xff,2\n", &["3 ! is not UTF-8"]),
        (b"\"1,2\n", &["3 ! a quote is not closed"]),
        (b"1,\"2\n", &["3 ! a quote is not closed"]),
        (b"\"1\"x,2\n", &["3 ! there is text after a closing quote"]),
        (b"\"1\" ,2\n", &["3 ! there is text after a closing quote"]),
        // Also if a quote on a later line would close them.
        (
            b"\"1,2\n\"\"x,2\n",
            &["3 ! a quote is not closed", "4 ! there is text after a closing quote"],
        ),
        (
            b"1,\"2\n1,2,\"3\"\n",
            &["3 ! a quote is not closed", "4 ! has 3 fields, the header has 2"],
        ),
        (b"\"1,2\n1,\", 2\"\n", &["3 ! a quote is not closed", r#"4 {"a":"1","b":", 2"}"#]),
        // A record of several lines with too few fields.
        (b"\"1\n2\"\n", &["3 ! a quote is not closed", "4 ! has 1 field, the header has 2"]),
        (b"\"1\xff\n\",2\n", &["3 ! is not UTF-8"]),
    ] {
        let file = [b"a,b\n1,2\n", rows, b"1,2\n"].concat();
        let extra_lines = newlines(rows);
        let lines = lines.iter().map(|line| (*line).to_owned());
        let expected: Vec<_> =
            [good(2)].into_iter().chain(lines).chain([good(3 + extra_lines)]).collect();
        let shown = String::from_utf8_lossy(rows);
        assert_eq!(read_all(ImportFormat::Csv, &form(&[]), &file), expected, "{shown:?}");
    }
    let last = read_all(ImportFormat::Csv, &form(&[]), b"a,b\n1,2\n\"1,2");
    assert_eq!(last, [&good(2), "3 ! a quote is not closed"]);
}

#[test]
fn csv_row_above_limit_is_rejected() {
    let long = "x".repeat(LIMIT);
    let open = format!("\"{}", "line\n".repeat(LIMIT));
    let file = format!("a,b\n{long},2\n\"1\n{long}\n{long}{long}\",2\n{open}");
    let read = read_all(ImportFormat::Csv, &form(&[]), file.as_bytes());
    assert_eq!(
        read[..3],
        [
            "2 ! is larger than 1000 bytes",
            "3 ! a quote is not closed",
            "4 ! has 1 field, the header has 2",
        ]
    );
    assert_eq!(
        read[3..6],
        [
            "5 ! is larger than 1000 bytes",
            "6 ! a quote is not closed",
            "7 ! has 1 field, the header has 2",
        ]
    );
    assert_eq!(read.len(), 6 + LIMIT - 1 - 1);
    // In JSON, control characters are longer than in the file.
    let file = format!("a,b\n{},2\n1,2\n", "\u{1}".repeat(LIMIT / 2));
    let read = read_all(ImportFormat::Csv, &form(&[]), file.as_bytes());
    assert_eq!(read, ["2 ! is larger than 1000 bytes", r#"3 {"a":"1","b":"2"}"#]);
}

#[test]
fn csv_invalid_header_ends_reading() {
    let wide = vec!["x"; 1001].join(",");
    check(
        ImportFormat::Csv,
        &form(&["amount", "vendor"]),
        &[
            (b"", &["1 !! the file is empty"]),
            (b"\xef\xbb\xbf\n \n", &["3 !! the file is empty"]),
            (b"\nvendor,,amount\n", &["2 !! the header has no name for column 2"]),
            (b"vendor,amount,vendor\nx", &["1 !! the header names the column \"vendor\" twice"]),
            (
                b"Vendor;amount\n1;2\n1;2\n",
                &[r#"1 !! the header lacks "amount", "vendor"; it has "Vendor;amount""#],
            ),
            (b"vendor\n1\n", &[r#"1 !! the header lacks "amount"; it has "vendor""#]),
            (
                b"vendor,amount\r1,2\r",
                &["1 !! the header ends with a CR alone; lines must end with LF or CRLF"],
            ),
            (b"vendor,\"amount\n1,2\n", &["1 !! the header: a quote is not closed"]),
            (b"vend\xf6r,amount\n", &["1 !! the header is not UTF-8"]),
            (b"\xff\xfev\0", &["1 !! the header is not UTF-8"]),
            (wide.as_bytes(), &["1 !! the header: is larger than 1000 bytes"]),
        ],
    );
    let names: Vec<_> = (0..1001).map(|index| index.to_string()).collect();
    let broken = FileReader::new(names.join(",").as_bytes(), ImportFormat::Csv, &form(&[]), 10_000)
        .next()
        .unwrap()
        .unwrap_err();
    assert_eq!(broken.to_string(), "line 1: the header has more than 1000 columns");
}

#[test]
fn ndjson_malformed_line_is_reported_alone() {
    let long = format!("{{\"a\":\"{}\"}}\n{{}}", "x".repeat(LIMIT));
    check(
        ImportFormat::NdJson,
        &form(&["ignored"]),
        &[
            (b"{\"a\":1}\n{\"a\":[{}]}\n", &[r#"1 {"a":1}"#, r#"2 {"a":[{}]}"#]),
            (b"\xef\xbb\xbf {\"a\":1} \r\n\r\n \t\n{}", &[r#"1 {"a":1}"#, "4 {}"]),
            (
                b"{}\n{\"a\":\n{}\n",
                &["1 {}", "2 ! is not JSON: EOF while parsing a value at column 5", "3 {}"],
            ),
            (b"{\"a\":1,}\n", &["1 ! is not JSON: key must be a string at column 8"]),
            (b"{}{}\n{}", &["1 ! is not JSON: trailing characters at column 3", "2 {}"]),
            (
                b"[1]\n7\nnull\n\"{\"\n{}\n",
                &[
                    "1 ! is not a JSON object",
                    "2 ! is not a JSON object",
                    "3 ! is not a JSON object",
                    "4 ! is not a JSON object",
                    "5 {}",
                ],
            ),
            (b"{\"a\":\"\xff\"}\n{}", &["1 ! is not UTF-8", "2 {}"]),
            (long.as_bytes(), &["1 ! is larger than 1000 bytes", "2 {}"]),
            (b"", &[]),
            (b"\n\n", &[]),
        ],
    );
}

#[test]
fn json_array_is_read_by_element() {
    let long = format!("[{{}},\n{{\"a\":\"{}\"}},{{}}]", "x".repeat(LIMIT));
    check(
        ImportFormat::Json,
        &form(&["ignored"]),
        &[
            (b"[{\"a\":1},{\"b\":[1,{}]}]", &[r#"1 {"a":1}"#, r#"1 {"b":[1,{}]}"#]),
            (
                b"\xef\xbb\xbf\n[\n {\n\"a\": \"],}\\\"\"\n}\n,\n\n{}\n]\n",
                &["3 {\n\"a\": \"],}\\\"\"\n}", "8 {}"],
            ),
            // An escaped backslash before the closing quote.
            (b"[{\"a\":\"\\\\\"},{}]", &[r#"1 {"a":"\\"}"#, "1 {}"]),
            (b"[]", &[]),
            (b" [ \n ] \n", &[]),
            (
                b"[7,\n[{}], null,\"],\",{}]",
                &[
                    "1 ! is not a JSON object",
                    "2 ! is not a JSON object",
                    "2 ! is not a JSON object",
                    "2 ! is not a JSON object",
                    "2 {}",
                ],
            ),
            (b"[{\"a\":\"\xff\"},{}]", &["1 ! is not UTF-8", "1 {}"]),
            // From here on the rest of the file is unreadable.
            (b"", &["1 !! the file is empty"]),
            (b"\n{\"a\":1}", &["2 !! the file is not a JSON array"]),
            (b"[{}", &["1 {}", "1 !! the file ends within the array"]),
            (b"[{},\n", &["1 {}", "2 !! the file ends within the array"]),
            (b"[{},\n{\"a\"", &["1 {}", "2 !! the file ends within the array"]),
            (b"[{},\n]", &["1 {}", "2 !! an element is missing after a comma"]),
            (b"[,{}]", &["1 !! an element is missing after a comma"]),
            (b"[{}\n{}]", &["1 {}", "2 !! a comma is missing after an element"]),
            (b"[{},\n{\n\"a\":}\n,{}]", &["1 {}", "3 !! is not JSON: expected value"]),
            (b"[{}]\n[{}]", &["1 {}", "2 !! there is text after the array"]),
            (long.as_bytes(), &["1 {}", "2 !! is larger than 1000 bytes"]),
        ],
    );
}

#[test]
fn item_raw_bytes_are_those_of_the_file() {
    let raw = |format: ImportFormat, file: &[u8]| -> Vec<Vec<u8>> {
        let reader = FileReader::new(file, format, &form(&[]), 100_000);
        reader.map(|item| item.unwrap().raw.to_vec()).collect()
    };
    let file = b"a,b\r\n\"1\n\",2\r\n\"1,\xff\n3\n";
    assert_eq!(raw(ImportFormat::Csv, file), [&b"\"1\n\",2"[..], b"\"1,\xff", b"3"]);
    assert_eq!(raw(ImportFormat::NdJson, b" {} \n{\n"), [&b"{}"[..], b"{"]);
    assert_eq!(raw(ImportFormat::Json, b"[ {} , 1]"), [&b"{}"[..], b"1"]);
    let long = format!("a\n{}\n{}\n", "x".repeat(70_000), "y".repeat(100_001));
    let stored = raw(ImportFormat::Csv, long.as_bytes());
    assert_eq!(stored, [vec![b'x'; MAX_RAW_BYTES], vec![b'y'; MAX_RAW_BYTES]]);
}

#[test]
fn reader_io_error_ends_reading() {
    /// Returns one byte per read, and then an error.
    struct Failing(&'static [u8]);
    impl io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (first, rest) =
                self.0.split_first().ok_or_else(|| io::Error::other("connection reset"))?;
            self.0 = rest;
            buffer[0] = *first;
            Ok(1)
        }
    }
    for (format, file) in [
        (ImportFormat::Csv, &b"a,b\n1,2\n3"[..]),
        (ImportFormat::NdJson, b"\n{}\n{"),
        (ImportFormat::Json, b"[\n{},\n{"),
    ] {
        let input = io::BufReader::with_capacity(1, Failing(file));
        let mut reader = FileReader::new(input, format, &form(&[]), LIMIT);
        assert_eq!(reader.next().unwrap().unwrap().line, 2, "{format:?}");
        let broken = reader.next().unwrap().unwrap_err();
        let expected = "line 3: cannot read the file: connection reset";
        assert_eq!(broken.to_string(), expected, "{format:?}");
        assert_eq!(reader.next(), None, "{format:?}");
    }
}

#[test]
fn item_of_exactly_the_limit_is_read() {
    let text = |length: usize| "x".repeat(length);
    // The object `{"a":""}` has eight bytes.
    let object = |length: usize| format!("{{\"a\":\"{}\"}}", text(length - 8));
    let (longest, too_long) = (object(LIMIT), object(LIMIT + 1));
    let rejected = "2 ! is larger than 1000 bytes";
    for end in ["\n", "\r\n"] {
        let file = format!("a{end}{}{end}", text(LIMIT - 8));
        let read = read_all(ImportFormat::Csv, &form(&[]), file.as_bytes());
        assert_eq!(read, [format!("2 {longest}")], "{end:?}");
        let file = format!("a{end}{}{end}", text(LIMIT - 7));
        assert_eq!(read_all(ImportFormat::Csv, &form(&[]), file.as_bytes()), [rejected]);
    }
    for end in ["", "\n"] {
        let file = format!("\n{longest}{end}");
        let read = read_all(ImportFormat::NdJson, &form(&[]), file.as_bytes());
        assert_eq!(read, [format!("2 {longest}")], "{end:?}");
        let file = format!("\n{too_long}{end}");
        assert_eq!(read_all(ImportFormat::NdJson, &form(&[]), file.as_bytes()), [rejected]);
    }
    let file = format!("[\n{longest}]");
    let read = read_all(ImportFormat::Json, &form(&[]), file.as_bytes());
    assert_eq!(read, [format!("2 {longest}")]);
    let file = format!("[\"{}\"]", text(LIMIT - 2));
    let read = read_all(ImportFormat::Json, &form(&[]), file.as_bytes());
    assert_eq!(read, ["1 ! is not a JSON object"]);
    for element in [too_long, format!("\"{}\"", text(LIMIT - 1))] {
        let file = format!("[\n{element}]");
        let read = read_all(ImportFormat::Json, &form(&[]), file.as_bytes());
        assert_eq!(read, ["2 !! is larger than 1000 bytes"]);
    }
}

#[test]
fn csv_row_of_several_lines_ends_at_limit() {
    let read = |length: usize| {
        let file = format!("a,b\n\"1\n{}\",2\n", "x".repeat(length));
        read_all(ImportFormat::Csv, &form(&[]), file.as_bytes())
    };
    // The rest of the row has seven bytes. As JSON, the row is too large.
    assert_eq!(read(LIMIT - 7), ["2 ! is larger than 1000 bytes"]);
    // Either the row or its second line is above the limit.
    for length in [LIMIT - 6, LIMIT + 1] {
        let expected = ["2 ! a quote is not closed", "3 ! is larger than 1000 bytes"];
        assert_eq!(read(length), expected, "{length}");
    }
}

#[test]
fn csv_row_after_unclosed_quote_may_span_lines() {
    let rows = &["2 ! a quote is not closed", r#"3 {"a":"xxxxxxxxxx","b":"y\nz"}"#];
    check(
        ImportFormat::Csv,
        &form(&[]),
        &[
            (b"a,b\n\"1\nxxxxxxxxxx,\"y\nz\"\n", rows),
            (b"a,b\n\"1\nxxxxxxxxxx,\"y\nz\"", rows),
            (b"a,b\n\"1,2\n", &["2 ! a quote is not closed"]),
        ],
    );
}

#[test]
fn csv_header_of_maximum_columns_is_accepted() {
    let names: Vec<_> = (0..1000).map(|index| index.to_string()).collect();
    let file = format!("{}\n{}\n", names.join(","), names.join(","));
    let mut reader = FileReader::new(file.as_bytes(), ImportFormat::Csv, &form(&["999"]), 100_000);
    let body = reader.next().unwrap().unwrap().body.unwrap();
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&body).unwrap();
    assert_eq!((object.len(), object["999"].as_str()), (1000, Some("999")));
}
