//! Random rows with random quoting, and malformed lines among them.

use proptest::prelude::*;

use super::{super::*, form, newlines};

/// A field, and whether it is quoted without need.
type Field = (String, bool);

/// The line number of an item, and its fields if it is a row.
type ParsedLine = (u32, Option<[String; 3]>);

/// Lines that are not rows of three fields.
const BROKEN: [&[u8]; 8] = [
    b"one",
    b"1,2",
    b"1,2,3,4",
    b"\xff,2,3",
    b"\"open,2,3",
    b"1,\"open,3",
    b"1,2,\"open",
    b"\"a\"b,2,3",
];

#[derive(Clone, Debug)]
enum Line {
    Row([Field; 3]),
    Blank,
    Broken(usize),
}

fn any_field() -> impl Strategy<Value = Field> + Clone {
    ("[a-c ,;\"\r\nü€\u{1f600}\u{0}]{0,8}", any::<bool>())
}

/// A field whose content does not look like the text between fields, so that quoted and
/// unquoted text can be distinguished.
fn plain_field() -> impl Strategy<Value = Field> + Clone {
    ("([a-c]|[a-c][a-c ,\"\r\nü]{0,6}[a-c])?", any::<bool>())
}

fn row(field: impl Strategy<Value = Field> + Clone) -> impl Strategy<Value = Line> {
    [field.clone(), field.clone(), field].prop_map(Line::Row)
}

fn to_csv((text, quoted): &Field) -> String {
    if *quoted || text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.clone()
    }
}

/// The file, and what the reader must return.
fn file(lines: &[Line], end: &str) -> (Vec<u8>, Vec<ParsedLine>) {
    let mut file = format!("a,b,c{end}").into_bytes();
    let mut expected = Vec::new();
    for line in lines {
        let number = 1 + newlines(&file);
        match line {
            Line::Row(fields) => {
                file.extend(fields.each_ref().map(to_csv).join(",").bytes());
                expected.push((number, Some(fields.clone().map(|(text, _)| text))));
            }
            Line::Blank => {}
            Line::Broken(which) => {
                file.extend(BROKEN[*which]);
                expected.push((number, None));
            }
        }
        file.extend(end.bytes());
    }
    (file, expected)
}

fn check(lines: &[Line], end: &str, chunk: usize) -> Result<(), TestCaseError> {
    let (file, expected) = file(lines, end);
    let input = io::BufReader::with_capacity(chunk, &file[..]);
    let read: Vec<ParsedLine> = FileReader::new(input, ImportFormat::Csv, &form(&["a"]), 10_000)
        .map(|item| {
            let item = item.unwrap();
            let fields = item.body.ok().map(|body| {
                let object: serde_json::Value = serde_json::from_slice(&body).unwrap();
                ["a", "b", "c"].map(|name| object[name].as_str().unwrap().to_owned())
            });
            (item.line, fields)
        })
        .collect();
    prop_assert_eq!(read, expected, "{}", String::from_utf8_lossy(&file));
    Ok(())
}

fn end() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("\n"), Just("\r\n")]
}

proptest! {
    #[test]
    fn csv_random_rows_round_trip(
        lines in prop::collection::vec(prop_oneof![4 => row(any_field()), 1 => Just(Line::Blank)], 0..12),
        end in end(),
        chunk in 1_usize..40,
    ) {
        check(&lines, end, chunk)?;
    }

    #[test]
    fn csv_random_malformed_lines_are_reported_alone(
        lines in prop::collection::vec(
            prop_oneof![
                3 => row(plain_field()),
                1 => Just(Line::Blank),
                2 => (0..BROKEN.len()).prop_map(Line::Broken),
            ],
            0..12,
        ),
        end in end(),
        chunk in 1_usize..40,
    ) {
        check(&lines, end, chunk)?;
    }

    #[test]
    fn reader_random_bytes_never_panic(
        file in prop::collection::vec(prop::sample::select(&b"a,\"\\\r\n {}[]:1\xff\xef\xbb\xbf"[..]), 0..60),
        limit in 1_usize..20,
    ) {
        for format in [ImportFormat::Csv, ImportFormat::NdJson, ImportFormat::Json] {
            let read = FileReader::new(&file[..], format, &form(&[]), limit).count();
            prop_assert!(read <= file.len() + 1);
        }
    }
}
