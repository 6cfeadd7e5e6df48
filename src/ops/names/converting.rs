//! Tensors that are others in the other layout: where they are in a catalog, and what becomes of them.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::setting::{NAMES, PATCH};
use crate::error::{Code, Error, Hint, Result};
use crate::named::Named;
use crate::ops::experts::MOST_EXPERTS;
use crate::ops::experts::model::Model;
use crate::ops::names::NameLayout;
use crate::ops::names::families::{Conversion, Rule, Step};
use crate::ops::names::pattern::{filled, find_at_end};
use crate::ops::names::steps::{self, Doing, Piece, Pieces};
use crate::ops::regroup::Change;
use crate::ops::weight::Weight;
use crate::quant;
use crate::tensor::{Name, shape_text};

/// What of config.json bears on conversions.
#[derive(Debug)]
pub(super) struct Facts {
    model: Model,
    vision_heads: Option<u64>,
}

impl Facts {
    pub(super) fn from_catalog(catalog: &mut Catalog) -> Result<Self> {
        let model = Model::from_catalog(catalog)?;
        // As transformers and as the releases of Kimi-K2.5 call it.
        const HEADS: [&str; 2] = ["num_attention_heads", "vt_num_attention_heads"];
        let heads = catalog.config_mut()?.and_then(|config| {
            let heads = HEADS.map(|key| config.get_in("vision_config", key));
            heads.into_iter().flatten().find_map(|value| value.as_u64())
        });
        Ok(Facts {
            model,
            vision_heads: heads.filter(|heads| *heads > 0),
        })
    }
}

/// Tensors that are converted together.
type Site = (usize, String);

/// The changes that bring `catalog` into the layout `to`, by the conversions among `rules`.
pub(super) fn changes(
    catalog: &Catalog,
    rules: &[&'static [Rule]],
    to: NameLayout,
    facts: &Facts,
) -> Result<Vec<Change>> {
    let conversions: Vec<&Conversion> = rules
        .iter()
        .copied()
        .flatten()
        .filter_map(|rule| match rule {
            Rule::Converted(conversion) => Some(conversion),
            Rule::Renamed(..) => None,
        })
        .collect();
    let mut sites: IndexMap<Site, Vec<BTreeMap<u64, &Name>>> = IndexMap::new();
    for name in catalog.tensors.keys() {
        let weight = quant::weight_of(name).unwrap_or(name);
        if weight != &**name && catalog.tensors.contains_key(weight) {
            continue;
        }
        let mut is_found = false;
        for (position, conversion) in conversions.iter().enumerate() {
            let from = to.other().patterns(conversion);
            for (i, pattern) in from.iter().enumerate() {
                let Some(found) = find_at_end(pattern, name) else {
                    continue;
                };
                let number = found.numbers.first().and_then(|number| number.parse().ok());
                let site = sites.entry((position, found.before.to_owned()));
                let parts = site.or_insert_with(|| vec![BTreeMap::new(); from.len()]);
                parts[i].insert(number.unwrap_or(0), name);
                is_found = true;
            }
        }
        if !is_found && let Some(pattern) = stranger(&conversions, to, name) {
            return Err(unknown_part(catalog, to, name, pattern));
        }
    }
    let mut total = 0;
    let changes = sites.iter().map(|((position, before), parts)| {
        let converting = Converting {
            catalog,
            conversion: conversions[*position],
            before,
            to,
            facts,
        };
        converting.change(parts, &mut total)
    });
    changes.filter_map(Result::transpose).collect()
}

/// The pattern of a weight that `name` belongs to, though it is neither a weight that is converted nor its companion.
fn stranger(conversions: &[&Conversion], to: NameLayout, name: &str) -> Option<&'static str> {
    let module = name.rsplit_once('.').map_or("", |(module, _)| module);
    let patterns = conversions
        .iter()
        .flat_map(|conversion| to.other().patterns(conversion));
    let mut patterns = patterns.copied();
    patterns.find(|pattern| match pattern.rsplit_once('.') {
        Some((of_module, "weight" | "bias")) => find_at_end(of_module, module).is_some(),
        Some((outer, weight)) => {
            let rest = name
                .rsplit('.')
                .next()
                .and_then(|last| last.strip_prefix(weight));
            let is_beside = rest.is_some_and(|rest| rest.starts_with('_'));
            is_beside && find_at_end(outer, module).is_some()
                || find_at_end(pattern, module).is_some()
        }
        None => false,
    })
}

