//! `parameters` of a recipe.

use crate::error::Result;
use crate::ops::merge::{Amount, Condition, Scalar, Setting, Settings};
use crate::recipe::yaml::{Fields, Node, Value};

/// The settings under `parameters`, if there are some.
pub(super) fn settings(fields: &Fields) -> Result<Settings> {
    let Some(node) = fields.get("parameters") else {
        return Ok(Settings::new());
    };
    let entries = node.map("parameters")?.iter();
    entries
        .map(|(key, node)| Ok((key.text.clone(), setting(&key.text, node)?)))
        .collect()
}

fn setting(name: &str, node: &Node) -> Result<Setting> {
    let is_map = |node: &Node| matches!(node.value, Value::Map(_));
    let conditions = match &node.value {
        Value::List(nodes) if nodes.iter().any(is_map) => {
            let conditions = nodes.iter().map(|node| condition(name, node));
            conditions.collect::<Result<_>>()?
        }
        Value::Map(_) => vec![condition(name, node)?],
        _ => vec![Condition {
            filter: None,
            amount: amount(name, node)?,
        }],
    };
    Ok(Setting {
        place: node.place.clone(),
        conditions,
    })
}

fn condition(name: &str, node: &Node) -> Result<Condition> {
    let what = format!("an entry of {name}");
    let fields = Fields::new(node, &what, &["filter", "value"])?;
    let filter = match fields.get("filter") {
        Some(filter) => Some(filter.text("filter")?.to_owned()),
        None => None,
    };
    Ok(Condition {
        filter,
        amount: amount(name, fields.require("value")?)?,
    })
}

fn amount(name: &str, node: &Node) -> Result<Amount> {
    match &node.value {
        Value::List(nodes) => {
            let values = nodes.iter().map(|node| scalar(name, node));
            Ok(Amount::Gradient(values.collect::<Result<_>>()?))
        }
        _ => Ok(Amount::One(scalar(name, node)?)),
    }
}

fn scalar(name: &str, node: &Node) -> Result<Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Ok(scalar.clone()),
        _ => Err(node.expected(
            name,
            "a value, a list of values, or entries of filter and value",
        )),
    }
}
