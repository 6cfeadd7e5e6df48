//! What a tensor may be that no safetensors file can hold, and what contradicts itself.

use ckptfs::error::Code;

use crate::common::assert_names;
use crate::file::{FORMS, File, Form, Storage, plan_of, refused};
use crate::pickle::{Py, call, dict, global, int, ints, ordered_dict, text};

fn file() -> File {
    File::new(Form::Zip, [Storage::floats(6)])
}

fn refused_value(value: Py) -> ckptfs::Error {
    let file = file();
    refused(&file.bytes(&ordered_dict([
        ("good", file.whole(0)),
        ("bad.weight", value),
    ])))
}

#[test]
fn kinds_of_tensors_that_safetensors_have_not_are_refused_by_name() {
    let subclass = vec![
        global("torch._utils", "_rebuild_tensor_v2"),
        global("torchao.dtypes", "AffineQuantizedTensor"),
        Py::Tuple(Vec::new()),
        Py::None,
    ];
    for (value, words) in [
        (
            call("torch._utils", "_rebuild_sparse_tensor", vec![]),
            "sparse",
        ),
        (
            call("torch._utils", "_rebuild_sparse_csr_tensor", vec![]),
            "sparse",
        ),
        (
            call("torch._utils", "_rebuild_qtensor", vec![]),
            "quantized",
        ),
        (
            call("torch._utils", "_rebuild_nested_tensor", vec![]),
            "nested",
        ),
        (
            call("torch._utils", "_rebuild_meta_tensor_no_storage", vec![]),
            "meta",
        ),
        (
            call("torch._utils", "_rebuild_wrapper_subclass", vec![]),
            "subclass",
        ),
        (
            call("torch._utils", "_rebuild_something_new", vec![]),
            "_rebuild_something_new",
        ),
        (
            call("torch._tensor", "_rebuild_from_type_v2", subclass),
            "AffineQuantizedTensor",
        ),
        (call("torch.storage", "_load_from_bytes", vec![]), "storage"),
        (
            call("torch.nn.parameter", "Parameter", vec![]),
            "pickled by other means",
        ),
    ] {
        let error = refused_value(value);
        assert_eq!(error.code(), Code::UnsupportedTorch, "{error}");
        assert_names(
            &error.to_string(),
            &["pytorch_model.bin", "bad.weight", words],
        );
    }
}

#[test]
fn elements_that_safetensors_have_not_are_refused_by_name() {
    for (class, width) in [
        ("ComplexFloatStorage", 8),
        ("QInt8Storage", 1),
        ("SomeStorage", 1),
    ] {
        for form in FORMS {
            let odd = Storage {
                class,
                width,
                data: vec![0; 16],
            };
            let file = File::new(form, [Storage::floats(3), odd]);
            let root = ordered_dict([("good", file.whole(0)), ("bad", file.whole(1))]);
            let error = refused(&file.bytes(&root));
            assert_eq!(error.code(), Code::UnsupportedTorch, "{error}");
            assert_names(&error.to_string(), &[class]);
        }
    }
}

#[test]
fn elements_that_safetensors_have_not_do_no_harm_beside_the_model() {
    for form in FORMS {
        let odd = Storage {
            class: "ComplexFloatStorage",
            width: 8,
            data: vec![0; 16],
        };
        let file = File::new(form, [odd, Storage::floats(3)]);
        let root = dict([
            ("model", ordered_dict([("w", file.whole(1))])),
            ("other", file.whole(0)),
        ]);
        plan_of(&file.bytes(&root)).unwrap();
    }
}

#[test]
fn negated_and_conjugated_views_are_refused() {
    for mark in ["neg", "conj"] {
        let file = file();
        let Py::Call(function, arguments) = file.whole(0) else {
            unreachable!("a tensor is what a call gives");
        };
        let Py::Tuple(mut arguments) = *arguments else {
            unreachable!("with a tuple");
        };
        arguments.push(dict([(mark, Py::Bool(true))]));
        let error = refused_value(Py::Call(function, Box::new(Py::Tuple(arguments))));
        assert_names(&error.to_string(), &["bad.weight", "negated"]);
    }
}

