//! Random views: checkpoints of random tensors in random shards, and every combination of flags.

use ckptfs::ops::{PartialBlocks, QuantizeParams, RuleSet};
use ckptfs::quant::fp8_block::ScaleFormat;
use ckptfs::recipe::{DEFAULT_SHARD_BYTES, Shards};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;

use super::checkpoint::{Checkpoint, Index, TensorData, bf16, tensor};
use super::oracle::Wanted;
use super::oracle::selection::rule_set_selects;
use super::values::{Random, bits};

/// Tensors that belong together: they are in the same places, next to each other.
#[derive(Debug, Clone)]
struct Item {
    kind: Kind,
    dtype: Dtype,
    shape: Vec<usize>,
    seed: u64,
    /// The shard it is in, of base and of each extra; in the base if it is nowhere.
    places: [Option<usize>; 3],
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Any dtype and rank; never selected.
    Other,
    /// Names by which each kind of selection selects.
    ByRules,
    ByPattern,
    ByReference,
    /// q, k and v.
    Fused,
    /// Fused 3-D experts.
    Experts,
    /// FP8 with a scale.
    QuantizedBefore,
}

const QUANTIZABLE: [Dtype; 3] = [Dtype::BF16, Dtype::F16, Dtype::F32];

const ANY_DTYPE: [Dtype; 14] = [
    Dtype::F64,
    Dtype::I64,
    Dtype::U8,
    Dtype::BOOL,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::I16,
    Dtype::U32,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::BF16,
    Dtype::F16,
    Dtype::F32,
];

fn dimension() -> impl Strategy<Value = usize> {
    prop_oneof![1..=3usize, select(vec![127, 128, 129, 256]), 1..=300usize]
}

/// Kind, dtype and shape.
fn content() -> impl Strategy<Value = (Kind, Dtype, Vec<usize>)> {
    let quantizable = || select(QUANTIZABLE.to_vec());
    let other =
        (select(ANY_DTYPE.to_vec()), vec(0..=9usize, 0..=4)).prop_map(|(dtype, mut shape)| {
            if bits(dtype) < 8 {
                shape.push(4);
            }
            (Kind::Other, dtype, shape)
        });
    let kinds = vec![Kind::ByRules, Kind::ByPattern, Kind::ByReference];
    let matrix = (select(kinds), quantizable(), vec(dimension(), 2))
        .prop_map(|(kind, dtype, shape)| (kind, dtype, shape));
    let stacked = (1..=3usize, dimension(), 0..=140usize, quantizable())
        .prop_map(|(e, rows, columns, dtype)| (Kind::ByPattern, dtype, vec![e, rows, columns]));
    let fused =
        (vec(dimension(), 2), quantizable()).prop_map(|(shape, dtype)| (Kind::Fused, dtype, shape));
    // Experts, inner and outer size; either all of the group has whole blocks or none.
    let inner = select(vec![1usize, 3, 100, 128, 130]);
    let experts = (
        1..=3usize,
        inner,
        select(vec![5usize, 128, 200]),
        quantizable(),
    )
        .prop_map(|(e, i, h, dtype)| (Kind::Experts, dtype, vec![e, i, h]));
    let before =
        vec(dimension(), 2).prop_map(|shape| (Kind::QuantizedBefore, Dtype::F8_E4M3, shape));
    prop_oneof![3 => other, 4 => matrix, 1 => stacked, 1 => fused, 1 => experts, 1 => before]
}

fn item() -> impl Strategy<Value = Item> {
    let place = || prop::option::of(0..3usize);
    (content(), any::<u64>(), [place(), place(), place()]).prop_map(
        |((kind, dtype, shape), seed, places)| Item {
            kind,
            dtype,
            shape,
            seed,
            places,
        },
    )
}

