//! Blocks on disk, by one process and several openings of the cache.

use std::fs::File as Handle;
use std::path::Path;
use std::time::SystemTime;

use super::*;
use crate::source::remote::cache::index;
use crate::source::remote::cache::opened::objects;

const LEN: u64 = 5 * BLOCK + 100;

fn object(name: &str, tag: &str) -> Object {
    let url = format!("s3://b/{name}");
    Object {
        name: name.to_owned(),
        location: Path::new(&url).into(),
        len: LEN,
        modified: SystemTime::UNIX_EPOCH,
        pin: Pin::Tag(tag.to_owned()),
    }
}

fn cache(directory: &Path, max_bytes: u64) -> BlockCache {
    BlockCache::new(&BlockCacheOptions {
        directory: directory.to_owned(),
        max_bytes: Some(max_bytes),
    })
}

fn content(block: u64) -> Vec<u8> {
    let len = BLOCK.min(LEN - block * BLOCK);
    (0..len).map(|i| (i * 7 + block * 31) as u8 | 1).collect()
}

fn has(file: &File, block: u64) -> bool {
    let mut part = [0; 50];
    let found = file.read(block, 10, &mut part);
    assert!(!found || part[..] == content(block)[10..60]);
    found
}

fn taken(directory: &Path) -> u64 {
    objects(&directory.join(DIRECTORY))
        .unwrap()
        .iter()
        .map(|(_, bytes)| bytes)
        .sum()
}

#[test]
fn blocks_are_found_by_all_who_name_the_same_content() {
    let directory = tempfile::tempdir().unwrap();
    let cache_a = cache(directory.path(), 100 * BLOCK);
    let a = cache_a.file(&object("x", "1")).unwrap();
    assert!(!has(&a, 0));
    for block in [0, 3, 5] {
        a.keep(block, &content(block));
    }
    let cache_b = cache(directory.path(), 100 * BLOCK);
    let b = cache_b.file(&object("x", "1")).unwrap();
    for block in 0..6 {
        assert_eq!(has(&a, block), [0, 3, 5].contains(&block));
        assert_eq!(has(&b, block), [0, 3, 5].contains(&block));
    }
    assert!(
        !has(&cache_b.file(&object("x", "2")).unwrap(), 0),
        "other content"
    );
    assert!(
        !has(&cache_b.file(&object("y", "1")).unwrap(), 0),
        "another object"
    );
    let unpinned = Object {
        pin: Pin::Nothing,
        ..object("x", "1")
    };
    assert!(cache_b.file(&unpinned).is_none());
}

#[test]
fn a_damaged_block_is_a_miss_and_can_be_kept_again() {
    let directory = tempfile::tempdir().unwrap();
    let first = cache(directory.path(), 100 * BLOCK)
        .file(&object("x", "1"))
        .unwrap();
    first.keep(1, &content(1));
    let data = Handle::options()
        .write(true)
        .open(data_path(&first.path))
        .unwrap();
    data.write_all_at(b"?", BLOCK + 70).unwrap();
    let second = cache(directory.path(), 100 * BLOCK)
        .file(&object("x", "1"))
        .unwrap();
    let mut part = [0; 4];
    assert!(
        !second.read(1, 0, &mut part),
        "also where what is wanted is right"
    );
    second.keep(1, &content(1));
    assert!(has(&second, 1));
    assert!(has(&first, 1), "who checked the old one checks again");
}

#[test]
fn a_part_anywhere_of_a_block_is_given_only_if_all_pieces_that_it_is_in_are_right() {
    let block = BLOCK as usize;
    let parts = [
        (0, 1),
        (0, block),
        (0, block - 1),
        (1, block - 1),
        (block - 1, 1),
        (128 << 10, 128 << 10),
        (300_001, 500_000),
    ];
    let directory = tempfile::tempdir().unwrap();
    // As if it were the first use in a process.
    let opened = || {
        let cache = cache(directory.path(), 100 * BLOCK);
        cache.file(&object("x", "1")).unwrap()
    };
    for (skip, len) in parts {
        for damaged in [
            None,
            Some(0),
            Some(skip),
            Some(skip + len - 1),
            Some(block - 1),
        ] {
            opened().keep(1, &content(1));
            if let Some(at) = damaged {
                let path = data_path(&opened().path);
                let data = Handle::options().write(true).open(path).unwrap();
                // No content has a zero.
                data.write_all_at(&[0], BLOCK + at as u64).unwrap();
            }
            let mut part = vec![0; len];
            let found = opened().read(1, skip, &mut part);
            let pieces = skip / PIECE..(skip + len).div_ceil(PIECE);
            let is_right = damaged.is_none_or(|at| !pieces.contains(&(at / PIECE)));
            assert_eq!(found, is_right, "{skip}, {len}: {damaged:?}");
            assert!(!found || part == content(1)[skip..skip + len]);
            if found {
                let opened = opened();
                let lost = damaged.is_some_and(|at| !opened.read(1, at, &mut [0]));
                assert_eq!(lost, damaged.is_some(), "{damaged:?} is not given either");
            }
        }
    }
}

