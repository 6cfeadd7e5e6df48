//! Source bytes a second of rounding to another dtype and of dequantizing, on one core, tile by
//! tile as the reader does it: the result goes to a buffer that is used again.

use std::hint::black_box;
use std::time::Duration;

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::cast::{Code, E4m3, E5m2, F64ToOdd, Source, Target, convert, dequantize_row};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use half::{bf16, f16};

const SOURCE_BYTES: usize = 64 << 20;
const TILE_ELEMENTS: usize = 1 << 19;
const COLUMNS: usize = 4096;
const BLOCK: usize = 128;

/// Bytes of a repeating pattern that is no NaN as any of the types.
fn source() -> Vec<u8> {
    (0..SOURCE_BYTES).map(|i| (i % 61) as u8).collect()
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .throughput(Throughput::Bytes(SOURCE_BYTES as u64))
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    group
}

fn measure_convert<S: Source, T: Target>(criterion: &mut Criterion, name: &str) {
    let source = source();
    let mut target = vec![1u8; TILE_ELEMENTS * T::BYTES];
    let mut group = group(criterion, name);
    for &path in CpuPath::available().iter().rev() {
        let id = BenchmarkId::from_parameter(format!("{path:?}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                for tile in black_box(&source).chunks_exact(TILE_ELEMENTS * S::BYTES) {
                    convert::<S, T>(tile, black_box(&mut target), path);
                }
            });
        });
    }
}

fn measure_dequantize<C: Code, T: Target>(criterion: &mut Criterion, name: &str) {
    let source = source();
    let scales = vec![0.01f32; COLUMNS / BLOCK];
    let mut target = vec![1u8; COLUMNS * T::BYTES];
    let mut group = group(criterion, name);
    for &path in CpuPath::available().iter().rev() {
        let id = BenchmarkId::from_parameter(format!("{path:?}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                for row in black_box(&source).chunks_exact(COLUMNS) {
                    dequantize_row::<C, T>(row, &scales, BLOCK, black_box(&mut target), path);
                }
            });
        });
    }
}

fn kernels(criterion: &mut Criterion) {
    measure_convert::<bf16, f16>(criterion, "bf16 to f16");
    measure_convert::<bf16, f32>(criterion, "bf16 to f32");
    measure_convert::<f16, bf16>(criterion, "f16 to bf16");
    measure_convert::<f32, bf16>(criterion, "f32 to bf16");
    measure_convert::<f32, f16>(criterion, "f32 to f16");
    measure_convert::<F64ToOdd, bf16>(criterion, "f64 to bf16");
    measure_dequantize::<E4m3, bf16>(criterion, "e4m3 to bf16");
    measure_dequantize::<E4m3, f32>(criterion, "e4m3 to f32");
    measure_dequantize::<E5m2, bf16>(criterion, "e5m2 to bf16");
}

criterion_group!(benches, kernels);
criterion_main!(benches);