impl Item {
    /// The item's tensors as `source` (0 is the base) has them. `number` makes names unique.
    fn tensors(&self, number: usize, source: usize) -> Vec<TensorData> {
        let new = |name: String, dtype, shape: &[usize]| {
            let seed = self.seed ^ source as u64 ^ (name.len() as u64) << 32;
            tensor(&name, dtype, shape, seed)
        };
        let one = |name: String| vec![new(name, self.dtype, &self.shape)];
        let layer = format!("model.layers.{number}");
        match self.kind {
            Kind::Other => one(format!("other.{number:03}.weight")),
            Kind::ByRules => one(match number % 4 {
                0 => format!("{layer}.self_attn.o_proj.weight"),
                1 => format!("{layer}.mlp.shared_expert.down_proj.weight"),
                2 => format!("mtp.layers.{number}.linear_attn.out_proj.weight"),
                _ => format!("{layer}.mlp.experts.{number}.down_proj.weight"),
            }),
            Kind::ByPattern => one(format!("pattern.{number:03}.weight")),
            Kind::ByReference => one(format!("referenced.{number:03}.weight")),
            Kind::Fused => ["q", "k", "v"]
                .map(|p| {
                    new(
                        format!("{layer}.self_attn.{p}_proj.weight"),
                        self.dtype,
                        &self.shape,
                    )
                })
                .into(),
            Kind::Experts => {
                let [e, i, h] = self.shape[..] else {
                    unreachable!()
                };
                let experts = format!("{layer}.mlp.experts");
                let gate_up = new(
                    format!("{experts}.gate_up_proj"),
                    self.dtype,
                    &[e, 2 * i, h],
                );
                vec![
                    gate_up,
                    new(format!("{experts}.down_proj"), self.dtype, &[e, h, i]),
                ]
            }
            Kind::QuantizedBefore => {
                let name = format!("{layer}.self_attn.kv_b_proj.weight");
                let blocks: Vec<usize> = self.shape.iter().map(|d| d.div_ceil(128)).collect();
                let scale = new(format!("{name}_scale_inv"), Dtype::F32, &blocks);
                vec![new(name, self.dtype, &self.shape), scale]
            }
        }
    }

    fn is_in(&self, source: usize) -> Option<usize> {
        match (source, self.places) {
            (0, [None, None, None]) => Some(0),
            _ => self.places[source],
        }
    }
}

