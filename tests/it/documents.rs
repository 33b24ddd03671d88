//! The documents name only commands, settings, metrics, columns and files that
//! exist, and state the defaults that are built in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use tallyhook::{cli::Arguments, config::Config};

const DEFAULTS: &str = include_str!("../../config/default.toml");
/// Options of programs other than `tallyhook`.
const FOREIGN_OPTIONS: [&str; 1] = ["--for-tests"];

/// What is wrong in the documents, all of it.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn expect(&mut self, holds: bool, document: &str, problem: impl std::fmt::Display) {
        if !holds {
            self.0.push(format!("{document}: {problem}"));
        }
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Every document: its path within the repository, and its text.
fn documents() -> BTreeMap<String, String> {
    let mut documents = BTreeMap::new();
    for folder in ["", "config", "deploy", "migrations"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                documents.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(documents.len() >= 10, "{:?}", documents.keys());
    documents
}

/// The lines of a document outside its code blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            lines.push(line);
        }
    }
    lines
}

/// The code blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// The inline code of a document's prose.
fn code_spans(text: &str) -> Vec<&str> {
    prose(text).into_iter().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The words of a text that are made of these characters.
fn words(text: &str, is_part: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c| !is_part(c)).filter(|word| !word.is_empty())
}

fn is_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The commands of a shell text, each as its words. Understands quotes,
/// comments, continued lines, pipes and redirections, as far as documents use
/// them.
fn shell_commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut commands = vec![Vec::new()];
    for line in text.lines() {
        let mut word: Option<String> = None;
        let mut quote = None;
        for c in line.chars() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (None, '#') if word.is_none() => break,
                (None, ' ' | '&' | '|' | '>' | ';') => {
                    commands.last_mut().unwrap().extend(word.take());
                    match c {
                        ' ' => {}
                        // The file of a redirection is no argument.
                        '>' => commands.push(vec!["into".to_owned()]),
                        _ => commands.push(Vec::new()),
                    }
                }
                (_, c) => word.get_or_insert_default().push(c),
            }
        }
        commands.last_mut().unwrap().extend(word);
        commands.push(Vec::new());
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// Parses the words of a `tallyhook` command. `ID` stands for any id.
fn parse(command: &[String]) -> Result<(), clap::Error> {
    let id = "0198c0de-0000-7000-8000-000000000000";
    let arguments = command.iter().map(|word| if word == "ID" { id } else { word.as_str() });
    Arguments::try_parse_from(arguments).map(drop)
}

/// Prose may leave the arguments of a command out.
fn is_incomplete(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
    )
}

#[test]
fn documents_commands_are_accepted_by_the_command_line() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut problems = Problems::default();
    let mut parsed = 0;
    for (name, text) in documents() {
        for command in blocks(&text, "sh").iter().flat_map(|block| shell_commands(block)) {
            match command[0].as_str() {
                "tallyhook" => {
                    if let Err(error) = parse(&command)
                        && error.kind() != ErrorKind::DisplayHelp
                    {
                        problems.expect(false, &name, format!("{command:?}: {error}"));
                    }
                    parsed += 1;
                }
                "make" => {
                    let target = &command[1];
                    let exists = makefile.contains(&format!("\n{target}:"));
                    problems.expect(exists, &name, format!("make {target}"));
                }
                _ => {}
            }
        }
        for span in code_spans(&text).into_iter().filter(|span| span.starts_with("tallyhook ")) {
            if let Err(error) = parse(&shell_commands(span).remove(0))
                && !is_incomplete(&error)
            {
                problems.expect(false, &name, format!("{span}: {error}"));
            }
            parsed += 1;
        }
    }
    problems.assert_none();
    assert!(parsed >= 50, "only {parsed} commands were found");
}

/// Every long option of a command and its subcommands.
fn collect_options(command: &clap::Command, options: &mut BTreeSet<String>) {
    let longs = command.get_arguments().filter_map(|argument| argument.get_long());
    options.extend(longs.map(|long| format!("--{long}")));
    for subcommand in command.get_subcommands() {
        collect_options(subcommand, options);
    }
}

