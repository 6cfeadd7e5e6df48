//! What adapter_config.json says about scaling, and the weight that it is given.

use ckptfs::error::Code;
use ckptfs::ops::lora::AdapterReport;
use ckptfs::recipe::Plan;
use serde_json::{Value, json};

use crate::common::checkpoint::Checkpoint;
use crate::common::{Workspace, assert_names, message};
use crate::fixture::{Adapter, plan, plan_all, weight};

const MODULES: [&str; 2] = ["model.layers.0.q_proj", "model.layers.11.q_proj"];

/// The scalings of an adapter whose modules have these ranks.
fn scalings(ranks: [usize; 2], settings: &[(&str, Value)]) -> ckptfs::Result<Vec<f64>> {
    let workspace = Workspace::new();
    let base = Checkpoint::single(MODULES.map(|module| weight(module, &[8, 8])));
    let mut adapter = Adapter::new(4, 8.0);
    for (key, value) in settings {
        adapter = adapter.set(key, value.clone());
    }
    for (module, rank) in MODULES.iter().zip(ranks) {
        adapter = adapter.linear(module, [8, 8], rank);
    }
    let base = workspace.write("base", &base);
    let plan: Plan = plan(&base, &adapter.write(&workspace, "lora"))?;
    Ok(plan
        .report
        .reports::<AdapterReport>()
        .next()
        .unwrap()
        .scalings
        .clone())
}

#[test]
fn scaling_is_alpha_by_rank_or_by_its_root() {
    assert_eq!(scalings([4, 4], &[]).unwrap(), [2.0]);
    let root = ("use_rslora", json!(true));
    assert_eq!(scalings([4, 4], &[root]).unwrap(), [4.0]);
    let alpha = ("lora_alpha", json!(0.5));
    assert_eq!(scalings([4, 4], &[alpha]).unwrap(), [0.125]);
}

#[test]
fn patterns_match_the_end_of_a_path_behind_a_dot_and_the_first_wins() {
    let ranks = |pattern: Value| scalings([2, 4], &[("rank_pattern", pattern)]);
    let one = [2.0, 4.0];
    assert_eq!(ranks(json!({"layers.0.q_proj": 2})).unwrap(), one);
    assert_eq!(ranks(json!({"0.q_proj": 2})).unwrap(), one);
    assert_eq!(ranks(json!({"model.layers.0.q_proj": 2})).unwrap(), one);
    assert_eq!(ranks(json!({"^model.layers.0.q_proj": 2})).unwrap(), one);
    assert_eq!(ranks(json!({r".*\.0\..*": 2, "q_proj": 4})).unwrap(), one);
    assert_eq!(ranks(json!({r"layers\.(0|3)\.q_proj": 2})).unwrap(), one);
    assert_eq!(
        ranks(json!({"layers.0.q_proj": 2, "q_proj": 4})).unwrap(),
        one
    );
    assert_eq!(ranks(json!({r"\d.q_proj": 2})).unwrap(), one);
    // A dot is any character, also where the rest is plain.
    assert_eq!(ranks(json!({"layers.0.q.proj": 2})).unwrap(), one);
    // These match neither or both.
    for pattern in [
        json!({"ayers.0.q_proj": 2}),
        json!({"layers.0": 2}),
        json!({"_proj": 2}),
        json!({"q_proj": 2}),
        json!({"1.q_proj": 2}),
        json!({"q_proj": 4, "layers.0.q_proj": 2}),
    ] {
        let text = message(ranks(pattern));
        assert_names(&text, &["rank", "adapter_config.json says"]);
    }
    let alphas = json!({"11.q_proj": 16, "q_proj": 4});
    let found = scalings([4, 4], &[("alpha_pattern", alphas)]).unwrap();
    assert_eq!(found, [1.0, 4.0]);
}

#[test]
fn weights_multiply_the_scaling_and_must_be_finite() {
    let workspace = Workspace::new();
    let base = workspace.write("base", &Checkpoint::single([weight("x", &[4, 6])]));
    let lora = Adapter::new(2, 3.0)
        .linear("x", [4, 6], 2)
        .write(&workspace, "lora");
    let plan = plan_all(&base, &[(&lora, -0.5)]).unwrap();
    assert_eq!(
        plan.report
            .reports::<AdapterReport>()
            .next()
            .unwrap()
            .scalings,
        [-0.75]
    );
    let text = message(plan_all(&base, &[(&lora, f64::NAN)]));
    assert_names(&text, &["NaN", "finite"]);
    let text = message(plan_all(&base, &[(&lora, 1e300)]));
    assert_names(&text, &["x.lora_A.weight", "scaling"]);
    let text = message(plan_all(&base, &[(lora.as_path(), 1.0); 17]));
    assert_names(&text, &["17 adapters", "16"]);
}

#[test]
fn patterns_that_match_nothing_are_warned_of() {
    let workspace = Workspace::new();
    let base = Checkpoint::single(MODULES.map(|module| weight(module, &[8, 8])));
    let base = workspace.write("base", &base);
    let warnings = |settings: &[(&str, Value)]| {
        let mut adapter = Adapter::new(4, 8.0);
        for (key, value) in settings {
            adapter = adapter.set(key, value.clone());
        }
        for module in MODULES {
            adapter = adapter.linear(module, [8, 8], 4);
        }
        let plan = plan(&base, &adapter.write(&workspace, "lora")).unwrap();
        let warnings = plan.report.warnings.iter();
        let found: Vec<String> = warnings
            .map(|warning| {
                assert_eq!(warning.code(), Code::NoMatch);
                warning.text().to_owned()
            })
            .collect();
        found
    };
    let idle = warnings(&[
        ("alpha_pattern", json!({"q_prj": 2, "q_proj": 16})),
        ("rank_pattern", json!({r"layers\.7\..*": 2, "k_proj": 3})),
    ]);
    assert_eq!(idle.len(), 2);
    assert_names(
        &idle[0],
        &["lora", "rank_pattern", r"layers\.7\..*", "k_proj"],
    );
    assert_names(&idle[1], &["lora", "alpha_pattern", "q_prj"]);
    assert!(!idle[1].contains("q_proj"));
    // One that an earlier one makes superfluous still matches.
    let both = json!({"q_proj": 16, "11.q_proj": 4});
    assert!(warnings(&[("alpha_pattern", both)]).is_empty());
}
