//! Ranges of bytes of any tensor, stored, computed or joined, and of each other.

use std::ops::Range;
use std::sync::Arc;

use ckptfs::catalog::{Band, Catalog, Kernel, Node, NonFinite, Opened, RowBands, Tensor};
use ckptfs::format;
use ckptfs::layout::{self, Shards};
use ckptfs::materialize::{Options, materialize};
use ckptfs::ops::{Conversions, Experts, ExpertsParams, Params, Precision};
use ckptfs::read::Reader;
use ckptfs::recipe::{DEFAULT_SHARD_BYTES, Plan};
use proptest::prelude::*;
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, bf16, tensor};
use crate::common::readback;

/// Turns every bit over, 7 bytes at a time; the second output is the same backwards in each band.
#[derive(Debug)]
struct Inverted {
    len: u64,
}

impl Kernel for Inverted {
    fn identity(&self) -> String {
        "Inverted".to_owned()
    }

    fn step(&self, _output: usize) -> Option<ckptfs::catalog::Step> {
        None
    }

    fn bands(&self) -> RowBands {
        RowBands {
            groups: 1,
            rows_per_group: self.len,
            band_rows: 7,
        }
    }

    fn outputs(&self) -> usize {
        2
    }

    fn input_bytes(&self, _input: usize, band: &Band) -> Range<u64> {
        band.rows.clone()
    }

    fn output_bytes(&self, _output: usize, band: &Band) -> Range<u64> {
        band.rows.clone()
    }

    fn compute(
        &self,
        _facts: &[f64],
        _band: &Band,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), NonFinite> {
        for (i, byte) in inputs[0].iter().enumerate() {
            outputs[0][i] = !byte;
            outputs[1][inputs[0].len() - 1 - i] = !byte;
        }
        Ok(())
    }
}

/// The outputs of [`Inverted`] for `stored`.
fn computed(stored: &Tensor) -> [Tensor; 2] {
    let kernel = Box::new(Inverted { len: stored.len() });
    let node = Arc::new(Node::new("inverted", vec![stored.clone()], kernel));
    [0, 1].map(|output| {
        let shape = stored.shape.clone();
        Tensor::computed(node.clone(), output, stored.dtype, shape, stored.home)
    })
}

/// What [`computed`] must give.
fn inverted(bytes: &[u8]) -> [Vec<u8>; 2] {
    let first: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    let second = first.chunks(7).flat_map(|band| band.iter().rev().copied());
    [first.clone(), second.collect()]
}

fn catalog(workspace: &Workspace, tensors: &[TensorData]) -> Catalog {
    let base = workspace.write("base", &Checkpoint::single(tensors.to_vec()));
    Catalog::from_base(Opened::stored(format::Checkpoint::open(&base).unwrap()))
}

fn plan(catalog: Catalog) -> Plan {
    layout::shards(catalog, Shards::Keep, DEFAULT_SHARD_BYTES).unwrap()
}

