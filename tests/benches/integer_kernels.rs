//! Source bytes a second of the encoders and decoders of `--quantize` that work on rows and groups, on one
//! core, beside a memcpy of the same bytes. As in a mount, results go to a buffer that is used again.

use std::hint::black_box;
use std::time::Duration;

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::cast::{self, dequantize_row};
use ckptfs::kernels::fp8::{self, nearest_scale};
use ckptfs::kernels::integer::{Int4, Int4Asymmetric, Int8, Integer, quantize_rows, unpack};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use half::bf16;

const SOURCE_BYTES: usize = 128 << 20;
const COLUMNS: usize = 4096;
/// Rows of a tile.
const ROWS: usize = 128;

/// BF16 of nearly normally distributed numbers.
fn source() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let numbers = (0..SOURCE_BYTES / 2).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let sum: u64 = (0..4).map(|part| state >> (16 * part) & 0xffff).sum();
        let standard = (sum as f32 - 131_070.0) / 37_837.0;
        bf16::from_f32(0.02 * standard).to_le_bytes()
    });
    numbers.collect()
}

fn group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    bytes: usize,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .throughput(Throughput::Bytes(bytes as u64))
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    group
}

fn encode_integers<C: Integer>(
    criterion: &mut Criterion,
    source: &[u8],
    name: &str,
    columns: usize,
) {
    let mut codes = vec![1u8; ROWS * COLUMNS * C::BITS / 8];
    let mut scales = vec![1.0; ROWS * COLUMNS / columns];
    let mut zeros = vec![0; scales.len()];
    let mut group = group(criterion, name, source.len());
    for &path in CpuPath::available().iter().rev() {
        let id = BenchmarkId::from_parameter(format!("{path:?}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                for tile in black_box(source).chunks_exact(ROWS * COLUMNS * 2) {
                    let (codes, scales) = (&mut codes, &mut scales);
                    let made = quantize_rows::<bf16, C>(
                        tile, COLUMNS, columns, codes, scales, &mut zeros, path,
                    );
                    made.expect("finite values");
                    black_box(codes);
                }
            });
        });
    }
}

fn encode_rows_of_float8(criterion: &mut Criterion, source: &[u8]) {
    let mut codes = vec![1u8; ROWS * COLUMNS];
    let mut scales = vec![1.0; ROWS];
    let mut group = group(criterion, "bf16 to fp8-channel", source.len());
    for &path in CpuPath::available().iter().rev() {
        let id = BenchmarkId::from_parameter(format!("{path:?}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                for tile in black_box(source).chunks_exact(ROWS * COLUMNS * 2) {
                    let (codes, scales) = (&mut codes, &mut scales);
                    let scale = nearest_scale::<bf16>;
                    fp8::quantize_rows::<bf16>(tile, COLUMNS, codes, scales, scale, path)
                        .expect("finite values");
                    black_box(codes);
                }
            });
        });
    }
}

fn decode(criterion: &mut Criterion, source: &[u8]) {
    let mut target = vec![1u8; COLUMNS * 2];
    let scales = vec![0.01f32; COLUMNS / 128];
    let mut values = vec![0; COLUMNS];
    let name = "int8-channel to bf16 (bytes of the result)";
    let source = &source[..SOURCE_BYTES / 4];
    let mut bytes = group(criterion, name, source.len() * 2);
    for &path in CpuPath::available().iter().rev() {
        let id = BenchmarkId::from_parameter(format!("{path:?}"));
        bytes.bench_function(id, |bencher| {
            bencher.iter(|| {
                for row in black_box(source).chunks_exact(COLUMNS) {
                    let target = black_box(&mut target);
                    dequantize_row::<cast::Int8, bf16>(row, &scales[..1], COLUMNS, target, path);
                }
            });
        });
    }
    bytes.finish();
    let name = "int4 to bf16 (bytes of the result)";
    let mut nibbles = group(criterion, name, source.len() * 4);
    for &path in CpuPath::available().iter().rev() {
        let id = BenchmarkId::from_parameter(format!("{path:?}"));
        nibbles.bench_function(id, |bencher| {
            bencher.iter(|| {
                for row in black_box(source).chunks_exact(COLUMNS / 2) {
                    unpack(row, 0, &mut values, path);
                    let target = black_box(&mut target);
                    dequantize_row::<cast::Int8, bf16>(&values, &scales, 128, target, path);
                }
            });
        });
    }
}

fn kernels(criterion: &mut Criterion) {
    let source = source();
    let mut copy = vec![1u8; source.len()];
    let mut memcpy = group(criterion, "memcpy", source.len());
    memcpy.bench_function("whole", |bencher| {
        bencher.iter(|| black_box(&mut copy).copy_from_slice(black_box(&source)));
    });
    memcpy.bench_function("to one tile", |bencher| {
        bencher.iter(|| {
            for tile in source.chunks_exact(ROWS * COLUMNS * 2) {
                black_box(&mut copy[..tile.len()]).copy_from_slice(tile);
            }
        });
    });
    memcpy.finish();
    encode_rows_of_float8(criterion, &source);
    encode_integers::<Int8>(criterion, &source, "bf16 to int8-channel", COLUMNS);
    encode_integers::<Int4>(criterion, &source, "bf16 to int4", 128);
    encode_integers::<Int4>(criterion, &source, "bf16 to int4:group=32", 32);
    encode_integers::<Int4Asymmetric>(criterion, &source, "bf16 to int4:asymmetric", 128);
    decode(criterion, &source);
}

criterion_group!(benches, kernels);
criterion_main!(benches);
