//! `llamac inspect` of a GGUF file: its keys and tensors.

use super::args::{InspectArgs, InspectFormat, TableFormat};
use super::table::{Table, pretty};
use super::{Result, failure};
use llamac_models::GgufModel;
use llamac_models::gguf::Value;
use serde_json::{Map, json};

/// Elements of an array that are shown.
const SHOWN: usize = 6;

/// Keys, tensors and their types.
pub fn text(args: &InspectArgs) -> Result<String> {
    if args.verify {
        return Err(failure("--verify: a GGUF file has no checksums; only an artifact does"));
    }
    let model = GgufModel::open(&args.path)?;
    let header = model.header();
    let mut tensors = Table::new(&["tensor", "type", "bytes"]);
    for (name, place) in header.tensors() {
        let ty = format!("{}{:?}", place.dtype, place.dims);
        tensors.row(vec![json!(name), json!(ty), json!(place.bytes.len())]);
    }
    let parameters = model.config().parameters();
    if args.format == InspectFormat::Json {
        let keys: Map<String, serde_json::Value> = header.keys().map(|(k, v)| (k.to_owned(), value(&v))).collect();
        let all = json!({
            "name": model.name(),
            "version": header.version(),
            "alignment": header.alignment(),
            "keys": keys,
            "parameters": parameters,
            "tensors": tensors.records(),
            "tokenizer": model.has_vocabulary(),
        });
        return Ok(format!("{}\n", pretty(&all)));
    }
    let mut keys = Table::new(&["key", "value"]);
    for (key, found) in header.keys() {
        keys.row(vec![json!(key), json!(shown(&found))]);
    }
    Ok(format!(
        "# {}\n\nGGUF version {}, {parameters} parameters, {}.\n\n## Keys\n\n{}\n## Tensors\n\n{}",
        model.name(),
        header.version(),
        if model.has_vocabulary() { "a tokenizer" } else { "no tokenizer" },
        keys.render(TableFormat::Md),
        tensors.render(TableFormat::Md)
    ))
}

/// A value in a line; of an array the first elements.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Array(array) => {
            let first: Vec<String> = array.iter().take(SHOWN).map(|v| v.show()).collect();
            let more = if array.count > SHOWN { ", …" } else { "" };
            format!("{} {}: {}{more}", array.count, array.kind.name(), first.join(", "))
        }
        other => other.show(),
    }
}

/// A value as JSON. Arrays are as long as vocabularies: their kind, count and first elements stand for them.
fn value(found: &Value<'_>) -> serde_json::Value {
    match found {
        Value::Unsigned(n) => json!(n),
        Value::Signed(n) => json!(n),
        Value::Float(x) => json!(x),
        Value::Bool(b) => json!(b),
        Value::Text(text) => json!(String::from_utf8_lossy(text)),
        Value::Array(array) => json!({
            "type": array.kind.name(),
            "count": array.count,
            "first": array.iter().take(SHOWN).map(|v| value(&v)).collect::<Vec<_>>(),
        }),
    }
}
