//! Files that contradict themselves are errors that say where, and take no memory for what they claim.

use ckptfs::error::Code;
use ckptfs::format::gguf::read_header;

use crate::bytes::{Gguf, Info, array, file, string, text, u32_value, value};
use crate::common::Workspace;

fn plain() -> Gguf {
    Gguf::default()
        .key("general.architecture", string("llama"))
        .tensor("one", 0, &[8], &[0; 32])
        .tensor("two", 8, &[32, 2], &[0; 68])
}

fn refusal(gguf: &Gguf) -> (Code, String) {
    let workspace = Workspace::new();
    let blob = file(workspace.path(), "model.gguf", &gguf.bytes());
    let error = read_header(&*blob).expect_err("this is not valid");
    assert!(error.to_string().contains("model.gguf"), "{error}");
    (error.code(), error.to_string())
}

fn changed(change: impl FnOnce(&mut Gguf)) -> Gguf {
    let mut gguf = plain();
    change(&mut gguf);
    gguf
}

#[test]
fn every_contradiction_is_named() {
    let with = |key: &str, value| plain().key(key, value);
    let second = |change: fn(&mut Info)| changed(|gguf| change(&mut gguf.tensors[1]));
    let cases = [
        (
            changed(|g| g.magic = *b"GGML"),
            Code::BadHeader,
            "does not begin with GGUF",
        ),
        (changed(|g| g.version = 1), Code::BadHeader, "version is 1"),
        (changed(|g| g.version = 4), Code::BadHeader, "version is 4"),
        (
            changed(|g| g.version = 3 << 24),
            Code::BadHeader,
            "big-endian",
        ),
        (
            changed(|g| g.key_count = Some(u64::MAX)),
            Code::BadHeader,
            "keys, and only",
        ),
        (
            changed(|g| g.tensor_count = Some(1 << 40)),
            Code::BadHeader,
            "tensors, and only",
        ),
        (
            with("k", value(13, &[])),
            Code::BadHeader,
            "value of k is of the unknown type 13",
        ),
        (
            with("k", array(13, 0, &[])),
            Code::BadHeader,
            "value of k is of the unknown type 13",
        ),
        (
            with("k", array(9, 0, &[])),
            Code::BadHeader,
            "k is an array of arrays",
        ),
        (
            with("k", array(4, 1 << 61, &[])),
            Code::BadHeader,
            "elements of an array, and only",
        ),
        (
            with("k", array(8, 1 << 40, &[])),
            Code::BadHeader,
            "strings of an array, and only",
        ),
        (
            with("k", value(8, &u64::MAX.to_le_bytes())),
            Code::Truncated,
            "for a text at byte",
        ),
        (
            with("k", value(8, &text(&[0xFF]))),
            Code::BadHeader,
            "value of k is not valid UTF-8",
        ),
        (
            with("general.architecture", u32_value(1)),
            Code::BadHeader,
            "general.architecture is there twice",
        ),
        (
            with("general.alignment", u32_value(0)),
            Code::BadHeader,
            "power of two",
        ),
        (
            with("general.alignment", u32_value(48)),
            Code::BadHeader,
            "power of two",
        ),
        (
            with("general.alignment", value(10, &[32, 0, 0, 0, 0, 0, 0, 0])),
            Code::BadHeader,
            "power of two",
        ),
        (
            second(|info| info.name = b"one".to_vec()),
            Code::BadHeader,
            "twice",
        ),
        (
            second(|info| info.name = vec![b'n'; 64]),
            Code::BadHeader,
            "has 64 bytes",
        ),
        (
            second(|info| info.name = vec![0xC0]),
            Code::BadHeader,
            "not valid UTF-8",
        ),
        (
            second(|info| info.dimensions = vec![1; 5]),
            Code::BadHeader,
            "it has 5 dimensions",
        ),
        (
            second(|info| info.dimensions = vec![33, 2]),
            Code::BadHeader,
            "rows must be multiples of 32",
        ),
        (
            second(|info| info.dimensions = vec![1 << 40, 1 << 40]),
            Code::BadHeader,
            "less than 2^64",
        ),
        (
            second(|info| info.dimensions = vec![0, u64::MAX, u64::MAX]),
            Code::BadHeader,
            "less than 2^64",
        ),
        (
            second(|info| info.dimensions = vec![32, 1 << 50]),
            Code::Truncated,
            "its data ends at byte",
        ),
        (
            second(|info| info.id = 4),
            Code::BadHeader,
            "number 4, which is not known",
        ),
        (
            second(|info| info.offset = 0),
            Code::BadHeader,
            "overlaps the one before",
        ),
        (
            second(|info| info.offset = 31),
            Code::BadHeader,
            "overlaps the one before",
        ),
        (
            second(|info| info.offset = 64),
            Code::BadHeader,
            "a hole before it",
        ),
        (
            second(|info| info.offset = u64::MAX - 31),
            Code::BadHeader,
            "a hole before it",
        ),
        (
            changed(|g| g.data.truncate(99)),
            Code::Truncated,
            "its data ends at byte",
        ),
    ];
    for (gguf, code, expected) in cases {
        let (found, message) = refusal(&gguf);
        assert!(message.contains(expected), "{expected}: {message}");
        assert_eq!(found, code, "{message}");
    }
}

#[test]
fn a_file_that_ends_anywhere_is_an_error_and_one_that_lacks_padding_is_not() {
    let workspace = Workspace::new();
    let whole = plain().bytes();
    let data_end = whole.len() - 28;
    for len in 0..whole.len() {
        let name = format!("{len}.gguf");
        let read = read_header(&*file(workspace.path(), &name, &whole[..len]));
        assert_eq!(read.is_ok(), len >= data_end, "{len} bytes: {read:?}");
    }
}
