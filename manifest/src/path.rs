//! Paths of fields, as in `spec.channels[1].to`.

/// The path of a field below another: `a.b`, or `a["b c"]` where the key is not a plain word.
pub(crate) fn field(parent: &str, key: &str) -> String {
    let plain =
        !key.is_empty() && key.len() <= 64 && key.chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
    match (plain, parent.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{parent}.{key}"),
        (false, _) => format!("{parent}[{}]", crate::fault::quoted(key)),
    }
}

/// The path of an item of a list, counted from 0.
pub(crate) fn item(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}