#[test]
fn a_tensor_that_is_not_inside_of_its_storage_is_refused() {
    let max = u64::MAX;
    for (offset, shape, strides) in [
        (0, vec![7], vec![1]),
        (1, vec![6], vec![1]),
        (7, vec![0], vec![1]),
        (0, vec![2, 3], vec![4, 1]),
        (0, vec![1 << 63], vec![1]),
        (0, vec![max], vec![0]),
        (max, vec![1], vec![1]),
        (0, vec![2], vec![max]),
        (0, vec![1 << 32, 1 << 32], vec![0, 0]),
        (0, vec![1 << 61, 0], vec![1, 1]),
        (1 << 62, vec![1], vec![1]),
    ] {
        for form in FORMS {
            let file = File::new(form, [Storage::floats(6)]);
            let root = ordered_dict([("bad", file.view(0, offset, &shape, &strides))]);
            if (&shape[..], offset) == (&[1 << 61, 0], 0) {
                // No bytes at all: as many as are there.
                continue;
            }
            let error = refused(&file.bytes(&root));
            assert_eq!(error.code(), Code::BadTorchFile, "{error}");
            assert_names(&error.to_string(), &["tensor bad", "shape"]);
        }
    }
}

#[test]
fn a_small_storage_that_is_repeated_without_end_is_refused() {
    let file = file();
    let root = ordered_dict([("bad", file.view(0, 0, &[1 << 40], &[0]))]);
    let error = refused(&file.bytes(&root));
    assert_eq!(error.code(), Code::OverLimit, "{error}");
    assert_names(&error.to_string(), &["tensor bad", "repeats"]);
}

#[test]
fn descriptions_that_torch_would_not_write_are_refused() {
    let good = file();
    let storage = || good.storage(0);
    let shape = || ints(&[2]);
    let v2 = |arguments| call("torch._utils", "_rebuild_tensor_v2", arguments);
    let rest = || [Py::Bool(false), Py::None];
    let with = |storage, offset, shape, strides| {
        let mut arguments = vec![storage, offset, shape, strides];
        arguments.extend(rest());
        v2(arguments)
    };
    let id = |id: Vec<Py>| Py::Persistent(Box::new(Py::Tuple(id)));
    let float = || global("torch", "FloatStorage");
    let named = |key: &str, len| id(vec![text("storage"), float(), text(key), text("cpu"), len]);
    for value in [
        v2(vec![]),
        v2(vec![storage(), int(0)]),
        with(storage(), Py::Int(-1), shape(), shape()),
        with(storage(), int(0), Py::Tuple(vec![Py::Int(-2)]), shape()),
        with(storage(), int(0), shape(), ints(&[1, 1])),
        with(storage(), int(0), text("2"), shape()),
        with(storage(), int(0), ints(&[1; 65]), ints(&[1; 65])),
        with(Py::None, int(0), shape(), shape()),
        with(
            Py::Persistent(Box::new(text("0"))),
            int(0),
            shape(),
            shape(),
        ),
        with(named("0", Py::Int(-6)), int(0), shape(), shape()),
        with(named("0", Py::Int(1 << 70)), int(0), shape(), shape()),
        with(named("0", int(5)), int(0), shape(), shape()),
        with(named("0", int(1 << 62)), int(0), shape(), shape()),
        with(named("9", int(6)), int(0), shape(), shape()),
        with(named("../data.pkl", int(6)), int(0), shape(), shape()),
        with(named(&"0".repeat(1000), int(6)), int(0), shape(), shape()),
        call("torch._utils", "_rebuild_parameter", vec![]),
    ] {
        let error = refused_value(value);
        assert_eq!(error.code(), Code::BadTorchFile, "{error}");
        assert_names(&error.to_string(), &["pytorch_model.bin"]);
    }
}

