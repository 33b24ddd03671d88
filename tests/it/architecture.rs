//! Which part of `src` may import which, what may be reached at all, which part may use which
//! protocol crate, and how long a file may be.
//!
//! The rules are read from the source files: `use` trees and paths such as `crate::store::Store`
//! are resolved to files. Code that is only built for tests does not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What each part may import. A part is a folder of `src` with the file of its name, or a file
/// that has no folder. Every part is listed.
///
/// `config` is plain data, and `retry` is a pure function; both import nothing else of ours.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("retry", &[]),
    ("net", &[]),
    ("config", &["domain", "retry"]),
    ("sources", &["domain"]),
    ("destinations", &["domain", "net"]),
    ("file_formats", &["domain"]),
    ("observability", &["config", "domain", "net"]),
    ("broker", &["domain", "config", "retry", "observability::metrics"]),
    ("store", &["domain", "config", "retry", "observability::metrics"]),
    (
        "receiver",
        &["domain", "config", "sources", "broker", "net", "file_formats", "observability"],
    ),
    (
        "worker",
        &["domain", "config", "retry", "sources", "store", "broker", "net", "observability"],
    ),
    (
        "delivery",
        &["domain", "config", "retry", "destinations", "store", "broker", "net", "observability"],
    ),
    ("maintenance", &["domain", "config", "retry", "store", "broker", "observability"]),
    // It verifies a quarantined request again, by its source.
    (
        "review",
        &["domain", "config", "observability", "store", "broker", "sources", "destinations"],
    ),
    (
        "app",
        &[
            "domain",
            "config",
            "retry",
            "net",
            "sources",
            "destinations",
            "file_formats",
            "observability",
            "broker",
            "store",
            "receiver",
            "worker",
            "delivery",
            "maintenance",
            "review",
        ],
    ),
    (
        "tools",
        &[
            "domain",
            "config",
            "retry",
            "net",
            "sources",
            "destinations",
            "file_formats",
            "observability",
            "broker",
            "store",
            "receiver",
            "worker",
            "delivery",
            "maintenance",
            "review",
            "app",
        ],
    ),
    (
        "cli",
        &[
            "domain",
            "config",
            "retry",
            "net",
            "sources",
            "destinations",
            "file_formats",
            "observability",
            "broker",
            "store",
            "receiver",
            "worker",
            "delivery",
            "maintenance",
            "review",
            "app",
            "tools",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// What must not be reached, not even through other parts.
const MUST_NOT_REACH: &[(&str, &[&str])] = &[
    // A webhook is accepted without the database and without a worker.
    ("receiver", &["store", "worker", "delivery", "maintenance", "review", "app"]),
    ("worker", &["receiver", "delivery", "review", "app"]),
    ("delivery", &["receiver", "worker", "review", "app"]),
    ("review", &["receiver", "worker", "app"]),
    ("maintenance", &["receiver", "worker", "delivery", "app"]),
    ("broker", &["store"]),
    ("store", &["broker"]),
    ("app", &["tools", "cli"]),
    ("tools", &["cli"]),
];

/// The only file of the receiver that reads the database: the status of an import.
const STORE_READER: &str = "receiver/imports/status.rs";

/// Which part uses which crate, alone. The bench measures the product against code that does the
/// same without it, so its baselines use the crates too.
const OWNERS: &[(&str, &str)] = &[("lapin", "broker"), ("sqlx", "store"), ("backoff", "retry")];
const BASELINES: &str = "tools/bench/baseline/";

const MAX_LINES: usize = 400;

/// Fails with the violations.
fn refuse(violations: &[String]) {
    assert!(violations.is_empty(), "{}:\n{}", violations.len(), violations.join("\n"));
}

/// A source file.
struct File {
    /// Relative to `src`.
    path: String,
    /// Its module's path, such as `["store", "inbox"]`.
    module: Vec<String>,
    /// Its code, without comments, literals and blocks that are built for tests only.
    code: String,
    lines: usize,
}

impl File {
    fn part(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    /// Whether its name says that it holds tests.
    fn is_tests(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Whether it is only built for tests.
    fn is_test_only(&self) -> bool {
        self.is_tests() || self.path.starts_with("sources/conformance")
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
                let text = fs::read_to_string(&path).unwrap();
                let module = match relative.trim_end_matches(".rs") {
                    "lib" => Vec::new(),
                    name => name.split('/').map(str::to_owned).collect(),
                };
                let code = without_test_blocks(&without_literals(&text));
                found.push(File { path: relative, module, code, lines: text.lines().count() });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Replaces comments by nothing, and string and character literals by empty strings.
fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let hashes = rest.trim_start_matches('b').strip_prefix('r').map(|raw| {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            (hashes, raw[hashes..].starts_with('"'))
        });
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some((hashes, true)) = hashes
            && !after_word
        {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &rest[rest.find('"').unwrap() + 1..];
            rest = &body[body.find(&end).unwrap() + end.len()..];
            code.push_str("\"\"");
        } else if character == '"' {
            rest = after_string(&rest[1..]);
            code.push_str("\"\"");
        } else if let Some(length) = character_literal(rest) {
            rest = &rest[length..];
            code.push_str("\"\"");
        } else {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    code
}

/// What follows a string, of which the opening quote was read.
fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[index + 1..],
            _ => {}
        }
    }
    ""
}

/// The length of a character literal at the start of a text; `None` for a lifetime.
fn character_literal(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if let Some(escape) = body.strip_prefix('\\') {
        let end = escape.char_indices().skip(1).find(|(_, character)| *character == '\'')?;
        return Some(end.0 + 3);
    }
    let character = body.chars().next()?;
    body[character.len_utf8()..].starts_with('\'').then(|| character.len_utf8() + 2)
}

/// Removes `#[cfg(test)] mod name { ... }`.
fn without_test_blocks(code: &str) -> String {
    let mut remaining = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        remaining.push_str(&rest[..start]);
        rest = &rest[start + "#[cfg(test)]".len()..];
        let Some(end) = rest.find(['{', ';']) else { break };
        if rest[end..].starts_with('{') && rest.trim_start().starts_with("mod ") {
            let mut depth = 0;
            let close = rest[end..].find(|character| {
                depth += i32::from(character == '{') - i32::from(character == '}');
                depth == 0
            });
            rest = close.map_or("", |close| &rest[end + close + 1..]);
        }
    }
    remaining.push_str(rest);
    remaining
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The paths of a `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let head = &tree[..tree.find('{').unwrap_or(tree.len())];
    let mut path = prefix.to_vec();
    let words = head.split("::").map(|word| word.split_whitespace().next().unwrap_or_default());
    path.extend(words.filter(|word| !word.is_empty() && *word != "self").map(str::to_owned));
    let Some(group) = tree.find('{').map(|start| &tree[start + 1..]) else {
        paths.push(path);
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                if !group[start..index].trim().is_empty() {
                    expand(&group[start..index], &path, paths);
                }
                start = index + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
}

/// The paths that code names: those of its `use` trees, and every other path of two words or more.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut others = String::new();
    let mut rest = code;
    while let Some(start) = rest.find("use ") {
        let is_item = !rest[..start].ends_with(is_word);
        let end = rest[start..].find(';').map_or(rest.len(), |end| start + end);
        if is_item {
            others.push_str(&rest[..start]);
            expand(&rest[start + "use ".len()..end], &[], &mut found);
            rest = &rest[end..];
        } else {
            others.push_str(&rest[..start + 4]);
            rest = &rest[start + 4..];
        }
    }
    others.push_str(rest);
    for piece in others.split(|character| !is_word(character) && character != ':') {
        if piece.contains("::") {
            let words = piece.split("::").filter(|word| !word.is_empty());
            found.push(words.map(str::to_owned).collect());
        }
    }
    found
}

/// The files that a file names: the file of the longest known module in each path.
fn imports(file: &File, modules: &BTreeMap<Vec<String>, usize>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for path in paths(&file.code) {
        let mut words = path.as_slice();
        let mut absolute = Vec::new();
        // A path that starts with a name is only ours if that is a module below this one.
        let mut shortest = 1;
        match words.first().map(String::as_str) {
            Some("crate") => words = &words[1..],
            // The name of the library, as its binary sees it.
            Some("tallyhook") if file.path == "main.rs" => words = &words[1..],
            Some("super") => {
                absolute.clone_from(&file.module);
                while words.first().is_some_and(|word| word == "super") {
                    absolute.pop();
                    words = &words[1..];
                }
            }
            first => {
                words = if first == Some("self") { &words[1..] } else { words };
                absolute.clone_from(&file.module);
                shortest = absolute.len() + 1;
            }
        }
        absolute.extend(words.iter().cloned());
        while absolute.len() >= shortest {
            if let Some(index) = modules.get(&absolute) {
                found.insert(*index);
                break;
            }
            absolute.pop();
        }
    }
    found
}

/// The files of `src`, and which names which.
struct Graph {
    files: Vec<File>,
    edges: Vec<BTreeSet<usize>>,
}

impl Graph {
    fn read() -> Self {
        let files = files();
        assert!(files.len() > 40, "only {} files found", files.len());
        let modules = files.iter().enumerate();
        let modules = modules.map(|(index, file)| (file.module.clone(), index)).collect();
        let edges = files.iter().map(|file| imports(file, &modules)).collect();
        Self { files, edges }
    }

    /// The files of the product itself.
    fn sources(&self) -> impl Iterator<Item = (usize, &File)> {
        self.files.iter().enumerate().filter(|(_, file)| !file.is_test_only())
    }

    /// The files on the shortest import path from one part to another.
    fn import_path(&self, from: &str, to: &str) -> Option<Vec<&str>> {
        let starts = self.sources().filter(|(_, file)| file.part() == from);
        let mut queue: Vec<usize> = starts.map(|(index, _)| index).collect();
        let mut came_from: BTreeMap<usize, Option<usize>> =
            queue.iter().map(|index| (*index, None)).collect();
        let mut next = 0;
        while let Some(index) = queue.get(next).copied() {
            next += 1;
            if self.files[index].part() == to {
                let mut files = Vec::new();
                let mut at = Some(index);
                while let Some(index) = at {
                    files.insert(0, self.files[index].path.as_str());
                    at = came_from[&index];
                }
                return Some(files);
            }
            for imported in &self.edges[index] {
                let is_reader = self.files[index].path == STORE_READER
                    && self.files[*imported].part() == "store";
                if !is_reader && !came_from.contains_key(imported) {
                    came_from.insert(*imported, Some(index));
                    queue.push(*imported);
                }
            }
        }
        None
    }
}

#[test]
fn architecture_path_reader_finds_every_import() {
    let text = "
        use crate::{a::{b, c as d}, e::f::{self}, /* use crate::no; */ g};
        use super::h::*; pub use i::J;
        fn x<'a>(y: &'a str) { crate::k::l(\"crate::no\", r#\"crate::\"no\"#, '\"'); self::m::n(); }
        #[cfg(test)] mod tests { use crate::no; fn x() { if true { crate::no() } } }
        #[cfg(test)] mod elsewhere;
        fn z() { crate::o::P {} }";
    let found = paths(&without_test_blocks(&without_literals(text)));
    let found: BTreeSet<String> = found.iter().map(|path| path.join("::")).collect();
    for expected in [
        "crate::a::b",
        "crate::a::c",
        "crate::e::f",
        "crate::g",
        "super::h::*",
        "i::J",
        "crate::k::l",
        "self::m::n",
        "crate::o::P",
    ] {
        assert!(found.contains(expected), "{expected} is not in {found:?}");
    }
    assert!(found.iter().all(|path| !path.contains("no")), "{found:?}");
}

#[test]
fn architecture_every_part_has_a_rule() {
    let graph = Graph::read();
    let parts: BTreeSet<&str> = graph.files.iter().map(File::part).collect();
    let ruled: BTreeSet<&str> = MAY_IMPORT.iter().map(|(part, _)| *part).collect();
    assert_eq!(parts, ruled);
    for (part, others) in MUST_NOT_REACH {
        assert!(parts.contains(part) && others.iter().all(|other| parts.contains(other)));
    }
    assert!(graph.files.iter().any(|file| file.path == STORE_READER));
}

#[test]
fn architecture_parts_import_only_what_they_may() {
    let graph = Graph::read();
    let mut violations = Vec::new();
    for (index, file) in graph.sources() {
        let rule = MAY_IMPORT.iter().find(|(part, _)| *part == file.part());
        let allowed = rule.map_or(&[][..], |(_, allowed)| *allowed);
        for imported in &graph.edges[index] {
            let imported = &graph.files[*imported];
            let module = imported.module.join("::");
            let is_allowed = allowed
                .iter()
                .any(|allowed| module == *allowed || module.starts_with(&format!("{allowed}::")));
            let is_reader = file.path == STORE_READER && imported.part() == "store";
            if file.part() != imported.part() && !is_allowed && !is_reader {
                let (part, other) = (file.part(), imported.part());
                let (from, to) = (&file.path, &imported.path);
                violations.push(format!("{part} imports {other}: {from} names {to}"));
            }
        }
    }
    refuse(&violations);
}

#[test]
fn architecture_forbidden_parts_are_not_reachable() {
    let graph = Graph::read();
    let mut violations = Vec::new();
    for (part, others) in MUST_NOT_REACH {
        for other in *others {
            if let Some(files) = graph.import_path(part, other) {
                violations.push(format!("{part} reaches {other}: {}", files.join(" -> ")));
            }
        }
    }
    refuse(&violations);
}

/// Whether code uses a crate: a path starts with its name, and no module of that name is imported.
fn uses_crate(code: &str, name: &str) -> bool {
    let paths = paths(code);
    let starts = paths.iter().any(|path| path.first().is_some_and(|word| word == name));
    let is_module =
        |path: &Vec<String>| path.len() > 1 && path.last().is_some_and(|word| word == name);
    starts && !paths.iter().any(is_module)
}

#[test]
fn architecture_protocol_crates_have_one_owner() {
    let graph = Graph::read();
    let mut violations = Vec::new();
    for (name, owner) in OWNERS {
        let mut users = graph.sources().filter(|(_, file)| uses_crate(&file.code, name)).peekable();
        assert!(users.peek().is_some(), "{name} is not used at all");
        for (_, file) in users {
            let is_baseline = *name != "backoff" && file.path.starts_with(BASELINES);
            if file.part() != *owner && !is_baseline {
                violations.push(format!("{} uses the crate {name}", file.path));
            }
        }
    }
    refuse(&violations);
}

#[test]
fn architecture_files_have_at_most_400_lines() {
    let graph = Graph::read();
    let long = graph.files.iter().filter(|file| !file.is_tests() && file.lines > MAX_LINES);
    let long: Vec<String> =
        long.map(|file| format!("{} has more than 400 lines: {}", file.path, file.lines)).collect();
    refuse(&long);
}