/// Something that is made of tensors made before, each named by any number.
#[derive(Debug, Clone)]
enum Step {
    /// From, and how much, in parts of 1000.
    Slice(usize, u64, u64),
    Join(Vec<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slice = (any::<usize>(), 0..=1000u64, 0..=1000u64);
    let step = prop_oneof![
        slice.prop_map(|(of, start, len)| Step::Slice(of, start, len)),
        prop::collection::vec(any::<usize>(), 1..5).prop_map(Step::Join),
    ];
    prop::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn slices_and_joins_of_each_other_are_those_of_their_bytes(steps in steps(), seed in any::<u64>()) {
        let source = tensor("x", Dtype::U8, &[60], seed);
        let workspace = Workspace::new();
        let mut catalog = catalog(&workspace, std::slice::from_ref(&source));
        let stored = catalog.tensors["x"].clone();
        let mut tensors: Vec<(Tensor, Vec<u8>)> = vec![(stored.clone(), source.bytes.to_vec())];
        tensors.extend(computed(&stored).into_iter().zip(inverted(&source.bytes)));
        for step in steps {
            let made = match step {
                Step::Slice(of, start, len) => {
                    let (tensor, bytes) = &tensors[of % tensors.len()];
                    let start = start * tensor.len() / 1000;
                    let len = len * (tensor.len() - start) / 1000;
                    let bytes = bytes[start as usize..(start + len) as usize].to_vec();
                    (tensor.slice(start, vec![len]), bytes)
                }
                Step::Join(of) => {
                    let of: Vec<_> = of.iter().map(|i| &tensors[i % tensors.len()]).collect();
                    let bytes: Vec<u8> = of.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
                    let joined: Vec<&Tensor> = of.iter().map(|(tensor, _)| tensor).collect();
                    (Tensor::joined(&joined, vec![bytes.len() as u64]), bytes)
                }
            };
            prop_assume!(made.1.len() < 5000);
            tensors.push(made);
        }
        for (i, (tensor, _)) in tensors.iter().enumerate() {
            catalog.tensors.insert(format!("{i}").into(), tensor.clone());
        }
        let plan = plan(catalog);
        let read = readback::tensors(&plan);
        let out = workspace.path().join("out");
        materialize(&plan, &[], &out, &Options::default(), &()).unwrap();
        let written = std::fs::read(out.join("model.safetensors")).unwrap();
        let written: std::collections::BTreeMap<String, TensorData> =
            readback::parse(&written).into_iter().map(|t| (t.name.clone(), t)).collect();
        prop_assert_eq!(&read, &written);
        // Too small for any tile, so that every range is computed for itself.
        let reader = Reader::new(plan.view.clone(), 0);
        for (i, (tensor, bytes)) in tensors.iter().enumerate() {
            prop_assert_eq!(&*read[&i.to_string()].bytes, &**bytes);
            for start in 0..bytes.len().min(20) {
                let mut part = vec![0xAA; bytes.len() - start];
                reader.read_tensor(tensor, start as u64, &mut part).unwrap();
                prop_assert_eq!(&part[..], &bytes[start..]);
            }
        }
    }
}

#[test]
fn experts_of_computed_tensors_are_unfused_and_fused_as_stored_ones_are() {
    let gate_up = bf16("model.layers.0.mlp.experts.gate_up_proj", &[3, 10, 4]);
    let down = bf16("model.layers.0.mlp.experts.down_proj", &[3, 4, 5]);
    let invert = |tensor: &TensorData| TensorData {
        bytes: inverted(&tensor.bytes)[0].clone().into(),
        ..tensor.clone()
    };
    let config = r#"{"hidden_size": 4}"#;
    for form in [&[Experts::Unfuse][..], &[Experts::Unfuse, Experts::Fuse]] {
        let workspace = Workspace::new();
        let views = [
            [invert(&gate_up), invert(&down)],
            [gate_up.clone(), down.clone()],
        ];
        let [stored, computed] = [false, true].map(|compute| {
            let checkpoint = Checkpoint::single(views[usize::from(compute)].clone());
            let name = format!("{form:?}-{compute}");
            let base = workspace.write(&name, &checkpoint.config(config));
            let mut catalog =
                Catalog::from_base(Opened::stored(format::Checkpoint::open(&base).unwrap()));
            for tensor in catalog.tensors.values_mut().filter(|_| compute) {
                *tensor = computed(tensor)[0].clone();
            }
            for form in form {
                let nothing = Conversions {
                    dtype: None,
                    undecided: Precision::Bf16,
                    rules: &[],
                    quantizes: false,
                };
                let operators = ExpertsParams::all(*form).operators(&nothing).unwrap();
                operators[0].apply(&mut catalog).unwrap();
            }
            let plan = plan(catalog);
            let tensors = plan.shards.iter().flat_map(|shard| &shard.tensors);
            assert!(tensors.into_iter().all(|tensor| tensor.computed == compute));
            readback::tensors(&plan)
        });
        assert_eq!(stored, computed, "{form:?}");
        assert_eq!(stored.len(), if form.len() == 1 { 9 } else { 2 });
    }
}
