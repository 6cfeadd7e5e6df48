//! Fusing experts: the tensors of a layer's experts, one after the other, are its fused tensors; where
//! the family stores them transposed, their rows are its columns.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::catalog::{Catalog, Tensor};
use crate::error::setting::{DTYPE, EXPERTS, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::ops::experts::families::Layout;
use crate::ops::experts::model::Model;
use crate::ops::experts::turned;
use crate::ops::experts::weight::{
    BIAS, DOWN, FUSED_BIAS, GATE_UP, Singles, UP, WEIGHT, in_experts,
};
use crate::ops::gather;
use crate::ops::regroup::Change;
use crate::ops::weight::Weight;
use crate::quant;
use crate::tensor::{Dtype, Name, shape_text};

/// The tensors of single experts in one layer.
#[derive(Default)]
struct Layer<'a> {
    /// The numbers of the experts with a weight that can be fused.
    experts: BTreeSet<u64>,
    /// How the first of these weights is called, and those like it.
    singles: Option<Singles>,
    /// Whether there is a weight of a gate, and any bias.
    has_gate: bool,
    has_biases: bool,
    /// A tensor of an expert that is no such weight, nor its scales or bias.
    other: Option<&'a str>,
}

impl<'a> Layer<'a> {
    /// Notes the tensor `name`, which is `rest` in expert `number`.
    fn note(&mut self, name: &'a str, number: u64, rest: &str, model: &Model) {
        let weight = quant::weight_of(rest).unwrap_or(rest);
        let bias = rest.strip_suffix(BIAS).filter(|_| model.has_biases());
        let projection = weight.strip_suffix(WEIGHT).or(bias);
        let singles = projection.and_then(Singles::with);
        match (singles, projection) {
            (Some(singles), Some(projection))
                if *self.singles.get_or_insert(singles) == singles =>
            {
                self.experts.insert(number);
                self.has_gate |= projection == singles.gate;
                self.has_biases |= bias.is_some();
            }
            _ => {
                self.other.get_or_insert(name);
            }
        }
    }
}

/// One change for every layer with experts that can be fused, and whose module is `in_scope`.
pub(super) fn changes(
    catalog: &Catalog,
    model: &Model,
    in_scope: &dyn Fn(&str) -> bool,
) -> Result<Vec<Change>> {
    let mut layers: IndexMap<&str, Layer> = IndexMap::new();
    for name in catalog.tensors.keys() {
        let Some((experts, rest)) = in_experts(name).filter(|(experts, _)| in_scope(experts))
        else {
            continue;
        };
        let Some((digits, rest)) = rest.split_once('.') else {
            continue;
        };
        let Ok(number) = digits.parse::<u64>() else {
            continue;
        };
        let layer = layers.entry(experts).or_default();
        if number.to_string() == digits {
            layer.note(name, number, rest, model);
        } else {
            layer.other.get_or_insert(name);
        }
    }
    let layers = layers.into_iter();
    let changes = layers.filter_map(|(experts, layer)| {
        let singles = layer.singles?;
        Some(change(catalog, model, experts, &layer, singles))
    });
    changes.collect()
}

fn change(
    catalog: &Catalog,
    model: &Model,
    experts: &str,
    layer: &Layer,
    singles: Singles,
) -> Result<Change> {
    if let Some(other) = layer.other {
        return Err(Error::of_tensor(Code::ExpertsLayout, catalog.tensors[other].origin(),
            other,
            format!(
                "it belongs to an expert, but only {} of {} and their scales ({}) can be fused here",
                WEIGHT.trim_start_matches('.'),
                singles.all().join(", "),
                quant::companions("*").collect::<Vec<_>>().join(", ")
            ),
        ).with_hint(leave_out()));
    }
    let (mut up, mut down) = (Vec::new(), Vec::new());
    // Where no expert has a gate, the family has none.
    let first: &[&str] = if layer.has_gate || singles != Singles::PROJECTIONS {
        &[singles.gate, singles.up]
    } else {
        &[singles.up]
    };
    for expert in 0..=layer.experts.last().copied().unwrap_or_default() {
        let find = |projection: &str| {
            weight(
                catalog,
                experts,
                format!("{experts}.{expert}.{projection}{WEIGHT}"),
            )
        };
        for projection in first {
            up.push(find(projection)?);
        }
        down.push(find(singles.down)?);
    }
    check_alike(&up)?;
    check_alike(&down)?;
    let [intermediate, hidden] = dimensions(&up[0], &down[0])?;
    model.check_singles(singles, &up[0])?;
    model.check_hidden_size(&up[0], hidden)?;
    model.check_count(&up[0], down.len() as u64)?;
    let fusing = Fusing {
        catalog,
        experts,
        layout: model.layout(),
        up: &up,
        down: &down,
        has_gate: first.len() == 2,
    };
    let mut new = fusing.weights(intermediate)?;
    let mut old: Vec<Name> = up.iter().chain(&down).flat_map(Weight::names).collect();
    if layer.has_biases {
        let biases = fusing.biases([intermediate, hidden])?;
        old.extend(biases.old);
        // Behind their weights.
        new.insert(1, biases.gate_up);
        new.push(biases.down);
    }
    Ok(Change {
        module: experts.to_owned(),
        old,
        new,
    })
}

