//! Edits that cannot be made say what is there instead.

use ckptfs::error::Code;
use ckptfs::recipe::ViewRequest;

use crate::common::assert_names;
use crate::fixture::{Edit, ask, checkpoint, plan};

const CONFIG: &str = r#"{"model_type": "llama", "rope_scaling": {"type": "yarn"}, "layer_types": ["a", "b"], "text_config": {"rope_theta": 1.0}, "n": 1}"#;

/// Asserts that `edits` of a small checkpoint are refused with `code` and these words.
fn assert_refused(edits: &[Edit], code: Code, words: &[&str]) {
    let base = checkpoint(CONFIG)
        .aux("generation_config.json", "{\"top_p\": 1}")
        .aux("broken.json", "{\"a\": }")
        .aux("more/a.json", "{}");
    let error = plan(&base, edits).expect_err(&format!("{edits:?}"));
    assert_eq!(error.code(), code, "{error}");
    assert_names(&error.to_string(), words);
}

#[test]
fn a_key_that_is_not_there_is_an_error_with_the_nearest_that_is() {
    for (edit, words) in [
        (
            ("unset", "model_typ"),
            &[
                "the top level has no key model_typ",
                "did you mean model_type?",
            ][..],
        ),
        (
            ("set", "rope_scalin.type=\"x\""),
            &["has no key rope_scalin", "did you mean rope_scaling?"],
        ),
        (
            ("unset", "rope_scaling.typ"),
            &["rope_scaling has no key typ", "did you mean type?"],
        ),
        (
            ("set", "rope_scaling.x.y=1"),
            &["rope_scaling has no key x"],
        ),
        (
            ("unset", "rope_theta"),
            &["has no key rope_theta", "text_config.rope_theta is there"],
        ),
        (("promote", "txt_config"), &["did you mean text_config?"]),
        (("promote", "n"), &["n is a number, no object"]),
        (("set", "n.x=1"), &["n is a number, no object with a key x"]),
        (("set", "model_type[0]=1"), &["model_type is text, no list"]),
        (
            ("set", "layer_types.x=1"),
            &["layer_types is a list, no object"],
        ),
        (
            ("set", "layer_types[2]=\"c\""),
            &["layer_types has no [2]", "its last item is [1]"],
        ),
        (
            ("unset", "layer_types[9]"),
            &["layer_types has no [9]", "its last item is [1]"],
        ),
        (("unset", "[0]"), &["the top level is an object, no list"]),
    ] {
        assert_refused(&[edit], Code::MissingKey, words);
    }
    let keep = [("promote", "text_config"), ("keep", "model_typ")];
    assert_refused(&keep, Code::MissingKey, &["did you mean model_type?"]);
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_the_nearest_that_is() {
    for (edit, words) in [
        (
            ("set", "generation_confg.json:a=1"),
            &[
                "no file generation_confg.json",
                "did you mean generation_config.json?",
            ][..],
        ),
        (
            ("unset", "zzz:a"),
            &["no file zzz", "config.json", "more/a.json"],
        ),
        (
            ("set", "model.safetensors:a=1"),
            &["model.safetensors is a shard or an index"],
        ),
        (
            ("set", "model.safetensors.index.json:a=1"),
            &["is a shard or an index"],
        ),
    ] {
        assert_refused(&[edit], Code::MissingFile, words);
    }
    assert_refused(
        &[("set", "more:a=1")],
        Code::WrongFileKind,
        &["more is a directory"],
    );
    assert_refused(
        &[("set", "broken.json:a=1")],
        Code::BadConfig,
        &["broken.json", "not JSON"],
    );
    let dropped = [("drop_file", "gen*"), ("set", "generation_config.json:a=1")];
    assert_refused(
        &dropped,
        Code::MissingFile,
        &["no file generation_config.json"],
    );
}

#[test]
fn a_value_that_is_not_json_is_refused_with_what_to_type() {
    let refused = |text: &str| {
        let error = ask(&mut ViewRequest::new("/a"), &[("set", text)]).expect_err(text);
        assert_eq!(error.code(), Code::BadValue, "{error}");
        error.to_string()
    };
    for (text, words) in [
        (
            "model_type=llama",
            &["llama is not JSON", r#"'model_type="llama"'"#][..],
        ),
        ("a=it's", &[r#"'a="it'\''s"'"#]),
        ("a.b=/x/y z", &[r#"'a.b="/x/y z"'"#]),
        ("a=True", &["True is not JSON", "'a=true'", r#"'a="True"'"#]),
        ("a=None", &["'a=null'"]),
        ("a=", &["there is no value after the ="]),
        ("a=[1,", &["the value is not JSON"]),
        ("a=1 2", &["the value is not JSON"]),
        ("a=NaN", &["NaN is not JSON"]),
        ("a", &["expected [FILE:]PATH=JSON"]),
        ("=1", &["a key is missing"]),
        ("a..b=1", &["a key is missing"]),
        ("a[x]=1", &["[0], [1] and so on"]),
        ("a\"b=1", &["double quotes"]),
        ("config.json:=1", &["a key is missing"]),
    ] {
        assert_names(&refused(text), words);
    }
}

#[test]
fn what_is_kept_belongs_to_what_is_promoted_before_it() {
    for edits in [
        &[("keep", "a"), ("promote", "text_config")][..],
        &[("promote", "text_config"), ("set", "b=1"), ("keep", "a")],
    ] {
        let error = ask(&mut ViewRequest::new("/a"), edits).unwrap_err();
        assert_eq!(error.code(), Code::Conflict);
        assert_names(&error.to_string(), &["edits.keep: a", "edits.promote"]);
    }
    let empty = ask(
        &mut ViewRequest::new("/a"),
        &[("promote", "x"), ("keep", "a,,b")],
    );
    assert_eq!(empty.unwrap_err().code(), Code::BadValue);
}

#[test]
fn an_edit_that_changes_nothing_and_a_key_that_may_be_misspelt_are_warned_of() {
    for (edit, code, words) in [
        (
            "n=1",
            Code::NoEffect,
            &["edits.set: n=1", "its value already"][..],
        ),
        (
            "model_typ=\"x\"",
            Code::MissingKey,
            &["new in config.json", "did you mean model_type"],
        ),
        (
            "rope_theta=2.0",
            Code::MissingKey,
            &["new", "text_config.rope_theta"],
        ),
    ] {
        let plan = plan(&checkpoint(CONFIG), &[("set", edit)]).unwrap();
        let warnings = &plan.report.warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].code(), code);
        assert_names(warnings[0].text(), words);
    }
    let new = plan(&checkpoint(CONFIG), &[("set", "sliding_window=4096")]).unwrap();
    assert_eq!(new.report.warnings, [""; 0]);
}
