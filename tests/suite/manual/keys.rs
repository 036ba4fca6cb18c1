//! The keys of the JSON documents, from their schemas.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::page::Entry;
use crate::schema::schema;

/// One key of a document, by its path: `regions[].gpus[].address`.
pub(super) struct Key {
    pub path: String,
    types: BTreeSet<String>,
    /// Its possible words.
    pub words: BTreeSet<String>,
    /// The document that describes it, if it is another one.
    pub from: Option<String>,
}

impl Key {
    pub(super) fn can_be_null(&self) -> bool {
        self.types.contains("null")
    }

    fn types(&self) -> String {
        let mut names: Vec<_> = self.types.iter().map(String::as_str).collect();
        names.sort_by_key(|name| *name == "null");
        names.join(" or ")
    }
}

/// The names of the schemas.
pub(super) fn schemas() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let mut names: Vec<_> =
        names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort();
    names
}

/// The name of a document, `egm-probe.list/1`, from its schema.
pub(super) fn document(name: &str) -> String {
    schema(name)["properties"]["schema"]["const"].as_str().unwrap().to_owned()
}

/// Every key of a document, as the schemas list them.
pub(super) fn keys(name: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    walk(name, &schema(name), "", &mut keys);
    keys.retain(|key| !key.path.is_empty() && !key.path.ends_with("[]"));
    keys
}

pub(super) fn entries(keys: &[Key]) -> Vec<Entry> {
    let head = |key: &Key| match &*key.types() {
        "" => format!(".B {}", key.path),
        types => format!(".BR {} \" ({types})\"", key.path),
    };
    keys.iter().map(|key| Entry { head: head(key), text: String::new() }).collect()
}

fn walk(document: &str, node: &Value, path: &str, keys: &mut Vec<Key>) {
    let Some(node) = node.as_object() else { return };
    if !keys.iter().any(|key| key.path == path) {
        let (types, words) = (BTreeSet::new(), BTreeSet::new());
        keys.push(Key { path: path.to_owned(), types, words, from: None });
    }
    if let Some(reference) = node.get("$ref") {
        refer(document, reference.as_str().unwrap(), path, keys);
    }
    each("allOf", document, node, path, keys);
    for name in node.get("type").into_iter().flat_map(|names| match names {
        Value::Array(names) => names.iter().collect(),
        name => vec![name],
    }) {
        add_type(path, name.as_str().unwrap(), keys);
    }
    let constant = node.get("const").into_iter();
    for value in constant.chain(node.get("enum").and_then(Value::as_array).into_iter().flatten()) {
        add_word(path, value, keys);
    }
    if let Some(properties) = node.get("properties").and_then(Value::as_object) {
        // Required keys are in the order of the document.
        let required = node.get("required").and_then(Value::as_array).into_iter().flatten();
        let mut names: Vec<_> = required.filter_map(Value::as_str).collect();
        names.retain(|name| properties.contains_key(*name));
        let others: Vec<_> = properties.keys().filter(|name| !names.contains(&&***name)).collect();
        // The first key determines the others, such as the kind of a claim.
        names.splice(0..0, others.into_iter().map(String::as_str));
        for name in names {
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            walk(document, &properties[name], &below, keys);
        }
    }
    each("oneOf", document, node, path, keys);
    if let Some(items) = node.get("items") {
        walk(document, items, &format!("{path}[]"), keys);
        // The possible words of a list's items are those of the list.
        let of_items = keys.iter().find(|key| key.path == format!("{path}[]"));
        let (words, from) = of_items.map(|key| (key.words.clone(), key.from.clone())).unwrap();
        let key = find(path, keys);
        key.words.extend(words);
        key.from = key.from.take().or(from);
    }
}

/// Visits the alternatives of `allOf`, `anyOf` or `oneOf`.
fn each(which: &str, document: &str, node: &Map<String, Value>, path: &str, keys: &mut Vec<Key>) {
    for node in node.get(which).and_then(Value::as_array).into_iter().flatten() {
        walk(document, node, path, keys);
    }
}

fn refer(document: &str, reference: &str, path: &str, keys: &mut Vec<Key>) {
    if reference.ends_with("/bytes") {
        add_type(path, "bytes", keys);
        add_type(path, "null", keys);
        return;
    }
    let (urn, pointer) = reference.split_once('#').unwrap();
    if urn.is_empty() {
        let target = schema(document).pointer(pointer).unwrap().clone();
        walk(document, &target, path, keys);
        return;
    }
    // Its keys are those of the other document.
    let other = urn.strip_prefix("urn:egm-probe:").unwrap().split(':').next().unwrap();
    let mut there = Vec::new();
    walk(other, schema(other).pointer(pointer).unwrap(), "", &mut there);
    let key = find(path, keys);
    key.types.extend(there.swap_remove(0).types);
    key.from = Some(self::document(other));
}

fn find<'a>(path: &str, keys: &'a mut [Key]) -> &'a mut Key {
    keys.iter_mut().find(|key| key.path == path).unwrap()
}

fn add_type(path: &str, name: &str, keys: &mut [Key]) {
    let name = match name {
        "array" => "list",
        "boolean" => "true or false",
        "integer" => "number",
        other => other,
    };
    find(path, keys).types.insert(name.to_owned());
}

fn add_word(path: &str, value: &Value, keys: &mut [Key]) {
    match value.as_str() {
        Some(word) => {
            add_type(path, "string", keys);
            find(path, keys).words.insert(word.to_owned());
        }
        None => add_type(path, "null", keys),
    }
}