#[test]
fn documents_options_in_prose_exist() {
    let mut options = BTreeSet::from(FOREIGN_OPTIONS.map(str::to_owned));
    collect_options(&Arguments::command(), &mut options);
    options.insert("--help".to_owned());
    let mut problems = Problems::default();
    for (name, text) in documents() {
        for span in code_spans(&text).into_iter().filter(|span| span.starts_with("--")) {
            let option = span.split([' ', '=']).next().unwrap();
            problems.expect(options.contains(option), &name, option);
        }
    }
    problems.assert_none();
}

/// The built-in defaults: section, key, value.
fn defaults() -> BTreeMap<String, BTreeMap<String, String>> {
    let file = config::File::from_str(DEFAULTS, config::FileFormat::Toml);
    let defaults = config::Config::builder().add_source(file).build().unwrap();
    defaults.try_deserialize().unwrap()
}

/// The cells of a table's row, if the line is one.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(row.split(" | ").map(str::trim).collect())
}

#[test]
fn documents_settings_are_those_of_the_defaults_with_their_values() {
    let text = fs::read_to_string(root().join("config/README.md")).unwrap();
    let mut section = None;
    let mut documented: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.strip_prefix("`[").and_then(|name| name.strip_suffix("]`"));
        } else if let (Some(section), Some(cells)) = (section, cells(line))
            && cells[0].starts_with('`')
        {
            let plain = |cell: &str| cell.trim_matches(['`', '"']).to_owned();
            let keys = documented.entry(section.to_owned()).or_default();
            keys.insert(plain(cells[0]), plain(cells[1]));
        }
    }
    // 2.0 is written, and read as 2.
    if let Some(multiplier) =
        documented.get_mut("retry").and_then(|keys| keys.get_mut("multiplier"))
    {
        *multiplier = multiplier.trim_end_matches(".0").to_owned();
    }
    assert_eq!(documented, defaults());
}

#[test]
fn documents_setting_paths_exist() {
    let defaults = defaults();
    let is_part = |c: char| is_identifier(c) || c == '.';
    let mut problems = Problems::default();
    for (name, text) in documents() {
        for span in code_spans(&text) {
            for path in words(span, is_part) {
                let Some((section, key)) = path.split_once('.') else { continue };
                let Some(keys) = defaults.get(section) else { continue };
                // A file such as receiver.rs is not a setting.
                if !["rs", "md", "toml"].contains(&key) {
                    problems.expect(keys.contains_key(key), &name, path);
                }
            }
        }
    }
    problems.assert_none();
}

/// A block of a document that can be loaded: secrets are variables, and what
/// the document leaves out is added.
fn loadable(block: &str) -> (String, BTreeMap<String, String>) {
    let mut text = block.to_owned();
    for (needed, section) in [
        (
            "[sources.books.enrich]",
            "[sources.books]\nkind = \"quickbooks\"\nsecrets = [\"env:SECRET\"]\n",
        ),
        ("[destinations.", "[sources.vendors]\nkind = \"import\"\nsecrets = [\"env:SECRET\"]\n"),
    ] {
        if text.contains(needed) {
            text = format!("{section}{text}");
        }
    }
    if !text.contains("[sources.") {
        text.push_str("\n[sources.shop]\nkind = \"shopify\"\nsecrets = [\"env:SECRET\"]\n");
    }
    while let Some((before, rest)) = text.split_once("file:") {
        let after = rest.find('"').map_or("", |end| &rest[end..]);
        text = format!("{before}env:SECRET{after}");
    }
    let names = text.split("env:").skip(1).map(|rest| words(rest, is_identifier).next().unwrap());
    let variables = names.map(|name| (name.to_owned(), "secret".to_owned())).collect();
    (text, variables)
}

#[test]
fn documents_settings_blocks_are_accepted_by_the_configuration() {
    let is_setting =
        |line: &str| line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(is_identifier));
    let mut problems = Problems::default();
    let mut loaded = 0;
    for (name, text) in documents() {
        for block in blocks(&text, "toml") {
            // A commented setting is tried as well.
            let uncommented: Vec<&str> = block
                .lines()
                .map(|line| match line.strip_prefix("# ") {
                    Some(setting) if is_setting(setting) => setting,
                    _ => line,
                })
                .collect();
            for block in [&block, &uncommented.join("\n")] {
                let (text, variables) = loadable(block);
                if let Err(error) = Config::from_toml(&text, &variables) {
                    problems.expect(false, &name, format!("{error:#}\n{text}"));
                }
                loaded += 1;
            }
        }
    }
    problems.assert_none();
    assert!(loaded >= 10, "only {loaded} blocks were found");
}

