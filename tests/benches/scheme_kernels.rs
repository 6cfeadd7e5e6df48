//! Every encoder and decoder of the quantization schemes on one core, side by side with a memcpy: of each round, a memcpy
//! and then the kernel, so that other load on the machine slows both. Bytes are those of BF16: of the source of an
//! encoder, of the result of a decoder. Sources come from memory; as in a mount, results go to a buffer that is used
//! again. The memcpy copies as many bytes from memory to memory.
//!
//! Arguments are parts of names, of which one must be in the name of a kernel; without any, all run.

use std::env;
use std::hint::black_box;
use std::time::Instant;

use ckptfs::kernels::CpuPath;
use ckptfs::kernels::cast::{self, E4m3, dequantize_row};
use ckptfs::kernels::fp8::{self, ScaleFormat, first_inexact, nearest_scale, quantize_block_row};
use ckptfs::kernels::integer::{
    self, Int4, Int4Asymmetric, Int8, Integer, dequantize_groups, unpack, unpack_bits, unpack_place,
};
use ckptfs::kernels::microscaling::{
    self, Format, Mxfp4, Mxfp4Modelopt, Mxfp4Triton, Mxfp8, Mxfp8Modelopt, Nvfp4, Nvfp4Modelopt,
    dequantize_e2m1_row,
};
use half::bf16;

const ROUNDS: usize = 15;
const COLUMNS: usize = 4096;
/// Rows of a tile.
const ROWS: usize = 128;
const TILE: usize = ROWS * COLUMNS;
const TILES: usize = 64;
const SOURCE_BYTES: usize = TILES * TILE * 2;

/// BF16 of nearly normally distributed numbers.
fn normal() -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let numbers = (0..SOURCE_BYTES / 2).flat_map(|_| {
        let bits = random.next();
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        let standard = (sum as f32 - 131_070.0) / 37_837.0;
        bf16::from_f32(0.02 * standard).to_le_bytes()
    });
    numbers.collect()
}

/// BF16 of random numbers that FP4 has, with scales from 2^-9 to 2^-2.
fn of_fp4() -> Vec<u8> {
    const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let groups = (0..SOURCE_BYTES / 64).flat_map(|_| {
        let scale = 2f32.powi(-9 + (random.next() >> 61) as i32);
        let (codes, signs) = ([random.next(), random.next()], random.next());
        (0..32).flat_map(move |i| {
            let magnitude = scale * MAGNITUDES[(codes[i / 16] >> (4 * (i % 16)) & 7) as usize];
            let is_negative = signs >> i & 1 == 1;
            bf16::from_f32(if is_negative { -magnitude } else { magnitude }).to_le_bytes()
        })
    });
    groups.collect()
}

/// xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What is measured, over all of a source.
struct Case<'a> {
    name: &'static str,
    path: CpuPath,
    run: Box<dyn FnMut() + 'a>,
}

/// Cases of one path.
struct Cases<'a> {
    cases: Vec<Case<'a>>,
    path: CpuPath,
}

impl<'a> Cases<'a> {
    fn add(&mut self, name: &'static str, run: impl FnMut() + 'a) {
        self.cases.push(Case {
            name,
            path: self.path,
            run: Box::new(run),
        });
    }

    fn integers<C: Integer>(&mut self, name: &'static str, source: &'a [u8], group: usize) {
        let mut codes = vec![1u8; TILE * C::BITS / 8];
        let mut scales = vec![1.0; TILE / group];
        let mut zeros = vec![0; scales.len()];
        let path = self.path;
        self.add(name, move || {
            for tile in black_box(source).chunks_exact(TILE * 2) {
                let (codes, scales) = (&mut codes, &mut scales);
                integer::quantize_rows::<bf16, C>(
                    tile, COLUMNS, group, codes, scales, &mut zeros, path,
                )
                .expect("finite values");
                black_box(codes);
            }
        });
    }

