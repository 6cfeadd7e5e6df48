//! f32 in lanes, which do not know of each other: an algorithm that is written for one value runs for
//! several at once, each in the order of the algorithm.
//!
//! Everything on the way from a [`Loop`](crate::kernels::Loop) to these must be inlined for the
//! instructions to be used, which is not sure of closures that handle vectors: there are none.

mod lanes;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use lanes::{MAX_LANES, Vector, nearest, transpose};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{F32x4, F32x8, F32x16};

/// The lanes that every processor of its kind has.
#[cfg(target_arch = "x86_64")]
pub(super) type Plain = F32x4;
#[cfg(not(target_arch = "x86_64"))]
pub(super) type Plain = f32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{CpuPath, Loop};

    /// All that lanes can do with two numbers, and with a byte.
    struct Everything<V> {
        a: [f32; MAX_LANES],
        b: [f32; MAX_LANES],
        vector: std::marker::PhantomData<V>,
    }

    impl<V: Vector> Loop for Everything<V> {
        type Output = Vec<[u32; MAX_LANES]>;

        #[inline(always)]
        fn run(self) -> Self::Output {
            let mut results = Vec::new();
            for at in (0..MAX_LANES).step_by(V::LANES) {
                let mut part = [[0.0; MAX_LANES]; 2];
                part[0][..V::LANES].copy_from_slice(&self.a[at..at + V::LANES]);
                part[1][..V::LANES].copy_from_slice(&self.b[at..at + V::LANES]);
                let (a, b) = (V::load(&part[0]), V::load(&part[1]));
                let bytes = [part[0].map(|x| x as u8), part[1].map(|x| x.to_bits() as u8)];
                let yes = V::splat(1.0);
                let no = V::splat(2.0);
                let mut written = [0.0; MAX_LANES];
                a.write(&mut written);
                let all = [
                    a + b,
                    a - b,
                    a * b,
                    a / b,
                    a.sqrt(),
                    a.abs(),
                    a.lesser(b),
                    a.greater(b),
                    a.round(),
                    a.to_byte(),
                    V::select(a.less(b), yes, no),
                    V::select(a.differs(b), yes, no),
                    V::select(V::both(a.less(b), a.differs(yes)), a, b),
                    V::load(&written),
                    V::from_bits_of(&bytes[0], 0, 15),
                    V::from_bits_of(&bytes[1], 4, 15),
                    V::from_bits_of(&bytes[1], 3, 1),
                    V::from_signed(&bytes[1]),
                ];
                results.resize(all.len(), [0; MAX_LANES]);
                for (result, lanes) in results.iter_mut().zip(all) {
                    for (result, lane) in result[at..].iter_mut().zip(&lanes.lanes()[..V::LANES]) {
                        *result = if lane.is_nan() {
                            u32::MAX
                        } else {
                            lane.to_bits()
                        };
                    }
                }
                assert_eq!(V::any(a.less(b)), lanes_differ::<V>(a.less(b)));
            }
            results
        }
    }

    fn lanes_differ<V: Vector>(mask: V::Mask) -> bool {
        let chosen = V::select(mask, V::splat(1.0), V::splat(0.0)).lanes();
        chosen.contains(&1.0)
    }

    fn everything<V: Vector>(
        path: CpuPath,
        a: [f32; MAX_LANES],
        b: [f32; MAX_LANES],
    ) -> Vec<[u32; MAX_LANES]> {
        let vector = std::marker::PhantomData::<V>;
        path.run(Everything { a, b, vector })
    }

    #[test]
    fn lanes_do_what_single_numbers_do() {
        let special = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            2.5,
            -3.5,
            0.1,
            1e-40,
            1e38,
            -1e38,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            4_194_303.5,
            254.5,
            -7.25,
        ];
        for shift in 0..MAX_LANES {
            let mut other = special;
            other.rotate_left(shift);
            let expected = everything::<f32>(CpuPath::Scalar, special, other);
            assert_eq!(
                everything::<Plain>(CpuPath::Scalar, special, other),
                expected
            );
            #[cfg(target_arch = "x86_64")]
            for &path in CpuPath::available() {
                let found = match path {
                    CpuPath::Scalar => continue,
                    CpuPath::Avx2 => everything::<F32x8>(path, special, other),
                    CpuPath::Avx512 => everything::<F32x16>(path, special, other),
                };
                assert_eq!(found, expected, "{path:?}");
            }
        }
    }
}
