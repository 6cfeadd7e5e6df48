//! bitsandbytes.

use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::common::checkpoint::{Checkpoint, TensorData, of_values};
use crate::common::{Workspace, assert_names};
use crate::others::{Random, assert_read, config, refusal};

const NAME: &str = "model.layers.0.mlp.up_proj.weight";

/// The 16 numbers of NF4 or FP4 are in the checkpoint; any will do.
fn table(random: &mut Random) -> Vec<f32> {
    (0..16)
        .map(|i| (i as f32 - 7.5) / 7.5 * random.scale())
        .collect()
}

fn state(fields: &Value, kind: &str) -> TensorData {
    let text = fields.to_string().into_bytes();
    let name = format!("{NAME}.quant_state.bitsandbytes__{kind}");
    TensorData::new(&name, Dtype::U8, &[text.len()], text)
}

fn four_bits(quant_type: &str) -> Value {
    json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": quant_type, "llm_int8_skip_modules": ["lm_head"]})
}

/// The tensors of a weight of 4 bits, and its numbers.
fn weight(
    shape: [usize; 2],
    block: usize,
    is_nested: bool,
    kind: &str,
    seed: u64,
) -> (Vec<TensorData>, Vec<f32>) {
    let mut random = Random(seed);
    let elements = shape[0] * shape[1];
    let blocks = elements.div_ceil(block);
    let codes: Vec<u8> = (0..elements).map(|_| random.below(16) as u8).collect();
    let packed: Vec<u8> = codes
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0))
        .collect();
    let map = table(&mut random);
    let named = |suffix: &str| format!("{NAME}{suffix}");
    let mut stored = vec![
        TensorData::new(NAME, Dtype::U8, &[packed.len(), 1], packed),
        of_values(&named(".quant_map"), Dtype::F32, &[16], &map),
    ];
    let mut fields =
        json!({"quant_type": kind, "blocksize": block, "dtype": "float16", "shape": shape});
    let absmax: Vec<f32> = if is_nested {
        let codes: Vec<u8> = (0..blocks).map(|_| random.below(256) as u8).collect();
        let of_blocks: Vec<f32> = (0..blocks.div_ceil(4)).map(|_| random.scale()).collect();
        let nested_map: Vec<f32> = (0..256).map(|i| (i as f32 - 127.0) / 128.0).collect();
        let offset = random.scale();
        fields["nested_blocksize"] = json!(4);
        fields["nested_dtype"] = json!("float32");
        fields["nested_offset"] = json!(f64::from(offset));
        stored.push(of_values(
            &named(".nested_absmax"),
            Dtype::F32,
            &[of_blocks.len()],
            &of_blocks,
        ));
        stored.push(of_values(
            &named(".nested_quant_map"),
            Dtype::F32,
            &[256],
            &nested_map,
        ));
        let absmax = codes.iter().enumerate();
        let absmax =
            absmax.map(|(i, code)| nested_map[usize::from(*code)] * of_blocks[i / 4] + offset);
        let absmax = absmax.collect();
        stored.push(TensorData::new(
            &named(".absmax"),
            Dtype::U8,
            &[blocks],
            codes,
        ));
        absmax
    } else {
        let absmax: Vec<f32> = (0..blocks).map(|_| random.scale()).collect();
        stored.push(of_values(&named(".absmax"), Dtype::F32, &[blocks], &absmax));
        absmax
    };
    stored.push(state(&fields, kind));
    let values = codes.iter().enumerate();
    let values = values.map(|(i, code)| map[usize::from(*code)] * absmax[i / block]);
    (stored, values.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn four_bits_are_given_back(
        rows in 1usize..20,
        columns in 1usize..200,
        block in prop::sample::select(vec![32usize, 64, 128]),
        is_nested in any::<bool>(),
        kind in prop::sample::select(vec!["nf4", "fp4"]),
        seed in any::<u64>(),
    ) {
        let (stored, values) = weight([rows, columns], block, is_nested, kind, seed);
        assert_read(&stored, &four_bits(kind), NAME, &[rows, columns], &values);
    }

    #[test]
    fn integers_of_eight_bits_are_given_back(
        rows in 1usize..20,
        columns in 1usize..200,
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let codes: Vec<u8> = (0..rows * columns).map(|_| random.below(256) as u8).collect();
        let scales: Vec<f32> = (0..rows).map(|_| random.scale()).collect();
        let values = codes.iter().enumerate();
        let values: Vec<f32> = values
            .map(|(i, code)| f32::from(*code as i8) * scales[i / columns] * 7.874_016e-3)
            .collect();
        let stored = [
            TensorData::new(NAME, Dtype::I8, &[rows, columns], codes),
            of_values(&NAME.replace(".weight", ".SCB"), Dtype::F32, &[rows], &scales),
            TensorData::new(&format!("{NAME}_format"), Dtype::U8, &[], vec![0]),
        ];
        let declared = json!({"quant_method": "bitsandbytes", "load_in_8bit": true});
        assert_read(&stored, &declared, NAME, &[rows, columns], &values);
    }
}

