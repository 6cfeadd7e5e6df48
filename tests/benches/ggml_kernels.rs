//! Million elements a second of every GGUF type on one core, encoded and decoded, with and without
//! an importance matrix.
//!
//! Sources are matrices of 4096 columns, far larger than caches where a type is fast; blocks go to
//! one buffer for a row, which is used again.

use std::hint::black_box;
use std::time::Duration;

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::ggml::{Type, decode_row, encode_row};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const COLUMNS: usize = 4096;

/// Nearly normally distributed numbers.
fn matrix(rows: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let normal = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let sum: u64 = (0..4).map(|part| state >> (16 * part) & 0xffff).sum();
        0.02 * (sum as f32 - 131_070.0) / 37_837.0
    };
    std::iter::repeat_with(normal)
        .take(rows * COLUMNS)
        .collect()
}

/// Whether a search takes most of the time.
fn is_slow(kind: Type, weights: Option<&[f32]>) -> bool {
    kind.block_len() > 32 || weights.is_some() && kind != Type::Q8_0
}

fn encoding(criterion: &mut Criterion) {
    let all = matrix(8192);
    let weights: Vec<f32> = (0..COLUMNS).map(|i| 1.0 + (i % 13) as f32).collect();
    for (name, weights) in [("encode", None), ("encode, imatrix", Some(&weights[..]))] {
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_millis(500));
        for kind in Type::ALL.into_iter().filter(|kind| kind.is_encodable()) {
            if weights.is_some() && (kind.block_len() == 1 || kind == Type::Q8_0) {
                continue;
            }
            let rows = if is_slow(kind, weights) { 32 } else { 8192 };
            let source = &all[..rows * COLUMNS];
            let mut blocks = vec![0; kind.row_bytes(COLUMNS).expect("whole blocks")];
            group.throughput(Throughput::Elements(source.len() as u64));
            for &path in CpuPath::available().iter().rev() {
                let id = BenchmarkId::new(kind.name(), format!("{path:?}"));
                group.bench_function(id, |bencher| {
                    bencher.iter(|| {
                        for row in source.chunks_exact(COLUMNS) {
                            encode_row(kind, black_box(row), weights, &mut blocks, path)
                                .expect("finite values");
                            black_box(&mut blocks);
                        }
                    });
                });
            }
        }
        if weights.is_none() {
            let mut copy = vec![0.0f32; all.len()];
            group.throughput(Throughput::Elements(all.len() as u64));
            group.bench_function("memcpy", |bencher| {
                bencher.iter(|| black_box(&mut copy).copy_from_slice(black_box(&all)));
            });
        }
        group.finish();
    }
}

fn decoding(criterion: &mut Criterion) {
    let source = matrix(1);
    let mut group = criterion.benchmark_group("decode");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .throughput(Throughput::Elements(COLUMNS as u64));
    for kind in Type::ALL {
        let mut blocks = vec![0x35; kind.row_bytes(COLUMNS).expect("whole blocks")];
        if kind.is_encodable() {
            encode_row(kind, &source, None, &mut blocks, CpuPath::best()).expect("finite values");
        }
        let mut values = vec![0.0; COLUMNS];
        for &path in CpuPath::available().iter().rev() {
            let id = BenchmarkId::new(kind.name(), format!("{path:?}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    decode_row(kind, black_box(&blocks), &mut values, path);
                    black_box(&mut values);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, encoding, decoding);
criterion_main!(benches);
