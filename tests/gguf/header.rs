//! What is read is what is in the file, and what is written is byte for byte what the format says.

use ckptfs::format::Part;
use ckptfs::format::gguf::{
    Array, Header, Keys, NewTensor, TensorType, Value, ValueType, pack, read_header,
};

use crate::bytes::{Gguf, array, file, string, strings, text, value};
use crate::common::Workspace;

/// A key of every type, as bytes and as it should be read.
fn every_type() -> Vec<(&'static str, Vec<u8>, Value)> {
    let numbers = |id, bytes: &[u8]| value(id, bytes);
    let nine: Vec<u8> = (0..9)
        .flat_map(|i: i32| (i * -70_000).to_le_bytes())
        .collect();
    let floats = [0.5f32, -1.5, f32::MIN_POSITIVE];
    let float_bytes: Vec<u8> = floats.iter().flat_map(|f| f.to_le_bytes()).collect();
    let nine_numbers: Vec<i32> = (0..9).map(|i| i * -70_000).collect();
    let words = ["", "a", "ä\n", "<|end|>"];
    vec![
        ("u8", numbers(0, &[200]), Value::U8(200)),
        ("i8", numbers(1, &[0xFF]), Value::I8(-1)),
        ("u16", numbers(2, &[1, 2]), Value::U16(0x201)),
        ("i16", numbers(3, &[0xFE, 0xFF]), Value::I16(-2)),
        ("u32", numbers(4, &[1, 2, 3, 4]), Value::U32(0x0403_0201)),
        ("i32", numbers(5, &[0xFD, 0xFF, 0xFF, 0xFF]), Value::I32(-3)),
        ("f32", numbers(6, &1.25f32.to_le_bytes()), Value::F32(1.25)),
        ("yes", numbers(7, &[1]), Value::Bool(true)),
        ("no", numbers(7, &[0]), Value::Bool(false)),
        ("text", string("größer"), Value::String("größer".to_owned())),
        (
            "words",
            strings(&words),
            Value::Array(words.iter().collect()),
        ),
        (
            "numbers",
            array(5, 9, &nine),
            Value::Array(Array::from(&nine_numbers[..])),
        ),
        (
            "floats",
            array(6, 3, &float_bytes),
            Value::Array(Array::from(&floats[..])),
        ),
        (
            "none",
            array(8, 0, &[]),
            Value::Array([""; 0].iter().collect()),
        ),
        (
            "flags",
            array(7, 2, &[1, 0]),
            Value::Array(Array::from(&[true, false][..])),
        ),
        (
            "u64",
            numbers(10, &u64::MAX.to_le_bytes()),
            Value::U64(u64::MAX),
        ),
        (
            "i64",
            numbers(11, &i64::MIN.to_le_bytes()),
            Value::I64(i64::MIN),
        ),
        (
            "f64",
            numbers(12, &1e300f64.to_le_bytes()),
            Value::F64(1e300),
        ),
        ("", string(""), Value::String(String::new())),
    ]
}

fn with_every_type(version: u32) -> Gguf {
    let mut file = Gguf {
        version,
        ..Gguf::default()
    };
    for (key, bytes, _) in every_type() {
        file = file.key(key, bytes);
    }
    file.tensor("first", 0, &[3, 2], &[7; 24])
        .tensor("blk.0.second", 12, &[256, 3, 2], &[8; 144 * 6])
        .tensor("scalar", 30, &[], &[1, 2])
        .tensor("empty", 8, &[32, 0], &[])
        .tensor("last", 1, &[5], &[9; 10])
}

fn read(bytes: &[u8]) -> Header {
    let workspace = Workspace::new();
    read_header(&*file(workspace.path(), "model.gguf", bytes)).unwrap()
}

#[test]
fn values_of_all_types_and_tensors_are_read_as_they_are_in_versions_2_and_3() {
    for version in [2, 3] {
        let gguf = with_every_type(version);
        let header = read(&gguf.bytes());
        assert_eq!(header.version, version);
        let expected = every_type();
        assert_eq!(header.keys.len(), expected.len());
        for ((key, found), (name, _, value)) in header.keys.iter().zip(&expected) {
            assert_eq!((&**key, found), (*name, value));
        }
        let start = gguf.bytes().len() - gguf.data.len();
        assert_eq!(header.data_start, start as u64);
        let expected = [
            ("first", TensorType::F32, vec![2, 3], 0, 24),
            ("blk.0.second", TensorType::Q4_K, vec![2, 3, 256], 32, 864),
            ("scalar", TensorType::BF16, vec![], 896, 2),
            ("empty", TensorType::Q8_0, vec![0, 32], 928, 0),
            ("last", TensorType::F16, vec![5], 928, 10),
        ];
        assert_eq!(header.tensors.len(), expected.len());
        for ((name, found), (key, kind, shape, offset, len)) in header.tensors.iter().zip(expected)
        {
            assert_eq!((&**name, found.tensor_type), (key, kind));
            assert_eq!(*found.shape, *shape, "{key}");
            assert_eq!(
                (found.offset, found.len),
                (start as u64 + offset, len),
                "{key}"
            );
        }
    }
}

