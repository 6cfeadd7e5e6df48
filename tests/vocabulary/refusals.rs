//! What is refused, by code and in words.

use ckptfs::error::Code;
use ckptfs::ops::{Operations, Pad};
use safetensors::Dtype;

use crate::common::assert_names;
use crate::common::checkpoint::{Checkpoint, bf16, tensor};
use crate::fixture::{EMBEDDING, HEAD, by_name, config, copy, embedding, plan, tied, with_head};

fn assert_refused(
    base: &Checkpoint,
    ask: impl FnOnce(&mut Operations),
    code: Code,
    words: &[&str],
) {
    let error = plan(base, ask).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert_names(&error.to_string(), words);
}

fn untie(asked: &mut Operations) {
    asked.tying.untie = true;
}

fn tie(asked: &mut Operations) {
    asked.tying.tie = true;
}

fn rows(rows: u64) -> impl FnOnce(&mut Operations) {
    move |asked| asked.vocabulary.size = Some(rows)
}

const UNTIED: &str = r#"{"tie_word_embeddings": false, "vocab_size": 12}"#;

#[test]
fn an_embedding_that_cannot_be_told_is_refused() {
    let none = Checkpoint::single([bf16("bert.embeddings.word_embeddings.weight", &[12, 8])]);
    let several = Checkpoint::single([embedding(12), bf16("transformer.wte.weight", &[12, 8])]);
    for ask in [untie, tie, |asked: &mut Operations| rows(16)(asked)] {
        let words = ["bert.embeddings.word_embeddings.weight", EMBEDDING];
        assert_refused(&none, ask, Code::UnknownEmbedding, &words);
        let words = ["several", EMBEDDING, "transformer.wte.weight"];
        assert_refused(&several, ask, Code::UnknownEmbedding, &words);
    }
}

#[test]
fn a_head_that_is_no_copy_is_refused() {
    let other = with_head(bf16(HEAD, &[12, 8]), UNTIED);
    assert_refused(
        &other,
        tie,
        Code::UnequalHead,
        &[HEAD, EMBEDDING, "row 0", "leave out tie"],
    );
    let larger = with_head(bf16(HEAD, &[16, 8]), UNTIED);
    assert_refused(&larger, tie, Code::UnequalHead, &["[16, 8]", "[12, 8]"]);
    let wider = with_head(tensor(HEAD, Dtype::F32, &[12, 8], 1), UNTIED);
    assert_refused(&wider, tie, Code::UnequalHead, &["F32", "BF16"]);
    // Loaders would take the embedding, and the view the head.
    let stale = with_head(bf16(HEAD, &[12, 8]), r#"{"tie_word_embeddings": true}"#);
    assert_refused(
        &stale,
        untie,
        Code::UnequalHead,
        &["tie_word_embeddings", "leave lm_head.weight out"],
    );
}

#[test]
fn a_head_that_should_be_there_and_is_not_is_refused() {
    let base = tied().config(UNTIED);
    for ask in [untie, tie] {
        let words = [HEAD, "tie_word_embeddings is false", "edits.set"];
        assert_refused(&base, ask, Code::ConfigMismatch, &words);
    }
}

#[test]
fn settings_that_exclude_each_other_are_refused() {
    let both = |asked: &mut Operations| {
        asked.tying.untie = true;
        asked.tying.tie = true;
    };
    assert_refused(&tied(), both, Code::Conflict, &["untie", "tie"]);
    let both = |asked: &mut Operations| {
        asked.vocabulary.size = Some(3);
        asked.vocabulary.multiple = Some(64);
    };
    assert_refused(
        &tied(),
        both,
        Code::Conflict,
        &["vocab_size", "vocab_multiple"],
    );
    let alone = |asked: &mut Operations| asked.vocabulary.pad = Some(Pad::Mean);
    assert_refused(&tied(), alone, Code::Conflict, &["vocab_pad", "vocab_size"]);
}

#[test]
fn a_quantized_embedding_is_refused_by_name() {
    let coded = Checkpoint::single([
        tensor(EMBEDDING, Dtype::F8_E4M3, &[128, 128], 1),
        tensor(
            "model.embed_tokens.weight_scale_inv",
            Dtype::F32,
            &[1, 1],
            1,
        ),
    ]);
    assert_refused(
        &coded,
        rows(130),
        Code::UnsupportedTensor,
        &[EMBEDDING, "quantized", "dtype"],
    );
    assert_refused(&coded, rows(100), Code::UnsupportedTensor, &[EMBEDDING]);
    assert_refused(&coded, untie, Code::UnsupportedTensor, &[EMBEDDING]);
    let integers = Checkpoint::single([tensor(EMBEDDING, Dtype::I8, &[8, 8], 1)]);
    assert_refused(
        &integers,
        rows(9),
        Code::UnsupportedTensor,
        &[EMBEDDING, "I8"],
    );
    let quantized_head =
        Checkpoint::single([embedding(12), tensor(HEAD, Dtype::F8_E4M3, &[12, 8], 1)]);
    assert_refused(
        &quantized_head,
        rows(13),
        Code::UnsupportedTensor,
        &[HEAD, "F8_E4M3"],
    );
    assert_refused(&quantized_head, tie, Code::UnsupportedTensor, &[HEAD]);
}

#[test]
fn a_key_that_is_set_to_something_else_than_the_view_writes_is_refused() {
    let set = |asked: &mut Operations, text: &str| {
        asked
            .edits
            .edits
            .push(ckptfs::ops::Edit::Set(text.to_owned()));
    };
    let untied = |asked: &mut Operations| {
        set(asked, "tie_word_embeddings=true");
        untie(asked);
    };
    assert_refused(
        &tied(),
        untied,
        Code::EditConflict,
        &["tie_word_embeddings"],
    );
    let resized = |asked: &mut Operations| {
        set(asked, "vocab_size=15");
        rows(16)(asked);
    };
    assert_refused(&tied(), resized, Code::EditConflict, &["vocab_size", "16"]);
}

#[test]
fn more_rows_than_can_be_are_refused() {
    assert_refused(
        &tied(),
        rows(1 << 60),
        Code::OverLimit,
        &[EMBEDDING, "2^61"],
    );
    let multiple = |asked: &mut Operations| asked.vocabulary.multiple = Some(u64::MAX - 1);
    assert_refused(&tied(), multiple, Code::OverLimit, &[EMBEDDING]);
}

const TOKENIZER: &str = r#"{
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 7}},
  "added_tokens": [{"id": 8, "content": "<end>"}, {"id": 9, "content": "<x>"}]
}"#;