/// The weights of a layer, each alike.
struct Fusing<'a> {
    catalog: &'a Catalog,
    experts: &'a str,
    layout: Layout,
    /// Of each expert gate, if there is one, and up.
    up: &'a [Weight<'a>],
    down: &'a [Weight<'a>],
    has_gate: bool,
}

impl Fusing<'_> {
    fn name(&self, projection: &str) -> String {
        format!("{}.{projection}", self.experts)
    }

    /// The fused weights with their companions.
    fn weights(&self, intermediate: u64) -> Result<Vec<(Name, Tensor)>> {
        let &Fusing { up, down, .. } = self;
        if self.layout == Layout::Rows {
            let (first, each) = if self.has_gate {
                up[0].check_blocks_part(intermediate)?;
                (GATE_UP, 2)
            } else {
                (UP, 1)
            };
            let mut new = joined(self.name(first), up, each);
            new.extend(joined(self.name(DOWN), down, 1));
            return Ok(new);
        }
        if !self.has_gate {
            let problem = "its experts have no gate, but its family stores fused experts transposed, with one";
            return Err(up[0]
                .error(Code::ExpertsLayout, problem)
                .with_hint(leave_out()));
        }
        [&up[0], &down[0]]
            .into_iter()
            .try_for_each(Weight::check_not_turned)?;
        let (gate_up_name, down_name) = (self.name(GATE_UP), self.name(DOWN));
        let gate_ups = up.chunks(2).map(|pair| {
            turned::gate_up(&gate_up_name, pair[0].tensor, pair[1].tensor, self.layout)
        });
        let downs = down
            .iter()
            .map(|weight| gather::transpose(&down_name, weight.tensor));
        Ok(vec![
            stacked(gate_up_name.clone(), gate_ups.collect::<Result<_>>()?),
            stacked(down_name.clone(), downs.collect::<Result<_>>()?),
        ])
    }

    /// The fused biases.
    fn biases(&self, [intermediate, hidden]: [u64; 2]) -> Result<FusedBiases> {
        let mut biases = SingleBiases {
            fusing: self,
            dtype: None,
            names: Vec::new(),
        };
        let [gate_up_name, down_name] =
            [GATE_UP, DOWN].map(|weight| self.name(weight) + FUSED_BIAS);
        let (mut gate_ups, mut downs) = (Vec::new(), Vec::new());
        for (pair, down) in self.up.chunks(2).zip(self.down) {
            let gate = biases.find(&pair[0], intermediate)?;
            let pair = [gate, biases.find(&pair[1], intermediate)?];
            gate_ups.push(match self.layout {
                Layout::Interleaved => gather::interleave(&gate_up_name, &pair, 0)?,
                Layout::Rows | Layout::Columns => gather::concatenate(&gate_up_name, &pair, 0)?,
            });
            downs.push(biases.find(down, hidden)?);
        }
        Ok(FusedBiases {
            old: biases.names,
            gate_up: stacked(gate_up_name, gate_ups),
            down: stacked(down_name, downs),
        })
    }
}

/// Biases of a layer, and the names of those that they were.
struct FusedBiases {
    old: Vec<Name>,
    gate_up: (Name, Tensor),
    down: (Name, Tensor),
}

/// The biases of single experts, as they are found.
struct SingleBiases<'a> {
    fusing: &'a Fusing<'a>,
    /// That of the first.
    dtype: Option<Dtype>,
    names: Vec<Name>,
}

impl SingleBiases<'_> {
    /// The bias that belongs to `weight` and has `len` elements.
    fn find(&mut self, weight: &Weight, len: u64) -> Result<Tensor> {
        let &Fusing {
            catalog, experts, ..
        } = self.fusing;
        let name = weight.name.strip_suffix(WEIGHT).unwrap_or(&weight.name);
        let name = format!("{name}{BIAS}");
        let Some(bias) = catalog.tensors.get(&*name) else {
            return Err(missing(catalog, experts, name));
        };
        let dtype = *self.dtype.get_or_insert(bias.dtype);
        if *bias.shape != [len] || bias.dtype != dtype {
            let problem = format!(
                "it is {} {}; by its weight and the other biases it must be {dtype} {}",
                bias.dtype,
                shape_text(&bias.shape),
                shape_text(&[len])
            );
            let error = Error::of_tensor(Code::ExpertsLayout, bias.origin(), &name, problem);
            return Err(error.with_hint(leave_out()));
        }
        self.names.push(name.into());
        Ok(bias.clone())
    }
}

