//! JSON values as YAML 1.2: block style, strings quoted wherever a reader could take them for something else.

use serde_json::Value;

/// The value as a YAML document, with a line's end.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, 0, &mut text),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut text),
        scalar => {
            text += &flow(scalar);
            text.push('\n');
        }
    }
    text
}

fn block(value: &Value, indent: usize, text: &mut String) {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                *text += &format!("{pad}{}:", plain_or_quoted(key));
                below(value, indent + 1, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                *text += &format!("{pad}-");
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        // The first field stands behind the dash, the others under it.
                        let mut nested = String::new();
                        block(item, indent + 1, &mut nested);
                        *text += &format!(" {}", nested.trim_start());
                    }
                    item => below(item, indent + 1, text),
                }
            }
        }
        scalar => *text += &flow(scalar),
    }
}

/// What stands behind `key:` or a dash.
fn below(value: &Value, indent: usize, text: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        text.push('\n');
        block(value, indent, text);
    } else if let Some(lines) = literal(value) {
        *text += if lines.ends_with('\n') { " |\n" } else { " |-\n" };
        for line in lines.lines() {
            let pad = if line.is_empty() { String::new() } else { "  ".repeat(indent) };
            *text += &format!("{pad}{line}\n");
        }
    } else {
        *text += &format!(" {}\n", flow(value));
    }
}

/// Text of several lines that a block scalar can hold as it is.
fn literal(value: &Value) -> Option<&str> {
    let text = value.as_str()?;
    let is_plain = |text: &str| {
        text.chars().all(|c| {
            c == '\n'
                || !(c.is_control()
                    || super::steers(c)
                    || c == '\u{feff}'
                    || c == '\u{85}'
                    || c == '\u{2028}'
                    || c == '\u{2029}')
        })
    };
    let fits = text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && !text.ends_with("\n\n")
        && !text.lines().any(|line| line.ends_with(' ') || line.starts_with('\t'))
        && is_plain(text);
    fits.then_some(text)
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => plain_or_quoted(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        scalar => scalar.to_string(),
    }
}

fn plain_or_quoted(text: &str) -> String {
    match is_plain(text) {
        true => text.to_owned(),
        // A JSON string is a double-quoted YAML scalar.
        false => super::inert(&Value::from(text).to_string()),
    }
}

/// Whether nobody takes the bare text for anything but this string.
fn is_plain(text: &str) -> bool {
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let legal = |c: char| {
        c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ' | '(' | ')' | '+' | ';' | '=')
    };
    text.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '/'))
        && text.chars().all(legal)
        && !text.ends_with(' ')
        && !reserved.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_in_block_style() {
        let value = json!({
            "name": "code-health", "on": true, "count": 3, "none": null, "version": "1.0", "empty": [], "at": "2026-11-22T00:00:00Z",
            "members": [{"name": "scout", "env": {"DEPTH": "2"}}, "x", ["a"]],
            "text": "two\nlines",
        });
        assert_eq!(
            yaml(&value),
            "at: \"2026-11-22T00:00:00Z\"\ncount: 3\nempty: []\nmembers:\n  - env:\n      DEPTH: \"2\"\n    name: scout\n  - x\n  -\n    - a\n\
             name: code-health\nnone: null\n\"on\": true\ntext: |-\n  two\n  lines\nversion: \"1.0\"\n"
        );
        assert_eq!(yaml(&json!("a: b")), "\"a: b\"\n");
        assert_eq!(yaml(&json!("a\u{9b}\n\u{202e}b")), "\"a\\u009b\\n\\u202eb\"\n");
    }
}
