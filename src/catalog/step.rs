//! A step on the way from source tensors to a tensor of a view, in words for people and programs.

use serde::Serialize;
use serde_json::{Map, Value};

/// What an operator did, by its name and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub operator: &'static str,
    #[serde(flatten)]
    pub parameters: Map<String, Value>,
    /// Whether all inputs are alike (the models of a merge); else the first is what the step is
    /// done to, and the others are what it is done with.
    #[serde(skip)]
    pub inputs_alike: bool,
}

impl Step {
    /// A step without parameters.
    pub fn new(operator: &'static str) -> Self {
        Step {
            operator,
            parameters: Map::new(),
            inputs_alike: false,
        }
    }

    /// A step of a merge by the formula of this name.
    pub fn merge(formula: &'static str) -> Self {
        Step {
            inputs_alike: true,
            ..Step::new("merge").with("formula", formula)
        }
    }

    /// The same with a parameter more.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.parameters.insert(name.to_owned(), value.into());
        self
    }
}

/// The number that `number` is written as: 0.1, not the 0.10000000149 that an f32 holds.
pub fn as_written(number: f32) -> Value {
    number
        .to_string()
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}
