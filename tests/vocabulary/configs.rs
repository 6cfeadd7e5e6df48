//! What config.json says of embedding and head.

use ckptfs::error::Code;
use serde_json::{Value, json};

use crate::common::assert_names;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::read_path;
use crate::fixture::{config, embedding, json as json_of, plan, tied};

/// config.json of a tied model with `before` as its config, untied.
fn untied(before: &Value) -> Value {
    let base = Checkpoint::single([embedding(12)]).config(&before.to_string());
    config(&plan(&base, |asked| asked.tying.untie = true).unwrap())
}

/// The same with 16 rows.
fn with_16_rows(before: &Value) -> Value {
    let base = Checkpoint::single([embedding(12)]).config(&before.to_string());
    config(&plan(&base, |asked| asked.vocabulary.size = Some(16)).unwrap())
}

#[test]
fn every_level_that_says_tied_says_untied_and_the_language_model_s_levels_always_do() {
    for (before, after) in [
        (
            json!({"tie_word_embeddings": true}),
            json!({"tie_word_embeddings": false}),
        ),
        (
            json!({"x": 1}),
            json!({"x": 1, "tie_word_embeddings": false}),
        ),
        (
            json!({"tie_word_embeddings": true, "text_config": {"a": 1e-6}, "vision_config": {"b": 2}}),
            json!({
                "tie_word_embeddings": false,
                "text_config": {"a": 1e-6, "tie_word_embeddings": false},
                "vision_config": {"b": 2},
            }),
        ),
        (
            json!({
                "text_config": {"tie_word_embeddings": true},
                "vision_config": {"tie_word_embeddings": true, "depth": 3},
            }),
            json!({
                "text_config": {"tie_word_embeddings": false},
                "vision_config": {"tie_word_embeddings": false, "depth": 3},
                "tie_word_embeddings": false,
            }),
        ),
        (
            json!({"thinker_config": {"text_config": {"vocab_size": 12, "tie_word_embeddings": true}, "z": []}}),
            json!({
                "thinker_config": {"text_config": {"vocab_size": 12, "tie_word_embeddings": false}, "z": []},
                "tie_word_embeddings": false,
            }),
        ),
    ] {
        assert_eq!(untied(&before), after);
    }
}

#[test]
fn the_number_of_tokens_follows_wherever_it_is_that_of_the_language_model() {
    for (before, after) in [
        (json!({"vocab_size": 12}), json!({"vocab_size": 16})),
        // The kind of model said it.
        (json!({"x": 1}), json!({"x": 1, "vocab_size": 16})),
        (json!({"vocab_size": 10}), json!({"vocab_size": 16})),
        (
            json!({"text_config": {"a": 1}, "vocab_size": 12}),
            json!({"text_config": {"a": 1, "vocab_size": 16}, "vocab_size": 16}),
        ),
        (
            json!({"text_config": {"vocab_size": 12}, "audio_config": {"vocab_size": 7}}),
            json!({"text_config": {"vocab_size": 16}, "audio_config": {"vocab_size": 7}}),
        ),
        (
            json!({
                "thinker_config": {"text_config": {"vocab_size": 12}, "vocab_size": 12},
                "talker_config": {"vocab_size": 5},
                "vocab_size": 12,
            }),
            json!({
                "thinker_config": {"text_config": {"vocab_size": 16}, "vocab_size": 16},
                "talker_config": {"vocab_size": 5},
                "vocab_size": 16,
            }),
        ),
    ] {
        assert_eq!(with_16_rows(&before), after);
    }
}

#[test]
fn what_is_not_edited_in_nested_objects_keeps_its_text() {
    let text = "{\n  \"a\": {\n    \"b\": {\"vocab_size\": 12, \"big\": 1e999, \"e\": 1E-06},\n    \"c\": [1,2]\n  }\n}\n";
    let base = Checkpoint::single([embedding(12)]).config(text);
    let plan = plan(&base, |asked| asked.vocabulary.size = Some(16)).unwrap();
    let after = String::from_utf8(read_path(&plan, "config.json").unwrap()).unwrap();
    assert_names(&after, &["1e999", "1E-06", "[1,2]", "\"vocab_size\": 16"]);
}

#[test]
fn without_a_config_the_plan_says_what_it_should_say() {
    for (untie, words) in [
        (true, "tie_word_embeddings: false"),
        (false, "vocab_size: 16"),
    ] {
        let plan = plan(&tied().without_config(), |asked| {
            asked.tying.untie = untie;
            asked.vocabulary.size = (!untie).then_some(16);
        })
        .unwrap();
        let [warning] = &plan.report.warnings[..] else {
            panic!("{:?}", plan.report.warnings)
        };
        assert_eq!(warning.code(), Code::ConfigNotUpdated);
        assert_names(warning, &[words]);
    }
}

#[test]
fn lists_of_modules_that_are_not_quantized_name_the_new_head() {
    let lists = |list: Value| {
        let before = json!({
            "tie_word_embeddings": true,
            "quantization_config": {"quant_method": "fp8", "modules_to_not_convert": list},
        });
        untied(&before)["quantization_config"]["modules_to_not_convert"].clone()
    };
    assert_eq!(lists(json!(["visual"])), json!(["visual", "lm_head"]));
    assert_eq!(lists(json!(["lm_head"])), json!(["lm_head"]));
    assert_eq!(lists(json!(["re:.*lm_head"])), json!(["re:.*lm_head"]));
    assert_eq!(lists(json!(null)), json!(null));

    let other = tied().aux(
        "hf_quant_config.json",
        r#"{"quantization": {"exclude_modules": ["visual"]}}"#,
    );
    let plan = plan(&other, |asked| asked.tying.untie = true).unwrap();
    let [warning] = &plan.report.warnings[..] else {
        panic!("{:?}", plan.report.warnings)
    };
    assert_names(warning, &["hf_quant_config.json", "lm_head"]);
    let file = json_of(&plan, "hf_quant_config.json");
    assert_eq!(file["quantization"]["exclude_modules"], json!(["visual"]));
}

#[test]
fn other_tensors_with_as_many_rows_are_named_in_a_note() {
    let base = Checkpoint::single([
        embedding(12),
        bf16("talker.text_embedding.weight", &[12, 4]),
    ]);
    let plan = plan(&base, |asked| asked.vocabulary.size = Some(16)).unwrap();
    let [note] = &plan.report.notes[..] else {
        panic!("{:?}", plan.report.notes)
    };
    assert_names(note, &["12 rows", "talker.text_embedding.weight"]);
}
