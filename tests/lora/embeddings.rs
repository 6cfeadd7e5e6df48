//! Embeddings: their transposed product, tied ones, and those of another size.

use ckptfs::ops::LoraRequest;
use ckptfs::recipe::ViewRequest;
use safetensors::Dtype;

use crate::common::checkpoint::{Checkpoint, TensorData};
use crate::common::readback::{read_path, tensors};
use crate::common::values::{encode, round_to};
use crate::common::{Workspace, assert_names, message};
use crate::fixture::{Adapter, Product, element, merged, numbers, plan, weight};

const INPUT: &str = "model.embed_tokens";

fn config(tied: bool) -> String {
    format!(r#"{{"vocab_size": 30, "tie_word_embeddings": {tied}}}"#)
}

/// An adapter of an embedding `[rows, columns]`.
fn embedding(rows: usize, columns: usize, rank: usize) -> Adapter {
    let name = |role| format!("base_model.model.{INPUT}.lora_embedding_{role}");
    Adapter::new(rank, rank as f64)
        .tensor(numbers(&name("A"), Dtype::F32, &[rank, rows]))
        .tensor(numbers(&name("B"), Dtype::F32, &[columns, rank]))
}

/// `W + round((B·A)ᵀ)`.
fn expected(weight: &TensorData, adapter: &Adapter) -> Vec<u8> {
    let a = adapter.get("lora_embedding_A");
    let (rank, rows, columns) = (a.shape[0], weight.shape[0], weight.shape[1]);
    let (a, b) = (element(a), element(adapter.get("lora_embedding_B")));
    let product = Product {
        left: &|row, k| a(k * rows + row),
        right: &|k, column| b(column * rank + k),
        rank,
        scale: 1.0,
    };
    let weight = element(weight);
    let sums: Vec<f32> = (0..rows * columns)
        .map(|at| {
            let product = product.at(at / columns, at % columns);
            weight(at) + round_to(Dtype::BF16, product)
        })
        .collect();
    encode(Dtype::BF16, &sums)
}

#[test]
fn embeddings_take_the_transpose_rounded_first() {
    for (rows, columns) in [(130, 40), (40, 40)] {
        let weight = weight(INPUT, &[rows, columns]);
        let base = Checkpoint::single([weight.clone()]).config(&config(false));
        let adapter = embedding(rows, columns, 6);
        let found = merged(&base, &adapter, &weight.name);
        assert_eq!(found, expected(&weight, &adapter));
    }
}

#[test]
fn tied_embeddings_are_refused_with_the_reason() {
    let workspace = Workspace::new();
    let input = weight(INPUT, &[30, 8]);
    let output = weight("lm_head", &[30, 8]);
    let silent = "{}".to_owned();
    let tied = [
        (
            Checkpoint::single([input.clone()]).config(&config(true)),
            "tie_word_embeddings",
        ),
        (
            Checkpoint::single([input.clone(), output.clone()]).config(&config(true)),
            "tie_word_embeddings",
        ),
        (
            Checkpoint::single([input.clone()]).config(&silent),
            "no output embedding",
        ),
    ];
    let changes = [
        embedding(30, 8, 2),
        Adapter::new(2, 2.0).linear("lm_head", [30, 8], 2),
        Adapter::new(2, 2.0).tensor(numbers("lm_head.weight", Dtype::BF16, &[30, 8])),
    ];
    for (i, (base, reason)) in tied.iter().enumerate() {
        let base = workspace.write(&format!("base{i}"), base);
        for (j, adapter) in changes.iter().enumerate() {
            let adapter = adapter.write(&workspace, &format!("lora{j}"));
            let text = message(plan(&base, &adapter));
            assert_names(&text, &["tied", reason, "untie"]);
        }
    }
    let untied = Checkpoint::single([input, output]).config(&silent);
    let untied = workspace.write("untied", &untied);
    plan(&untied, &workspace.path().join("lora0")).unwrap();
    let other = Adapter::new(2, 2.0).write(&workspace, "other");
    plan(&workspace.path().join("base0"), &other).unwrap();
}

#[test]
fn an_adapter_of_one_of_two_that_a_view_unties_changes_that_one() {
    let workspace = Workspace::new();
    let weight = weight(INPUT, &[30, 8]);
    let base = Checkpoint::single([weight.clone()]).config(&config(true));
    let base = workspace.write("base", &base);
    let adapter = embedding(30, 8, 2);
    let location = adapter.write(&workspace, "lora").into();
    let request = ViewRequest::new(base).with(|asked| {
        asked.tying.untie = true;
        asked.lora.adapters.push(LoraRequest {
            adapter: location,
            weight: 1.0,
        });
    });
    let found = tensors(&request.plan().unwrap());
    assert!(*found[&weight.name].bytes == expected(&weight, &adapter));
    assert!(found["lm_head.weight"].bytes == weight.bytes);
}

#[test]
fn embeddings_of_another_size_take_the_vocabulary_along() {
    let workspace = Workspace::new();
    let base = Checkpoint::single([weight(INPUT, &[30, 8]), weight("lm_head", &[30, 8])]);
    let base = workspace.write("base", &base.config(&config(false)));
    let input = numbers(
        &format!("base_model.model.{INPUT}.weight"),
        Dtype::BF16,
        &[32, 8],
    );
    let output = numbers("base_model.model.lm_head.weight", Dtype::BF16, &[32, 8]);

    let both = Adapter::new(2, 2.0)
        .tensor(input.clone())
        .tensor(output.clone());
    let both = plan(&base, &both.write(&workspace, "both")).unwrap();
    assert_eq!(*tensors(&both)["lm_head.weight"].bytes, *output.bytes);
    let text = String::from_utf8(read_path(&both, "config.json").unwrap()).unwrap();
    assert_names(&text, &["\"vocab_size\": 32"]);
    assert_names(&both.report.notes.join("\n"), &["vocab_size", "32"]);

    let one = Adapter::new(2, 2.0).tensor(input).write(&workspace, "one");
    assert_names(
        &message(plan(&base, &one)),
        &["32 rows", "lm_head.weight 30"],
    );
}
