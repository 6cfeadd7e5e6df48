//! Checkpoints that other tools quantized, given back as numbers, against naive definitions of their formats.

mod actorder;
mod bitsandbytes;
mod dropped;
mod fp8;
mod mixed;
mod mixed_block_floats;
mod packed;

use std::path::Path;

use ckptfs::ops::Precision;
use ckptfs::recipe::Plan;
use half::f16;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::readback::{read_path, tensors};
use crate::in_dtype;

const TARGETS: [(Precision, Dtype); 3] = [
    (Precision::Bf16, Dtype::BF16),
    (Precision::F16, Dtype::F16),
    (Precision::F32, Dtype::F32),
];

/// Numbers below `bound` that follow from `seed` alone.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// A number that f16 has.
    fn scale(&mut self) -> f32 {
        let bits = 0x0400 + self.below(0x4800) as u16;
        f16::from_bits(bits).to_f32()
    }
}

/// A config.json that declares `quantization`.
fn config(quantization: &Value) -> String {
    json!({"model_type": "llama", "hidden_size": 64, "torch_dtype": "float16", "quantization_config": quantization, "eos_token_id": 2}).to_string()
}

fn words(name: &str, shape: [usize; 2], words: &[u32]) -> TensorData {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    TensorData::new(name, Dtype::I32, &shape, bytes)
}

/// The config.json of the plan.
fn shown_config(plan: &Plan) -> Value {
    serde_json::from_slice(&read_path(plan, "config.json").unwrap()).unwrap()
}

/// Checks that a checkpoint of `stored` that declares `quantization` is, in each dtype, the tensor called `name` of `shape`
/// with these values rounded once, and what `plain` are; and declares nothing, with all other keys as they were.
fn assert_read(
    stored: &[TensorData],
    quantization: &Value,
    name: &str,
    shape: &[usize],
    values: &[f32],
) {
    let workspace = Workspace::new();
    let checkpoint = Checkpoint::single(stored.to_vec()).config(&config(quantization));
    let base = workspace.write("base", &checkpoint);
    for (to, dtype) in TARGETS {
        let plan = in_dtype(&base, to).unwrap();
        let found = tensors(&plan);
        assert_eq!(found.keys().collect::<Vec<_>>(), [name]);
        let expected = of_values(name, dtype, shape, values);
        let found = &found[name];
        assert_eq!(
            (found.dtype, &*found.shape),
            (dtype, shape),
            "{quantization}"
        );
        let differs = |at: &usize| found.bytes[*at] != expected.bytes[*at];
        if let Some(at) = (0..expected.bytes.len()).find(differs) {
            let size = expected.bytes.len() / values.len();
            panic!("{quantization}, {dtype:?}: element {} is wrong", at / size);
        }
        let shown = shown_config(&plan);
        assert!(shown.get("quantization_config").is_none(), "{shown}");
        assert_eq!(
            (&shown["hidden_size"], &shown["eos_token_id"]),
            (&json!(64), &json!(2))
        );
    }
}

/// The error of a plan of `stored` in BF16.
fn refusal(base: &Path) -> String {
    crate::common::message(in_dtype(base, Precision::Bf16))
}