#[test]
fn what_is_written_is_the_same_file_byte_for_byte() {
    for alignment in [None, Some(8u32), Some(32), Some(256)] {
        let mut gguf = with_every_type(3);
        let mut keys: Keys = every_type()
            .into_iter()
            .map(|(k, _, v)| (k.to_owned(), v))
            .collect();
        if let Some(alignment) = alignment {
            gguf = Gguf {
                tensors: Vec::new(),
                data: Vec::new(),
                alignment: alignment as usize,
                ..gguf.key("general.alignment", crate::bytes::u32_value(alignment))
            };
            gguf = gguf
                .tensor("first", 0, &[3, 2], &[7; 24])
                .tensor("blk.0.second", 12, &[256, 3, 2], &[8; 144 * 6])
                .tensor("scalar", 30, &[], &[1, 2])
                .tensor("empty", 8, &[32, 0], &[])
                .tensor("last", 1, &[5], &[9; 10]);
            keys.insert("general.alignment".to_owned(), Value::U32(alignment));
        }
        let tensors = [
            ("first", TensorType::F32, &[2, 3][..]),
            ("blk.0.second", TensorType::Q4_K, &[2, 3, 256]),
            ("scalar", TensorType::BF16, &[]),
            ("empty", TensorType::Q8_0, &[0, 32]),
            ("last", TensorType::F16, &[5]),
        ];
        let data: [&[u8]; 5] = [&[7; 24], &[8; 864], &[1, 2], &[], &[9; 10]];
        let tensors = tensors.map(|(name, tensor_type, shape)| NewTensor {
            name,
            tensor_type,
            shape,
        });
        let mut written = Vec::new();
        for part in pack("model.gguf", &keys, &tensors).unwrap() {
            match part {
                Part::Made(bytes) => written.extend(bytes),
                Part::Tensor(position) => written.extend(data[position]),
            }
        }
        assert!(written == gguf.bytes(), "alignment {alignment:?}");
        assert_eq!(read(&written).keys, keys);
    }
}

#[test]
fn a_vocabulary_of_any_size_is_read_whatever_pieces_the_file_is_read_in() {
    // Some 3 MB: several pieces.
    let tokens: Vec<String> = (0..200_000).map(|i| format!("tok{i}\u{2581}")).collect();
    let scores: Vec<u8> = (0..200_000)
        .flat_map(|i| (i as f32).to_le_bytes())
        .collect();
    let long = "x".repeat(2_500_000);
    let gguf = Gguf::default()
        .key("scores", array(6, 200_000, &scores))
        .key("tokens", strings(&tokens))
        .key("long", string(&long))
        .key("again", array(6, 200_000, &scores))
        .tensor("t", 24, &[3], &[1, 2, 3]);
    let header = read(&gguf.bytes());
    let Some(Array::Strings(found)) = header.keys["tokens"].as_array() else {
        panic!("an array of strings");
    };
    assert_eq!(found.len(), tokens.len());
    assert!(found.iter().eq(tokens.iter().map(String::as_bytes)));
    assert_eq!(header.keys["long"].as_str(), Some(&*long));
    for key in ["scores", "again"] {
        let Some(Array::Numbers(found)) = header.keys[key].as_array() else {
            panic!("an array of numbers");
        };
        let expected = (0..200_000).map(|i| Value::F32(i as f32));
        assert!(found.values().eq(expected));
    }
    assert_eq!(header.tensors["t"].len, 3);
}

#[test]
fn strings_of_arrays_need_not_be_utf_8() {
    let gguf = Gguf::default().key("tokens", strings(&[&b"\xff\xfe"[..], b"ok"]));
    let header = read(&gguf.bytes());
    let tokens = header.keys["tokens"].as_array().unwrap();
    assert_eq!(tokens.element(), ValueType::String);
    let found: Vec<&[u8]> = tokens.strings().unwrap().iter().collect();
    assert_eq!(found, [&b"\xff\xfe"[..], b"ok"]);
    assert_eq!(text(b"ok").len(), 10);
}

#[test]
fn what_no_file_can_have_is_not_written() {
    let long = "n".repeat(64);
    let tensor = |name, shape| NewTensor {
        name,
        tensor_type: TensorType::Q8_0,
        shape,
    };
    let cases: [(NewTensor, &str); 4] = [
        (tensor(&long, &[32]), "63 bytes"),
        (tensor("five", &[1, 1, 1, 1, 32]), "4 dimensions"),
        (tensor("ragged", &[3, 33]), "[3, 33], which cannot be Q8_0"),
        (tensor("huge", &[u64::MAX, 64]), "cannot be Q8_0"),
    ];
    for (tensor, expected) in cases {
        let error = pack("model.gguf", &Keys::new(), &[tensor]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let keys: Keys = [("general.alignment".to_owned(), Value::U32(3))].into();
    let error = pack("model.gguf", &keys, &[]).unwrap_err();
    assert!(error.to_string().contains("power of two"), "{error}");
}
