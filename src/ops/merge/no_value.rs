//! A parameter that must have a value and has none.

use crate::error::{Code, Error, Place};
use crate::ops::merge::method::Spec;
use crate::ops::merge::parameters::{self, Parameter, Settings};
use crate::spelling;

/// What is without a value, for a message that names the place to mend.
pub(super) struct NoValue<'a> {
    pub(super) parameter: &'a Parameter,
    pub(super) spec: &'a Spec,
    pub(super) tensor: &'a str,
    /// The model that it is a parameter of; none if it belongs to the output.
    pub(super) model: Option<Model<'a>>,
    /// Where the model, or the slice, is named.
    pub(super) place: &'a Place,
    /// All that may have been meant to give it a value.
    pub(super) settings: Vec<&'a Settings>,
}

pub(super) struct Model<'a> {
    pub(super) name: &'a str,
    /// Whether it takes part only because it is the base model.
    pub(super) is_unlisted_base: bool,
}

impl NoValue<'_> {
    pub(super) fn error(&self) -> Error {
        let (method, parameter) = (self.spec.name, self.parameter.name);
        let whose = match &self.model {
            Some(model) => format!(" for the model {}", model.name),
            None => String::new(),
        };
        let unknown = parameters::unknown(self.spec.parameters, self.settings.iter().copied());
        let mut unknown = unknown.into_iter();
        let misspelt = unknown.find(|(name, _)| spelling::nearest(name, [parameter]).is_some());
        if let Some((name, place)) = misspelt {
            let problem = format!(
                "{name} is not a parameter of {method} (did you mean {parameter}?), and {parameter} has no value{whose}"
            );
            let error = place.error(Code::RecipeKey, problem);
            return error.about_tensor(self.tensor);
        }
        let is_unlisted_base = self.model.as_ref().is_some_and(|m| m.is_unlisted_base);
        let what_to_do = if is_unlisted_base {
            format!(
                "base_model takes part in {method} like the models under models: list it there with a {parameter}, set {parameter} under the recipe's own parameters, or leave base_model out"
            )
        } else {
            "set it for the model, the slice, or under the recipe's own parameters (a list of filters needs a last entry without filter)".to_owned()
        };
        let problem = format!("the parameter {parameter} has no value{whose}");
        let error = self.place.error(Code::MissingParameter, problem);
        error.about_tensor(self.tensor).with_hint(what_to_do)
    }
}
