//! How long this machine takes to encode a view, from encoding for a moment.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::model::GgufReport;
use crate::kernels::CpuPath;
use crate::kernels::ggml::{Type, encode_row};

impl GgufReport {
    /// The time in which one processor of this machine encodes all weights. It is found by encoding some numbers for a few
    /// milliseconds for each type, so it is another one each time.
    pub fn encoding_time(&self) -> Duration {
        let path = CpuPath::best();
        let seconds = self.types.iter().filter_map(|(name, (_, weights, _))| {
            let kind = Type::from_name(name).filter(|kind| kind.is_encodable())?;
            Some(*weights as f64 * seconds_per_weight(kind, path))
        });
        Duration::from_secs_f64(seconds.sum())
    }
}

/// The least that was seen, as other programs may have the processor meanwhile.
fn seconds_per_weight(kind: Type, path: CpuPath) -> f64 {
    const WEIGHTS: usize = 4096;
    const MOMENT: Duration = Duration::from_millis(4);
    let row = numbers(WEIGHTS);
    let mut blocks = vec![0; kind.row_bytes(WEIGHTS).expect("whole blocks")];
    let begin = Instant::now();
    let mut least = Duration::MAX;
    while begin.elapsed() < MOMENT || least == Duration::MAX {
        let start = Instant::now();
        encode_row(kind, black_box(&row), None, &mut blocks, path).expect("small numbers");
        black_box(&mut blocks);
        least = least.min(start.elapsed());
    }
    least.as_secs_f64() / WEIGHTS as f64
}

/// Numbers that are spread nearly as weights are: searches take as long as for these.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut uniform = || {
        // Numerical Recipes' generator.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let near_normal = || (0..4).map(|_| uniform()).sum::<f32>() * 0.03;
    std::iter::repeat_with(near_normal).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_encoded_takes_time_and_others_take_none() {
        let report = |name, weights| GgufReport {
            architecture: "llama",
            types: [(name, (1, weights, 0))].into(),
            imatrix: None,
        };
        for kind in Type::ALL {
            let time = report(kind.name(), 1 << 30).encoding_time();
            assert_eq!(time > Duration::ZERO, kind.is_encodable(), "{kind:?}");
            assert_eq!(report(kind.name(), 0).encoding_time(), Duration::ZERO);
        }
    }
}