#[test]
fn a_weight_of_several_bands_has_the_largest_magnitudes_of_its_own_blocks() {
    let shape = [1030, 1024];
    let (stored, values) = weight(shape, 64, true, "nf4", 3);
    assert_read(&stored, &four_bits("nf4"), NAME, &shape, &values);
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    let workspace = Workspace::new();
    let mut count = 0;
    let mut refused = |edit: &dyn Fn(&mut Vec<TensorData>)| {
        count += 1;
        let (mut stored, _) = weight([8, 64], 64, false, "nf4", 1);
        edit(&mut stored);
        let checkpoint = Checkpoint::single(stored).config(&config(&four_bits("nf4")));
        refusal(&workspace.write(&format!("base{count}"), &checkpoint))
    };
    let fields = |shape: [u64; 2], block: u64| json!({"blocksize": block, "shape": shape});
    let text = refused(&|stored| stored[3] = state(&fields([8, 65], 64), "nf4"));
    assert_names(&text, &[NAME, "[8, 65]", "256 bytes"]);
    let text = refused(&|stored| stored[3] = state(&fields([8, 64], 48), "nf4"));
    assert_names(&text, &[NAME, "blocks of 48"]);
    let text = refused(&|stored| stored[3] = state(&json!({"shape": [8, 64]}), "nf4"));
    assert_names(&text, &[NAME, "quant_state.bitsandbytes__nf4", "blocksize"]);
    let text = refused(&|stored| drop(stored.remove(3)));
    assert_names(&text, &[NAME, "no", "quant_state.bitsandbytes__nf4"]);
    let text = refused(&|stored| drop(stored.remove(1)));
    assert_names(&text, &[NAME, "no", "quant_map"]);
    let text = refused(&|stored| {
        stored[2] = of_values(&format!("{NAME}.absmax"), Dtype::F32, &[7], &[1.0; 7]);
    });
    assert_names(&text, &[NAME, "absmax is F32 [7]", "expected 8"]);
}

#[test]
fn codes_in_the_order_of_a_gpu_are_refused() {
    let stored = [
        TensorData::new(NAME, Dtype::I8, &[2, 4], vec![1; 8]),
        of_values(
            &NAME.replace(".weight", ".SCB"),
            Dtype::F32,
            &[2],
            &[1.0; 2],
        ),
        TensorData::new(&format!("{NAME}_format"), Dtype::U8, &[], vec![2]),
    ];
    let declared = json!({"quant_method": "bitsandbytes", "load_in_8bit": true});
    let workspace = Workspace::new();
    let base = workspace.write(
        "base",
        &Checkpoint::single(stored).config(&config(&declared)),
    );
    assert_names(&refusal(&base), &[NAME, "weight_format", "2"]);
}
