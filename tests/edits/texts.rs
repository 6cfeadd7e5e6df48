//! What an edit makes of a text that has a manner of its own.

use crate::fixture::{checkpoint, edited, plan, text};

#[test]
fn a_value_takes_the_place_of_the_old_one_and_stands_as_it_was_typed() {
    let source = "{\n  \"a\": 1,\n  \"b\": {\"c\": [1, 2,  3]}\n}\n";
    for (edit, from, to) in [
        ("a=1e400", "\"a\": 1,", "\"a\": 1e400,"),
        ("b.c[1]={\"x\":  [ ]}", "1, 2,", "1, {\"x\":  [ ]},"),
        ("b= null ", "{\"c\": [1, 2,  3]}", "null"),
        (
            "config.json:a=\"é\\u00e9\"",
            "\"a\": 1",
            "\"a\": \"é\\u00e9\"",
        ),
        (
            "a=123456789012345678901234567890",
            "\"a\": 1",
            "\"a\": 123456789012345678901234567890",
        ),
    ] {
        let expected = source.replacen(from, to, 1);
        assert_eq!(edited(source, &[("set", edit)]), expected, "{edit}");
    }
}

#[test]
fn a_new_key_stands_last_in_the_manner_of_the_one_before() {
    for (source, edit, expected) in [
        (
            "{\n  \"a\": 1\n}\n",
            "zz=2",
            "{\n  \"a\": 1,\n  \"zz\": 2\n}\n",
        ),
        ("{\"a\":1}", "zz=2", "{\"a\":1,\"zz\":2}"),
        ("{\"a\": 1}", "zz=2", "{\"a\": 1, \"zz\": 2}"),
        (
            "{\"a\": 1, \"b\": 2}",
            "zz=2",
            "{\"a\": 1, \"b\": 2, \"zz\": 2}",
        ),
        ("{}", "zz=2", "{\"zz\": 2}"),
        (
            "{\r\n\t\"a\" : {\r\n\t}\r\n}\r\n",
            "a.zz=2",
            "{\r\n\t\"a\" : {\r\n\t\t\"zz\": 2\r\n\t}\r\n}\r\n",
        ),
        (
            "{\r\n    \"a\" : 1\r\n}",
            "zz=2",
            "{\r\n    \"a\" : 1,\r\n    \"zz\" : 2\r\n}",
        ),
        ("{\"a\": 1}", "\"x.y\"=2", "{\"a\": 1, \"x.y\": 2}"),
        ("{\"a\": 1}", "\"\\\"\"=2", "{\"a\": 1, \"\\\"\": 2}"),
    ] {
        assert_eq!(edited(source, &[("set", edit)]), expected, "{source}");
    }
}

#[test]
fn what_is_taken_away_takes_one_comma_with_it() {
    let source = "{\n  \"a\": 1,\n  \"b\": [10, 20, 30],\n  \"c\": {\"x\": 1}\n}\n";
    for (edit, from, to) in [
        ("a", "\"a\": 1,\n  ", ""),
        ("b", ",\n  \"b\": [10, 20, 30]", ""),
        ("c", ",\n  \"c\": {\"x\": 1}", ""),
        ("b[0]", "10, ", ""),
        ("b[2]", ", 30", ""),
        ("c.x", "{\"x\": 1}", "{}"),
    ] {
        let expected = source.replacen(from, to, 1);
        assert_eq!(edited(source, &[("unset", edit)]), expected, "{edit}");
    }
    let all = [("unset", "a"), ("unset", "b"), ("unset", "c")];
    assert_eq!(edited(source, &all), "{}\n");
}

#[test]
fn of_a_key_that_is_there_twice_the_last_counts_and_both_are_taken_away() {
    let source = r#"{"a": 1, "b": 0, "a": {"x": 2}}"#;
    let set = edited(source, &[("set", "a.x=3")]);
    assert_eq!(set, r#"{"a": 1, "b": 0, "a": {"x": 3}}"#);
    assert_eq!(edited(source, &[("unset", "a")]), r#"{"b": 0}"#);
}

#[test]
fn edits_are_made_in_their_order() {
    let source = r#"{"a": 1, "b": {"c": 2}}"#;
    let edits = [
        ("unset", "a"),
        ("set", "a={\"n\": 1}"),
        ("set", "a.m=2"),
        ("unset", "a.n"),
        ("unset", "b"),
    ];
    assert_eq!(edited(source, &edits), r#"{"a": {"m": 2}}"#);
    let twice = [("set", "a=2"), ("set", "a=3")];
    assert_eq!(edited(source, &twice), r#"{"a": 3, "b": {"c": 2}}"#);
}

#[test]
fn a_byte_order_mark_stays_where_it_is() {
    let source = "\u{feff}{\"model_type\": \"x\"}";
    let expected = "\u{feff}{\"model_type\": \"y\"}";
    assert_eq!(edited(source, &[("set", "model_type=\"y\"")]), expected);
}

#[test]
fn any_json_file_can_be_edited_wherever_it_is() {
    let base = checkpoint("{}")
        .aux("generation_config.json", "{\"top_p\": 1.0}")
        .aux("1_Pooling/config.json", "[1, {\"a\": 2}]")
        .aux("a:b.json", "{\"x\": 1}");
    let edits = [
        ("set", "generation_config.json:top_p=0.95"),
        ("set", "1_Pooling/config.json:[1].a=3"),
        ("unset", "1_Pooling/config.json:[0]"),
        ("set", "\"a:b.json\":x=2"),
    ];
    let plan = plan(&base, &edits).unwrap();
    assert_eq!(text(&plan, "generation_config.json"), "{\"top_p\": 0.95}");
    assert_eq!(text(&plan, "1_Pooling/config.json"), "[{\"a\": 3}]");
    assert_eq!(text(&plan, "a:b.json"), "{\"x\": 2}");
    assert_eq!(text(&plan, "config.json"), "{}");
    assert_eq!(plan.report.warnings, [""; 0]);
}
