//! `plan --emit-recipe`: what it writes means what the flags meant.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use ckptfs::ops::{
    CastParams, CastRule, DtypeParams, Edit, EditsParams, ExpertOrder, Experts, ExpertsParams,
    FilterParams, GgufKind, GgufParams, GraftParams, GraftRequest, LikeParams, LinearAttention,
    LinearAttentionParams, LoraParams, LoraRequest, NameLayout, NamesParams, Operations, Pad,
    Params, PartialBlocks, PatchParams, Precision, QuantizeParams, RenameParams, RuleSet,
    TyingParams, Value, VocabularyParams,
};
use ckptfs::quant::{Dialect, ScaleFormat};
use ckptfs::recipe::{DEFAULT_SHARD_BYTES, Places, Shards, ViewRequest};
use ckptfs::source::Location;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::common::strategies::any_view;
use crate::common::{Workspace, assert_names, message, readback};
use crate::fixture::{workspace, write};

pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// What is read from the recipe of `request`. It says where it is from, which `request` does not.
fn again(workspace: &Workspace, request: &ViewRequest) -> ViewRequest {
    let recipe = request.to_recipe().unwrap();
    let path = write(workspace, &recipe);
    let again = ViewRequest::from_recipe(&path, &Places::default());
    let again = again.unwrap_or_else(|e| panic!("{e}\n{recipe}"));
    assert_eq!(again.recipe.as_ref(), Some(&path));
    ViewRequest {
        recipe: request.recipe.clone(),
        ..again
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn the_recipe_of_a_view_plans_the_same_files_of_the_same_bytes(wanted in any_view()) {
        let workspace = Workspace::new();
        let request = wanted.write(&workspace);
        let again = again(&workspace, &request);
        prop_assert_eq!(format!("{again:?}"), format!("{request:?}"));
        let (plan, again) = (request.plan().unwrap(), again.plan().unwrap());
        let json = |plan: &ckptfs::recipe::Plan| serde_json::to_string(&plan.shards).unwrap();
        prop_assert_eq!(json(&again), json(&plan));
        prop_assert!(readback::read_all(&again) == readback::read_all(&plan));
    }

    #[test]
    fn every_field_of_a_request_survives_with_any_text_in_it(
        texts in vec(vec(any::<String>(), 0..3), 6),
        weights in vec(any::<f64>().prop_filter("finite", |weight| weight.is_finite()), 2),
        dtype in select(vec![None, Some(Precision::Bf16), Some(Precision::F16), Some(Precision::F32)]),
        experts in select(vec![None, Some(Experts::Fuse), Some(Experts::Unfuse)]),
        linear_attention in select(vec![None, Some(LinearAttention::Split), Some(LinearAttention::Join)]),
        names in select(vec![None, Some(NameLayout::Released), Some(NameLayout::Transformers)]),
        lora_experts in select(vec![None, Some(ExpertOrder::RankMajor), Some(ExpertOrder::ExpertMajor)]),
        rules in select(vec![None, Some(RuleSet::Exact), Some(RuleSet::Official)]),
        (float32, keep) in any::<(bool, bool)>(),
        scopes in vec(vec(any::<String>(), 0..3), 2),
        shards in select(vec![None, Some(Shards::Repack), Some(Shards::Keep), Some(Shards::Renumber), Some(Shards::Single)]),
        shard_bytes in 1..u64::MAX,
        (tying, rows) in (0..3usize, prop_oneof![Just(0), 1..=i64::MAX as u64]),
    ) {
        let shard_bytes = match shards {
            Some(Shards::Single) => DEFAULT_SHARD_BYTES,
            _ => shard_bytes,
        };
        let workspace = Workspace::new();
        // A directory has to exist to be found, and its name has no slash and no NUL.
        let made = |name: &String| {
            let name: String = name.chars().filter(|c| !"/\0".contains(*c)).take(60).collect();
            let directory = workspace.path().join(format!("d{name}"));
            fs::create_dir_all(&directory).unwrap();
            Location::Local(directory)
        };
        let extras_texts = &texts[1];
        let [loras, extras, references, only, drop, renames] = &texts[..] else { unreachable!() };
        let pattern = |texts: &[String]| -> Vec<String> {
            texts.iter().map(|text| regex::escape(text)).collect()
        };
        let loras: Vec<LoraRequest> = loras.iter().zip(&weights).map(|(name, weight)| LoraRequest {
            adapter: made(name),
            weight: *weight,
        }).collect();
        let references: Vec<_> = references.iter().map(made).collect();
        let patterns = pattern(only);
        let is_fp8 = rules.is_some() || !references.is_empty() || !patterns.is_empty();
        let quantize = QuantizeParams {
            scheme: Some(["fp8-block", "int4", "int4:group=32,asymmetric"][tying].parse().unwrap()),
            dialect: [None, Some(Dialect::Fp8), Some(Dialect::CompressedTensors)][tying],
            rules,
            references,
            patterns,
            scale_format: Some(if float32 { ScaleFormat::Float32 } else { ScaleFormat::Ue8m0 }),
            partial_blocks: Some(if keep { PartialBlocks::Keep } else { PartialBlocks::Quantize }),
            allow_rounding: keep,
        };
        let mut gguf = GgufParams {
            kind: [None, Some(GgufKind::Bf16), Some(GgufKind::Q4KM)][tying],
            pre: keep.then(|| "llama-bpe".to_owned()),
            ..GgufParams::default()
        };
        for names in pattern(only) {
            gguf.set("gguf_type", Value::text(format!("{names}=q6_k"))).unwrap();
        }
        if rows > 0 {
            gguf.set("gguf_split", Value::text(rows.to_string())).unwrap();
        }
        let grafts = extras.iter().chain(renames).enumerate().map(|(i, name)| GraftRequest {
            source: made(name),
            names: (i % 2 == 0).then(|| regex::escape(name)),
        }).collect();
        let edits = EditsParams {
            edits: renames.iter().zip(extras_texts).flat_map(|(text, other)| {
                let key = serde_json::Value::from(text.as_str());
                [
                    Edit::Set(format!("{key}={}", serde_json::Value::from(other.as_str()))),
                    Edit::Unset(format!("generation_config.json:{key}[3].a")),
                    Edit::Promote { from: key.to_string(), keep: vec![other.clone(), text.clone()] },
                    Edit::Promote { from: "a".to_owned(), keep: Vec::new() },
                    Edit::AddFile { name: "a.txt".to_owned(), from: made(text) },
                    Edit::DropFile(text.replace('[', "")),
                ]
            }).collect(),
        };
        let rules = pattern(renames).into_iter();
        let rules = rules.map(|from| format!("x{}=$0", from.replace('=', "."))).collect();
        let cast = pattern(drop).into_iter();
        let cast = cast.map(|names| CastRule { names, to: Precision::F32 }).collect();
        let request = ViewRequest {
            operations: Operations {
                edits,
                tying: TyingParams { untie: tying == 1, tie: tying == 2 },
                lora: LoraParams {
                    adapters: loras,
                    experts: lora_experts,
                },
                patch: PatchParams { extras: extras.iter().map(made).collect() },
                graft: GraftParams { grafts },
                names: NamesParams { layout: names },
                rename: RenameParams { rules },
                filter: FilterParams { only: pattern(only), drop: pattern(drop) },
                cast: CastParams { rules: cast },
                dtype: DtypeParams { to: dtype },
                vocabulary: VocabularyParams {
                    size: Some(rows).filter(|rows| rows % 2 == 1),
                    multiple: Some(rows).filter(|rows| *rows > 0 && rows % 2 == 0),
                    pad: [None, Some(Pad::Zeros), Some(Pad::Mean)][tying],
                },
                experts: ExpertsParams {
                    form: experts,
                    unfuse: pattern(&scopes[0]),
                    fuse: pattern(&scopes[1]),
                },
                linear_attention: LinearAttentionParams { form: linear_attention },
                quantize: if is_fp8 { quantize } else { QuantizeParams::default() },
                gguf,
                like: LikeParams { directory: extras.first().map(made) },
            },
            shards,
            shard_bytes,
            ..ViewRequest::new(made(&drop.concat()))
        };
        let again = again(&workspace, &request);
        prop_assert_eq!(format!("{again:?}"), format!("{request:?}"));
    }
}

#[test]
fn what_a_recipe_cannot_say_is_an_error() {
    let workspace = workspace();
    let odd = workspace
        .path()
        .join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    let not_utf8 = ViewRequest::new(odd);
    assert_names(&message(not_utf8.to_recipe()), &["odd", "not UTF-8"]);
    let nothing = ViewRequest::new("/a").with(|asked| {
        asked.quantize.scale_format = Some(ScaleFormat::Float32);
    });
    assert_names(&message(nothing.to_recipe()), &["quantize selects nothing"]);
    let long = ViewRequest {
        operations: Operations {
            filter: FilterParams {
                drop: vec!["x".repeat(1 << 10); 1 << 10],
                ..FilterParams::default()
            },
            ..Operations::default()
        },
        ..ViewRequest::new("/a")
    };
    assert_names(&message(long.to_recipe()), &["1048576 bytes"]);
}

#[test]
fn a_path_in_a_map_stands_for_itself_and_a_model_has_a_directory_in_the_recipe() {
    let workspace = workspace();
    let odd = workspace.path().join("odd+name@1");
    fs::rename(workspace.path().join("a"), &odd).unwrap();
    let odd = Location::from(odd);
    let base = |recipe: &str| {
        let path = write(&workspace, recipe);
        ViewRequest::from_recipe(&path, &Places::default()).map(|request| request.base)
    };
    assert_eq!(base("base: {path: odd+name@1}\n").unwrap(), odd);
    assert!(base("base: odd+name@1\n").is_err());
    let named = "base: org/x@1\nview: {models: {org/x@1: odd+name@1}}\n";
    assert_eq!(base(named).unwrap(), odd);
    let in_parts = "merge_method: passthrough\nmodels: [{model: {model: {path: odd+name@1}}}]\n";
    assert_eq!(base(in_parts).unwrap(), odd);
}