#[test]
fn a_piece_is_checked_when_it_is_first_read_whatever_was_read_of_its_block() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path(), 100 * BLOCK);
    let file = cache.file(&object("x", "1")).unwrap();
    file.keep(1, &content(1));
    let mut part = vec![0; 2 * PIECE];
    assert!(file.read(1, 0, &mut part[..PIECE]));
    let path = data_path(&file.path);
    let data = Handle::options().write(true).open(path).unwrap();
    data.write_all_at(&[0], BLOCK + PIECE as u64).unwrap();
    assert!(!file.read(1, 0, &mut part));
}

#[test]
fn readers_of_parts_of_a_block_at_once_have_them_all() {
    let directory = tempfile::tempdir().unwrap();
    let opened = || {
        let cache = cache(directory.path(), 100 * BLOCK);
        cache.file(&object("x", "1")).unwrap()
    };
    opened().keep(1, &content(1));
    let (file, expected) = (opened(), content(1));
    std::thread::scope(|scope| {
        let len = BLOCK as usize / 7;
        for (number, part) in expected.chunks(len).enumerate() {
            let skip = number * len;
            let file = &file;
            scope.spawn(move || {
                let mut found = vec![0; part.len()];
                assert!(file.read(1, skip, &mut found) && found == part);
            });
        }
    });
}

#[test]
fn what_a_killed_process_left_half_written_is_a_miss() {
    let directory = tempfile::tempdir().unwrap();
    let file = cache(directory.path(), 100 * BLOCK)
        .file(&object("x", "1"))
        .unwrap();
    file.keep(0, &content(0));
    {
        let opened = file.existing().unwrap();
        let word = opened.index.entry(2).unwrap().word;
        opened.index.set_word(2, word.next().busy()).unwrap();
        opened
            .data
            .write_all_at(&content(2)[..1000], 2 * BLOCK)
            .unwrap();
    }
    assert!(!has(&file, 2) && has(&file, 0));
    file.keep(2, &content(2));
    assert!(has(&file, 2));
}

#[test]
fn the_bound_holds_while_several_write_and_what_was_used_last_stays() {
    let directory = tempfile::tempdir().unwrap();
    let max = 12 * BLOCK;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let directory = directory.path();
            scope.spawn(move || {
                let cache = cache(directory, max);
                for number in 0..10 {
                    let file = cache
                        .file(&object(&format!("{thread}-{number}"), "1"))
                        .unwrap();
                    for block in 0..6 {
                        file.keep(block, &content(block));
                        has(&file, block);
                        // One that moves from one file to another while they are counted is counted twice.
                        assert!((0..100).any(|_| taken(directory) <= max));
                    }
                }
            });
        }
    });
    assert!(taken(directory.path()) > max / 2, "it is used");

    let cache = cache(directory.path(), max);
    let old = cache.file(&object("old", "1")).unwrap();
    let new = cache.file(&object("new", "1")).unwrap();
    for (file, used) in [(&old, 0_u64), (&new, u64::MAX / 2)] {
        for block in 0..3 {
            // Another may be evicting.
            while !has(file, block) {
                file.keep(block, &content(block));
            }
            let opened = file.existing().unwrap();
            let at = block * index::ENTRY + 8;
            opened
                .index
                .file()
                .write_all_at(&used.to_le_bytes(), at)
                .unwrap();
        }
    }
    for number in 0..3 {
        let more = cache.file(&object(&format!("more-{number}"), "1")).unwrap();
        (0..6).for_each(|block| more.keep(block, &content(block)));
    }
    let count = |file: &File| (0..3).filter(|block| file.has(*block)).count();
    assert_eq!((count(&old), count(&new)), (0, 3));
}

#[test]
fn a_count_that_a_killed_process_left_too_high_is_set_right() {
    let directory = tempfile::tempdir().unwrap();
    let max = 12 * BLOCK;
    let cache = cache(directory.path(), max);
    let file = cache.file(&object("x", "1")).unwrap();
    file.keep(0, &content(0));
    file.room.change(|_| Some(max)).unwrap();
    (1..6).for_each(|block| file.keep(block, &content(block)));
    assert!((1..6).all(|block| has(&file, block)));
}

#[test]
fn without_a_place_to_write_there_is_no_cache() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(cache(&file, 100 * BLOCK).file(&object("x", "1")).is_none());
}
