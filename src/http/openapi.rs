//! The OpenAPI 3.1 document, made from the table of routes.

use axum::http::Method;
use identity::level_of;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::route::{Route, Shape};
use crate::api::{Details, PROBLEM_MEDIA_TYPE, TENANT};

pub(super) fn document(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    let problem = generator.subschema_for::<Details>();
    let mut paths = Map::new();
    for route in routes {
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut generator);
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "HyperCode",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Supervised, event-sourced crews of AI agents. Every error is problem details (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {"Problem": {
                "description": "Why it was not done.",
                "content": {PROBLEM_MEDIA_TYPE: {"schema": problem}},
            }},
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            route.status.as_str(): {
                "description": "Done.",
                "content": {route.answer.media_type: media(&route.answer, generator)},
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
    });
    let parameters = parameters(route, generator);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = request_body(route, generator) {
        operation["requestBody"] = body;
    }
    match route.permission {
        Some(permission) => {
            operation["x-permission"] = permission.into();
            operation["x-scope"] = level_of(permission).as_str().into();
        }
        None => operation["security"] = json!([]),
    }
    operation
}

/// What the body may be, and whether there must be one. What stands in the path does not stand there again, what has no
/// fields left is no body, and where all fields may be left out, so may the body.
fn request_body(route: &Route, generator: &mut SchemaGenerator) -> Option<Value> {
    let (mut content, mut is_required) = (Map::new(), true);
    for body in &route.bodies {
        let Some(schema) = body.schema else {
            content.insert(body.media_type.to_owned(), json!({}));
            continue;
        };
        let mut whole = Value::from(schema(&mut inline(generator)));
        let has_any = |schema: &Value, of: &str| match &schema[of] {
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(names) => !names.is_empty(),
            _ => false,
        };
        for name in segments(route) {
            if let Some(properties) = whole.get_mut("properties").and_then(Value::as_object_mut) {
                properties.remove(name);
            }
            if let Some(required) = whole.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|field| field != name);
            }
        }
        if !has_any(&whole, "properties") {
            continue;
        }
        is_required &= has_any(&whole, "required");
        let shown = match segments(route).next() {
            Some(_) => whole,
            None => schema(generator).into(),
        };
        content.insert(body.media_type.to_owned(), json!({ "schema": shown }));
    }
    (!content.is_empty()).then(|| json!({"required": is_required, "content": content}))
}

/// The names of the variable segments of a route's path.
fn segments(route: &Route) -> impl Iterator<Item = &'static str> {
    route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn media(shape: &Shape, generator: &mut SchemaGenerator) -> Value {
    match shape.schema {
        Some(schema) => json!({ "schema": schema(generator) }),
        None => json!({}),
    }
}

/// The variable segments of the path, the fields of the query, and the headers that every command takes.
fn parameters(route: &Route, generator: &mut SchemaGenerator) -> Vec<Value> {
    let string = json!({"type": "string"});
    let mut parameters: Vec<Value> = segments(route)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": string}))
        .collect();
    parameters.extend(
        route.query.map(|query| query_parameters(&query(&mut inline(generator)))).unwrap_or_default(),
    );
    if route.permission.is_some() {
        parameters.push(json!({
            "name": TENANT,
            "in": "header",
            "description": "The tenant that this is about; without it the only one that the roles of who asks name, else `default`.",
            "schema": string,
        }));
    }
    if route.method == Method::POST {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same key and content gives the first outcome; the same key with other content is refused.",
            "schema": string,
        }));
    }
    parameters
}

/// A generator like this one whose schemas refer to nothing: what a query's fields need.
fn inline(generator: &SchemaGenerator) -> SchemaGenerator {
    let mut settings = generator.settings().clone();
    settings.inline_subschemas = true;
    SchemaGenerator::new(settings)
}

fn query_parameters(schema: &schemars::Schema) -> Vec<Value> {
    let fields = schema.get("properties").and_then(Value::as_object);
    let parameter = |(name, field): (&String, &Value)| {
        let mut schema = field.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({"name": name, "in": "query", "description": description, "schema": schema})
    };
    fields.into_iter().flatten().map(parameter).collect()
}
