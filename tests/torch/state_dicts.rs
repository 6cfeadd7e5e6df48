//! What was saved, and what of it is the model.

use crate::common::assert_names;
use crate::common::readback::tensors;
use crate::file::{FORMS, File, Form, Storage, plan_of, refused};
use crate::pickle::{Py, call, dict, global, int, ordered_dict, text};

fn file() -> File {
    File::new(Form::Zip, [Storage::floats(6), Storage::floats(4)])
}

fn names(bytes: &[u8]) -> Vec<String> {
    let (_workspace, plan) = plan_of(bytes).unwrap();
    tensors(&plan).into_keys().collect()
}

#[test]
fn tensors_that_are_runs_of_a_storage_are_bytes_of_the_file() {
    for form in FORMS {
        let file = File::new(form, [Storage::floats(6)]);
        let root = ordered_dict([("w", file.view(0, 2, &[2, 2], &[2, 1]))]);
        let (_workspace, plan) = plan_of(&file.bytes(&root)).unwrap();
        let planned = &plan.shards[0].tensors[0];
        let (blob, offset) = planned.extents.as_stored().expect("a range of a file");
        let mut bytes = vec![0; planned.len as usize];
        blob.read_at(&mut bytes, offset).unwrap();
        assert_eq!(bytes, file.storages[0].data[8..24]);
        assert_eq!(&*tensors(&plan)["w"].bytes, bytes);
    }
}

#[test]
fn two_names_of_one_tensor_are_both_shown_and_that_is_said() {
    let file = file();
    let tied = [
        ("embed", file.whole(0)),
        ("head", file.whole(0)),
        ("other", file.whole(1)),
    ];
    let (_workspace, plan) = plan_of(&file.bytes(&ordered_dict(tied))).unwrap();
    let found = tensors(&plan);
    assert_eq!(found["embed"].bytes, found["head"].bytes);
    assert_eq!(&*found["embed"].bytes, file.storages[0].data);
    assert_names(&plan.report.notes.join("\n"), &["head is embed", "both"]);
}

#[test]
fn the_state_dict_in_a_training_checkpoint_is_found_and_the_rest_is_left_out_by_name() {
    for wrapper in ["state_dict", "model", "module", "model_state_dict"] {
        let file = file();
        let root = dict([
            ("epoch", int(3)),
            ("args", call("argparse", "Namespace", Vec::new())),
            ("optimizer", dict([("momentum", file.whole(1))])),
            (wrapper, ordered_dict([("w", file.whole(0))])),
        ]);
        let (_workspace, plan) = plan_of(&file.bytes(&root)).unwrap();
        assert_eq!(tensors(&plan).into_keys().collect::<Vec<_>>(), ["w"]);
        assert_names(
            &plan.report.notes.join("\n"),
            &[wrapper, "pytorch_model.bin"],
        );
        let left_out = plan.report.sources[0].left_out.join("\n");
        assert_names(&left_out, &["epoch", "argparse.Namespace", "optimizer"]);
    }
}

#[test]
fn a_state_dict_two_levels_deep_is_found() {
    let file = file();
    let inner = dict([("state_dict", ordered_dict([("w", file.whole(0))]))]);
    assert_eq!(names(&file.bytes(&dict([("model", inner)]))), ["w"]);
}

#[test]
fn several_state_dicts_are_an_error_that_names_them() {
    let file = file();
    let one = ordered_dict([("w", file.whole(0))]);
    let root = dict([("model", one.clone()), ("state_dict", one)]);
    let error = refused(&file.bytes(&root)).to_string();
    assert_names(&error, &["model", "state_dict", "not clear"]);
}

#[test]
fn what_is_no_dictionary_of_tensors_is_refused_with_what_it_is() {
    let file = file();
    let module = call("torch.nn.modules.linear", "Linear", Vec::new());
    for (root, words) in [
        (Py::List(vec![file.whole(0)]), "a list"),
        (file.whole(0), "_rebuild_tensor_v2"),
        (Py::Int(7), "an int"),
        (dict([("params", dict([("w", file.whole(0))]))]), "params"),
        (dict([("epoch", int(1))]), "epoch"),
        (dict([]), "dictionary"),
        (module, "torch.nn.modules.linear.Linear"),
    ] {
        assert_names(
            &refused(&file.bytes(&root)).to_string(),
            &["pytorch_model.bin", words],
        );
    }
}

#[test]
fn prefixes_that_wrappers_put_before_all_names_are_taken_off_in_any_order() {
    for prefix in [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.module.",
    ] {
        let file = file();
        let all = [format!("{prefix}a.module.weight"), format!("{prefix}b")];
        let root = ordered_dict([(&*all[0], file.whole(0)), (&*all[1], file.whole(1))]);
        let (_workspace, plan) = plan_of(&file.bytes(&root)).unwrap();
        let found: Vec<String> = tensors(&plan).into_keys().collect();
        assert_eq!(found, ["a.module.weight", "b"]);
        assert_names(&plan.report.notes.join("\n"), &[prefix]);
    }
}

