//! Which vector instructions loops are compiled for, chosen when the program runs.

use std::sync::LazyLock;

use crate::fast_paths::FastPath;

/// An implementation for a kind of processor. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuPath {
    /// Plain Rust, compiled for any processor.
    Scalar,
    /// AVX2, F16C and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F and BW as well. What is written with vectors of AVX2 runs as compiled for that: compilers
    /// make slower code of it for this path.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON, for loops that compilers do not vectorize by themselves. Plain Rust is compiled with it
    /// too, as every 64-bit ARM has it.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// A loop in plain Rust that is compiled once for each [`CpuPath`].
///
/// Rust never reorders floating point operations, nor joins a multiplication and an addition into
/// one that rounds once unless told to (`mul_add`): the wider vectors give the same bits.
pub trait Loop {
    type Output;

    /// Runs it. Mark the implementation, and what it calls, `#[inline(always)]`: only what is
    /// inlined is compiled for the path.
    fn run(self) -> Self::Output;
}

impl CpuPath {
    /// The paths that this processor can run, the fastest last.
    pub fn available() -> &'static [CpuPath] {
        static AVAILABLE: LazyLock<Vec<CpuPath>> = LazyLock::new(|| {
            let mut paths = vec![CpuPath::Scalar];
            paths.extend(vector_paths());
            paths
        });
        &AVAILABLE
    }

    /// What its instructions are called.
    pub fn name(self) -> &'static str {
        match self {
            CpuPath::Scalar => "plain code",
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            CpuPath::Neon => "NEON",
        }
    }

    /// The fastest path that this processor can run, of those that are not switched off.
    pub fn best() -> CpuPath {
        let is_enabled = |path: &&CpuPath| match path {
            CpuPath::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx2 => FastPath::Avx2.is_enabled(),
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 => FastPath::Avx512.is_enabled(),
            #[cfg(target_arch = "aarch64")]
            CpuPath::Neon => FastPath::Neon.is_enabled(),
        };
        let mut fastest_first = CpuPath::available().iter().rev();
        *fastest_first.find(is_enabled).unwrap_or(&CpuPath::Scalar)
    }

    /// Runs `work` as compiled for this path.
    ///
    /// # Panics
    /// If this processor cannot run it.
    pub fn run<L: Loop>(self, work: L) -> L::Output {
        match self {
            CpuPath::Scalar => work.run(),
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx2 => run_on_avx2(work),
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 => run_on_avx512(work),
            #[cfg(target_arch = "aarch64")]
            CpuPath::Neon => {
                assert!(CpuPath::available().contains(&self));
                work.run()
            }
        }
    }
}

/// As [`CpuPath::run`] with [`CpuPath::Avx2`], for a loop that is for this path alone: it is
/// compiled for no other.
///
/// # Panics
/// If this processor cannot run it.
#[cfg(target_arch = "x86_64")]
pub(super) fn run_on_avx2<L: Loop>(work: L) -> L::Output {
    assert!(CpuPath::available().contains(&CpuPath::Avx2));
    // SAFETY: the processor has AVX2, F16C and FMA, as `available` found.
    unsafe { with_avx2(work) }
}

/// As [`run_on_avx2`], with [`CpuPath::Avx512`].
#[cfg(target_arch = "x86_64")]
pub(super) fn run_on_avx512<L: Loop>(work: L) -> L::Output {
    assert!(CpuPath::available().contains(&CpuPath::Avx512));
    // SAFETY: the processor has AVX-512 F and BW, and what AVX2 has, as `available` found.
    unsafe { with_avx512(work) }
}

/// The paths beside the plain one that this processor can run, the fastest last.
#[cfg(target_arch = "x86_64")]
fn vector_paths() -> Vec<CpuPath> {
    let has_avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma");
    let has_avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    match (has_avx2, has_avx512) {
        (true, true) => vec![CpuPath::Avx2, CpuPath::Avx512],
        (true, false) => vec![CpuPath::Avx2],
        (false, _) => Vec::new(),
    }
}

#[cfg(target_arch = "aarch64")]
fn vector_paths() -> Vec<CpuPath> {
    let has_neon = std::arch::is_aarch64_feature_detected!("neon");
    has_neon.then_some(CpuPath::Neon).into_iter().collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn vector_paths() -> Vec<CpuPath> {
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c,fma")]
fn with_avx2<L: Loop>(work: L) -> L::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx2,f16c,fma")]
fn with_avx512<L: Loop>(work: L) -> L::Output {
    work.run()
}
