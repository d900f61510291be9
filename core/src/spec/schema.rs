//! The JSON schema of a spec, made from the table of fields.

use super::fields::{Fields, LATER};
use super::json::{Json, Members, json};
use super::{DOCUMENTATION, Spec, caps};

/// The JSON schema (draft 2020-12) of [`Spec::from_json`]: every field with title, description, default and unit
/// (`x-unit`); fields that this version knows but cannot do yet are marked `"x-available": false`.
///
/// The schema describes syntax; what only the values together can tell ([`Spec::validate`]) is in the descriptions.
pub fn schema_json() -> String {
    let default = Spec::default();
    let mut properties = Members::new();
    for (field, documentation) in Spec::FIELDS.iter().zip(DOCUMENTATION) {
        let description = plain_text(documentation);
        let mut property = json!({
            "title": title(&description),
            "description": description,
            "default": (field.write)(&default),
            "anyOf": [(field.schema)(), {"type": "null"}],
        });
        if let Some(unit) = field.unit {
            property["x-unit"] = unit.into();
        }
        properties.insert(field.name.to_owned(), property);
    }
    for name in LATER {
        let property = json!({
            "title": name,
            "description": "Not available yet.",
            "default": null,
            "type": "null",
            "x-available": false,
        });
        properties.insert(name.to_owned(), property);
    }
    let number_or_text = |pattern: &str, minimum: Json, kind: &str| json!({"anyOf": [{"type": kind, "minimum": minimum}, {"type": "string", "pattern": pattern}]});
    let base64 = json!({
        "type": "object",
        "required": ["base64"],
        "additionalProperties": false,
        "properties": {"base64": {"type": "string", "contentEncoding": "base64"}},
    });
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A container of ringfence",
        "description": "What a container is to be. Fields that are absent or null have their defaults.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "$defs": {
            "bytes": {"description": "Text, or base64 of bytes that are not UTF-8.", "anyOf": [{"type": "string"}, base64]},
            "path": {"description": "An absolute path.", "anyOf": [{"type": "string", "pattern": "^/"}, base64]},
            "size": number_or_text("^[0-9]+(\\.[0-9]+)?([KkMmGgTt]([Ii]?|[Ii][Bb])|[Bb])?$", 0.into(), "integer"),
            "duration": number_or_text("^[0-9]+(\\.[0-9]+)?(h|m|s|ms|us|ns)?$", 0.into(), "number"),
            "capability": {"enum": &caps::NAMES[..]},
        },
    });
    format!("{schema:#}")
}

/// The first words of a description, up to where it goes into detail.
fn title(description: &str) -> &str {
    let end = [". ", ": ", "; ", " ("].iter().filter_map(|stop| description.find(stop)).min();
    &description[..end.unwrap_or(description.len())]
}

/// Documentation as running text: one line per paragraph, links as the words that they stand on.
fn plain_text(documentation: &str) -> String {
    let mut text = String::new();
    for line in documentation.lines().map(str::trim) {
        match line {
            "" => text.push(' '),
            line if text.is_empty() || text.ends_with(' ') => text.push_str(line),
            line => {
                text.push(' ');
                text.push_str(line);
            }
        }
    }
    let mut plain = String::new();
    let mut rest = text.trim();
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((words, after)) = link.split_once("`]") else { break };
        plain.push_str(before);
        plain.push_str(words);
        rest = match after.strip_prefix('(') {
            Some(target) => target.split_once(')').map_or("", |(_, after)| after),
            None => after,
        };
    }
    plain.push_str(rest);
    plain
}
