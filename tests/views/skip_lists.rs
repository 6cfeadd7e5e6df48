//! Lists of modules that stay as they are, of every tool, follow the tensors of these modules.

use std::path::Path;

use ckptfs::error::Code;
use ckptfs::ops::{Experts, Operations};
use ckptfs::recipe::{Plan, ViewRequest};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use regex::Regex;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, bf16, small};
use crate::common::readback::read_path;
use crate::common::{Workspace, assert_names};

const KEYS: [&str; 5] = [
    "modules_to_not_convert",
    "ignored_layers",
    "ignore",
    "exclude_modules",
    "exclude",
];

const NAMES: [&str; 7] = [
    "lm_head.weight",
    "model.a.x.weight",
    "model.a.y.weight",
    "model.b.x.weight",
    "model.b.y.bias",
    "model.ab.weight",
    "visual.a.x.weight",
];

/// Stands for the targets of a group, as compressed-tensors and ModelOpt have them.
const TARGETS: &str = "targets";

/// A declaration with `entries` under `key`.
fn declared(key: &str, entries: &[&str]) -> Value {
    match key {
        TARGETS => json!({"quant_method": "m", "config_groups": {
            "group_0": {"targets": entries, "weights": {"num_bits": 8}},
        }, "eps": 1e-6}),
        _ => json!({"quant_method": "m", key: entries, "eps": 1e-6}),
    }
}

/// A plan of a checkpoint of `names` that lists `entries` under `key`.
fn plan(names: &[&str], key: &str, entries: &[&str], ask: impl FnOnce(&mut Operations)) -> Plan {
    let config = json!({"quantization_config": declared(key, entries)});
    let checkpoint = Checkpoint::single(small(names.iter().copied())).config(&config.to_string());
    let workspace = Workspace::new();
    let base = workspace.write("base", &checkpoint);
    ViewRequest::new(base).with(ask).plan().unwrap()
}

fn json_of(plan: &Plan, file: &str) -> Value {
    serde_json::from_slice(&read_path(plan, file).unwrap()).unwrap()
}

/// What stands under `key` of a view.
fn list(plan: &Plan, key: &str) -> Vec<String> {
    let config = json_of(plan, "config.json");
    let declared = &config["quantization_config"];
    let list = match key {
        TARGETS => &declared["config_groups"]["group_0"][key],
        _ => &declared[key],
    };
    serde_json::from_value(list.clone()).unwrap()
}

/// Whether an entry names the module, as the tools have it: a regular expression from the start of the
/// path, a pattern of the whole of it, or the module or one that it is inside of.
fn names(entry: &str, module: &str) -> bool {
    if let Some(regex) = entry.strip_prefix("re:") {
        let found = Regex::new(regex).unwrap().find(module);
        return found.is_some_and(|found| found.start() == 0);
    }
    if entry.contains('*') {
        return fits(entry, module);
    }
    format!("{module}.").starts_with(&format!("{entry}."))
}

/// Whether `pattern`, whose stars are any text, is the whole of `text`.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| fits(rest, &text[at..]))
        }),
    }
}

fn is_listed(entries: &[impl AsRef<str>], tensor: &str) -> bool {
    let module = tensor.rsplit_once('.').unwrap().0;
    entries.iter().any(|entry| names(entry.as_ref(), module))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    /// Where the plan warns of nothing, the list names what it named, under the new names.
    #[test]
    fn a_list_names_the_same_tensors_as_before(
        key in select([&KEYS[..], &[TARGETS]].concat()),
        entries in subsequence(&[
            "lm_head", "model.a", "model.a.x", "model.b.y", "visual", "a.x", "re:.*\\.x", "re:model\\.b",
            "re:visual.*", "re:.*a.*y$", "model.b*", "*.x", "*a*", "Linear",
        ][..], 0..5),
        rules in subsequence(&[
            "^model=language_model.model", "^visual=model.visual", r"\.a\.=.ab.", r"^model\.=", r"\.x\.=.z.",
        ][..], 0..3),
        drop in select(&["", r"model\.a\..*", ".*x.*", "visual.*", r"lm_head\..*"][..]),
    ) {
        let plan = plan(&NAMES, key, &entries, |asked| {
            asked.rename.rules.extend(rules.iter().map(|rule| (*rule).to_owned()));
            asked.filter.drop.extend(Some(drop.to_owned()).filter(|drop| !drop.is_empty()));
        });
        let warned = plan.report.warnings.iter().any(|w| w.code() == Code::ConfigNotUpdated);
        prop_assume!(!warned);
        let found = list(&plan, key);
        let kept: Vec<&str> = plan.shards.iter().flat_map(|s| &s.tensors).map(|t| &*t.name).collect();
        let rules: Vec<(Regex, &str)> = rules.iter().map(|rule| {
            let (search, replacement) = rule.split_once('=').unwrap();
            (Regex::new(search).unwrap(), replacement)
        }).collect();
        for old in NAMES {
            let new = rules.iter().fold(old.to_owned(), |name, (search, replacement)| {
                search.replace_all(&name, *replacement).into_owned()
            });
            if kept.contains(&new.as_str()) {
                prop_assert_eq!(
                    is_listed(&found, &new), is_listed(&entries, old),
                    "{} as {}: {:?} from {:?}", old, new, found, entries
                );
            }
        }
        // What nothing is done to stays as it is.
        if rules.is_empty() && drop.is_empty() {
            prop_assert_eq!(found, entries);
        }
    }
}

