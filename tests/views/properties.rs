//! Random views against a naive whole-file build, and random ranges against whole files.

use std::fmt;
use std::path::PathBuf;

use ckptfs::read::Reader;
use ckptfs::recipe::Plan;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::common::Workspace;
use crate::common::compare::assert_view;
use crate::common::readback::read_all;
use crate::common::strategies::any_view;

/// `cases` random cases. A failing one is printed, not kept in a file.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// A range to read: the file, a place in it, how far from the place it starts, and its length.
#[derive(Clone)]
struct Range {
    file: Index,
    place: Index,
    shift: i64,
    len: usize,
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range {
            file,
            place,
            shift,
            len,
        } = self;
        let (file, place) = (file.index(1000), place.index(1000));
        write!(f, "file {file}‰, place {place}‰ {shift:+}, {len} bytes")
    }
}

fn range() -> impl Strategy<Value = Range> {
    let shift = prop_oneof![Just(0i64), -3..=3i64, -5000..=5000i64];
    let len = prop_oneof![
        0..=3usize,
        0..=300usize,
        0..=20_000usize,
        0..=2_000_000usize
    ];
    (any::<Index>(), any::<Index>(), shift, len).prop_map(|(file, place, shift, len)| Range {
        file,
        place,
        shift,
        len,
    })
}

/// A file of a view, its whole content, and the places where something in it changes.
struct File {
    id: usize,
    path: PathBuf,
    content: Vec<u8>,
    places: Vec<u64>,
}

/// Ends of the file, of its segments, of its tensors, and of each tensor's block rows.
fn files(plan: &Plan) -> Vec<File> {
    let contents = read_all(plan);
    let files = plan.view.files();
    files
        .map(|(id, path, content)| {
            let mut places = vec![0, content.len() / 3, content.len()];
            places.extend(content.segments().iter().map(|segment| segment.start));
            let shard = plan.shards.iter().find(|shard| shard.entry == id);
            for tensor in shard.into_iter().flat_map(|shard| &shard.tensors) {
                let columns = tensor.shape.last().copied().unwrap_or(0).max(1);
                let block_rows = (0..tensor.len).step_by(128 * columns as usize);
                places.extend(block_rows.map(|start| tensor.offset + start));
                places.push(tensor.offset + tensor.len);
            }
            File {
                id,
                content: contents[&path].clone(),
                path,
                places,
            }
        })
        .collect()
}

/// Reads every range, in both ways, and asserts that it gives the bytes of the whole file.
fn assert_ranges<'a>(reader: &Reader, files: &[File], ranges: impl Iterator<Item = &'a Range>) {
    let mut scratch = vec![7; 100];
    for range in ranges {
        let file = range.file.get(files);
        let offset = range
            .place
            .get(&file.places)
            .saturating_add_signed(range.shift);
        let start = file.content.len().min(offset as usize);
        let expected = &file.content[start..file.content.len().min(start + range.len)];
        let what = || format!("{} {offset}+{}", file.path.display(), range.len);

        let mut buffer = vec![0xAA; range.len];
        let count = reader.read_at(file.id, offset, &mut buffer).unwrap();
        assert_eq!(count, expected.len(), "{}", what());
        assert!(buffer[..count] == *expected, "{}", what());
        assert!(
            buffer[count..].iter().all(|b| *b == 0xAA),
            "{}: past the end",
            what()
        );

        let lent = |bytes: &[u8]| bytes == expected;
        let same = reader.read_with(file.id, offset, range.len, &mut scratch, lent);
        assert!(same.unwrap(), "{}", what());
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_view_holds_what_the_definition_says(wanted in any_view()) {
        assert_view(&wanted);
    }

    #[test]
    fn any_range_read_by_any_thread_is_the_slice_of_the_whole_file(
        wanted in any_view(),
        ranges in vec(range(), 1..60),
        cache_bytes in select(vec![0, 1, 1000, 40_000, 1 << 30]),
    ) {
        let workspace = Workspace::new();
        let plan = wanted.write(&workspace).plan().unwrap();
        let files = files(&plan);
        let reader = Reader::new(plan.view.clone(), cache_bytes);
        let read = &|thread: usize| {
            // Every thread has its own order.
            let order = ranges.iter().cycle().skip(thread * ranges.len() / 4);
            assert_ranges(&reader, &files, order.take(ranges.len()));
        };
        std::thread::scope(|scope| {
            let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || read(thread)));
            for thread in threads {
                // A failed assertion goes on as it is.
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
        assert!(reader.cached_bytes() <= cache_bytes);
    }
}
