//! Setup guides: what each platform needs in the configuration, and the steps
//! on its own side. One data file per platform in `setup_guides/`; settings and
//! steps are templates with `name`, `url` and `secret`.

use anyhow::Context as _;
use config::{File, FileFormat};
use minijinja::{Environment, UndefinedBehavior, context};
use serde::Deserialize;

/// The configuration block of a new source.
const BLOCK: &str = include_str!("setup_guides/block.toml.j2");

macro_rules! guides {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("setup_guides/", $name, ".toml")))),+]
    };
}

/// Names and data files.
const FILES: [(&str, &str); 14] = guides![
    "shopify",
    "woocommerce",
    "stripe",
    "standard_webhooks",
    "bigcommerce",
    "etsy",
    "square",
    "quickbooks",
    "xero",
    "github",
    "generic",
    "cloudevents",
    "callback",
    "import",
];

/// The names of all guides, for `tallyhook source add NAME`.
pub(super) const NAMES: [&str; FILES.len()] = {
    let mut names = [""; FILES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = FILES[index].0;
        index += 1;
    }
    names
};

/// How a source of one platform is set up.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetupGuide {
    /// The source's `kind` in the configuration.
    pub(super) kind: String,
    /// One line on what the source receives.
    about: String,
    /// The platform's timeout and retries.
    pub(super) retries: String,
    /// The settings below `kind` and `secrets`: a template.
    settings: String,
    /// The steps on the platform's side: templates.
    steps: Vec<String>,
    #[serde(skip)]
    name: String,
}

/// What the templates may use.
pub(super) struct Variables<'a> {
    /// The source's name.
    pub(super) name: &'a str,
    /// The source's public address.
    pub(super) url: &'a str,
    /// The environment variable that holds the secret.
    pub(super) secret: &'a str,
}

impl SetupGuide {
    /// The guide of this name.
    pub(super) fn find(name: &str) -> anyhow::Result<Self> {
        let (name, text) =
            FILES.iter().find(|(known, _)| *known == name).context("there is no such guide")?;
        let guide: Self = config::Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .and_then(config::Config::try_deserialize)
            .with_context(|| format!("the guide {name} is not readable"))?;
        Ok(Self { name: (*name).to_owned(), ..guide })
    }

    /// The configuration block of a new source.
    pub(super) fn block(&self, variables: &Variables<'_>) -> anyhow::Result<String> {
        let &Variables { name, url, secret } = variables;
        let settings = render(&self.settings, variables)?;
        let (about, kind, guide) = (self.about.as_str(), self.kind.as_str(), self.name.as_str());
        let block = environment()
            .render_str(BLOCK, context! { guide, about, kind, name, url, secret, settings })?;
        Ok(format!("{}\n", block.trim_end()))
    }

    /// The steps on the platform's side.
    pub(super) fn steps(&self, variables: &Variables<'_>) -> anyhow::Result<Vec<String>> {
        self.steps.iter().map(|step| render(step, variables)).collect()
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

fn render(
    template: &str,
    &Variables { name, url, secret }: &Variables<'_>,
) -> anyhow::Result<String> {
    Ok(environment().render_str(template, context! { name, url, secret })?)
}
