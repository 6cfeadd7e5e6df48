//! Source bytes a second of every FP8 kernel on one core, beside a memcpy of the same bytes.
//!
//! Source matrices are far larger than caches; codes go to one buffer for a block row, which is
//! used again, as the tiles of a mount are. `memcpy` writes to a buffer as large as the source, and
//! `memcpy to one block row` to one that is used again like that of the codes.

use std::hint::black_box;
use std::time::Duration;

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::fp8::{BLOCK, Element, ScaleFormat, quantize_block_row};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};

const SOURCE_BYTES: usize = 128 << 20;
const FORMATS: [(ScaleFormat, &str); 2] = [
    (ScaleFormat::Ue8m0, "ue8m0"),
    (ScaleFormat::Float32, "float32"),
];

/// Whole block rows of normally distributed numbers, about 128 MB.
fn matrix(columns: usize, element_bytes: usize, encode: impl Fn(f32, &mut Vec<u8>)) -> Vec<u8> {
    let block_row = BLOCK * columns * element_bytes;
    let len = SOURCE_BYTES / block_row * block_row;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut source = Vec::with_capacity(len);
    while source.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // The sum of four uniform numbers of 16 bits is nearly normal.
        let sum: u64 = (0..4).map(|part| state >> (16 * part) & 0xffff).sum();
        let standard = (sum as f32 - 131_070.0) / 37_837.0;
        encode(0.02 * standard, &mut source);
    }
    source
}

fn quantize<T: Element>(
    source: &[u8],
    columns: usize,
    codes: &mut [u8],
    scales: &mut [f32],
    format: ScaleFormat,
    path: CpuPath,
) {
    for source in source.chunks_exact(codes.len() * T::BYTES) {
        quantize_block_row::<T>(source, columns, codes, scales, format, path)
            .expect("finite values");
        black_box(&mut *codes);
    }
}

fn measure<T: Element>(
    criterion: &mut Criterion,
    dtype: &str,
    columns: usize,
    encode: impl Fn(f32, &mut Vec<u8>),
) {
    let source = matrix(columns, T::BYTES, encode);
    let mut copy = vec![1u8; source.len()];
    let mut codes = vec![1u8; BLOCK * columns];
    let mut scales = vec![1.0; columns.div_ceil(BLOCK)];
    let mut group = criterion.benchmark_group(format!("{dtype} × {columns}"));
    group
        .throughput(Throughput::Bytes(source.len() as u64))
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    group.bench_function("memcpy", |bencher| {
        bencher.iter(|| black_box(&mut copy).copy_from_slice(black_box(&source)));
    });
    group.bench_function("memcpy to one block row", |bencher| {
        bencher.iter(|| {
            for source in source.chunks_exact(codes.len() * T::BYTES) {
                black_box(&mut copy[..source.len()]).copy_from_slice(source);
            }
        });
    });
    for (format, name) in FORMATS {
        for &path in CpuPath::available().iter().rev() {
            group.bench_function(BenchmarkId::new(name, format!("{path:?}")), |bencher| {
                bencher.iter(|| {
                    quantize::<T>(
                        black_box(&source),
                        columns,
                        &mut codes,
                        &mut scales,
                        format,
                        path,
                    );
                });
            });
        }
    }
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    let encode_bf16 = |x: f32, bytes: &mut Vec<u8>| bytes.extend(bf16::from_f32(x).to_le_bytes());
    measure::<bf16>(criterion, "bf16", 4096, encode_bf16);
    measure::<bf16>(criterion, "bf16", 12288, encode_bf16);
    measure::<f16>(criterion, "f16", 4096, |x, bytes| {
        bytes.extend(f16::from_f32(x).to_le_bytes());
    });
    measure::<f32>(criterion, "f32", 4096, |x, bytes| {
        bytes.extend(x.to_le_bytes())
    });
}

criterion_group!(benches, kernels);
criterion_main!(benches);
