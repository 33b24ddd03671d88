//! `tallyhook source add`.

use std::{fmt::Write as _, io::Write as _, path::Path};

use anyhow::{Context as _, bail};
use clap::{Args, builder::PossibleValuesParser};

use super::setup_guides::{NAMES, SetupGuide, Variables};
use crate::domain::SourceName;

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The platform: shopify, stripe, xero, ...
    #[arg(value_parser = PossibleValuesParser::new(NAMES))]
    platform: String,
    /// The source's name: the last part of its address and of its queue's name
    /// [default: the platform]
    #[arg(long)]
    name: Option<SourceName>,
    /// The environment variable that will hold the secret [default: from the name]
    #[arg(long, value_name = "VARIABLE")]
    secret: Option<String>,
    /// The receiver's public address
    #[arg(long, value_name = "URL", default_value = "https://hooks.example.com")]
    url: String,
}

pub(super) fn run(arguments: &AddArgs, file: Option<&Path>) -> anyhow::Result<()> {
    let source = NewSource::new(&SetupGuide::find(&arguments.platform)?, arguments)?;
    match file {
        None => {
            // Only the block goes to standard output, so that it can be redirected.
            outln!("{}", source.block.trim_end());
            eprintln!("\n{}", source.next_steps);
        }
        Some(path) => {
            append(path, &source)?;
            outln!(
                "Added [sources.{}] to {}.\n\n{}",
                source.name,
                path.display(),
                source.next_steps
            );
        }
    }
    Ok(())
}

/// A source that is being set up.
struct NewSource {
    name: SourceName,
    /// Its section of the configuration file.
    block: String,
    next_steps: String,
}

impl NewSource {
    fn new(guide: &SetupGuide, arguments: &AddArgs) -> anyhow::Result<Self> {
        let name = match &arguments.name {
            Some(name) => name.clone(),
            None => arguments.platform.parse().context("--name is needed")?,
        };
        let secret = arguments.secret.clone().unwrap_or_else(|| secret_variable(&name));
        let url = format!("{}/hooks/{name}", arguments.url.trim_end_matches('/'));
        let variables = Variables { name: name.as_str(), url: &url, secret: &secret };
        let mut next_steps =
            format!("Address  {url}\nSecret   {secret}\nRetries  {}\n\n", guide.retries);
        for (number, step) in (1..).zip(guide.steps(&variables)?) {
            writeln!(next_steps, "{number}. {step}")?;
        }
        next_steps.push_str("\nThen: tallyhook check");
        Ok(Self { block: guide.block(&variables)?, next_steps, name })
    }
}

/// The variable for a source's secret: `my-shop` has `MY_SHOP_SECRET`.
fn secret_variable(name: &SourceName) -> String {
    let upper = name.as_str().to_ascii_uppercase();
    format!("{}_SECRET", upper.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

fn append(path: &Path, source: &NewSource) -> anyhow::Result<()> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let section = format!("[sources.{}]", source.name);
    if text.lines().any(|line| line.trim().starts_with(&section)) {
        bail!("{} already has a section {section}; choose another --name", path.display());
    }
    let gap = if text.is_empty() { "" } else { "\n" };
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{gap}{}", source.block).as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{app::Components, config::SOURCE_KINDS};

    /// A secret that is well-formed for a kind.
    fn secret(kind: &str) -> &'static str {
        match kind {
            "standard_webhooks" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            _ => "user:password",
        }
    }

    fn new_source(platform: &str) -> (SetupGuide, NewSource) {
        let arguments = AddArgs {
            platform: platform.to_owned(),
            name: Some("my-source".parse().unwrap()),
            secret: None,
            url: "https://hooks.example.org/".to_owned(),
        };
        let guide = SetupGuide::find(platform).unwrap();
        let source = NewSource::new(&guide, &arguments).unwrap();
        (guide, source)
    }

    fn load(kind: &str, block: &str) -> Result<Components, String> {
        let mut variables =
            BTreeMap::from([("MY_SOURCE_SECRET".to_owned(), secret(kind).to_owned())]);
        for token in ["BIGCOMMERCE_TOKEN", "SQUARE_AUTHORIZATION"] {
            variables.insert(token.to_owned(), "token".to_owned());
        }
        Components::from_toml(block, &variables).map_err(|error| format!("{error:#}\n{block}"))
    }

    #[test]
    fn setup_guides_cover_every_kind() {
        for kind in SOURCE_KINDS {
            let has_guide = NAMES.iter().any(|name| SetupGuide::find(name).unwrap().kind == kind);
            assert!(has_guide, "{kind} has no guide");
        }
    }

    #[test]
    fn setup_guides_write_loadable_blocks() {
        for name in NAMES {
            let (guide, source) = new_source(name);
            let components = load(&guide.kind, &source.block).unwrap();
            assert_eq!(components.sources[&source.name].kind(), guide.kind);
            let secrets = "secrets = [\"env:MY_SOURCE_SECRET\"]";
            assert!(source.block.contains(secrets), "{}", source.block);
        }
    }

    #[test]
    fn setup_guides_write_loadable_commented_settings() {
        for name in NAMES {
            let (guide, source) = new_source(name);
            let uncomment = |line: &str| {
                let is_setting = line.starts_with("# [") || line.contains(" = ");
                if is_setting { line.trim_start_matches("# ") } else { line }.to_owned()
            };
            let block: Vec<String> = source.block.lines().map(uncomment).collect();
            // The file does not exist on this machine.
            let block = block.join("\n").replace("file:/run/secrets", "const:/run/secrets");
            load(&guide.kind, &block).unwrap();
        }
    }

    #[test]
    fn setup_guides_name_address_and_secret() {
        for name in NAMES {
            let next_steps = new_source(name).1.next_steps;
            let address = "https://hooks.example.org/hooks/my-source";
            assert!(next_steps.contains(address), "{next_steps}");
            assert!(next_steps.contains("MY_SOURCE_SECRET"), "{next_steps}");
            assert!(!next_steps.contains("{{"), "{next_steps}");
        }
    }

    #[test]
    fn append_existing_section_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tallyhook.toml");
        let (_, source) = new_source("shopify");
        append(&path, &source).unwrap();
        let error = append(&path, &source).unwrap_err().to_string();
        assert!(error.contains("[sources.my-source]"), "{error}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("[sources.my-source]").count(), 1);
    }
}