#[test]
fn every_list_of_every_place_follows() {
    let lists = |module: &str| {
        let lists = KEYS.map(|key| (key.to_owned(), json!([module, "lm_head"])));
        let mut object: serde_json::Map<String, Value> = lists.into_iter().collect();
        object.insert("quant_method".to_owned(), json!("x"));
        Value::Object(object)
    };
    let config = |module: &str| {
        json!({
            "quantization_config": lists(module),
            "compression_config": lists(module),
            "text_config": {"quantization_config": lists(module)},
        })
    };
    let modelopt = |module: &str| json!({"producer": {"name": "x"}, "quantization": lists(module)});
    let base = Checkpoint::single(small(NAMES))
        .config(&config("model.a").to_string())
        .aux("hf_quant_config.json", modelopt("model.a").to_string());
    let workspace = Workspace::new();
    let base = workspace.write("base", &base);
    let view = |ask: fn(&mut Operations)| ViewRequest::new(&base).with(ask).plan().unwrap();
    let renamed = view(|asked| asked.rename.rules.push("^model=m".to_owned()));
    assert_eq!(json_of(&renamed, "config.json"), config("m.a"));
    assert_eq!(json_of(&renamed, "hf_quant_config.json"), modelopt("m.a"));
    assert_eq!(renamed.report.warnings, [""; 0]);
    let untouched = view(|asked| asked.filter.drop.push("visual.*".to_owned()));
    for file in ["config.json", "hf_quant_config.json"] {
        let mut files = untouched.view.files();
        let content = files
            .find(|(_, path, _)| path == Path::new(file))
            .unwrap()
            .2;
        assert!(content.whole_file().is_some(), "{file}");
    }
}