#[test]
fn a_tensor_inside_of_itself_is_refused() {
    // _rebuild_parameter(itself): the memo makes the circle.
    let mut pickle = b"\x80\x02}X\x01\0\0\0w".to_vec();
    pickle.extend(b"ctorch._utils\n_rebuild_parameter\n](q\x01h\x01etRs.");
    let mut zip = file().zip(&Py::None);
    zip.get("archive/data.pkl").data = pickle;
    refused(&zip.bytes());
    // So deep that no model has it.
    let file = file();
    let wrap = |data| call("torch._utils", "_rebuild_parameter", vec![data]);
    let deep = (0..100).fold(file.whole(0), |data, _| wrap(data));
    let error = refused_value(deep);
    assert_names(&error.to_string(), &["bad.weight", "deep"]);
}

#[test]
fn a_name_that_no_tensor_can_have_is_refused() {
    let file = file();
    let error = refused(&file.bytes(&ordered_dict([("__metadata__", file.whole(0))])));
    assert_eq!(error.code(), Code::BadName);
    let long = "n".repeat(1025);
    let error = refused(&file.bytes(&ordered_dict([(&*long, file.whole(0))])));
    assert_eq!(error.code(), Code::OverLimit);
}

#[test]
fn names_in_a_file_cannot_have_a_terminal_obey_them() {
    const HOSTILE: &str = "a\u{1b}[2J\nFORGED: all is well\u{202e}";
    let id = |class: &str, key: &str| {
        let id = vec![
            text("storage"),
            global("torch", class),
            text(key),
            text("cpu"),
            int(6),
        ];
        Py::Persistent(Box::new(Py::Tuple(id)))
    };
    let of = |storage| {
        let arguments = vec![
            storage,
            int(0),
            ints(&[6]),
            ints(&[1]),
            Py::Bool(false),
            Py::None,
        ];
        call("torch._utils", "_rebuild_tensor_v2", arguments)
    };
    let class = vec![
        global("torch._utils", "_rebuild_tensor_v2"),
        Py::Global("m".to_owned(), HOSTILE.replace('\n', "")),
        Py::Tuple(Vec::new()),
        Py::None,
    ];
    for form in FORMS {
        let mut file = File::new(form, [Storage::floats(6)]);
        // The names of classes are texts only in protocol 4.
        file.protocol = 4;
        for root in [
            dict([("w", of(id(HOSTILE, "0")))]),
            dict([("w", of(id("FloatStorage", HOSTILE)))]),
            dict([(
                "w",
                call("torch._tensor", "_rebuild_from_type_v2", class.clone()),
            )]),
            dict([(
                "w",
                call("torch._utils", &format!("_rebuild_{HOSTILE}"), vec![]),
            )]),
            dict([(HOSTILE, call("torch._utils", "_rebuild_qtensor", vec![]))]),
            dict([(HOSTILE, int(1))]),
            call(HOSTILE, HOSTILE, vec![]),
        ] {
            let error = refused(&file.bytes(&root)).to_string();
            assert!(
                !error.contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{error:?}"
            );
        }
    }
}

#[test]
fn big_endian_files_are_refused() {
    let file = file();
    let root = ordered_dict([("w", file.whole(0))]);
    let mut zip = file.zip(&root);
    zip.get("archive/byteorder").data = b"big".to_vec();
    let legacy = File::new(Form::Legacy, file.storages.clone());
    let root = ordered_dict([("w", legacy.whole(0))]);
    for bytes in [zip.bytes(), legacy.legacy(&root, false)] {
        let error = refused(&bytes);
        assert_eq!(error.code(), Code::UnsupportedTorch);
        assert_names(&error.to_string(), &["big-endian"]);
    }
    // Before there was such an entry, all were little-endian.
    zip.entries
        .retain(|entry| entry.name != "archive/byteorder");
    plan_of(&zip.bytes()).unwrap();
}

#[test]
fn torchscript_is_refused() {
    let file = file();
    let zip = file.zip(&ordered_dict([("w", file.whole(0))]));
    for entry in ["archive/constants.pkl", "archive/code/__torch__.py"] {
        let error = refused(&zip.clone().entry(entry, "").bytes());
        assert_eq!(error.code(), Code::UnsupportedTorch);
        assert_names(&error.to_string(), &["TorchScript"]);
    }
}
