//! Parameters of a merge: what a recipe sets, and what that comes to for one tensor.
//!
//! A setting is a scalar, a gradient over the layers of a slice, or a list of either with filters
//! on tensor names. Settings stand at four places; the nearest that gives a value wins: the model
//! in a slice, the slice, the module, the whole recipe.

use std::collections::HashSet;
use std::fmt;

use indexmap::IndexMap;

use crate::error::{Code, Error, Place, Result};

/// A value as YAML has it, or as a parameter takes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Bool(value) => write!(f, "{value}"),
            Scalar::Int(value) => write!(f, "{value}"),
            Scalar::Float(value) => write!(f, "{value}"),
            Scalar::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// One value for all layers, or several that the layers of a slice go through.
#[derive(Debug, Clone, PartialEq)]
pub enum Amount {
    One(Scalar),
    Gradient(Vec<Scalar>),
}

/// An amount for the tensors whose names hold `filter` (all, if it is `None` or `*`).
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub filter: Option<String>,
    pub amount: Amount,
}

/// What a recipe sets a parameter to: the first condition that holds decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub place: Place,
    pub conditions: Vec<Condition>,
}

/// Parameter name → setting, as one `parameters:` of a recipe gives them.
pub type Settings = IndexMap<String, Setting>;

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Float,
    Int,
    Bool,
    /// A name, such as that of a way to count votes.
    Text,
}

/// What a parameter is where no setting gives it a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preset {
    /// There must be a setting.
    Required,
    /// It has no value.
    Absent,
    Float(f64),
    Int(i64),
    Bool(bool),
    Text(&'static str),
}

/// Which inputs have a parameter of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// None: it belongs to the output. Settings of single models do not count.
    Shared,
    /// Every input.
    Input,
    /// Every input but the base.
    NonBase,
}

/// The least and the largest value of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub min: f64,
    pub max: f64,
}

impl Range {
    /// Methods compute with f32, where larger numbers are infinite.
    pub const FINITE: Range = Range {
        min: f32::MIN as f64,
        max: f32::MAX as f64,
    };
    /// A distance.
    pub const NOT_NEGATIVE: Range = Range {
        min: 0.0,
        ..Range::FINITE
    };
    /// A part of all elements.
    pub const SHARE: Range = Range { min: 0.0, max: 1.0 };

    fn contains(self, value: f64) -> bool {
        // Not so if it is NaN.
        (self.min..=self.max).contains(&value)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Range::FINITE => write!(f, "a finite number of float32"),
            Range::NOT_NEGATIVE => write!(f, "a finite number of float32 that is not negative"),
            Range { min, max } => write!(f, "a number from {min} to {max}"),
        }
    }
}

/// A parameter that a method takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    pub name: &'static str,
    pub kind: Kind,
    /// What a number must be in.
    pub range: Range,
    pub scope: Scope,
    pub preset: Preset,
}

impl Parameter {
    /// The value of the parameter for the tensor `name` at `t` of its slice's layers, from
    /// settings in order of precedence.
    ///
    /// `None` if no setting decides and there is no preset.
    ///
    /// # Errors
    /// If a setting that decides is not what the parameter takes.
    pub fn resolve<'a>(
        &self,
        settings: impl IntoIterator<Item = &'a Settings>,
        name: &str,
        t: f64,
    ) -> Result<Option<Scalar>> {
        for settings in settings {
            if let Some(setting) = settings.get(self.name)
                && let Some(value) = self.evaluate(setting, name, t)?
            {
                return Ok(Some(value));
            }
        }
        match self.preset {
            Preset::Absent | Preset::Required => Ok(None),
            Preset::Float(value) => Ok(Some(Scalar::Float(value))),
            Preset::Int(value) => Ok(Some(Scalar::Int(value))),
            Preset::Bool(value) => Ok(Some(Scalar::Bool(value))),
            Preset::Text(value) => Ok(Some(Scalar::Text(value.to_owned()))),
        }
    }

    /// What `setting` comes to; `None` if no condition holds, or the one that holds is empty.
    fn evaluate(&self, setting: &Setting, name: &str, t: f64) -> Result<Option<Scalar>> {
        let holds = |condition: &&Condition| match condition.filter.as_deref() {
            None | Some("*") => true,
            Some(part) => name.contains(part),
        };
        let Some(condition) = setting.conditions.iter().find(holds) else {
            return Ok(None);
        };
        let values: Vec<Scalar> = match &condition.amount {
            Amount::One(value) => return self.take(value, &setting.place).map(Some),
            Amount::Gradient(values) => values
                .iter()
                .map(|value| self.take(value, &setting.place))
                .collect::<Result<_>>()?,
        };
        let Some(last) = values.len().checked_sub(1) else {
            return Ok(None);
        };
        let scaled = t * last as f64;
        let low = (scaled as usize).min(last);
        let number = |i: usize| match values[i] {
            Scalar::Int(value) => Some(value as f64),
            Scalar::Float(value) => Some(value),
            Scalar::Bool(_) | Scalar::Text(_) => None,
        };
        let (Some(from), Some(to)) = (number(low), number((low + 1).min(last))) else {
            return Ok(Some(values[low].clone()));
        };
        let part = scaled - low as f64;
        let between = Scalar::Float((1.0 - part) * from + part * to);
        self.take(&between, &setting.place).map(Some)
    }

    /// `value`, which stands at `place`, as the kind of this parameter.
    ///
    /// # Errors
    /// If it is of another kind, or out of range.
    pub fn take(&self, value: &Scalar, place: &Place) -> Result<Scalar> {
        let in_range = |number: &f64| self.range.contains(*number);
        let taken = match self.kind {
            Kind::Float => float(value).filter(in_range).map(Scalar::Float),
            Kind::Int => int(value).map(Scalar::Int),
            Kind::Bool => bool(value).map(Scalar::Bool),
            Kind::Text => match value {
                Scalar::Text(text) => Some(Scalar::Text(text.clone())),
                _ => None,
            },
        };
        taken.ok_or_else(|| self.refusal(value, place))
    }

    fn refusal(&self, value: &Scalar, place: &Place) -> Error {
        let is_number = matches!(self.kind, Kind::Float | Kind::Int);
        let expected = match self.kind {
            Kind::Float => self.range.to_string(),
            Kind::Int => "a whole number".to_owned(),
            Kind::Bool => "true or false".to_owned(),
            Kind::Text => "a name".to_owned(),
        };
        let problem = format!("{} is {value}, expected {expected}", self.name);
        let error = place.error(Code::BadParameter, problem);
        if let Scalar::Text(text) = value
            && is_number
            && text.trim().parse::<f64>().is_ok()
        {
            return error.with_hint("write it without quotes");
        }
        error
    }
}

