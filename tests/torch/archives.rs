//! Zip archives: all that torch and other writers make of them, and every lie that one can tell.

use ckptfs::error::Code;

use crate::common::assert_names;
use crate::common::readback::tensors;
use crate::file::{File, Form, Storage, plan_of, refused};
use crate::pickle::{Py, ordered_dict};
use crate::zip::{Entry, Zip};

const DATA: &str = "archive/data/0";

fn file() -> File {
    File::new(Form::Zip, [Storage::floats(6), Storage::floats(4)])
}

fn root(file: &File) -> Py {
    ordered_dict([("a", file.whole(0)), ("b", file.whole(1))])
}

fn archive() -> Zip {
    let file = file();
    file.zip(&root(&file))
}

fn assert_shown(zip: &Zip) {
    let (_workspace, plan) = plan_of(&zip.bytes()).unwrap();
    let found = tensors(&plan);
    assert_eq!(&*found["a"].bytes, file().storages[0].data);
    assert_eq!(&*found["b"].bytes, file().storages[1].data);
}

#[test]
fn forms_that_writers_give_an_archive_are_all_read() {
    assert_shown(&archive());
    let each = |change: fn(&mut Entry)| {
        let mut zip = archive();
        zip.entries.iter_mut().for_each(change);
        zip
    };
    assert_shown(&each(|entry| entry.padding = 57));
    assert_shown(&each(|entry| entry.large = true));
    assert_shown(&each(|entry| {
        entry.descriptor = Some(entry.data.len() as u64)
    }));
    assert_shown(&each(|entry| {
        entry.descriptor = Some(entry.data.len() as u64);
        entry.large = true;
    }));
    let large = Zip {
        large: true,
        ..archive()
    };
    assert_shown(&large);
    let commented = Zip {
        comment: "PK\x05\x06 is not where it ends".to_owned(),
        ..archive()
    };
    assert_shown(&commented);
    let mut renamed = archive();
    for entry in &mut renamed.entries {
        entry.name = entry.name.replace("archive/", "pytorch_model/");
    }
    assert_shown(&renamed);
    // Entries that nobody asks for may be anything.
    let mut other = archive().entry("archive/extra/notes", "x");
    other.get("archive/extra/notes").method = 8;
    assert_shown(&other);
}

#[test]
fn what_one_entry_says_of_itself_is_held_against_what_is_there() {
    let lie = |change: fn(&mut Entry)| {
        let mut zip = archive();
        change(zip.get(DATA));
        zip
    };
    // To within the bytes of the last entry, which nobody asks for.
    let mut elsewhere = archive();
    elsewhere.get("archive/version").data = vec![0; 100];
    let lens = elsewhere
        .entries
        .iter()
        .map(|entry| 30 + entry.name.len() + entry.data.len());
    let end: usize = lens.sum();
    elsewhere.get(DATA).header = Some(end as u64 - 50);
    for (zip, words) in [
        (lie(|entry| entry.len = Some(20)), "how long"),
        (lie(|entry| entry.len = Some(25)), "reaches into"),
        (lie(|entry| entry.len = Some(1 << 20)), "reaches into"),
        (lie(|entry| entry.local_len = Some(20)), "how long"),
        (
            lie(|entry| entry.local_name = Some("archive/data/1".to_owned())),
            "another name",
        ),
        (
            lie(|entry| entry.local_method = Some(8)),
            "how it is stored",
        ),
        (lie(|entry| entry.descriptor = Some(20)), "what follows it"),
        (lie(|entry| entry.header = Some(0)), "another does"),
        (lie(|entry| entry.header = Some(3)), "reaches into"),
        (elsewhere, "not where"),
        (lie(|entry| entry.header = Some(1 << 31)), "zip directory"),
        (
            lie(|entry| (entry.large, entry.header) = (true, Some(u64::MAX))),
            "zip directory",
        ),
        (
            lie(|entry| (entry.large, entry.len) = (true, Some(u64::MAX))),
            "reaches into",
        ),
    ] {
        let error = refused(&zip.bytes());
        assert_eq!(error.code(), Code::BadTorchFile, "{error}");
        assert_names(
            &error.to_string(),
            &["pytorch_model.bin", "archive/data", words],
        );
    }
}

