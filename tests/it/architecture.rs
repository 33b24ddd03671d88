//! Who may import whom, read from the `use` lines and paths of `src`.

use std::{fs, path::Path};

/// One source file: its module (`store`, `worker`, ...), its path, its text
/// without comments.
struct File {
    module: String,
    path: String,
    text: String,
}

impl File {
    /// Whether it is only there when tests are built.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || self.path.starts_with("adapter/conformance")
    }
}

fn files() -> Vec<File> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<File>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                let module = relative.split(['/', '.']).next().unwrap().to_owned();
                let whole = fs::read_to_string(&path).unwrap();
                let code = |line: &&str| !line.trim_start().starts_with("//");
                let text = whole.lines().filter(code).collect::<Vec<_>>().join("\n");
                found.push(File { module, path: relative, text });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 40, "only {} files found", found.len());
    found
}

/// The modules of ours that a file names, in `use crate::{a::b, c}` or inline
/// as `crate::a::b`.
fn imports(text: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            named.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut at_start = true;
        for (index, character) in group.char_indices() {
            match character {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                _ if character.is_alphanumeric() && at_start => {
                    named.push(word(&group[index..]));
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    named
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether a crate is named as the start of a path, or derived from.
fn names_crate(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    text.match_indices(&path).any(|(at, _)| {
        // Neither the end of a longer word nor a module of ours.
        !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
    }) || text.contains(&format!("use {name};"))
}

#[test]
fn the_reader_of_imports_reads_them() {
    let text =
        "use crate::{\n    a::{b, c},\n    d,\n    e::f,\n};\nuse crate::g::h;\ncrate::i::j()";
    assert_eq!(imports(text), ["a", "d", "e", "g", "i"]);
    assert!(names_crate("use sqlx::Row;", "sqlx"));
    assert!(!names_crate("use crate::backoff::x; my_sqlx::y", "sqlx"));
    assert!(!names_crate("crate::config::x", "config"));
}

/// The one exception: what the product is measured against must not go through
/// it. These files do by hand what others would, and nothing but the bench
/// may use them.
const BASELINES: &str = "bench/baseline/";

#[test]
fn only_one_module_speaks_each_protocol() {
    for (name, module) in [("lapin", "broker"), ("sqlx", "store"), ("backoff", "retry")] {
        let users: Vec<File> =
            files().into_iter().filter(|file| names_crate(&file.text, name)).collect();
        assert!(!users.is_empty(), "{name} is not used at all");
        let baseline = |file: &File| name != "backoff" && file.path.starts_with(BASELINES);
        for file in users.iter().filter(|file| !baseline(file)) {
            assert_eq!(file.module, module, "{} names the crate {name}", file.path);
        }
    }
}

#[test]
fn each_module_imports_only_what_it_may() {
    let may: &[(&str, &[&str])] = &[
        ("domain", &["domain"]),
        ("fetch", &["fetch", "tls"]),
        ("gate", &[]),
        ("retry", &[]),
        ("target", &["target", "domain", "fetch", "gate"]),
        ("adapter", &["adapter", "domain"]),
        ("import", &["import", "domain"]),
        ("broker", &["broker", "domain", "config", "metrics", "retry"]),
        ("store", &["store", "domain", "config", "metrics"]),
        (
            "receiver",
            &[
                "receiver", "domain", "adapter", "broker", "config", "metrics", "health", "server",
                "import", "store",
            ],
        ),
        (
            "deliver",
            &["deliver", "target", "gate", "domain", "store", "broker", "metrics", "retry"],
        ),
        ("review", &["domain", "adapter", "store", "broker", "target"]),
        (
            "worker",
            &[
                "worker", "domain", "adapter", "retry", "store", "broker", "config", "metrics",
                "fetch", "gate", "target",
            ],
        ),
    ];
    let files = files();
    for (module, allowed) in may.iter().copied() {
        let mut seen = 0;
        for file in files.iter().filter(|file| file.module == module && !file.is_test()) {
            seen += 1;
            for import in imports(&file.text) {
                assert!(
                    allowed.contains(&import.as_str()),
                    "{} imports crate::{import}; {module} may import {allowed:?}",
                    file.path
                );
            }
        }
        assert!(seen > 0, "there is no module {module}");
    }
}

#[test]
fn webhooks_are_taken_without_the_database() {
    // The one door: whoever asks what became of an import. `receiver.rs` only
    // hands it on.
    let doors = ["receiver.rs", "receiver/imports/progress.rs"];
    let users: Vec<String> = files()
        .into_iter()
        .filter(|file| file.module == "receiver")
        .filter(|file| imports(&file.text).contains(&"store".to_owned()))
        .map(|file| file.path)
        .collect();
    assert_eq!(users.len(), doors.len(), "{users:?}");
    assert!(users.iter().all(|user| doors.contains(&user.as_str())), "{users:?}");
}

#[test]
fn nothing_but_the_command_line_imports_the_bench() {
    for file in files().iter().filter(|file| !["bench", "cli"].contains(&file.module.as_str())) {
        let imported = imports(&file.text).iter().any(|import| import == "bench");
        assert!(!imported, "{} imports crate::tools::bench", file.path);
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for file in files().iter().filter(|file| !file.is_test()) {
        // Tests beside the code do not count.
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().count();
        assert!(lines <= 400, "{} has {lines} lines of code", file.path);
    }
}
