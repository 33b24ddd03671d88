//! `tallyhook source`: which sources there are, and how one more is set up.

mod setup_guides;

use std::{fmt::Write as _, io::Write as _, path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use serde_json::json;

use super::{EXIT_DONE, output};
use crate::{app::Components, config::Config, domain::SourceName};
use setup_guides::{RECIPES, Recipe};

#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a source's settings, and say what to do on the platform's side.
    ///
    /// With --config FILE the settings are added to that file, which may be a
    /// new one; without, they are printed.
    Add(AddArgs),
    /// The configured sources.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// What sends: shopify, stripe, xero, ...
    #[arg(value_parser = PossibleValuesParser::new(RECIPES.map(|recipe| recipe.name)))]
    kind: String,
    /// What the source is called: the end of its address, and its queue's name
    /// [default: the kind]
    #[arg(long)]
    name: Option<SourceName>,
    /// The environment variable that will hold the secret [default: from the name]
    #[arg(long, value_name = "VARIABLE")]
    secret: Option<String>,
    /// The receiver's address as the world sees it
    #[arg(long, value_name = "URL", default_value = "https://hooks.example.com")]
    url: String,
}

/// Carries `tallyhook source` out.
///
/// # Errors
/// The file cannot be written, or knows the source already.
pub(super) fn run(
    arguments: &SourceArgs,
    file: Option<&Path>,
    load: impl FnOnce() -> anyhow::Result<(Config, Components)>,
) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Add(add) => self::add(add, file)?,
        Command::List { json } => list(&load()?.1, *json)?,
    }
    Ok(ExitCode::from(EXIT_DONE))
}

fn add(arguments: &AddArgs, file: Option<&Path>) -> anyhow::Result<()> {
    let recipe = setup_guides::find(&arguments.kind).context("there is no such kind")?;
    let made = Made::new(recipe, arguments)?;
    match file {
        None => {
            // The block alone on standard output, so that it can be kept.
            outln!("{}", made.block.trim_end());
            eprintln!("\n{}", made.told());
        }
        Some(path) => {
            append(path, &made)?;
            outln!("Added [sources.{}] to {}.\n\n{}", made.name, path.display(), made.told());
        }
    }
    Ok(())
}

/// A source as it was asked for.
struct Made {
    name: SourceName,
    secret: String,
    url: String,
    block: String,
    steps: Vec<String>,
    patience: &'static str,
}

impl Made {
    fn new(recipe: &Recipe, arguments: &AddArgs) -> anyhow::Result<Self> {
        let name = match &arguments.name {
            Some(name) => name.clone(),
            None => recipe.name.parse().context("--name is needed")?,
        };
        let secret = arguments.secret.clone().unwrap_or_else(|| variable(&name));
        let url = format!("{}/hooks/{name}", arguments.url.trim_end_matches('/'));
        let filled = |text: &str| {
            text.replace("{name}", name.as_str())
                .replace("{url}", &url)
                .replace("{secret}", &secret)
        };
        let Recipe { kind, about, settings, tables, .. } = recipe;
        let block = format!(
            "# {}: {about}.\n[sources.{name}]\nkind = \"{kind}\"\n# Named, never written; list \
             two while you rotate.\nsecrets = [\"env:{secret}\"]\n{}{}",
            recipe.name,
            filled(settings),
            // Placeholders such as {tenant} and {url} of these are the settings' own.
            tables.replace("{name}", name.as_str()),
        );
        let steps = recipe.steps.iter().map(|step| filled(step)).collect();
        Ok(Self { secret, url, block, steps, patience: recipe.patience, name })
    }

    /// What to do next.
    fn told(&self) -> String {
        let Self { url, secret, patience, .. } = self;
        let mut text = format!("Address   {url}\nSecret    {secret}\nPatience  {patience}\n\n");
        for (number, step) in (1..).zip(&self.steps) {
            // Writing to memory cannot fail.
            let _ = writeln!(text, "{number}. {step}");
        }
        format!("{text}\nThen: tallyhook check")
    }
}

