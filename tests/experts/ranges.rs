//! Any range of a view whose tensors are put together from many, or cut from few.

use ckptfs::ops::Experts;
use ckptfs::read::Reader;
use ckptfs::recipe::Plan;
use safetensors::Dtype;

use crate::common::Workspace;
use crate::common::readback::{read_all, tensors};
use crate::common::values::Random;
use crate::fixture::*;

const LAYER: &str = "model.layers.0.mlp";
const SIZES: Sizes = Sizes {
    experts: 13,
    intermediate: 60,
    hidden: 70,
};

/// Reads ranges of every file at random places and lengths, and across every place in `every`
/// bytes from the end backwards, and holds them against the file read whole.
fn assert_ranges(plan: &Plan, part: usize) {
    let files = read_all(plan);
    let mut random = Random::new(3);
    // A cache too small for the view, so that tiles are computed in any order.
    let reader = Reader::new(plan.view.clone(), 64 << 10);
    let mut scratch = Vec::new();
    for (id, path, _) in plan.view.files() {
        let file = &files[&path];
        let mut assert_range = |start: usize, len: usize| {
            let end = file.len().min(start + len);
            let expected = &file[start.min(end)..end];
            let mut found = vec![0xAA; len];
            let count = reader.read_at(id, start as u64, &mut found).unwrap();
            assert!(
                &found[..count] == expected,
                "{} {start} + {len}",
                path.display()
            );
            let same = reader
                .read_with(id, start as u64, len, &mut scratch, |bytes| {
                    bytes == expected
                })
                .unwrap();
            assert!(same, "{} {start} + {len}, lent", path.display());
        };
        for boundary in (0..file.len()).step_by(part) {
            let boundary = file.len() - boundary;
            assert_range(boundary - 1, 2);
            assert_range(boundary - part.min(boundary), 2 * part + 1);
        }
        for _ in 0..300 {
            let len = [3, part, 20 * part][random.below(3)];
            assert_range(random.below(file.len() + 1), random.below(len) + 1);
        }
    }
}

#[test]
fn ranges_across_the_weights_of_experts_are_those_of_the_whole_file() {
    let fused = fused_layer(LAYER, Dtype::BF16, SIZES);
    let unfused = unfused(LAYER, &fused);
    let part = SIZES.intermediate * SIZES.hidden * 2;
    let workspace = Workspace::new();
    for (source, experts, changed) in [
        (&fused, Experts::Unfuse, &unfused),
        (&unfused, Experts::Fuse, &fused),
    ] {
        let base = workspace.write(&format!("{experts:?}"), &single(source, SIZES.hidden));
        let plan = plan(&base, experts).unwrap();
        assert_eq!(tensors(&plan), by_name(changed));
        assert_ranges(&plan, part);
    }
}

#[test]
fn ranges_of_quantized_experts_in_a_new_form_are_those_of_the_whole_file() {
    let fused = fused_layer(LAYER, Dtype::BF16, SIZES);
    let unfused = unfused(LAYER, &fused);
    let part = SIZES.intermediate * SIZES.hidden;
    let workspace = Workspace::new();
    for (source, experts) in [(&fused, Experts::Unfuse), (&unfused, Experts::Fuse)] {
        let base = workspace.write(&format!("{experts:?}"), &single(source, SIZES.hidden));
        assert_ranges(&plan_fp8(&base, Some(experts)), part);
    }
}