    fn block_floats<F: Format>(&mut self, name: &'static str, source: &'a [u8]) {
        let mut codes = vec![1u8; TILE * F::BITS / 8];
        let mut scales = vec![1; TILE / F::GROUP];
        let (path, global) = (self.path, F::global(0.1));
        self.add(name, move || {
            for tile in black_box(source).chunks_exact(TILE * 2) {
                let (codes, scales) = (&mut codes, &mut scales);
                microscaling::quantize_rows::<bf16, F>(tile, COLUMNS, global, codes, scales, path)
                    .expect("finite values");
                black_box(codes);
            }
        });
    }

    fn float8(&mut self, name: &'static str, source: &'a [u8], format: ScaleFormat, check: bool) {
        let mut codes = vec![1u8; TILE];
        let mut scales = vec![1.0; COLUMNS / 128];
        let path = self.path;
        self.add(name, move || {
            for tile in black_box(source).chunks_exact(TILE * 2) {
                quantize_block_row::<bf16>(tile, COLUMNS, &mut codes, &mut scales, format, path)
                    .expect("finite values");
                if check {
                    let found = first_inexact::<bf16>(tile, COLUMNS, &codes, &scales, path);
                    assert_eq!(found, None);
                }
                black_box(&mut codes);
            }
        });
    }

    fn float8_rows(&mut self, name: &'static str, source: &'a [u8]) {
        let mut codes = vec![1u8; TILE];
        let mut scales = vec![1.0; ROWS];
        let path = self.path;
        self.add(name, move || {
            for tile in black_box(source).chunks_exact(TILE * 2) {
                let (codes, scales) = (&mut codes, &mut scales);
                let scale = nearest_scale::<bf16>;
                fp8::quantize_rows::<bf16>(tile, COLUMNS, codes, scales, scale, path)
                    .expect("finite values");
                black_box(codes);
            }
        });
    }

    /// `row` decodes a row, of `bits` for each code, into BF16.
    fn decoder(
        &mut self,
        name: &'static str,
        source: &'a [u8],
        bits: usize,
        mut row: impl FnMut(&[u8], &mut [u8]) + 'a,
    ) {
        let mut target = vec![1u8; COLUMNS * 2];
        let source = &source[..SOURCE_BYTES / 16 * bits];
        self.add(name, move || {
            for codes in black_box(source).chunks_exact(COLUMNS * bits / 8) {
                row(codes, black_box(&mut target));
            }
        });
    }

    fn encoders(&mut self, normal: &'a [u8], of_fp4: &'a [u8]) {
        self.float8("to fp8-block, ue8m0", normal, ScaleFormat::Ue8m0, false);
        self.float8("to fp8-block, float32", normal, ScaleFormat::Float32, false);
        self.float8("to fp8-block, rounded", of_fp4, ScaleFormat::Ue8m0, false);
        self.float8("to fp8-block, exact", of_fp4, ScaleFormat::Ue8m0, true);
        self.float8_rows("to fp8-channel", normal);
        self.integers::<Int8>("to int8-channel", normal, COLUMNS);
        self.integers::<Int4>("to int4", normal, 128);
        self.integers::<Int4>("to int4:group=32", normal, 32);
        self.integers::<Int4Asymmetric>("to int4:asymmetric", normal, 128);
        self.block_floats::<Mxfp8>("to mxfp8", normal);
        self.block_floats::<Mxfp8Modelopt>("to mxfp8, modelopt", normal);
        self.block_floats::<Mxfp4>("to mxfp4", normal);
        self.block_floats::<Mxfp4Modelopt>("to mxfp4, modelopt", normal);
        self.block_floats::<Mxfp4Triton>("to mxfp4, gpt-oss", normal);
        self.block_floats::<Nvfp4>("to nvfp4", normal);
        self.block_floats::<Nvfp4Modelopt>("to nvfp4, modelopt", normal);
    }

