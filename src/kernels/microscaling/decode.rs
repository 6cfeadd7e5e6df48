//! FP4 numbers times the scales of their groups.

use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use crate::kernels::avx2::{self, STEP};
use crate::kernels::cast::{Target, product_bits};
use crate::kernels::float4::e2m1_to_f32;
use crate::kernels::{CpuPath, Loop};

/// Writes the products of the E2M1 codes in `packed`, two in a byte, the first in its lower half, and their scales: one for
/// every `group` codes, the last of which may be cut off.
///
/// # Panics
/// If the lengths do not fit together, `group` is odd, or this processor cannot run `path`.
pub fn dequantize_e2m1_row<T: Target>(
    packed: &[u8],
    scales: &[f32],
    group: usize,
    target: &mut [u8],
    path: CpuPath,
) {
    assert_eq!(target.len(), packed.len() * 2 * T::BYTES);
    assert!(group.is_multiple_of(2));
    assert_eq!(scales.len(), (packed.len() * 2).div_ceil(group));
    match path {
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 | CpuPath::Avx512 if group == 16 || group.is_multiple_of(STEP) => {
            CpuPath::Avx2.run(Steps::<T>(Row {
                packed,
                scales,
                group,
                target,
                to: PhantomData,
            }));
        }
        _ => path.run(Row::<T> {
            packed,
            scales,
            group,
            target,
            to: PhantomData,
        }),
    }
}

/// Codes that are taken out of their bytes at once.
const PART: usize = 64;

struct Row<'a, T> {
    packed: &'a [u8],
    scales: &'a [f32],
    group: usize,
    target: &'a mut [u8],
    to: PhantomData<T>,
}

impl<T: Target> Loop for Row<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let targets = self.target.chunks_mut(self.group * T::BYTES);
        let groups = self.packed.chunks(self.group / 2).zip(self.scales);
        for ((packed, &scale), target) in groups.zip(targets) {
            let parts = packed.chunks(PART / 2);
            for (packed, target) in parts.zip(target.chunks_mut(PART * T::BYTES)) {
                // Compilers make vector code of two loops.
                let mut codes = [0; PART];
                for (codes, packed) in codes.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
                    *codes = [packed & 0xf, packed >> 4];
                }
                for (&code, target) in codes.iter().zip(target.chunks_exact_mut(T::BYTES)) {
                    T::write(product_bits(e2m1_to_f32(code), scale), target);
                }
            }
        }
    }
}

/// The same, 32 codes at a time: of one group, or of two of 16.
#[cfg(target_arch = "x86_64")]
struct Steps<'a, T>(Row<'a, T>);

#[cfg(target_arch = "x86_64")]
impl<T: Target> Loop for Steps<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Steps(row) = self;
        let in_step = (STEP / row.group).max(1);
        let codes = row.group * in_step;
        let parts = row.packed.chunks(codes / 2).zip(row.scales.chunks(in_step));
        let targets = row.target.chunks_mut(codes * T::BYTES);
        for ((packed, scales), target) in parts.zip(targets) {
            let is_whole = packed.len().is_multiple_of(STEP / 2);
            if !is_whole || scales.iter().any(|scale| !scale.is_finite()) {
                let part = Row::<T> {
                    packed,
                    scales,
                    group: row.group,
                    target,
                    to: PhantomData,
                };
                part.run();
                continue;
            }
            let scales = [scales[0], scales[scales.len() - 1]];
            let steps = packed.chunks_exact(STEP / 2);
            for (packed, target) in steps.zip(target.chunks_exact_mut(STEP * T::BYTES)) {
                // SAFETY: the processor has AVX2 and F16C, as the path says.
                unsafe {
                    let products = avx2::e2m1_products(packed, scales);
                    avx2::store(T::PRECISION, products, target);
                }
            }
        }
    }
}