/// The text of every file below a folder whose name ends so.
fn sources(folder: &str, extension: &str) -> String {
    let mut text = String::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

#[test]
fn documents_keys_in_tables_are_read_by_the_code() {
    let code = sources("src", "rs");
    let known: BTreeSet<&str> = words(&code, is_identifier).collect();
    let mut problems = Problems::default();
    for (name, text) in documents() {
        if !name.starts_with("config/") {
            continue;
        }
        for cells in text.lines().filter_map(cells) {
            for key in cells[0].split('`').skip(1).step_by(2) {
                let is_key = key.chars().all(|c| is_identifier(c) || c == '.');
                let is_variable = key.starts_with(|c: char| c.is_ascii_uppercase());
                if is_key && !is_variable {
                    for word in key.split('.').filter(|word| *word != "NAME") {
                        problems.expect(known.contains(word), &name, key);
                    }
                }
            }
        }
    }
    problems.assert_none();
}

#[test]
fn documents_metrics_are_registered_and_every_metric_is_documented() {
    let code = sources("src/observability", "rs");
    let is_metric =
        |name: &&str| name.strip_prefix("tallyhook_").is_some_and(|rest| !rest.is_empty());
    let registered: BTreeSet<&str> = code.split('"').filter(is_metric).collect();
    let documents = documents();
    let mut problems = Problems::default();
    for (name, text) in &documents {
        for metric in words(text, is_identifier).filter(is_metric) {
            problems.expect(registered.contains(metric), name, format!("{metric} does not exist"));
        }
    }
    let operations = "deploy/operations.md";
    for metric in registered {
        let has_row = documents[operations].contains(&format!("| `{metric}` |"));
        problems.expect(has_row, operations, format!("{metric} has no row"));
    }
    problems.assert_none();
}

#[test]
fn documents_columns_are_in_the_schema() {
    let schema = sources("migrations", "sql");
    let names: BTreeSet<&str> = words(&schema, is_identifier).collect();
    let tables: BTreeSet<&str> = schema
        .split("create table ")
        .skip(1)
        .map(|rest| words(rest, is_identifier).next().unwrap())
        .collect();
    assert!(tables.contains("receipts"), "{tables:?}");
    let is_part = |c: char| is_identifier(c) || c == '.';
    let mut problems = Problems::default();
    for (name, text) in documents() {
        for span in code_spans(&text) {
            for path in words(span, is_part) {
                if let Some((table, column)) = path.split_once('.')
                    && tables.contains(table)
                    && !["rs", "sql", "md"].contains(&column)
                {
                    // `imports.dropped_…` stands for several columns.
                    let exists = names.contains(column)
                        || column.ends_with('_')
                            && names.iter().any(|name| name.starts_with(column));
                    problems.expect(exists, &name, path);
                }
            }
        }
    }
    problems.assert_none();
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let slug_chars =
        heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    slug_chars.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn documents_links_lead_to_files_and_headings() {
    let mut problems = Problems::default();
    for (name, text) in &documents() {
        let folder = Path::new(name).parent().unwrap();
        for line in prose(text) {
            for rest in line.split("](").skip(1) {
                let link = rest.split(')').next().unwrap();
                if link.starts_with("http") {
                    continue;
                }
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let path = if file.is_empty() { PathBuf::from(name) } else { folder.join(file) };
                let exists = root().join(&path).exists();
                problems.expect(exists, name, link);
                if exists && !heading.is_empty() {
                    let target = fs::read_to_string(root().join(&path)).unwrap();
                    let mut headings =
                        prose(&target).into_iter().filter(|line| line.starts_with('#'));
                    let found =
                        headings.any(|line| anchor(line.trim_start_matches(['#', ' '])) == heading);
                    problems.expect(found, name, link);
                }
            }
        }
    }
    problems.assert_none();
}

#[test]
fn documents_readme_has_at_most_150_lines() {
    let lines = documents()["README.md"].lines().count();
    assert!(lines <= 150, "{lines}");
}
