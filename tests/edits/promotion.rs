//! `--promote`: an object in the place of the top level.

use crate::fixture::{checkpoint, edited, plan, text};

const NESTED: &str = r#"{
  "architectures": [
    "Multi"
  ],
  "text_config": {
    "hidden_size": 64,
    "rope_parameters": {
      "rope_theta": 1e6
    },
    "torch_dtype": "bfloat16"
  },
  "torch_dtype": "float16",
  "vision_config": {}
}
"#;

#[test]
fn the_object_is_the_top_level_as_if_it_had_been_written_there() {
    let expected = r#"{
  "hidden_size": 64,
  "rope_parameters": {
    "rope_theta": 1e6
  },
  "torch_dtype": "bfloat16"
}
"#;
    assert_eq!(edited(NESTED, &[("promote", "text_config")]), expected);
    let inner = "{\n  \"rope_theta\": 1e6\n}\n";
    let path = [("promote", "text_config.rope_parameters")];
    assert_eq!(edited(NESTED, &path), inner);
    let twice = [("promote", "text_config"), ("promote", "rope_parameters")];
    assert_eq!(edited(NESTED, &twice), inner);
}

#[test]
fn keys_that_are_kept_stand_behind_or_replace_those_of_the_object() {
    let expected = r#"{
  "hidden_size": 64,
  "rope_parameters": {
    "rope_theta": 1e6
  },
  "torch_dtype": "float16",
  "architectures": [
    "Multi"
  ]
}
"#;
    for keep in [
        vec![("keep", "architectures,torch_dtype")],
        vec![("keep", "\"architectures\""), ("keep", " torch_dtype")],
    ] {
        let edits = [vec![("promote", "text_config")], keep].concat();
        assert_eq!(edited(NESTED, &edits), expected);
    }
}

#[test]
fn a_text_on_one_line_stays_on_one_and_other_files_have_top_levels_too() {
    let base = checkpoint(r#"{"a": {"b": [1, {"c": 2}]}, "d": 3}"#)
        .aux("x.json", "{\r\n\t\"y\": {\r\n\t\t\"z\": 1\r\n\t}\r\n}\r\n");
    let edits = [("promote", "a"), ("keep", "d"), ("promote", "x.json:y")];
    let plan = plan(&base, &edits).unwrap();
    assert_eq!(
        text(&plan, "config.json"),
        r#"{"b": [1, {"c": 2}], "d": 3}"#
    );
    assert_eq!(text(&plan, "x.json"), "{\r\n\t\"z\": 1\r\n}\r\n");
}
