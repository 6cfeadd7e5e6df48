//! Checkpoints of torch.distributed.checkpoint, made byte by byte: what a view shows of them, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::error::Code;
use ckptfs::recipe::Plan;
use proptest::prelude::*;

use crate::common::Workspace;
use crate::common::checkpoint::CONFIG;
use crate::common::readback::tensors;
use crate::file::{File, Form, Storage, plan};
use crate::pickle::{Py, call, dict, dump, global, int, ints, text};

const METADATA: &str = "torch.distributed.checkpoint.metadata";

/// A box in a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Region {
    offsets: Vec<u64>,
    lens: Vec<u64>,
}

impl Region {
    fn whole(shape: &[u64]) -> Self {
        Region {
            offsets: vec![0; shape.len()],
            lens: shape.to_vec(),
        }
    }

    /// Its parts up to and from `at` on along `axis`.
    fn cut(&self, axis: usize, at: u64) -> [Region; 2] {
        let [mut first, mut second] = [self.clone(), self.clone()];
        first.lens[axis] = at;
        second.offsets[axis] += at;
        second.lens[axis] -= at;
        [first, second]
    }
}

/// A tensor of f32 and the pieces that it is saved in.
#[derive(Debug, Clone)]
struct Tensor {
    name: &'static str,
    shape: Vec<u64>,
    pieces: Vec<Region>,
}

impl Tensor {
    fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Its bytes: each element is different.
    fn bytes(&self) -> Vec<u8> {
        (0..self.elements() as u32)
            .flat_map(u32::to_le_bytes)
            .collect()
    }

    /// The bytes of a piece, element by element.
    fn piece(&self, region: &Region) -> Vec<u8> {
        let whole = self.bytes();
        let mut bytes = Vec::new();
        for element in 0..self.elements() {
            let (mut rest, mut inside) = (element, true);
            for axis in (0..self.shape.len()).rev() {
                let at = rest % self.shape[axis];
                rest /= self.shape[axis];
                let start = region.offsets[axis];
                inside &= (start..start + region.lens[axis]).contains(&at);
            }
            if inside {
                let at = element as usize * 4;
                bytes.extend(&whole[at..at + 4]);
            }
        }
        bytes
    }
}

fn object(module: &str, class: &str, state: Vec<(&str, Py)>) -> Py {
    Py::Build(
        Box::new(call(module, class, Vec::new())),
        Box::new(dict(state)),
    )
}

fn size(numbers: &[u64]) -> Py {
    call("torch", "Size", vec![ints(numbers)])
}

fn strides(shape: &[u64]) -> Vec<u64> {
    (0..shape.len())
        .map(|axis| shape[axis + 1..].iter().product())
        .collect()
}

/// Changes what is said of a place: file, offset and length.
type Displace = fn((String, u64, u64)) -> (String, u64, u64);

/// A checkpoint in the making.
struct Dcp {
    tensors: Vec<Tensor>,
    /// How many files there are.
    files: usize,
    place: Displace,
    /// More attributes of each place.
    more: Vec<(&'static str, Py)>,
}

impl Dcp {
    fn new(tensors: Vec<Tensor>) -> Self {
        Dcp {
            tensors,
            files: 2,
            place: |place| place,
            more: Vec::new(),
        }
    }

