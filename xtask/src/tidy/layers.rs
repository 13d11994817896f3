//! Rules on crates: the layer list and the dependency table of ARCHITECTURE.md are the truth.

use std::collections::BTreeMap;

use super::{Tree, text_of};

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// A dependency line of a manifest: its name, what follows, and whether it is for tests only.
struct Dependency<'a> {
    name: &'a str,
    value: String,
    dev: bool,
}

pub(super) fn check(tree: &Tree, found: &mut Vec<String>) {
    let (Some(book), Some(root)) = (text_of(tree, ARCHITECTURE), text_of(tree, "Cargo.toml")) else {
        found.push(format!("{ARCHITECTURE} or Cargo.toml is missing"));
        return;
    };
    let layers = layers(book);
    let crates = crates(tree);
    every_crate_has_a_layer(&layers, &crates, found);
    let shared = section(root, "workspace.dependencies");
    let rooms: Vec<&str> =
        shared.iter().filter(|(_, value)| value.contains("path =")).map(|(name, _)| *name).collect();
    for (name, manifest) in &crates {
        manifest_rules(name, manifest, &layers, &rooms, found);
    }
    table(book, shared.iter().map(|(name, _)| *name).filter(|name| !rooms.contains(name)).collect(), found);
}

/// The first words of the lines in the block fenced as `layers`, lowest first.
fn layers(book: &str) -> Vec<&str> {
    let block = book.lines().skip_while(|line| line.trim() != "```layers").skip(1);
    block.take_while(|line| line.trim() != "```").filter_map(|line| line.split_whitespace().next()).collect()
}

/// Name and manifest of every crate, from its folder.
fn crates(tree: &Tree) -> BTreeMap<&str, &str> {
    let folder = |path: &'_ str| -> bool {
        path == "xtask/Cargo.toml" || (path.starts_with("crates/") && path.matches('/').count() == 2)
    };
    tree.keys()
        .filter(|path| folder(path))
        .filter_map(|path| Some((path.strip_suffix("/Cargo.toml")?, text_of(tree, path)?)))
        .map(|(path, manifest)| (path.trim_start_matches("crates/"), manifest))
        .collect()
}

fn every_crate_has_a_layer(layers: &[&str], crates: &BTreeMap<&str, &str>, found: &mut Vec<String>) {
    for name in crates.keys().filter(|name| !layers.contains(*name)) {
        found.push(format!("{ARCHITECTURE}: the layer list misses crate {name}"));
    }
    for (at, name) in layers.iter().enumerate() {
        if !crates.contains_key(name) {
            found.push(format!("{ARCHITECTURE}: the layer list names {name}, which is no crate"));
        }
        if layers[..at].contains(name) {
            found.push(format!("{ARCHITECTURE}: the layer list names {name} twice"));
        }
    }
}

fn manifest_rules(name: &str, manifest: &str, layers: &[&str], rooms: &[&str], found: &mut Vec<String>) {
    if !section(manifest, "package")
        .iter()
        .any(|(key, value)| *key == "name" && value.trim_matches('"') == name)
    {
        found.push(format!("crate {name}: folder and package have different names"));
    }
    if !section(manifest, "lints").iter().any(|(key, value)| *key == "workspace" && value == "true") {
        found.push(format!("crate {name}: no `[lints] workspace = true`"));
    }
    let layer = |name: &str| layers.iter().position(|layer| *layer == name);
    for dependency in dependencies(manifest) {
        if !dependency.value.contains("workspace = true") && dependency.value != ".workspace" {
            found.push(format!("crate {name}: {} is not taken from the workspace", dependency.name));
        }
        if dependency.dev || !rooms.contains(&dependency.name) {
            continue;
        }
        if let (Some(own), Some(other)) = (layer(name), layer(dependency.name))
            && other >= own
        {
            found.push(format!("crate {name}: uses {}, which is not below it", dependency.name));
        }
    }
}

/// The entries of one section: key, and its value with `name.workspace = true` given as `.workspace`.
fn section<'a>(manifest: &'a str, wanted: &str) -> Vec<(&'a str, String)> {
    let mut inside = false;
    let mut entries = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == format!("[{wanted}]");
        } else if inside
            && !line.starts_with('#')
            && let Some((key, value)) = line.split_once('=')
        {
            let (key, value) = (key.trim(), value.trim());
            match key.strip_suffix(".workspace") {
                Some(name) if value == "true" => entries.push((name, ".workspace".to_owned())),
                _ => entries.push((key, value.to_owned())),
            }
        }
    }
    entries
}

/// Every dependency in a manifest, whatever the section is called.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut all = Vec::new();
    for header in manifest.lines().map(str::trim).filter(|line| line.starts_with('[')) {
        let name = header.trim_matches(['[', ']']);
        let dev = name.ends_with("dev-dependencies");
        if name.ends_with("dependencies") {
            all.extend(section(manifest, name).into_iter().map(|(name, value)| Dependency {
                name,
                value,
                dev,
            }));
        } else if let Some((kind, dependency)) = name.rsplit_once('.')
            && kind.ends_with("dependencies")
        {
            let entries = section(manifest, name);
            let value =
                entries.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ");
            all.push(Dependency { name: dependency, value, dev: kind.ends_with("dev-dependencies") });
        }
    }
    all
}

/// Every third-party crate has its row, with a reason, and no row is stale.
fn table(book: &str, third_party: Vec<&str>, found: &mut Vec<String>) {
    let mut rows: BTreeMap<&str, &str> = BTreeMap::new();
    let part = book.lines().skip_while(|line| line.trim() != "## Dependencies").skip(1);
    for line in part.take_while(|line| !line.starts_with("## ")) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        if let (Some(name), Some(reason)) = (cells.next(), cells.next())
            && let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
        {
            rows.insert(name, reason);
        }
    }
    for name in &third_party {
        match rows.get(name) {
            None => found.push(format!("{ARCHITECTURE}: the dependency table misses {name}")),
            Some(&"") => {
                found.push(format!("{ARCHITECTURE}: no reason for dependency {name}"));
            }
            Some(_) => {}
        }
    }
    for name in rows.keys().filter(|name| !third_party.contains(name)) {
        found.push(format!("{ARCHITECTURE}: the dependency table names {name}, which nothing uses"));
    }
}
