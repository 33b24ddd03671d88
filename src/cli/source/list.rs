//! `tallyhook source list`.

use serde_json::json;

use crate::{app::Components, cli::output};

pub(super) fn run(components: &Components, json: bool) -> anyhow::Result<()> {
    if json {
        let sources: Vec<_> = components
            .sources
            .iter()
            .map(|(name, source)| {
                json!({
                    "name": name.as_str(),
                    "kind": source.kind(),
                    "path": format!("/hooks/{name}"),
                    "secrets": source.secret_labels().collect::<Vec<_>>(),
                    "tenants": source.tenants(),
                })
            })
            .collect();
        outln!("{}", serde_json::to_string_pretty(&sources)?);
        return Ok(());
    }
    let mut table = output::table(&["SOURCE", "KIND", "PATH", "SECRETS", "TENANTS"]);
    for (name, source) in components.sources.iter() {
        let secrets: Vec<&str> = source.secret_labels().collect();
        let tenants = match source.tenants() {
            [] => "any".to_owned(),
            tenants => tenants.join(", "),
        };
        table.add_row([
            name.to_string(),
            source.kind().to_owned(),
            format!("/hooks/{name}"),
            secrets.join(", "),
            tenants,
        ]);
    }
    outln!("{table}");
    Ok(())
}
