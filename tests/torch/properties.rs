//! Any views of any storages have the bytes that strides say, in every form of file and protocol.

use ckptfs::read::Reader;
use proptest::prelude::*;

use crate::common::readback::{read_tensor, tensors};
use crate::file::{FORMS, File, Form, Storage, plan_of};
use crate::pickle::ordered_dict;

const CLASSES: [(&str, usize, &str); 10] = [
    ("DoubleStorage", 8, "F64"),
    ("FloatStorage", 4, "F32"),
    ("HalfStorage", 2, "F16"),
    ("BFloat16Storage", 2, "BF16"),
    ("LongStorage", 8, "I64"),
    ("IntStorage", 4, "I32"),
    ("ShortStorage", 2, "I16"),
    ("CharStorage", 1, "I8"),
    ("ByteStorage", 1, "U8"),
    ("BoolStorage", 1, "BOOL"),
];

/// A view: a storage, an offset, and for each dimension its length and its stride.
#[derive(Debug, Clone)]
struct View {
    storage: usize,
    offset: usize,
    dimensions: Vec<(usize, usize)>,
}

impl View {
    fn shape(&self) -> Vec<u64> {
        self.dimensions.iter().map(|(len, _)| *len as u64).collect()
    }

    fn strides(&self) -> Vec<u64> {
        self.dimensions
            .iter()
            .map(|(_, stride)| *stride as u64)
            .collect()
    }

    /// The positions of its elements in the storage, in row-major order.
    fn elements(&self) -> Vec<usize> {
        let mut elements = vec![self.offset];
        for (len, stride) in &self.dimensions {
            let along = |start: usize| (0..*len).map(move |i| start + i * stride);
            elements = elements.into_iter().flat_map(along).collect();
        }
        elements
    }
}

fn views() -> impl Strategy<Value = Vec<View>> {
    let dimensions = prop_oneof![
        // As it comes: gaps, overlaps, repetitions, no elements.
        prop::collection::vec((0..5usize, 0..40usize), 0..5),
        // A dense tensor, its dimensions in some order.
        (prop::collection::vec(1..6usize, 0..5), any::<u64>()).prop_map(|(lens, order)| {
            let mut stride = 1;
            let mut dimensions: Vec<(usize, usize)> = lens
                .into_iter()
                .map(|len| {
                    let dimension = (len, stride);
                    stride *= len;
                    dimension
                })
                .collect();
            dimensions.reverse();
            if !dimensions.is_empty() && order % 3 > 0 {
                let by = order as usize % dimensions.len();
                dimensions.rotate_left(by);
            }
            dimensions
        }),
    ];
    let view = (0..3usize, 0..20usize, dimensions);
    let view = view.prop_map(|(storage, offset, dimensions)| View {
        storage,
        offset,
        dimensions,
    });
    prop::collection::vec(view, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn views_of_storages_have_the_elements_that_their_strides_say(
        views in views(),
        classes in prop::array::uniform3(0..CLASSES.len()),
        form in prop::sample::select(&FORMS[..]),
        protocol in prop::sample::select(&[0u8, 2, 4, 5][..]),
    ) {
        let storages: Vec<Storage> = (0..3).map(|at| {
            let (class, width, _) = CLASSES[classes[at]];
            let of_this = views.iter().filter(|view| view.storage == at);
            let len = of_this.flat_map(View::elements).max().map_or(0, |last| last + 1);
            // A view without elements may begin where the storage ends.
            let len = len.max(20);
            let data = (0..len * width).map(|i| ((i * 73 + at * 7) % 256) as u8).collect();
            Storage { class, width, data }
        }).collect();
        let file = File { form, protocol, storages };
        let names: Vec<String> = (0..views.len()).map(|i| format!("t{i}")).collect();
        let items = views.iter().zip(&names).map(|(view, name)| {
            let offset = view.offset as u64;
            (&**name, file.view(view.storage, offset, &view.shape(), &view.strides()))
        });
        // Torch writes no storage that nothing refers to.
        let whole = ["s0", "s1", "s2"].into_iter().enumerate();
        let items = items.chain(whole.map(|(at, name)| (name, file.whole(at))));
        let bytes = file.bytes(&ordered_dict(items));
        let (_workspace, plan) = plan_of(&bytes).unwrap();
        let found = tensors(&plan);
        // Also in pieces of their own.
        let reader = Reader::new(plan.view.clone(), 1);
        prop_assert_eq!(found.len(), views.len() + 3);
        for (view, name) in views.iter().zip(&names) {
            let storage = &file.storages[view.storage];
            let elements = view.elements();
            let expected: Vec<u8> = elements.iter().flat_map(|&at| storage.element(at)).copied().collect();
            let tensor = &found[name];
            let shape: Vec<u64> = tensor.shape.iter().map(|&len| len as u64).collect();
            prop_assert_eq!(shape, view.shape());
            prop_assert_eq!(format!("{:?}", tensor.dtype), CLASSES[classes[view.storage]].2);
            prop_assert_eq!(&*tensor.bytes, &*expected, "{} {:?}", name, view);
            prop_assert_eq!(read_tensor(&plan, &reader, name).unwrap(), expected);
            let is_run = elements.windows(2).all(|pair| pair[1] == pair[0] + 1);
            let mut planned = plan.shards.iter().flat_map(|shard| &shard.tensors);
            let planned = planned.find(|tensor| *tensor.name == **name).unwrap();
            prop_assert!(!is_run || !planned.computed, "{} is a run of bytes", name);
        }
    }

    /// Whatever one byte of a file becomes, the file is refused, or read in the same way twice.
    #[test]
    fn a_file_with_another_byte_is_refused_or_read(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        form in prop::sample::select(&FORMS[..]),
        protocol in prop::sample::select(&[0u8, 2, 4][..]),
    ) {
        let file = File { protocol, ..File::new(form, [Storage::floats(12), Storage::floats(5)]) };
        let root = ordered_dict([
            ("a", file.view(0, 1, &[3, 2], &[1, 3])),
            ("b", file.whole(1)),
            ("c", file.view(0, 0, &[2, 3], &[3, 1])),
        ]);
        let mut bytes = file.bytes(&root);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok((_workspace, plan)) = plan_of(&bytes) {
            prop_assert_eq!(tensors(&plan), tensors(&plan));
        }
    }
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    for form in FORMS {
        let file = File::new(form, [Storage::floats(12)]);
        let root = ordered_dict([
            ("a", file.whole(0)),
            ("b", file.view(0, 2, &[2, 2], &[1, 4])),
        ]);
        let bytes = file.bytes(&root);
        for end in 0..bytes.len() {
            let error = crate::file::refused(&bytes[..end]);
            assert!(error.to_string().contains("pytorch_model.bin"), "{error}");
        }
    }
}

#[test]
fn more_bytes_than_belong_to_a_file_are_refused() {
    for (form, words) in [(Form::Zip, "end record"), (Form::Legacy, "1 bytes follow")] {
        let file = File::new(form, [Storage::floats(12)]);
        let mut bytes = file.bytes(&ordered_dict([("a", file.whole(0))]));
        bytes.push(0);
        let error = crate::file::refused(&bytes);
        assert!(error.to_string().contains(words), "{error}");
    }
}
