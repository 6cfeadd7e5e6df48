//! What untying and tying do to tensors and shards.

use ckptfs::error::Code;
use safetensors::Dtype;
use serde_json::json;

use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::fixture::{
    EMBEDDING, HEAD, assert_tensors, by_name, config, copy, embedding, plan, tied, with_head,
};

const TIED: &str = r#"{"tie_word_embeddings": true, "vocab_size": 12}"#;
const UNTIED: &str = r#"{"tie_word_embeddings": false, "vocab_size": 12}"#;

#[test]
fn an_untied_view_has_a_head_of_the_embedding_s_bytes_and_the_old_shards_are_whole_files() {
    let base = tied();
    let plan = plan(&base, |asked| asked.tying.untie = true).unwrap();
    let mut expected = by_name(&base);
    expected.insert(HEAD.to_owned(), copy(HEAD, &expected[EMBEDDING]));
    assert_tensors(&plan, &expected);
    assert_eq!(config(&plan)["tie_word_embeddings"], false);
    assert_eq!(plan.report.count("untied"), 1);
    // The head is a range of the source, in a shard of its own.
    let whole: Vec<bool> = plan.shards.iter().map(|s| s.whole_file.is_some()).collect();
    assert_eq!(whole, [true, true, false]);
    let head = &plan.shards[2].tensors[0];
    assert!(head.extents.as_stored().is_some());
    assert_eq!(plan.surveys().all, 0);
}

#[test]
fn a_single_file_becomes_two_shards() {
    let base = Checkpoint::single([embedding(12)]).config(TIED);
    let plan = plan(&base, |asked| asked.tying.untie = true).unwrap();
    let names: Vec<&str> = plan.shards.iter().map(|shard| &*shard.name).collect();
    assert_eq!(
        names,
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors"
        ]
    );
    assert!(plan.shards[0].whole_file.is_some());
}

#[test]
fn each_embedding_has_the_head_that_engines_expect_beside_it() {
    for (embedding, head) in [
        ("model.embed_tokens.weight", "lm_head.weight"),
        ("model.language_model.embed_tokens.weight", "lm_head.weight"),
        (
            "language_model.model.embed_tokens.weight",
            "language_model.lm_head.weight",
        ),
        ("model.text_model.embed_tokens.weight", "lm_head.weight"),
        (
            "thinker.model.embed_tokens.weight",
            "thinker.lm_head.weight",
        ),
        ("transformer.wte.weight", "lm_head.weight"),
        ("wte.weight", "lm_head.weight"),
        ("gpt_neox.embed_in.weight", "embed_out.weight"),
        ("backbone.embeddings.weight", "lm_head.weight"),
        ("model.tok_embeddings.weight", "output.weight"),
        ("model.word_embeddings.weight", "lm_head.weight"),
    ] {
        let base = Checkpoint::single([
            bf16(embedding, &[6, 4]),
            bf16(
                "model.vision_tower.embeddings.word_embeddings.weight",
                &[6, 4],
            ),
        ])
        .config(TIED);
        let untied = plan(&base, |asked| asked.tying.untie = true).unwrap();
        let mut expected = by_name(&base);
        expected.insert(head.to_owned(), copy(head, &expected[embedding]));
        assert_tensors(&untied, &expected);
    }
}

#[test]
fn a_tied_view_has_no_head_if_it_has_the_embedding_s_bytes() {
    let base = with_head(copy(HEAD, &embedding(12)), UNTIED);
    let tied_view = plan(&base, |asked| asked.tying.tie = true).unwrap();
    assert_tensors(&tied_view, &by_name(&tied()));
    assert_eq!(config(&tied_view)["tie_word_embeddings"], true);
    assert_eq!(tied_view.report.count("tied"), 1);
    let whole: Vec<bool> = tied_view
        .shards
        .iter()
        .map(|s| s.whole_file.is_some())
        .collect();
    assert_eq!(whole, [true, false]);
}

#[test]
fn a_shard_that_had_the_head_alone_is_gone() {
    let base = Checkpoint::new()
        .shard("model-00001-of-00002.safetensors", [embedding(12)])
        .shard(
            "model-00002-of-00002.safetensors",
            [copy(HEAD, &embedding(12))],
        )
        .config(UNTIED);
    let plan = plan(&base, |asked| asked.tying.tie = true).unwrap();
    assert_eq!(plan.shards.len(), 1);
    assert!(plan.shards[0].whole_file.is_some());
}

#[test]
fn the_first_row_that_differs_is_named_wherever_it_is() {
    // Several pieces of the comparison.
    let rows = 3000;
    let embedding = tensor(EMBEDDING, Dtype::BF16, &[rows, 2048], 3);
    for differing in [&[0][..], &[1023], &[1024], &[2999], &[2999, 1700, 2100]] {
        let mut head = copy(HEAD, &embedding);
        let mut bytes = head.bytes.to_vec();
        for row in differing {
            bytes[row * 4096 + 17] ^= 1;
        }
        head.bytes = bytes.into();
        let base = Checkpoint::single([embedding.clone(), head]).config(UNTIED);
        let error = plan(&base, |asked| asked.tying.tie = true).unwrap_err();
        assert_eq!(error.code(), Code::UnequalHead);
        let first = differing.iter().min().unwrap();
        let words = format!("row {first} is the first that is different");
        assert!(error.to_string().contains(&words), "{error}");
    }
}

#[test]
fn a_stored_copy_beside_a_tied_embedding_is_the_head_of_the_untied_view() {
    let same = with_head(copy(HEAD, &embedding(12)), TIED);
    let untied = plan(&same, |asked| asked.tying.untie = true).unwrap();
    assert_tensors(&untied, &by_name(&same));
    assert_eq!(config(&untied)["tie_word_embeddings"], json!(false));
    assert!(untied.shards.iter().all(|shard| shard.whole_file.is_some()));
    let tied = plan(&same, |asked| asked.tying.tie = true).unwrap();
    assert_eq!(tied.report.count("tied"), 1);
    assert_eq!(config(&tied)["tie_word_embeddings"], json!(true));
}

#[test]
fn what_is_so_already_is_a_warning_and_changes_nothing() {
    for (base, untie) in [
        (with_head(bf16(HEAD, &[12, 8]), UNTIED), true),
        (
            with_head(bf16(HEAD, &[12, 8]), r#"{"vocab_size": 12}"#),
            true,
        ),
        (tied(), false),
    ] {
        let plan = plan(&base, |asked| {
            asked.tying.untie = untie;
            asked.tying.tie = !untie;
        })
        .unwrap();
        assert_tensors(&plan, &by_name(&base));
        assert!(plan.report.edited_config.is_none());
        let codes: Vec<Code> = plan.report.warnings.iter().map(|w| w.code()).collect();
        assert_eq!(codes, [Code::NoEffect]);
    }
}