/// How a checkpoint is put into files.
#[derive(Debug, Clone)]
struct Packing {
    /// Names of its shards, more than there may be.
    names: [&'static str; 3],
    indexed: bool,
    /// Seed of the order of the index; none keeps the order of the shards.
    shuffle: Option<u64>,
    /// Whether each shard's header holds a tensor that the index does not name.
    unnamed: [bool; 3],
}

fn packing() -> impl Strategy<Value = Packing> {
    let names = select(vec![
        [
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
        ],
        [
            "model-00003-of-00003.safetensors",
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
        ],
        [
            "rank0.safetensors",
            "rank1_part0.safetensors",
            "rank1.safetensors",
        ],
    ]);
    let shuffle = prop::option::of(any::<u64>());
    let unnamed = [0..4u8, 0..4, 0..4].prop_map(|draws| draws.map(|draw| draw == 0));
    (names, prop::bool::weighted(0.8), shuffle, unnamed).prop_map(
        |(names, indexed, shuffle, unnamed)| Packing {
            names,
            indexed,
            shuffle,
            unnamed,
        },
    )
}

/// The checkpoint of `source`; `first` is put in front of all.
fn checkpoint(items: &[Item], first: TensorData, source: usize, packing: &Packing) -> Checkpoint {
    let mut shards: [Vec<Vec<TensorData>>; 3] = [vec![vec![first]], vec![], vec![]];
    for (number, item) in items.iter().enumerate() {
        if let Some(shard) = item.is_in(source) {
            shards[shard].push(item.tensors(number, source));
        }
    }
    let mut order: Vec<Vec<String>> = Vec::new();
    let mut checkpoint = Checkpoint::new().config(CONFIG).aux("deep/file", "content");
    for ((name, items), unnamed) in packing.names.iter().zip(shards).zip(packing.unnamed) {
        if items.is_empty() {
            continue;
        }
        let names = |tensors: &Vec<TensorData>| tensors.iter().map(|t| t.name.clone()).collect();
        order.extend(items.iter().map(names));
        checkpoint = checkpoint.shard(name, items.into_iter().flatten());
        if unnamed && packing.indexed {
            checkpoint = checkpoint.unnamed([bf16("stale.weight", &[3, 5])]);
        }
    }
    match packing.shuffle {
        _ if !packing.indexed => checkpoint.index = Index::Absent,
        Some(seed) => {
            Random::new(seed).shuffle(&mut order);
            checkpoint.index = Index::Order(order.concat());
        }
        None => {}
    }
    checkpoint
}

const CONFIG: &str = r#"{"a": 1.0, "tie_word_embeddings": true, "b": [1e-6]}"#;

/// Which selections are asked for beside the one of `always.weight`.
#[derive(Debug, Clone)]
struct Selections {
    pattern: bool,
    reference: bool,
    /// The rest of the request, with the rule set or without.
    request: QuantizeParams,
}

fn selections() -> impl Strategy<Value = Selections> {
    let format = prop_oneof![Just(ScaleFormat::Ue8m0), Just(ScaleFormat::Float32)];
    let partial = prop_oneof![3 => Just(PartialBlocks::Quantize), 1 => Just(PartialBlocks::Keep)];
    (any::<[bool; 3]>(), format, partial).prop_map(
        |([rules, pattern, reference], scale_format, partial_blocks)| Selections {
            pattern,
            reference,
            request: QuantizeParams {
                rules: rules.then_some(RuleSet::Exact),
                scale_format: Some(scale_format),
                partial_blocks: Some(partial_blocks),
                ..QuantizeParams::default()
            },
        },
    )
}

impl Selections {
    fn apply(self, wanted: Wanted) -> Wanted {
        let mut request = self.request;
        request.patterns.push(r"always\.weight".to_owned());
        if self.pattern {
            request
                .patterns
                .push(r"(nothing|pattern)\.\d+\..*".to_owned());
        }
        let tensors = wanted.union();
        let names: Vec<&str> = tensors.iter().map(|t| t.data.name.as_str()).collect();
        let by_reference = |name: &str| self.reference && name.starts_with("referenced.");
        let selected = names.iter().copied().filter(|name| {
            *name == "always.weight"
                || request.rules.is_some() && rule_set_selects(name)
                || self.pattern && name.starts_with("pattern.")
                || by_reference(name)
        });
        let mut wanted = wanted.fp8(request.clone(), selected);
        if self.reference {
            let scales = names
                .iter()
                .filter(|name| by_reference(name))
                .chain([&"always.weight"]);
            let scales = scales.map(|name| bf16(&format!("{name}_scale_inv"), &[1]));
            let fp8 = wanted.fp8.as_mut().expect("it was just set");
            fp8.references.push(Checkpoint::single(scales));
        }
        wanted
    }
}

/// A view of random checkpoints.
pub(crate) fn any_view() -> impl Strategy<Value = Wanted> {
    let shards = select(vec![
        None,
        None,
        Some(Shards::Repack),
        Some(Shards::Keep),
        Some(Shards::Renumber),
        Some(Shards::Single),
    ]);
    let shard_bytes = select(vec![1u64, 1000, 30_000, 4 << 30]);
    let sources = (0..=2usize, [packing(), packing(), packing()]);
    let fp8 = prop::option::weighted(0.75, selections());
    (vec(item(), 0..=7), sources, fp8, shards, shard_bytes).prop_map(
        |(items, (extras, packings), fp8, shards, shard_bytes)| {
            let source = |i: usize| {
                let first = match i {
                    0 => bf16("always.weight", &[128, 128]),
                    _ => bf16(&format!("extra.{i}.first"), &[i]),
                };
                checkpoint(&items, first, i, &packings[i])
            };
            let wanted = Wanted {
                extras: (1..=extras).map(source).collect(),
                shards,
                shard_bytes: match shards {
                    Some(Shards::Single) => DEFAULT_SHARD_BYTES,
                    _ => shard_bytes,
                },
                ..Wanted::new(source(0))
            };
            match fp8 {
                Some(selections) => selections.apply(wanted),
                None => wanted,
            }
        },
    )
}