#[test]
fn targets_of_groups_follow_and_all_else_of_them_stays() {
    let rest = r#""weights": {"num_bits": 8, "group_size":null}, "input_activations" : {}"#;
    let config = |first: &str, second: &str| {
        let groups = format!(
            r#"{{"a": {{"targets": {first}, {rest}}}, "b": {{{rest}, "targets": {second}}}, "c": {{{rest}}}}}"#
        );
        let declared =
            format!(r#"{{"quant_method": "compressed-tensors", "config_groups": {groups}}}"#);
        format!(
            r#"{{"quantization_config": {declared}, "text_config": {{"quantization_config": {declared}}}}}"#
        )
    };
    let base = Checkpoint::single(small(NAMES)).config(&config(
        r#"["Linear", "re:.*a\\.x", "model.a.y"]"#,
        r#"["re:model.b.*"]"#,
    ));
    let workspace = Workspace::new();
    let base = workspace.write("base", &base);
    let view = |ask: &dyn Fn(&mut Operations)| ViewRequest::new(&base).with(ask).plan().unwrap();
    let renamed = view(&|asked| asked.rename.rules.push("^model=m".to_owned()));
    let expected = config(
        r#"["Linear", "re:.*a\\.x", "m.a.y"]"#,
        r#"["m.b.x", "m.b.y"]"#,
    );
    let expected: Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(json_of(&renamed, "config.json"), expected);
    assert_eq!(renamed.report.warnings, [""; 0]);
    let text = read_path(&renamed, "config.json").unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches(r#""group_size":null"#).count(), 6, "{text}");

    let dropped = view(&|asked| asked.filter.drop.push(r"model\.a\.y\..*".to_owned()));
    let expected = config(r#"["Linear", "re:.*a\\.x"]"#, r#"["re:model.b.*"]"#);
    let expected: Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(json_of(&dropped, "config.json"), expected);
    // What a target names is then with others, or nothing.
    let parted = view(&|asked| asked.rename.rules.push(r"a\.y=b.x".replace("x", "y")));
    let warnings = parted.report.warnings.join("\n");
    assert_names(
        &warnings,
        &["config_groups.a.targets", "others are in too: model.a.y"],
    );
}

#[test]
fn an_expression_that_would_name_others_becomes_the_names_of_its_modules() {
    let rename =
        |rule: &'static str| move |asked: &mut Operations| asked.rename.rules.push(rule.to_owned());
    let followed = |entry: &str, rule: &'static str| {
        list(&plan(&NAMES, "ignore", &[entry], rename(rule)), "ignore")
    };
    assert_eq!(followed("re:visual.*", "^visual=tower"), ["tower.a.x"]);
    assert_eq!(
        followed("re:.*visual.*", "^visual=m.visual"),
        ["re:.*visual.*"]
    );
    assert_eq!(followed("model.b*", "^model=m"), ["m.b.x", "m.b.y"]);
    assert_eq!(followed("*.b.*", "^model=m"), ["*.b.*"]);
}

#[test]
fn entries_of_modules_that_are_dropped_go_but_for_the_head() {
    let entries = [
        "lm_head",
        "model.a",
        "visual.a.x",
        "re:visual.*",
        "model.b",
        "elsewhere",
    ];
    let plan = plan(&NAMES, "ignore", &entries, |asked| {
        asked
            .filter
            .drop
            .extend(["visual.*", r"lm_head\..*", r"model\.a\.x\..*"].map(str::to_owned));
    });
    assert_eq!(
        list(&plan, "ignore"),
        ["lm_head", "model.a", "model.b", "elsewhere"]
    );
    assert_eq!(plan.report.warnings, [""; 0]);
}

#[test]
fn targets_follow_experts_into_fused_tensors() {
    let module = |rest: &str| format!("model.layers.0.mlp.experts.{rest}");
    let all: Vec<String> = (0..2)
        .flat_map(|expert| {
            ["gate", "up", "down"].map(|kind| module(&format!("{expert}.{kind}_proj")))
        })
        .collect();
    let tensors = all
        .iter()
        .map(|name| bf16(&format!("{name}.weight"), &[4, 4]));
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let config = json!({"quantization_config": declared(TARGETS, &names)});
    let workspace = Workspace::new();
    let base = Checkpoint::single(tensors).config(&config.to_string());
    let request = ViewRequest::new(workspace.write("base", &base));
    let plan = request
        .with(|asked| asked.experts.form = Some(Experts::Fuse))
        .plan()
        .unwrap();
    assert_eq!(list(&plan, TARGETS), ["model.layers.0.mlp.experts"]);
    assert_eq!(plan.report.warnings, [""; 0]);
}

#[test]
fn lists_follow_experts_into_fused_tensors_and_out_of_them() {
    const EXPERTS: &str = "model.layers.0.mlp.experts";
    let single = |expert: u8, kind: &str| format!("{EXPERTS}.{expert}.{kind}_proj");
    let all: Vec<String> = (0..2)
        .flat_map(|expert| ["gate", "up", "down"].map(|kind| single(expert, kind)))
        .collect();
    let tensors = all
        .iter()
        .map(|module| bf16(&format!("{module}.weight"), &[4, 4]));
    let single_form = Checkpoint::single(tensors);
    let fused_form = Checkpoint::single([
        bf16(&format!("{EXPERTS}.gate_up_proj"), &[2, 8, 4]),
        bf16(&format!("{EXPERTS}.down_proj"), &[2, 4, 4]),
    ]);
    let view = |base: &Checkpoint, form: Experts, entries: &[String]| {
        let config =
            json!({"quantization_config": {"quant_method": "fp8", "ignored_layers": entries}});
        let workspace = Workspace::new();
        let base = workspace.write("base", &base.clone().config(&config.to_string()));
        let request = ViewRequest::new(base).with(|asked| asked.experts.form = Some(form));
        let plan = request.plan().unwrap();
        (list(&plan, "ignored_layers"), plan.report.warnings)
    };
    let (fused, warnings) = view(&single_form, Experts::Fuse, &all);
    assert_eq!(fused, [EXPERTS]);
    assert_eq!(warnings, [""; 0]);
    // Fused, gate and up are in one module with down, which is not listed.
    let gate_and_up: Vec<String> = all
        .iter()
        .filter(|name| !name.contains("down"))
        .cloned()
        .collect();
    let (kept, warnings) = view(&single_form, Experts::Fuse, &gate_and_up);
    assert_eq!(kept, gate_and_up);
    assert_eq!(warnings[0].code(), Code::ConfigNotUpdated);
    let (unfused, warnings) = view(&fused_form, Experts::Unfuse, &[EXPERTS.to_owned()]);
    assert_eq!(unfused, [EXPERTS]);
    assert_eq!(warnings, [""; 0]);
    let (mut unfused, _) = view(
        &fused_form,
        Experts::Unfuse,
        &[format!("{EXPERTS}.gate_up_proj")],
    );
    unfused.sort();
    let mut expected = gate_and_up;
    expected.sort();
    assert_eq!(unfused, expected);
}
