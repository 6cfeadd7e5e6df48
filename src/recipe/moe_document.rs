//! A document of a recipe that describes a mixture of experts, as mergekit-moe takes it.

use crate::error::{Code, Place, Result};
use crate::ops::moe::{Expert, Gates, MoeDefinition, Prompts};
use crate::recipe::fields::{dtype, nonempty};
use crate::recipe::models::{Names, Reference};
use crate::recipe::yaml::{Fields, Node, Value};

pub(super) const KEYS: &[&str] = &[
    "name",
    "merge_method",
    "base_model",
    "experts",
    "shared_experts",
    "experts_per_token",
    "gate_mode",
    "gates",
    "architecture",
    "dtype",
    "view",
];

/// Whether `root` is such a document.
pub(super) fn is_one(root: &Node) -> bool {
    let Value::Map(entries) = &root.value else {
        return false;
    };
    entries.iter().any(|(key, node)| match &*key.text {
        "experts" => true,
        "merge_method" => node.text("").is_ok_and(|method| method == "moe"),
        _ => false,
    })
}

/// The mixture that a document at `place` describes, and what it calls the models.
pub(super) fn parse(
    fields: &Fields,
    place: &Place,
    seed: u64,
) -> Result<(MoeDefinition, Vec<Reference>)> {
    if let Some(node) = fields.get("merge_method")
        && node.text("merge_method")? != "moe"
    {
        return Err(node.place.error(
            Code::RecipeConflict,
            "experts belong to a mixture of experts, whose merge_method is moe, or not given",
        ));
    }
    let mut names = Names::default();
    let base = names.model(fields.require("base_model")?, "base_model")?;
    let experts = nonempty(fields.require("experts")?, "experts")?;
    let experts = experts.iter().map(|node| expert(node, &mut names));
    let experts: Vec<Expert> = experts.collect::<Result<_>>()?;
    let shared = match fields.get("shared_experts") {
        None => None,
        Some(node) => match node.list("shared_experts")? {
            [] => None,
            [only] => Some(expert(only, &mut names)?),
            [_, second, ..] => {
                return Err(second.place.error(
                    Code::RecipeUnsupported,
                    "no architecture has a second shared expert",
                ));
            }
        },
    };
    let gates = gates(fields, place, &mut names)?;
    if gates == Gates::CheapEmbed {
        check_prompts(&experts, place)?;
    }
    let experts_per_token = match fields.get("experts_per_token") {
        None => 2,
        Some(node) => {
            let count = node.whole();
            let count = count.filter(|count| (1..=experts.len() as u64).contains(count));
            let most = format!(
                "a whole number from 1 to {}, that of experts",
                experts.len()
            );
            count.ok_or_else(|| node.expected("experts_per_token", &most))?
        }
    };
    if experts_per_token > experts.len() as u64 {
        return Err(place.error(
            Code::RecipeValue,
            "there is one expert, and experts_per_token is 2 without a value of its own",
        ));
    }
    let architecture = match fields.get("architecture") {
        None => None,
        Some(node) => Some((node.text("architecture")?.to_owned(), node.place.clone())),
    };
    let definition = MoeDefinition {
        place: place.clone(),
        base,
        experts,
        shared,
        gates,
        experts_per_token,
        dtype: dtype(fields, "dtype")?,
        architecture,
        seed,
        models: names.models,
    };
    Ok((definition, names.references))
}

fn expert(node: &Node, names: &mut Names) -> Result<Expert> {
    const KEYS: &[&str] = &[
        "source_model",
        "positive_prompts",
        "negative_prompts",
        "noise_scale",
        "residual_scale",
    ];
    let fields = Fields::new(node, "an expert", KEYS)?;
    if let Some(node) = fields.get("noise_scale") {
        return Err(node.place.error(
            Code::RecipeUnsupported,
            "noise_scale adds noise to all weights of an expert, which is then no longer read from its file; leave it out",
        ));
    }
    let residual_scale = match fields.get("residual_scale") {
        None => None,
        Some(node) => {
            let scale = node.float().filter(|scale| (*scale as f32).is_finite());
            let bad = || node.expected("residual_scale", "a finite number of float32");
            Some(scale.ok_or_else(bad)?)
        }
    };
    let prompts = |key: &str| -> Result<Vec<String>> {
        let Some(node) = fields.get(key) else {
            return Ok(Vec::new());
        };
        let texts = node.list(key)?.iter();
        texts.map(|node| Ok(node.text(key)?.to_owned())).collect()
    };
    let model = fields.require("source_model")?;
    Ok(Expert {
        model: names.model(model, "source_model")?,
        place: node.place.clone(),
        prompts: Prompts {
            positive: prompts("positive_prompts")?,
            negative: prompts("negative_prompts")?,
        },
        residual_scale,
    })
}

/// Where routers are from: `gates` names them, else `gate_mode` says how they are made.
fn gates(fields: &Fields, place: &Place, names: &mut Names) -> Result<Gates> {
    const HIDDEN: [&str; 3] = ["hidden", "hidden_avg", "hidden_last"];
    const MODES: &str = "cheap_embed, random, uniform_random, hidden, hidden_avg or hidden_last";
    let node = fields.get("gate_mode");
    let mode = match node {
        None => "hidden",
        Some(node) => node.text("gate_mode")?,
    };
    let made = match mode {
        "cheap_embed" => Some(Gates::CheapEmbed),
        "random" => Some(Gates::Random),
        "uniform_random" => Some(Gates::UniformRandom),
        _ if HIDDEN.contains(&mode) => None,
        _ => {
            let node = node.expect("a mode that is not the default was given");
            return Err(node.expected("gate_mode", MODES));
        }
    };
    match (made, fields.get("gates")) {
        (None, Some(file)) => Ok(Gates::File(names.model(file, "gates")?)),
        (Some(made), None) => Ok(made),
        (Some(_), Some(file)) => Err(file.place.error(
            Code::RecipeConflict,
            format!("gates are the routers of the gate_mode hidden, and gate_mode is {mode}"),
        )),
        (None, None) => {
            let place = node.map_or(place, |node| &node.place);
            let problem = format!(
                "gate_mode {mode} takes routers from what the base computes for the prompts, and a view runs no model"
            );
            let error = place.error(Code::RecipeUnsupported, problem);
            Err(error.with_hint(
                "make the routers once with scripts/moe-gates and name the file as gates, or choose cheap_embed, random or uniform_random",
            ))
        }
    }
}

/// Routers of equal rows would not choose.
fn check_prompts(experts: &[Expert], place: &Place) -> Result<()> {
    if let Some(expert) = experts
        .iter()
        .find(|expert| expert.prompts.positive.is_empty())
    {
        let problem = "an expert needs positive_prompts, unless gate_mode is random";
        return Err(expert.place.error(Code::RecipeKey, problem));
    }
    let first = &experts[0].prompts;
    if experts.len() > 1 && experts.iter().all(|expert| expert.prompts == *first) {
        let problem = "the prompts are the same for all experts, which leaves nothing to choose between them by";
        return Err(place.error(Code::RecipeValue, problem));
    }
    Ok(())
}