    fn write(&self, directory: &Path) {
        fs::write(directory.join("config.json"), CONFIG).unwrap();
        let mut files = vec![Vec::new(); self.files];
        let (mut described, mut places) = (Vec::new(), Vec::new());
        let mut next = 0;
        for tensor in &self.tensors {
            let chunks = tensor.pieces.iter().map(|region| {
                let state = vec![
                    ("offsets", size(&region.offsets)),
                    ("sizes", size(&region.lens)),
                ];
                object(METADATA, "ChunkStorageMetadata", state)
            });
            let properties = Py::Build(
                Box::new(call(METADATA, "TensorProperties", Vec::new())),
                Box::new(Py::Tuple(vec![
                    global("torch", "float32"),
                    Py::None,
                    Py::Bool(false),
                    Py::None,
                    Py::Bool(false),
                ])),
            );
            let state = vec![
                ("properties", properties),
                ("size", size(&tensor.shape)),
                ("chunks", Py::List(chunks.collect())),
            ];
            described.push((
                text(tensor.name),
                object(METADATA, "TensorStorageMetadata", state),
            ));
            for region in &tensor.pieces {
                let storage = Storage {
                    class: "FloatStorage",
                    width: 4,
                    data: tensor.piece(region),
                };
                let file = File::new(Form::Zip, [storage]);
                let saved = file.bytes(&file.view(0, 0, &region.lens, &strides(&region.lens)));
                let number = next % self.files;
                next += 1;
                let place = (
                    format!("__{number}_0.distcp"),
                    files[number].len() as u64,
                    saved.len() as u64,
                );
                files[number].extend(saved);
                let (path, offset, length) = (self.place)(place);
                let index = vec![
                    ("fqn", text(tensor.name)),
                    ("offset", size(&region.offsets)),
                    ("index", Py::None),
                ];
                let mut info = vec![
                    ("relative_path", text(&path)),
                    ("offset", int(offset)),
                    ("length", int(length)),
                ];
                info.extend(self.more.iter().cloned());
                places.push((
                    object(METADATA, "MetadataIndex", index),
                    object(
                        "torch.distributed.checkpoint.filesystem",
                        "_StorageInfo",
                        info,
                    ),
                ));
            }
        }
        for (number, bytes) in files.into_iter().enumerate() {
            fs::write(directory.join(format!("__{number}_0.distcp")), bytes).unwrap();
        }
        let bytes = object(METADATA, "BytesStorageMetadata", Vec::new());
        described.push((text("step"), bytes));
        let state = vec![
            ("state_dict_metadata", Py::Dict(described)),
            ("planner_data", Py::None),
            ("storage_data", Py::Dict(places)),
        ];
        let metadata = object(METADATA, "Metadata", state);
        fs::write(directory.join(".metadata"), dump(&metadata, 4)).unwrap();
    }

    fn directory(&self, workspace: &Workspace) -> PathBuf {
        let directory = workspace.path().join("dcp");
        fs::create_dir_all(&directory).unwrap();
        self.write(&directory);
        directory
    }

    fn plan(&self) -> ckptfs::Result<Plan> {
        let workspace = Workspace::new();
        plan(&self.directory(&workspace))
    }

