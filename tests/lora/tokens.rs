//! Rows of an embedding that were trained by themselves.

use ckptfs::error::Code;
use ckptfs::ops::lora::AdapterReport;
use ckptfs::provenance::Counts;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::tensors;
use crate::common::values::{decode, encode};
use crate::common::{Workspace, assert_names};
use crate::fixture::{Adapter, numbers, plan, weight};

const INPUT: &str = "model.embed_tokens";

fn rows(module: &str, dtype: Dtype, count: usize, columns: usize) -> TensorData {
    let name = format!("base_model.model.{module}.token_adapter.trainable_tokens_delta");
    numbers(&name, dtype, &[count, columns])
}

fn adapter(indices: Value, given: TensorData) -> Adapter {
    let adapter = Adapter::new(2, 2.0).set("trainable_token_indices", indices);
    adapter.tensor(given)
}

fn config(tied: bool) -> String {
    json!({"vocab_size": 30, "tie_word_embeddings": tied}).to_string()
}

/// `weight` with these rows replaced, rounded to its dtype.
fn expected(weight: &TensorData, indices: &[usize], given: &TensorData) -> Vec<u8> {
    let columns = weight.shape[1];
    let mut values = decode(weight.dtype, &weight.bytes);
    let rows = decode(given.dtype, &given.bytes);
    for (&index, row) in indices.iter().zip(rows.chunks(columns)) {
        values[index * columns..(index + 1) * columns].copy_from_slice(row);
    }
    encode(weight.dtype, &values)
}

#[test]
fn rows_take_the_place_of_the_bases_and_others_stay() {
    let indices = [7, 0, 8, 29];
    for (base, given) in [
        (Dtype::BF16, Dtype::F32),
        (Dtype::BF16, Dtype::BF16),
        (Dtype::F16, Dtype::F32),
        (Dtype::F32, Dtype::BF16),
    ] {
        let input = numbers(&format!("{INPUT}.weight"), base, &[30, 9]);
        let output = numbers("lm_head.weight", base, &[30, 9]);
        let given = rows(INPUT, given, 4, 9);
        for names in [
            json!(indices),
            json!({"lm_head": [1], "embed_tokens": indices}),
        ] {
            let workspace = Workspace::new();
            let both = Checkpoint::single([input.clone(), output.clone()]);
            let directory = workspace.write("base", &both.config(&config(false)));
            let lora = adapter(names, given.clone()).write(&workspace, "lora");
            let plan = plan(&directory, &lora).unwrap();
            let found = tensors(&plan);
            assert_eq!(
                *found[&input.name].bytes,
                *expected(&input, &indices, &given)
            );
            assert_eq!(*found[&output.name].bytes, *output.bytes);
            let report = plan.report.reports::<AdapterReport>().next().unwrap();
            assert_eq!((report.merged, report.replaced), (1, 0));
            let counts = Counts::of_plan(&plan);
            let mut changed = counts.changed_by.iter();
            assert!(changed.all(|by| by.operators.contains(&"lora")));
        }
    }
}

#[test]
fn rows_of_both_embeddings_have_indices_of_their_own() {
    let (input, output) = (weight(INPUT, &[30, 8]), weight("lm_head", &[30, 8]));
    let (first, second) = (
        rows(INPUT, Dtype::F32, 2, 8),
        rows("lm_head", Dtype::F32, 1, 8),
    );
    let indices = json!({"embed_tokens": [3, 5], "lm_head": [9]});
    let lora = adapter(indices, first.clone()).tensor(second.clone());
    let workspace = Workspace::new();
    let base = Checkpoint::single([input.clone(), output.clone()]).config(&config(false));
    let directory = workspace.write("base", &base);
    let found = tensors(&plan(&directory, &lora.write(&workspace, "lora")).unwrap());
    assert_eq!(
        *found[&input.name].bytes,
        *expected(&input, &[3, 5], &first)
    );
    assert_eq!(
        *found[&output.name].bytes,
        *expected(&output, &[9], &second)
    );
}