/// `my-shop` as an environment variable: `MY_SHOP_SECRET`.
fn variable(name: &SourceName) -> String {
    let upper = name.as_str().to_ascii_uppercase();
    format!("{}_SECRET", upper.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

fn append(path: &Path, made: &Made) -> anyhow::Result<()> {
    let known = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let section = format!("[sources.{}]", made.name);
    if known.lines().any(|line| line.trim().starts_with(&section)) {
        bail!("{} has a section {section} already; choose another --name", path.display());
    }
    let gap = if known.is_empty() { "" } else { "\n" };
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{gap}{}", made.block).as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn list(components: &Components, json: bool) -> anyhow::Result<()> {
    let sources: Vec<_> = components
        .sources
        .iter()
        .map(|(name, adapter)| {
            json!({
                "name": name.as_str(),
                "kind": adapter.kind(),
                "path": format!("/hooks/{name}"),
                "secrets": adapter.secret_labels().collect::<Vec<_>>(),
                "tenants": adapter.tenants(),
            })
        })
        .collect();
    if json {
        outln!("{}", serde_json::to_string_pretty(&sources)?);
        return Ok(());
    }
    let mut table = output::table(&["source", "kind", "path", "secrets", "tenants"]);
    for (name, adapter) in components.sources.iter() {
        let secrets: Vec<&str> = adapter.secret_labels().collect();
        let tenants = match adapter.tenants() {
            [] => "any".to_owned(),
            tenants => tenants.join(", "),
        };
        table.add_row([
            name.to_string(),
            adapter.kind().to_owned(),
            format!("/hooks/{name}"),
            secrets.join(", "),
            tenants,
        ]);
    }
    outln!("{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::SOURCE_KINDS;

    /// A secret that is well-formed for a kind.
    fn secret(kind: &str) -> &'static str {
        match kind {
            "standard_webhooks" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            _ => "user:password",
        }
    }

    fn made(recipe: &'static Recipe) -> Made {
        let arguments = AddArgs {
            kind: recipe.name.to_owned(),
            name: Some("my-source".parse().unwrap()),
            secret: None,
            url: "https://hooks.example.org/".to_owned(),
        };
        Made::new(recipe, &arguments).unwrap()
    }

    fn load(recipe: &Recipe, block: &str) -> Result<Components, String> {
        let mut variables =
            BTreeMap::from([("MY_SOURCE_SECRET".to_owned(), secret(recipe.kind).to_owned())]);
        for token in ["BIGCOMMERCE_TOKEN", "SQUARE_AUTHORIZATION"] {
            variables.insert(token.to_owned(), "token".to_owned());
        }
        Components::from_toml(block, &variables).map_err(|error| format!("{error:#}\n{block}"))
    }

    #[test]
    fn every_kind_has_a_recipe() {
        for kind in SOURCE_KINDS {
            assert!(RECIPES.iter().any(|recipe| recipe.kind == kind), "{kind} has no recipe");
        }
    }

    #[test]
    fn every_block_is_taken_as_it_is() {
        for recipe in &RECIPES {
            let made = made(recipe);
            let components = load(recipe, &made.block).unwrap();
            assert_eq!(components.sources[&made.name].kind(), recipe.kind);
            assert!(made.block.contains("secrets = [\"env:MY_SOURCE_SECRET\"]"), "{}", made.block);
        }
    }

    #[test]
    fn what_is_commented_out_is_taken_too() {
        for recipe in &RECIPES {
            let open: Vec<&str> = made(recipe)
                .block
                .lines()
                .map(|line| {
                    let setting = line.starts_with("# [") || line.contains(" = ");
                    if setting { line.trim_start_matches("# ") } else { line }
                })
                .map(|line| &*Box::leak(line.to_owned().into_boxed_str()))
                .collect();
            // A file that is not there on this machine.
            let block = open.join("\n").replace("file:/run/secrets", "const:/run/secrets");
            load(recipe, &block).unwrap();
        }
    }

    #[test]
    fn steps_name_the_address_and_the_secret() {
        for recipe in &RECIPES {
            let told = made(recipe).told();
            assert!(told.contains("https://hooks.example.org/hooks/my-source"), "{told}");
            assert!(told.contains("MY_SOURCE_SECRET"), "{told}");
            assert!(!told.contains("{name}") && !told.contains("{url}"), "{told}");
        }
    }

    #[test]
    fn a_source_is_added_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tallyhook.toml");
        let made = made(setup_guides::find("shopify").unwrap());
        append(&path, &made).unwrap();
        let error = append(&path, &made).unwrap_err().to_string();
        assert!(error.contains("[sources.my-source]"), "{error}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("[sources.my-source]").count(), 1);
    }
}