    fn refused(&self) -> ckptfs::Error {
        self.plan().expect_err("this must be refused")
    }
}

/// A tensor that is cut here and there into a few pieces.
fn cut_tensor() -> impl Strategy<Value = Tensor> {
    let cuts = prop::collection::vec((any::<prop::sample::Index>(), 0..3usize, 1..6u64), 0..8);
    (prop::collection::vec(1..7u64, 1..4), cuts).prop_map(|(shape, cuts)| {
        let mut pieces = vec![Region::whole(&shape)];
        for (which, axis, at) in cuts {
            let which = which.index(pieces.len());
            let axis = axis % shape.len();
            if at < pieces[which].lens[axis] {
                let region = pieces.swap_remove(which);
                pieces.extend(region.cut(axis, at));
            }
        }
        Tensor {
            name: "w",
            shape,
            pieces,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tensor_in_pieces_is_shown_whole(tensor in cut_tensor(), files in 1..4usize) {
        let workspace = Workspace::new();
        let checkpoint = Dcp { files, ..Dcp::new(vec![tensor.clone()]) };
        let plan = plan(&checkpoint.directory(&workspace)).unwrap();
        let shown = tensors(&plan);
        prop_assert_eq!(shown.len(), 1);
        let found = &shown["w"];
        let shape: Vec<u64> = found.shape.iter().map(|&len| len as u64).collect();
        prop_assert_eq!(shape, tensor.shape.clone());
        prop_assert_eq!(&*found.bytes, &*tensor.bytes());
    }
}

fn matrix() -> Tensor {
    let whole = Region::whole(&[4, 6]);
    let [top, bottom] = whole.cut(0, 3);
    Tensor {
        name: "w",
        shape: vec![4, 6],
        pieces: [top.cut(1, 2), bottom.cut(1, 4)].concat(),
    }
}

#[test]
fn a_hole_or_an_overlap_is_an_error() {
    let changes: [fn(&mut Vec<Region>); 4] = [
        |pieces| drop(pieces.pop()),
        |pieces| drop(pieces.remove(0)),
        |pieces| pieces[3].lens[1] = 1,
        |pieces| pieces[0].lens[1] = 3,
    ];
    for change in changes {
        let mut tensor = matrix();
        change(&mut tensor.pieces);
        let error = Dcp::new(vec![tensor]).refused();
        assert_eq!(error.code(), Code::BadPieces, "{error}");
        assert_eq!(error.tensor(), Some("w"), "{error}");
    }
}

#[test]
fn pieces_in_a_pinwheel_are_not_of_any_mesh() {
    let region = |offsets: [u64; 2], lens: [u64; 2]| Region {
        offsets: offsets.to_vec(),
        lens: lens.to_vec(),
    };
    let pieces = vec![
        region([0, 0], [1, 2]),
        region([0, 2], [2, 1]),
        region([2, 1], [1, 2]),
        region([1, 0], [2, 1]),
        region([1, 1], [1, 1]),
    ];
    let tensor = Tensor {
        name: "w",
        shape: vec![3, 3],
        pieces,
    };
    let error = Dcp::new(vec![tensor]).refused();
    assert_eq!(error.code(), Code::BadPieces, "{error}");
}

#[test]
fn places_that_lie_are_errors() {
    let cases: [(Displace, Code); 6] = [
        (
            |(_, at, len)| ("../../etc/passwd".to_owned(), at, len),
            Code::BadTorchFile,
        ),
        (
            |(_, at, len)| ("gone".to_owned(), at, len),
            Code::Unfinished,
        ),
        (|(file, at, _)| (file, at, u64::MAX >> 1), Code::Truncated),
        (|(file, _, len)| (file, 1 << 62, len), Code::Truncated),
        (|(file, at, len)| (file, at, len - 1), Code::Truncated),
        (
            |(file, at, len)| (file, at + 1, len - 1),
            Code::BadTorchFile,
        ),
    ];
    for (place, code) in cases {
        let error = Dcp {
            place,
            ..Dcp::new(vec![matrix()])
        }
        .refused();
        assert_eq!(error.code(), code, "{error}");
    }
    let transformed = Dcp {
        more: vec![("transform_descriptors", Py::List(vec![text("zstd")]))],
        ..Dcp::new(vec![matrix()])
    };
    assert_eq!(transformed.refused().code(), Code::UnsupportedTorch);
}

#[test]
fn pieces_beyond_a_tensor_are_errors_of_it() {
    let mut tensor = matrix();
    tensor.shape = vec![4, 5];
    let error = Dcp::new(vec![tensor]).refused();
    assert_eq!(error.code(), Code::BadTorchFile, "{error}");
}

#[test]
fn without_metadata_it_is_unfinished() {
    let workspace = Workspace::new();
    let directory = Dcp::new(vec![matrix()]).directory(&workspace);
    fs::remove_file(directory.join(".metadata")).unwrap();
    let error = plan(&directory).unwrap_err();
    assert_eq!(error.code(), Code::Unfinished, "{error}");
    fs::write(directory.join("__0.metadata"), "").unwrap();
    let error = plan(&directory).unwrap_err();
    assert_eq!(error.code(), Code::UnsupportedTorch, "{error}");
}

#[test]
fn metadata_cut_short_anywhere_is_an_error_and_never_a_panic() {
    let workspace = Workspace::new();
    let directory = Dcp::new(vec![matrix()]).directory(&workspace);
    let whole = fs::read(directory.join(".metadata")).unwrap();
    for len in 0..whole.len() {
        fs::write(directory.join(".metadata"), &whole[..len]).unwrap();
        plan(&directory).expect_err("it is cut short");
    }
}

#[test]
fn a_piece_that_is_listed_twice_is_an_error() {
    let mut tensor = matrix();
    tensor.pieces.push(tensor.pieces[0].clone());
    let error = Dcp::new(vec![tensor]).refused();
    assert_eq!(error.code(), Code::BadTorchFile, "{error}");
}