    fn decoders(&mut self, codes: &'a [u8]) {
        let path = self.path;
        let of_blocks = vec![0.01f32; COLUMNS / 128];
        let of_groups = vec![0.01f32; COLUMNS / 16];
        let of_words = of_blocks.clone();
        let zeros = vec![8.0f32; COLUMNS / 128];
        let mut values = vec![0; COLUMNS];

        let scales = of_blocks.clone();
        self.decoder("from fp8-block", codes, 8, move |row, target| {
            dequantize_row::<E4m3, bf16>(row, &scales, 128, target, path);
        });
        self.decoder("from int8-channel", codes, 8, move |row, target| {
            dequantize_row::<cast::Int8, bf16>(row, &[0.01], COLUMNS, target, path);
        });
        let (scales, mut integers) = (of_blocks, values.clone());
        self.decoder("from int4", codes, 4, move |row, target| {
            unpack(row, 0, &mut integers, path);
            dequantize_row::<cast::Int8, bf16>(&integers, &scales, 128, target, path);
        });
        let scales = of_groups.clone();
        self.decoder("from mxfp8", codes, 8, move |row, target| {
            let scales = &scales[..COLUMNS / 32];
            dequantize_row::<E4m3, bf16>(row, scales, 32, target, path);
        });
        for (name, group) in [("from mxfp4", 32), ("from nvfp4", 16)] {
            let scales = of_groups[..COLUMNS / group].to_vec();
            self.decoder(name, codes, 4, move |row, target| {
                dequantize_e2m1_row::<bf16>(row, &scales, group, target, path);
            });
        }
        let (scales, points) = (of_words.clone(), zeros.clone());
        let mut numbers = values.clone();
        self.decoder(
            "from awq, gptq (gemv, down)",
            codes,
            4,
            move |row, target| {
                unpack_bits(row, 4, &mut numbers, path);
                dequantize_groups::<bf16>(&numbers, &points, &scales, 128, target, path);
            },
        );
        // Eight rows are in one row of words.
        let source = &codes[..SOURCE_BYTES / 4];
        let mut target = vec![1u8; COLUMNS * 2];
        self.add("from awq (gemm)", move || {
            for words in black_box(source).chunks_exact(COLUMNS * 4) {
                for place in 0..8 {
                    unpack_place(words, place, &mut values, path);
                    let target = black_box(&mut target);
                    dequantize_groups::<bf16>(&values, &zeros, &of_words, 128, target, path);
                }
            }
        });
    }
}

/// Seconds that `work` takes.
fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() {
    let wanted: Vec<String> = env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let (normal, of_fp4) = (normal(), of_fp4());
    let mut random = Random(1);
    // No NaN of FP8.
    let codes: Vec<u8> = (0..SOURCE_BYTES / 2)
        .map(|_| random.next() as u8 & 0xf7)
        .collect();
    let mut copy = vec![1u8; SOURCE_BYTES];
    let mut all = Vec::new();
    for &path in CpuPath::available() {
        let cases = Vec::new();
        let mut of_path = Cases { cases, path };
        of_path.encoders(&normal, &of_fp4);
        of_path.decoders(&codes);
        all.append(&mut of_path.cases);
    }
    all.retain(|case| {
        let is_wanted = |part: &String| case.name.contains(&**part);
        wanted.is_empty() || wanted.iter().any(is_wanted)
    });
    let mut figures = vec![Vec::new(); all.len()];
    for _ in 0..ROUNDS {
        for (case, figures) in all.iter_mut().zip(&mut figures) {
            let memcpy = seconds(|| black_box(&mut copy).copy_from_slice(black_box(&normal)));
            let kernel = seconds(&mut case.run);
            figures.push([memcpy, kernel]);
        }
    }
    println!(
        "GB/s: the best of {ROUNDS} rounds; ratio: the median of those to memcpy, beside which it ran"
    );
    for (case, figures) in all.iter().zip(figures) {
        let best = |i: usize| figures.iter().map(|f| f[i]).fold(f64::MAX, f64::min);
        let mut ratios: Vec<f64> = figures
            .iter()
            .map(|[memcpy, kernel]| memcpy / kernel)
            .collect();
        let [memcpy, kernel] = [0, 1].map(|i| SOURCE_BYTES as f64 / best(i) / 1e9);
        println!(
            "{:<28} {:<10} {kernel:6.2} GB/s   memcpy {memcpy:6.2} GB/s   ratio {:.2}",
            case.name,
            case.path.name(),
            median(&mut ratios),
        );
    }
}