#[test]
fn a_prefix_that_one_name_lacks_stays() {
    let file = file();
    let root = ordered_dict([("module.a", file.whole(0)), ("b", file.whole(1))]);
    assert_eq!(names(&file.bytes(&root)), ["b", "module.a"]);
    // Nothing would be left of the name.
    let root = ordered_dict([("module.", file.whole(0)), ("module.b", file.whole(1))]);
    assert_eq!(names(&file.bytes(&root)), ["module.", "module.b"]);
}

#[test]
fn the_last_value_of_a_key_counts() {
    let file = file();
    let root = ordered_dict([("w", file.whole(0)), ("w", file.whole(1))]);
    let (_workspace, plan) = plan_of(&file.bytes(&root)).unwrap();
    assert_eq!(&*tensors(&plan)["w"].bytes, file.storages[1].data);
}

#[test]
fn entries_that_are_no_tensors_do_no_harm() {
    let mut file = file();
    file.protocol = 4;
    let dtype = call("numpy", "dtype", vec![text("f8")]);
    let scalar = call(
        "numpy.core.multiarray",
        "scalar",
        vec![dtype, Py::Bytes(vec![0; 8])],
    );
    let root = ordered_dict([
        ("w", file.whole(0)),
        ("_extra_state", Py::None),
        ("scalar", scalar),
        ("callable", global("os", "system")),
        (
            "called",
            call("os", "system", vec![text("touch /tmp/never")]),
        ),
        ("float", Py::Float(0.5)),
    ]);
    let (_workspace, plan) = plan_of(&file.bytes(&root)).unwrap();
    assert_eq!(tensors(&plan).len(), 1);
    let left_out = plan.report.sources[0].left_out.join("\n");
    let all = [
        "_extra_state (None)",
        "scalar",
        "callable",
        "os.system",
        "float (a float)",
    ];
    assert_names(&left_out, &all);
}

#[test]
fn parameters_and_tensors_with_attributes_are_the_tensors_in_them() {
    let file = file();
    let hooks = || call("collections", "OrderedDict", Vec::new());
    let parameter = |data| {
        call(
            "torch._utils",
            "_rebuild_parameter",
            vec![data, Py::Bool(true), hooks()],
        )
    };
    let with_state = call(
        "torch._utils",
        "_rebuild_parameter_with_state",
        vec![
            file.whole(0),
            Py::Bool(true),
            hooks(),
            dict([("tag", int(1))]),
        ],
    );
    let Py::Call(function, arguments) = file.whole(1) else {
        unreachable!("a tensor is what a call gives");
    };
    let class = global("torch.nn.parameter", "Parameter");
    let typed = vec![*function, class, *arguments, dict([("tag", int(1))])];
    let root = ordered_dict([
        ("p", parameter(file.whole(0))),
        ("s", with_state),
        ("t", call("torch._tensor", "_rebuild_from_type_v2", typed)),
        ("pp", parameter(parameter(file.whole(1)))),
    ]);
    let (_workspace, plan) = plan_of(&file.bytes(&root)).unwrap();
    let found = tensors(&plan);
    for (name, storage) in [("p", 0), ("s", 0), ("t", 1), ("pp", 1)] {
        assert_eq!(&*found[name].bytes, file.storages[storage].data, "{name}");
    }
}

#[test]
fn a_tensor_of_the_oldest_kind_has_four_arguments() {
    let file = file();
    let Py::Call(_, arguments) = file.whole(0) else {
        unreachable!("a tensor is what a call gives");
    };
    let Py::Tuple(mut arguments) = *arguments else {
        unreachable!("with a tuple");
    };
    arguments.truncate(4);
    let root = dict([("w", call("torch._utils", "_rebuild_tensor", arguments))]);
    assert_eq!(names(&file.bytes(&root)), ["w"]);
}

#[test]
fn dtypes_without_a_storage_of_their_own_are_views_of_bytes() {
    let known = [
        ("float8_e4m3fn", "F8_E4M3", 1),
        ("float8_e5m2", "F8_E5M2", 1),
        ("float8_e8m0fnu", "F8_E8M0", 1),
        ("float8_e4m3fnuz", "F8_E4M3FNUZ", 1),
        ("float8_e5m2fnuz", "F8_E5M2FNUZ", 1),
        ("uint16", "U16", 2),
        ("uint32", "U32", 4),
        ("uint64", "U64", 8),
    ];
    for (name, dtype, width) in known {
        let bytes = Storage {
            class: "UntypedStorage",
            width: 1,
            data: (0..48).collect(),
        };
        let file = File::new(Form::Zip, [bytes]);
        let hooks = call("collections", "OrderedDict", Vec::new());
        let arguments = vec![
            file.storage(0),
            int(1),
            crate::pickle::ints(&[2, 2]),
            crate::pickle::ints(&[1, 2]),
            Py::Bool(false),
            hooks,
            global("torch", name),
        ];
        let root = dict([("w", call("torch._utils", "_rebuild_tensor_v3", arguments))]);
        let (_workspace, plan) = plan_of(&file.bytes(&root)).unwrap();
        let found = &tensors(&plan)["w"];
        assert_eq!(format!("{:?}", found.dtype), dtype);
        let elements = [1, 3, 2, 4].iter();
        let expected =
            elements.flat_map(|at| file.storages[0].data[at * width..(at + 1) * width].to_vec());
        assert_eq!(&*found.bytes, expected.collect::<Vec<u8>>());
    }
}
