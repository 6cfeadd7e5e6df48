//! Pickles that no writer makes: each is refused, in little time and memory, and nothing in it is run.

use std::path::Path;

use ckptfs::error::Code;

use crate::common::assert_names;
use crate::common::readback::tensors;
use crate::file::{File, Form, Storage, plan_of, refused};
use crate::pickle::{Py, dump, ordered_dict};

fn file() -> File {
    File::new(Form::Zip, [Storage::floats(6)])
}

/// The file whose pickle has these bytes.
fn with_pickle(pickle: impl Into<Vec<u8>>) -> Vec<u8> {
    let mut zip = file().zip(&Py::None);
    zip.get("archive/data.pkl").data = pickle.into();
    zip.bytes()
}

/// The pickle of a good model, with `noise` before it, which must leave the stack as it was.
fn model_after(noise: &[u8]) -> Vec<u8> {
    let model = dump(&ordered_dict([("w", file().whole(0))]), 2);
    let mut pickle = model[..2].to_vec();
    pickle.extend(noise);
    pickle.extend(&model[2..]);
    pickle
}

fn assert_shown(pickle: impl Into<Vec<u8>>) {
    let (_workspace, plan) = plan_of(&with_pickle(pickle)).unwrap();
    assert_eq!(&*tensors(&plan)["w"].bytes, file().storages[0].data);
}

#[test]
fn a_pickle_that_breaks_the_rules_is_refused_at_its_byte() {
    for (pickle, words) in [
        (&b"\x80\x06N."[..], "protocol 6"),
        (b".", "empty"),
        (b"0.", "no mark"),
        (b"t.", "no mark"),
        (b"N(.", "empty"),
        (b"N(R.", "empty"),
        (b"NR.", "empty"),
        (b"\x87.", "empty"),
        (b"2.", "empty"),
        (b"h\x07.", "no such place"),
        (b"g12\n.", "no such place"),
        (b"gx\n.", "no such place"),
        (b"g-1\n.", "no such place"),
        (b"q\x01.", "empty"),
        (b"NNs.", "empty"),
        (b"NNNs.", "not a dictionary"),
        (b"}(Nu.", "no value"),
        (b"N(Ne.", "not a list"),
        (b"NN\x93.", "not text"),
        (b"(o.", "no class"),
        (b"\x82\x01.", "registry"),
        (b"\x97.", "buffer"),
        (b"\xff.", "0xff"),
        (b"Iabc\n.", "number"),
        (b"I\n.", "number"),
        (b"X\xff\xff\xff\xff.", "bytes end"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "bytes end"),
        (b"\x8b\xff\xff\xff\x7f.", "bytes end"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "bytes end"),
        (b"C\xffabc.", "bytes end"),
        (b"cabc", "bytes end"),
        (b"", "bytes end"),
    ] {
        let error = refused(&with_pickle(pickle));
        assert_eq!(error.code(), Code::BadTorchFile, "{pickle:?}: {error}");
        assert_names(&error.to_string(), &["pytorch_model.bin", "pickle", words]);
    }
}

#[test]
fn every_opcode_that_only_moves_values_does_no_harm() {
    for noise in [
        &b"N0"[..],
        b"(NNN1",
        b"(0",
        b"N200",
        b"I01\n0I00\n0I-5\n0L12L\n0L99999999999999999999999999999999999999999L\n0",
        b"F1.5e3\n0G\0\0\0\0\0\0\0\x000",
        b"S'a\\'b'\n0S\"x\"\n0V\\u00e9\\U0001f600\n0V\\uzzzz\n0",
        b"T\x01\0\0\0a0U\x01a0X\x01\0\0\0a0\x8c\x01a0\x8d\x01\0\0\0\0\0\0\0a0U\x01\xff0",
        b"B\x01\0\0\0a0C\x01a0\x8e\x01\0\0\0\0\0\0\0a0\x96\x01\0\0\0\0\0\0\0a0",
        b"\x8a\x00\x30\x8a\x01\xff0\x8a\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0\x8b\x01\0\0\0a0",
        b"](NNe(Nla0N\x850NN\x860NNN\x870)0}(NNu0}NNs0(NNd0(l0",
        b"\x8f(NN\x900(N\x910",
        b"cos\nsystem\n)R0\x8c\x02os\x8c\x06system\x93)\x810\x8c\x01a\x8c\x01b\x93)}\x920",
        b"(ios\nsystem\n0(cos\nsystem\nNo0cos\nsystem\n)R}b0",
        b"Pname\n0NQ0",
        b"Np5\n0g5\n0Nq\x010h\x010Nr\0\0\x01\x000j\0\0\x01\x000N\x940",
        b"\x95\0\0\0\0\0\0\0\0",
        b"]2a0",
        b"}q\x01h\x01h\x01s0",
    ] {
        assert_shown(model_after(noise));
    }
}