/// The tensor `name` that has `entries`, which are alike, along a first dimension more.
fn stacked(name: String, entries: Vec<Tensor>) -> (Name, Tensor) {
    let shape = [&[entries.len() as u64], &entries[0].shape[..]].concat();
    let tensors: Vec<&Tensor> = entries.iter().collect();
    (name.into(), Tensor::joined(&tensors, shape))
}

fn weight<'a>(catalog: &'a Catalog, experts: &str, name: String) -> Result<Weight<'a>> {
    match Weight::find(catalog, name.clone())? {
        Some(weight) => match weight.quantized.as_ref().map(|quantized| quantized.scheme) {
            Some(scheme) if scheme.needs_modules() => {
                let problem = format!(
                    "it is quantized by {}, which knows only weights of modules, not fused experts",
                    scheme.name()
                );
                let dequantize = Hint::give_value(DTYPE, "bf16").to("dequantize it");
                Err(weight
                    .error(Code::ExpertsLayout, problem)
                    .with_hint(dequantize))
            }
            _ => Ok(weight),
        },
        None => Err(missing(catalog, experts, name)),
    }
}

fn missing(catalog: &Catalog, experts: &str, name: String) -> Error {
    Error::of_tensor(Code::ExpertsIncomplete, &catalog.report.sources[0].path,
        name,
        format!(
            "it is missing, but others of {experts} are there; experts can only be fused if all of them are there, numbered from 0 without gaps, each with the same weights and biases"
        ),
    ).with_hint(Hint::give(PATCH).to("add it").or(leave_out()))
}

/// Checks that weights which are to lie in one tensor are alike, and their scales too.
fn check_alike(weights: &[Weight]) -> Result<()> {
    let text = |tensor: &Tensor| format!("{} {}", tensor.dtype, shape_text(&tensor.shape));
    let description = |weight: &Weight| {
        let scales: Vec<String> = weight.tensors().skip(1).map(text).collect();
        let scales = if scales.is_empty() {
            "without scales".to_owned()
        } else {
            format!("with scales of {}", scales.join(", "))
        };
        format!("{} {scales}", text(weight.tensor))
    };
    let expected = description(&weights[0]);
    let differing = weights
        .iter()
        .find(|weight| description(weight) != expected);
    match differing {
        Some(weight) => Err(weight.error(Code::ExpertsLayout, format!(
            "it is {}, but {} is {expected}; the experts of a layer can be fused only if they are alike",
            description(weight),
            weights[0].name
        ))),
        None => Ok(()),
    }
}

/// The intermediate size and the hidden size.
fn dimensions(gate: &Weight, down: &Weight) -> Result<[u64; 2]> {
    if let [intermediate, hidden] = gate.tensor.shape[..]
        && down.tensor.shape[..] == [hidden, intermediate]
        && gate.tensor.len() > 0
    {
        return Ok([intermediate, hidden]);
    }
    Err(gate
        .error(
            Code::ExpertsLayout,
            format!(
                "its shape is {}, and that of {} is {}; expected [I, H] and [H, I], not empty",
                shape_text(&gate.tensor.shape),
                down.name,
                shape_text(&down.tensor.shape)
            ),
        )
        .with_hint(leave_out()))
}

/// The tensor `name` of all `weights`, `each` of them for every expert, and its companions.
fn joined(name: String, weights: &[Weight], each: u64) -> Vec<(Name, Tensor)> {
    let join = |tensors: Vec<&Tensor>| {
        let count = tensors.len() as u64 / each;
        let [rows, columns] = [0, 1].map(|dimension| tensors[0].shape[dimension]);
        Tensor::joined(&tensors, vec![count, each * rows, columns])
    };
    let home = weights[0].tensor.home;
    // Alike: if one has companions, all have.
    let names = weights[0].names_as(&name).enumerate();
    let joined = names.map(|(i, name)| {
        let parts = weights.iter().filter_map(|weight| weight.tensors().nth(i));
        let tensor = join(parts.collect());
        (name, Tensor { home, ..tensor })
    });
    joined.collect()
}

fn leave_out() -> Hint {
    Hint::leave_out_value(EXPERTS, "fuse")
}
