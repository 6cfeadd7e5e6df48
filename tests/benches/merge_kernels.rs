//! Source bytes a second of merges of two bf16 models, on one core, from the second-level cache to it.
//! What methods find out about whole tensors before is not in it.

use std::hint::black_box;
use std::time::Duration;

use ckptfs::catalog::Kernel;
use ckptfs::kernels::CpuPath;
use ckptfs::kernels::lanes::Precision;
use ckptfs::ops::merge::{
    Combination, Formula, Keep, Linear, NearSwap, PointwiseKernel, Slerp, Task, TaskArithmetic,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;

/// Of both models, and of the result, 128 KiB each.
const ELEMENTS: u64 = 1 << 16;

/// Values like those of weights, other ones for each `seed`.
fn model(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let value = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        let uniform = (state >> 40) as f32 / (1 << 24) as f32;
        bf16::from_f32((uniform - 0.5) * 0.1).to_le_bytes()
    };
    (0..ELEMENTS).flat_map(value).collect()
}

fn measure<F: Formula + Clone>(criterion: &mut Criterion, name: &str, formula: &F, facts: &[f64]) {
    let models = [model(1), model(2)];
    let mut merged = vec![1u8; ELEMENTS as usize * 2];
    let mut group = criterion.benchmark_group(name);
    group
        .throughput(Throughput::Bytes(2 * ELEMENTS * 2))
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    for &path in CpuPath::available().iter().rev() {
        let bf16 = Precision::Bf16;
        let kernel = PointwiseKernel::new(formula.clone(), vec![bf16; 2], bf16, bf16, &[ELEMENTS]);
        let kernel = kernel.on(path);
        let id = BenchmarkId::from_parameter(format!("{path:?}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let band = kernel.bands().band(0);
                let inputs = models.each_ref().map(|model| &black_box(model)[..]);
                let outputs = &mut [&mut black_box(&mut merged)[..]];
                kernel.compute(facts, &band, &inputs, outputs).unwrap();
            });
        });
    }
}

fn kernels(criterion: &mut Criterion) {
    let linear = |weights: [f32; 2]| Linear {
        weights: weights.into(),
        normalize: true,
    };
    measure(criterion, "linear, 0.4 and 0.6", &linear([0.4, 0.6]), &[]);
    measure(criterion, "linear, 0.4 and 0.7", &linear([0.4, 0.7]), &[]);
    measure(criterion, "slerp", &Slerp { t: 0.4 }, &[0.6, 0.5]);
    measure(criterion, "nearswap", &NearSwap { t: 0.001 }, &[]);
    let task = Task {
        weight: 0.5,
        keep: Keep::All,
    };
    let combination = Combination {
        consensus: false,
        normalize: false,
        rescale: false,
        lambda: 1.0,
    };
    let merge: TaskArithmetic = TaskArithmetic::new(&[task], combination, ELEMENTS);
    measure(criterion, "task_arithmetic", &merge, &[]);
    let consensus = Combination {
        consensus: true,
        normalize: true,
        ..combination
    };
    let merge: TaskArithmetic = TaskArithmetic::new(&[task], consensus, ELEMENTS);
    measure(criterion, "consensus, normalized", &merge, &[]);
}

criterion_group!(benches, kernels);
criterion_main!(benches);