#[test]
fn nothing_is_run() {
    let marker = Path::new("/tmp/ckptfs-pickle-was-run");
    let _ = std::fs::remove_file(marker);
    let noise = format!(
        "cos\nsystem\n(X\x1e\0\0\0touch {}tR0",
        &marker.display().to_string()[..24]
    );
    assert_shown(model_after(noise.as_bytes()));
    assert!(!marker.exists());
}

#[test]
fn depth_takes_no_stack() {
    const DEPTH: usize = 1_000_000;
    let tuples = [b")".to_vec(), b"\x85".repeat(DEPTH), b"0".to_vec()].concat();
    assert_shown(model_after(&tuples));
    let lists = [b"]".repeat(DEPTH), b"a".repeat(DEPTH - 1), b"0".to_vec()].concat();
    assert_shown(model_after(&lists));
    let marks = [b"(".repeat(DEPTH), b"1".repeat(DEPTH)].concat();
    assert_shown(model_after(&marks));
    let calls = [b"N".to_vec(), b")R".repeat(DEPTH), b"0".to_vec()].concat();
    assert_shown(model_after(&calls));
    // What is no dictionary may be as deep.
    let root = [b")".to_vec(), b"\x85".repeat(DEPTH), b".".to_vec()].concat();
    assert_names(&refused(&with_pickle(root)).to_string(), &["a tuple"]);
}

#[test]
fn sharing_takes_no_time() {
    // Each level holds the one before twice: 2^60 leaves.
    let mut bomb = b"]q\x00".to_vec();
    for level in 0..60u8 {
        bomb.extend([b']', b'(', b'h', level, b'h', level, b'e', b'q', level + 1]);
    }
    bomb.extend(b"0".repeat(61));
    assert_shown(model_after(&bomb));
    // A dictionary that is its own model, and its own state dict.
    let circle = b"}q\x01(X\x05\0\0\0modelh\x01X\x0a\0\0\0state_dicth\x01X\x06\0\0\0moduleh\x01u.";
    refused(&with_pickle(&circle[..]));
    // A hundred thousand entries that are one tuple of a hundred thousand.
    let mut wide = b"(".to_vec();
    wide.extend(b"N".repeat(100_000));
    wide.extend(b"tq\x010");
    let mut root = b"}(".to_vec();
    for i in 0..100_000u32 {
        root.extend(b"J");
        root.extend(i.to_le_bytes());
        root.extend(b"h\x01");
    }
    wide.extend(root);
    wide.extend(b"u.");
    refused(&with_pickle(wide));
}

#[test]
fn more_values_than_any_checkpoint_has_are_refused() {
    for byte in [b"N", b"]", b"}", b"("] {
        let error = refused(&with_pickle(byte.repeat(5 << 20)));
        assert_eq!(error.code(), Code::OverLimit, "{error}");
    }
    let doubled = [b"N".to_vec(), b"2".repeat(5 << 20)].concat();
    assert_eq!(refused(&with_pickle(doubled)).code(), Code::OverLimit);
}

#[test]
fn a_long_text_is_passed_over() {
    let mut noise = b"X".to_vec();
    noise.extend((1u32 << 20).to_le_bytes());
    noise.extend(b"a".repeat(1 << 20));
    noise.extend(b"0V");
    noise.extend(b"b".repeat(1 << 18));
    noise.extend(b"\n0L");
    noise.extend(b"9".repeat(1 << 18));
    noise.extend(b"L\n0");
    assert_shown(model_after(&noise));
}
