//! JSON Schemas of the manifests, for editors.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{Crew, Kind, Pool, Profile};

/// The JSON Schema (draft 2020-12) of a kind of manifests, or `None` for the kinds that this
/// version does not read. The schema says what it can of what [`crate::parse()`] checks: fields,
/// types, units, limits and defaults, but not references between fields.
pub fn schema(kind: Kind) -> Option<Value> {
    match kind {
        Kind::Crew => Some(root::<Crew>(kind)),
        Kind::Profile => Some(root::<Profile>(kind)),
        Kind::Pool => Some(root::<Pool>(kind)),
        Kind::Suite | Kind::Scenario => None,
    }
}

fn root<T: JsonSchema>(kind: Kind) -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    schema["$id"] = json!(format!("https://hypercode.dev/schema/v1/{}.json", kind.as_str().to_lowercase()));
    // The kind is the tag by which the types are told apart, not a field of theirs.
    schema["properties"]["kind"] =
        json!({ "const": kind.as_str(), "description": "What the manifest describes." });
    if let Some(required) = schema["required"].as_array_mut() {
        required.insert(0, json!("kind"));
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Code, parse};

    /// The part of a schema that a path of properties and items leads to, references followed.
    fn part<'s>(schema: &'s Value, path: &[&str]) -> &'s Value {
        path.iter().fold(schema, |at, step| {
            let next = match *step {
                "[]" => &at["items"],
                field => &at["properties"][field],
            };
            let reference = next["$ref"].as_str().or_else(|| next["anyOf"][0]["$ref"].as_str());
            reference.map_or(next, |reference| {
                schema.pointer(&reference[1..]).expect("the reference leads somewhere")
            })
        })
    }

    fn all_objects<'s>(value: &'s Value, found: &mut Vec<&'s Value>) {
        match value {
            Value::Object(fields) => {
                if fields.contains_key("properties") {
                    found.push(value);
                }
                fields.values().for_each(|field| all_objects(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| all_objects(item, found)),
            _ => {}
        }
    }

    #[test]
    fn kinds_that_are_not_read_have_no_schema() {
        for kind in Kind::ALL {
            assert_eq!(schema(kind).is_some(), kind.is_supported(), "{kind:?}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_and_every_field_is_described() {
        for kind in [Kind::Crew, Kind::Profile, Kind::Pool] {
            let schema = schema(kind).expect("supported");
            let mut objects = Vec::new();
            all_objects(&schema, &mut objects);
            assert!(objects.len() > 5);
            for object in objects {
                assert_eq!(object["additionalProperties"], json!(false), "{object}");
                for (name, field) in object["properties"].as_object().expect("properties") {
                    // The variants of a choice between mappings are described as a whole.
                    let described = field["description"].is_string() || object["description"].is_string();
                    assert!(described, "{kind:?}: `{name}` has no description: {field}");
                }
            }
        }
    }

    /// Puts a field that is none into every mapping of fields of a value.
    fn spoil(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (_, field) in
                    fields.iter_mut().filter(|(name, _)| !["env", "labels"].contains(&name.as_str()))
                {
                    spoil(field);
                }
                fields.insert("zzz".to_owned(), json!(1));
            }
            Value::Array(items) => items.iter_mut().for_each(spoil),
            _ => {}
        }
    }

    #[test]
    fn the_schema_has_the_fields_that_are_read() {
        let design = parse("design.yaml", include_bytes!("../testdata/design.yaml"));
        let mut compared = 0;
        for manifest in &design.manifests {
            let schema = schema(manifest.kind()).expect("supported");
            let mut spoiled = serde_json::to_value(manifest).expect("serialises");
            spoil(&mut spoiled);
            let faults = parse("f", spoiled.to_string().as_bytes()).faults;
            for fault in faults
                .iter()
                .filter(|fault| fault.code == Code::UnknownField && !fault.path.contains("from."))
            {
                let path = fault.path.strip_suffix("zzz").expect("the only unknown field").to_owned();
                let path = ["[0]", "[1]", "[2]"].iter().fold(path, |path, item| path.replace(item, ".[]"));
                let at = part(&schema, &path.split('.').filter(|step| !step.is_empty()).collect::<Vec<_>>());
                let read = fault.expected.strip_prefix("the fields are ").expect("the known fields");
                let mut read: Vec<&str> = read.split(", ").collect();
                read.sort_unstable();
                let described: Vec<&String> =
                    at["properties"].as_object().expect("a mapping").keys().collect();
                assert_eq!(described, read, "{}", fault.path);
                compared += 1;
            }
        }
        assert!(compared >= 17, "{compared}");
    }

    #[test]
    fn limits_units_and_choices_are_in_the_schema() {
        let crew = schema(Kind::Crew).expect("supported");
        assert_eq!(crew["$schema"], json!("https://json-schema.org/draft/2020-12/schema"));
        assert_eq!(crew["required"], json!(["kind", "apiVersion", "metadata", "spec"]));
        let replicas = part(&crew, &["spec", "members", "[]", "replicas"]);
        assert_eq!((&replicas["minimum"], &replicas["maximum"]), (&json!(1), &json!(100)));
        assert_eq!(replicas["default"], json!(1));
        assert_eq!(part(&crew, &["spec", "liveness", "heartbeat"])["pattern"], json!("^[0-9]+(ms|s|m|h|d)$"));
        assert_eq!(part(&crew, &["spec", "ttl"])["pattern"], json!("^[0-9]+(ms|s|m|h|d)$"));
        assert!(part(&crew, &["spec", "supervision", "strategy"]).to_string().contains("rest_for_one"));
        let profile = schema(Kind::Profile).expect("supported");
        assert_eq!(part(&profile, &["spec", "resources", "cpu"])["type"], json!(["string", "integer"]));
        assert!(part(&profile, &["spec", "handler", "protocol"]).to_string().contains("\"pull\""));
    }
}
