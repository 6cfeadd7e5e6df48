//! `parameters` of a recipe. All of them are checked, also those that decide nothing.

use crate::error::Result;
use crate::ops::merge::{Amount, Condition, Parameter, Scalar, Setting, Settings};
use crate::recipe::yaml::{Fields, Node, Value};

/// The settings under `parameters`, if there are some, of a method that takes `known`.
pub(super) fn settings(fields: &Fields, known: &[Parameter]) -> Result<Settings> {
    let Some(node) = fields.get("parameters") else {
        return Ok(Settings::new());
    };
    let entries = node.map("parameters")?.iter();
    entries
        .map(|(key, node)| {
            let name = Name {
                text: &key.text,
                parameter: known.iter().find(|parameter| parameter.name == key.text),
            };
            Ok((key.text.clone(), setting(name, node)?))
        })
        .collect()
}

/// What a setting is of.
#[derive(Clone, Copy)]
struct Name<'a> {
    text: &'a str,
    /// None if the method takes no such parameter.
    parameter: Option<&'a Parameter>,
}

fn setting(name: Name, node: &Node) -> Result<Setting> {
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

fn condition(name: Name, node: &Node) -> Result<Condition> {
    let what = format!("an entry of {}", name.text);
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

fn amount(name: Name, node: &Node) -> Result<Amount> {
    match &node.value {
        Value::List(nodes) => {
            let values = nodes.iter().map(|node| scalar(name, node));
            Ok(Amount::Gradient(values.collect::<Result<_>>()?))
        }
        _ => Ok(Amount::One(scalar(name, node)?)),
    }
}

fn scalar(name: Name, node: &Node) -> Result<Scalar> {
    let Value::Scalar(scalar) = &node.value else {
        return Err(node.expected(
            name.text,
            "a value, a list of values, or entries of filter and value",
        ));
    };
    let scalar = node.number().unwrap_or_else(|| scalar.clone());
    if let Some(parameter) = name.parameter {
        parameter.take(&scalar, &node.place)?;
    }
    Ok(scalar)
}