fn unknown_part(catalog: &Catalog, to: NameLayout, name: &Name, pattern: &str) -> Error {
    let tensor = &catalog.tensors[name];
    let problem = format!(
        "it belongs to {pattern}, which is another tensor in the {} layout, but is neither that weight nor its scales ({}), and ckptfs does not know how to move it",
        to.name(),
        quant::companions("*").collect::<Vec<_>>().join(", ")
    );
    Error::of_tensor(Code::NamesLayout, tensor.origin(), name, problem)
        .with_hint(Hint::leave_out(NAMES).or("start from the unquantized checkpoint"))
}

/// One conversion in one place.
struct Converting<'a> {
    catalog: &'a Catalog,
    conversion: &'static Conversion,
    /// What is before the patterns in names.
    before: &'a str,
    to: NameLayout,
    facts: &'a Facts,
}

impl Converting<'_> {
    /// What becomes of the weights in `parts`, which are those of each pattern by number; nothing if they are as they
    /// are to be.
    fn change(&self, parts: &[BTreeMap<u64, &Name>], total: &mut u64) -> Result<Option<Change>> {
        let is_back = self.to == NameLayout::Released;
        let weights = self.weights(parts)?;
        let first = &weights[0][0];
        if self.conversion.steps.contains(&Step::TransposeExperts)
            && self.is_transposed(&weights)? == is_back
        {
            return Ok(None);
        }
        let steps = self.conversion.steps;
        if steps.contains(&Step::Stack) {
            self.check_experts(&weights, total)?;
        }
        let heads = match steps
            .iter()
            .any(|step| matches!(step, Step::PermuteForRope(_)))
        {
            true => Some(self.heads(first)?),
            false => None,
        };
        let new_names = self.to.patterns(self.conversion);
        let target = format!("{}{}", self.before, new_names[0]);
        let doing = Doing {
            name: &target,
            count: new_names.len(),
            heads,
            is_back,
        };
        let pieces: Pieces = weights
            .iter()
            .map(|weights| weights.iter().map(Piece::new).collect())
            .collect();
        let home = first.tensor.home;
        let made = steps::carry_out(steps, &doing, pieces)?;
        let mut new = Vec::new();
        let numbers = made.iter().map(Vec::len).max().unwrap_or(0);
        let mut made: Vec<_> = made.into_iter().map(Vec::into_iter).collect();
        for number in 0..numbers {
            for (pieces, pattern) in made.iter_mut().zip(new_names) {
                let Some(piece) = pieces.next() else {
                    continue;
                };
                let name = filled(pattern, &[&number.to_string()]);
                new.extend(piece.named(&format!("{}{name}", self.before), home));
            }
        }
        let old = weights.iter().flatten().flat_map(Weight::names);
        Ok(Some(Change {
            module: self.before.trim_end_matches('.').to_owned(),
            old: old.collect(),
            new,
        }))
    }

    /// The weights of each pattern, by number; all of them must be there.
    fn weights(&self, parts: &[BTreeMap<u64, &Name>]) -> Result<Vec<Vec<Weight<'_>>>> {
        let patterns = self.to.other().patterns(self.conversion);
        let count = parts
            .iter()
            .filter_map(|part| Some(part.last_key_value()?.0 + 1));
        let count = count.max().unwrap_or(0);
        let of_each = patterns.iter().zip(parts).map(|(pattern, part)| {
            let of_numbers = (0..count).map(|number| {
                let Some(name) = part.get(&number) else {
                    return Err(self.missing(&filled(pattern, &[&number.to_string()])));
                };
                let weight = Weight::find(self.catalog, name.to_string())?;
                Ok(weight.expect("it was found among the tensors"))
            });
            of_numbers.collect()
        });
        of_each.collect()
    }

    fn missing(&self, pattern: &str) -> Error {
        let name = format!("{}{pattern}", self.before);
        let problem = format!(
            "it is missing, but others that would be {} with it are there",
            self.to.patterns(self.conversion).join(", ")
        );
        let path = &self.catalog.report.sources[0].path;
        Error::of_tensor(Code::NamesIncomplete, path, name, problem)
            .with_hint(Hint::give(PATCH).to("add it").or(Hint::leave_out(NAMES)))
    }

    /// Checks the sizes of experts, which are `weights`, and adds their number to `total`.
    fn check_experts(&self, weights: &[Vec<Weight>], total: &mut u64) -> Result<()> {
        let model = &self.facts.model;
        let first = &weights[0][0];
        let is_back = self.to == NameLayout::Released;
        let shape = &first.tensor.shape;
        let (count, matrix) = match (is_back, &shape[..]) {
            (false, [_, _]) => (weights[0].len() as u64, &shape[..]),
            (true, [count, _, _]) => (*count, &shape[1..]),
            _ => {
                let expected = if is_back {
                    "[E, rows, columns]"
                } else {
                    "[rows, columns]"
                };
                let problem = format!("its shape is {}; expected {expected}", shape_text(shape));
                return Err(first.error(Code::NamesLayout, problem));
            }
        };
        if matrix.contains(&0) || count == 0 {
            let problem = format!("its shape is {}, which is empty", shape_text(shape));
            return Err(first.error(Code::NamesLayout, problem));
        }
        model.check_count(first, count)?;
        // Of gate and up; of one alone, which dimension is the hidden size is not known.
        if self.conversion.steps.contains(&Step::Concatenate) {
            model.check_hidden_size(first, matrix[1])?;
        }
        *total = total.saturating_add(count);
        if *total > MOST_EXPERTS {
            let problem = format!(
                "its shape is {}: with those before, the view would have {total} weights of experts apart; at most {MOST_EXPERTS} are allowed",
                shape_text(shape)
            );
            return Err(first.error(Code::OverLimit, problem));
        }
        Ok(())
    }

    /// Whether the experts are those with rows as columns: `[E, H, 2I]` and `[E, I, H]`.
    fn is_transposed(&self, weights: &[Vec<Weight>]) -> Result<bool> {
        let [gate_up, down] = [0, 1].map(|i| &weights[i][0]);
        if let ([count, a, b], [of_down, c, d]) =
            (&gate_up.tensor.shape[..], &down.tensor.shape[..])
            && count == of_down
        {
            // Not both: c would be 2c.
            if b == c && Some(*a) == d.checked_mul(2) && *a > 0 {
                return Ok(false);
            }
            if a == d && Some(*b) == c.checked_mul(2) && *b > 0 {
                return Ok(true);
            }
        }
        let problem = format!(
            "its shape is {}, and that of {} is {}; expected [E, 2I, H] and [E, H, I], or [E, H, 2I] and [E, I, H]",
            shape_text(&gate_up.tensor.shape),
            down.name,
            shape_text(&down.tensor.shape)
        );
        Err(gate_up.error(Code::NamesLayout, problem))
    }

    fn heads(&self, weight: &Weight) -> Result<u64> {
        let hint = format!("correct {CONFIG_FILE}");
        let rows = weight.tensor.shape.first().copied().unwrap_or(0);
        let parts = match self.to {
            NameLayout::Transformers => self.conversion.transformers.len() as u64,
            NameLayout::Released => 1,
        };
        let problem = match self.facts.vision_heads {
            // Each head has pairs of rows.
            Some(heads) if rows > 0 && rows.is_multiple_of(heads.saturating_mul(2 * parts)) => {
                return Ok(heads);
            }
            Some(heads) => format!(
                "its shape is {}, which is not that of {heads} heads, as num_attention_heads of vision_config in {CONFIG_FILE} has it",
                shape_text(&weight.tensor.shape)
            ),
            None => format!(
                "its rows are in another order in the other layout, and num_attention_heads of vision_config in {CONFIG_FILE} does not say of how many heads"
            ),
        };
        Err(weight.error(Code::ConfigMismatch, problem).with_hint(hint))
    }
}