#[test]
fn an_entry_inside_of_another_is_refused() {
    // The bytes of the one are a whole entry that the directory names too.
    let inner = Entry {
        name: "archive/data/1".to_owned(),
        data: file().storages[1].data.clone(),
        ..Entry::default()
    };
    let hidden = Zip {
        entries: vec![inner.clone()],
        ..Zip::default()
    };
    let mut zip = archive();
    let whole = hidden.bytes();
    let outer = zip.get(DATA);
    let at = whole.len().min(30 + 14 + 16);
    outer.data = whole[..at].to_vec();
    let before: usize = zip
        .entries
        .iter()
        .take_while(|entry| entry.name != DATA)
        .map(|entry| 30 + entry.name.len() + entry.data.len())
        .sum();
    let header = (before + 30 + DATA.len()) as u64;
    zip.get("archive/data/1").header = Some(header);
    let error = refused(&zip.bytes());
    assert_names(&error.to_string(), &[DATA, "reaches into"]);
}

#[test]
fn compressed_and_encrypted_entries_are_refused() {
    for (change, words) in [
        (
            (|entry: &mut Entry| entry.method = 8) as fn(&mut Entry),
            "compressed",
        ),
        (|entry| entry.flags = 1, "encrypted"),
    ] {
        for name in [DATA, "archive/data.pkl", "archive/byteorder"] {
            let mut zip = archive();
            change(zip.get(name));
            let error = refused(&zip.bytes());
            assert_eq!(error.code(), Code::UnsupportedTorch, "{error}");
            assert_names(&error.to_string(), &["pytorch_model.bin", name, words]);
        }
    }
}

#[test]
fn an_archive_that_is_ambiguous_or_damaged_is_refused() {
    let with_count = |count| Zip {
        count: Some(count),
        ..archive()
    };
    let gap = Zip {
        gap: 7,
        ..archive()
    };
    assert_shown(&gap);
    let mut twice = archive();
    twice.entries.push(twice.entries[2].clone());
    let second = archive().entry("other/data.pkl", "N.");
    let nested = {
        let mut zip = archive();
        zip.get("archive/data.pkl").name = "a/b/data.pkl".to_owned();
        zip
    };
    for (zip, words) in [
        (with_count(4), "entries"),
        (with_count(6), "entries"),
        (twice, "two entries"),
        (second, "two pickles"),
        (nested, "without an entry"),
        (Zip::default().entry("readme", "x"), "without an entry"),
    ] {
        let error = refused(&zip.bytes());
        assert_eq!(error.code(), Code::BadTorchFile, "{error}");
        assert_names(&error.to_string(), &["pytorch_model.bin", words]);
    }
    let missing = {
        let mut zip = archive();
        zip.entries.retain(|entry| entry.name != DATA);
        zip
    };
    assert_names(&refused(&missing.bytes()).to_string(), &["tensor a", DATA]);
}

#[test]
fn a_zip64_record_that_contradicts_the_other_is_refused() {
    let bytes = Zip {
        large: true,
        ..archive()
    }
    .bytes();
    let end = bytes.len() - 22;
    // The small record has numbers of its own, which are not those of the large one.
    let mut small = bytes.clone();
    small[end + 16..end + 20].copy_from_slice(&[9, 0, 0, 0]);
    assert_names(&refused(&small).to_string(), &["contradict"]);
    // The locator leads elsewhere.
    let mut lost = bytes.clone();
    lost[end - 12] ^= 1;
    assert_names(&refused(&lost).to_string(), &["zip64"]);
    // A directory of 2^60 bytes.
    let mut huge = bytes;
    let record = end - 20 - 56;
    huge[record + 40..record + 48].copy_from_slice(&(1u64 << 60).to_le_bytes());
    refused(&huge);
}

#[test]
fn what_begins_otherwise_is_refused_with_what_it_is() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"<html>", "HTML"),
        (&tar, "tar"),
        (b"GGUF....", "neither"),
        (b"\x80\x02N.", "magic number"),
    ] {
        let error = refused(bytes);
        assert_eq!(error.code(), Code::BadTorchFile, "{error}");
        assert_names(&error.to_string(), &["pytorch_model.bin", words]);
    }
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1234\n",
        "a".repeat(64)
    );
    assert_eq!(refused(pointer.as_bytes()).code(), Code::NotDownloaded);
}
