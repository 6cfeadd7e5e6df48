//! `adapter_model.bin`: the same merge as of `adapter_model.safetensors`.

use std::fs;
use std::path::Path;

use ckptfs::ops::{LoraParams, LoraRequest, Operations};
use ckptfs::recipe::{Plan, ViewRequest};

use crate::common::Workspace;
use crate::common::adapter::Adapter;
use crate::common::checkpoint::{Checkpoint, bf16};
use crate::common::readback::tensors;
use crate::file::{FORMS, File, Storage};
use crate::pickle::ordered_dict;

const MODULE: &str = "model.layers.0.self_attn.q_proj";

fn merged(base: &Path, adapter: &Path) -> Plan {
    let request = ViewRequest {
        operations: Operations {
            lora: LoraParams {
                adapters: vec![LoraRequest {
                    adapter: adapter.into(),
                    weight: 1.0,
                }],
                ..LoraParams::default()
            },
            ..Operations::default()
        },
        ..ViewRequest::new(base)
    };
    request.plan().unwrap()
}

#[test]
fn a_pickled_adapter_is_merged_as_one_in_safetensors() {
    let workspace = Workspace::new();
    let weight = bf16(&format!("{MODULE}.weight"), &[16, 12]);
    let base = workspace.write("base", &Checkpoint::single([weight]));
    let adapter = Adapter::new(4, 8.0).linear(MODULE, [16, 12], 4);
    let expected = tensors(&merged(&base, &adapter.write(&workspace, "safetensors")));
    for form in FORMS {
        // B is a transposed view, as a tied factor is when it is saved.
        let b = adapter.get("lora_B.weight");
        let turned: Vec<u8> = (0..4 * 16)
            .flat_map(|at| {
                let from = (at % 16 * 4 + at / 16) * 4;
                b.bytes[from..from + 4].to_vec()
            })
            .collect();
        let storage = |data: Vec<u8>| Storage {
            class: "FloatStorage",
            width: 4,
            data,
        };
        let a = adapter.get("lora_A.weight");
        let file = File::new(form, [storage(a.bytes.to_vec()), storage(turned)]);
        let root = ordered_dict([
            (&*a.name, file.view(0, 0, &[4, 12], &[12, 1])),
            (&*b.name, file.view(1, 0, &[16, 4], &[1, 16])),
        ]);
        let directory = adapter.write(&workspace, "pickled");
        fs::remove_file(directory.join("adapter_model.safetensors")).unwrap();
        fs::write(directory.join("adapter_model.bin"), file.bytes(&root)).unwrap();
        assert_eq!(tensors(&merged(&base, &directory)), expected);
    }
}