#[test]
fn rows_of_tied_embeddings_are_trained_for_both_uses() {
    let input = weight(INPUT, &[30, 8]);
    let given = rows(INPUT, Dtype::F32, 2, 8);
    let workspace = Workspace::new();
    let lora = adapter(json!([3, 5]), given.clone()).write(&workspace, "lora");
    let wanted = expected(&input, &[3, 5], &given);
    for (name, base, has_output) in [
        ("alone", Checkpoint::single([input.clone()]), false),
        (
            "stored",
            Checkpoint::single([
                input.clone(),
                TensorData::new(
                    "lm_head.weight",
                    Dtype::BF16,
                    &[30, 8],
                    input.bytes.to_vec(),
                ),
            ]),
            true,
        ),
    ] {
        let directory = workspace.write(name, &base.config(&config(true)));
        let found = tensors(&plan(&directory, &lora).unwrap());
        assert_eq!(*found[&input.name].bytes, *wanted);
        let output = found.get("lm_head.weight");
        assert_eq!(output.is_some(), has_output);
        assert!(output.is_none_or(|output| *output.bytes == *wanted));
    }
}

#[test]
fn rows_of_a_vocabulary_that_grew_go_into_the_embedding_that_was_saved_along() {
    let workspace = Workspace::new();
    let base = Checkpoint::single([weight(INPUT, &[30, 8]), weight("lm_head", &[30, 8])]);
    let directory = workspace.write("base", &base.config(&config(false)));
    let whole = numbers(
        &format!("base_model.model.{INPUT}.token_adapter.base_layer.weight"),
        Dtype::BF16,
        &[32, 8],
    );
    let output = numbers("base_model.model.lm_head.weight", Dtype::BF16, &[32, 8]);
    let given = rows(INPUT, Dtype::F32, 2, 8);
    let lora = adapter(json!([31, 30]), given.clone());
    let lora = lora.tensor(whole.clone()).tensor(output);
    let found = tensors(&plan(&directory, &lora.write(&workspace, "lora")).unwrap());
    let wanted = expected(&whole, &[31, 30], &given);
    assert_eq!(*found["model.embed_tokens.weight"].bytes, *wanted);
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let workspace = Workspace::new();
    let base = Checkpoint::single([weight(INPUT, &[30, 8]), weight("lm_head", &[30, 8])]);
    let untied = workspace.write("untied", &base.config(&config(false)));
    let tied = Checkpoint::single([weight(INPUT, &[30, 8])]).config(&config(true));
    let tied = workspace.write("tied", &tied);
    let given = || rows(INPUT, Dtype::F32, 2, 8);
    let named = "trainable_token_indices";
    for (base, lora, code, words) in [
        (
            &untied,
            adapter(json!([3, 3]), given()),
            Code::BadAdapter,
            vec![named, "3 twice"],
        ),
        (
            &untied,
            adapter(json!([3, -1]), given()),
            Code::BadAdapter,
            vec![named, "row numbers"],
        ),
        (
            &untied,
            adapter(json!([3]), given()),
            Code::BadAdapter,
            vec![named, "[2, 8]", "1 rows"],
        ),
        (
            &untied,
            adapter(json!({"wte": [3, 4]}), given()),
            Code::BadAdapter,
            vec![named, "embed_tokens"],
        ),
        (
            &untied,
            adapter(json!([3, 30]), given()),
            Code::AdapterMismatch,
            vec!["row 30", "30 rows"],
        ),
        (
            &untied,
            adapter(json!([3, 4]), rows(INPUT, Dtype::F32, 2, 9)),
            Code::AdapterMismatch,
            vec!["[2, 9]", "[30, 8]"],
        ),
        (
            &untied,
            adapter(json!([3, 4]), given()).linear(INPUT, [30, 8], 2),
            Code::BadAdapter,
            vec!["rows or factors"],
        ),
        (
            &untied,
            Adapter::new(2, 2.0).set(named, json!([3])),
            Code::BadAdapter,
            vec![named, "trainable_tokens_delta"],
        ),
        (
            &tied,
            adapter(json!({"embed_tokens": [3, 4], "lm_head": [5]}), given()).tensor(rows(
                "lm_head",
                Dtype::F32,
                1,
                8,
            )),
            Code::TiedEmbeddings,
            vec!["lm_head", "different ways"],
        ),
    ] {
        let error = plan(base, &lora.write(&workspace, "lora")).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_names(&error.to_string(), &words);
    }
}