fn float(value: &Scalar) -> Option<f64> {
    match value {
        Scalar::Int(value) => Some(*value as f64),
        Scalar::Float(value) => Some(*value),
        Scalar::Bool(_) | Scalar::Text(_) => None,
    }
}

fn int(value: &Scalar) -> Option<i64> {
    match value {
        Scalar::Int(value) => Some(*value),
        Scalar::Float(value) => whole(*value),
        Scalar::Bool(_) | Scalar::Text(_) => None,
    }
}

fn whole(value: f64) -> Option<i64> {
    const BOUND: f64 = (1u64 << 63) as f64;
    (value.fract() == 0.0 && (-BOUND..BOUND).contains(&value)).then_some(value as i64)
}

fn bool(value: &Scalar) -> Option<bool> {
    match value {
        Scalar::Bool(value) => Some(*value),
        Scalar::Int(0) => Some(false),
        Scalar::Int(1) => Some(true),
        Scalar::Float(value) if *value == 0.0 => Some(false),
        Scalar::Float(value) if *value == 1.0 => Some(true),
        Scalar::Int(_) | Scalar::Float(_) => None,
        Scalar::Text(text) => match text.to_ascii_lowercase().as_str() {
            "0" | "off" | "f" | "false" | "n" | "no" => Some(false),
            "1" | "on" | "t" | "true" | "y" | "yes" => Some(true),
            _ => None,
        },
    }
}

/// Resolved parameters: those of the output, or those of one input.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(Vec<(&'static str, Option<Scalar>)>);

impl FromIterator<(&'static str, Option<Scalar>)> for Values {
    fn from_iter<I: IntoIterator<Item = (&'static str, Option<Scalar>)>>(values: I) -> Self {
        Values(values.into_iter().collect())
    }
}

impl Values {
    /// The value of `name`; `None` if it is absent.
    ///
    /// # Panics
    /// If the method has no parameter of this name and scope.
    pub fn get(&self, name: &str) -> Option<&Scalar> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        let (_, value) = found.expect("a method asks for parameters that it declares");
        value.as_ref()
    }

    /// A parameter of [`Kind::Float`] that may be absent.
    pub fn optional_float(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(float)
    }

    /// A parameter of [`Kind::Float`] that always has a value.
    pub fn float(&self, name: &str) -> f64 {
        self.optional_float(name).expect("it has a value")
    }

    /// A parameter of [`Kind::Int`] that always has a value.
    pub fn int(&self, name: &str) -> i64 {
        self.get(name).and_then(int).expect("it has a value")
    }

    /// A parameter of [`Kind::Bool`] that always has a value.
    pub fn bool(&self, name: &str) -> bool {
        self.get(name).and_then(bool).expect("it has a value")
    }

    /// A parameter of [`Kind::Text`] that always has a value.
    pub fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Scalar::Text(text)) => text,
            other => panic!("{name} is {other:?}, not a name"),
        }
    }
}

/// The settings among `all` that no parameter takes, each name once.
pub(super) fn unknown<'a>(
    parameters: &[Parameter],
    all: impl IntoIterator<Item = &'a Settings>,
) -> Vec<(&'a str, &'a Place)> {
    let mut seen = HashSet::new();
    all.into_iter()
        .flatten()
        .filter(|(name, _)| !parameters.iter().any(|p| p.name == **name))
        .filter(|(name, _)| seen.insert(name.as_str()))
        .map(|(name, setting)| (name.as_str(), &setting.place))
        .collect()
}