#[test]
fn a_cut_through_the_tokenizer_is_refused_with_the_ids() {
    let base = tied().aux("tokenizer.json", TOKENIZER);
    assert!(plan(&base, rows(10)).is_ok());
    let words = [
        "tokenizer.json",
        "9 (\"<x>\")",
        "the largest is 9",
        "vocab_size: 10",
        "edits.drop_file: tokenizer.json",
    ];
    assert_refused(&base, rows(9), Code::TokensCut, &words);
    let words = ["7 (\"c\")", "8 (\"<end>\")", "9 (\"<x>\")"];
    assert_refused(&base, rows(2), Code::TokensCut, &words);
    // The file may be left out.
    let without = plan(&base, |asked| {
        asked
            .edits
            .edits
            .push(ckptfs::ops::Edit::DropFile("tokenizer.json".to_owned()));
        asked.vocabulary.size = Some(2);
    });
    assert_eq!(config(&without.unwrap())["vocab_size"], 2);
}

#[test]
fn a_cut_through_other_ids_is_refused() {
    let pieces = r#"{"model": {"vocab": [["a", 0.0], ["b", -1.0], ["c", -2.0]]}}"#;
    let base = tied().aux("tokenizer.json", pieces);
    assert!(plan(&base, rows(3)).is_ok());
    assert_refused(&base, rows(2), Code::TokensCut, &["2 (\"c\")"]);
    let base = tied().aux("added_tokens.json", r#"{"<y>": 6}"#);
    assert_refused(
        &base,
        rows(6),
        Code::TokensCut,
        &["added_tokens.json", "6 (\"<y>\")"],
    );
    let added = r#"{"added_tokens_decoder": {"5": {"content": "<z>"}}}"#;
    let base = tied().aux("tokenizer_config.json", added);
    assert_refused(
        &base,
        rows(5),
        Code::TokensCut,
        &["tokenizer_config.json", "5 (\"<z>\")"],
    );
    let ids = r#"{"vocab_size": 12, "eos_token_id": [3, 4], "text_config": {"pad_token_id": 11}, "bos_token_id": 40}"#;
    let base = tied().config(ids);
    assert_refused(
        &base,
        rows(11),
        Code::TokensCut,
        &["config.json", "11 (pad_token_id)"],
    );
    assert_refused(
        &base,
        rows(4),
        Code::TokensCut,
        &["4 (eos_token_id)", "11 (pad_token_id)"],
    );
    let broken = tied().aux("tokenizer.json", "{");
    assert_refused(&broken, rows(2), Code::BadTokenizer, &["tokenizer.json"]);
    assert!(plan(&broken, rows(20)).is_ok());
}

#[test]
fn what_changes_nothing_is_a_warning() {
    let base = tied();
    let nothing = plan(&base, |asked| asked.vocabulary.multiple = Some(4)).unwrap();
    crate::fixture::assert_tensors(&nothing, &by_name(&base));
    let codes: Vec<Code> = nothing.report.warnings.iter().map(|w| w.code()).collect();
    assert_eq!(codes, [Code::NoEffect]);
    let cut = plan(&with_head(copy(HEAD, &embedding(12)), UNTIED), |asked| {
        asked.vocabulary.size = Some(8);
        asked.vocabulary.pad = Some(Pad::Mean);
    });
    assert_names(
        &cut.unwrap().report.warnings[0],
        &["vocab_pad", "no row is added"],
    );
}
