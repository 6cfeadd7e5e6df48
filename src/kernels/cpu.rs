//! Which instructions the loops may use.

use std::sync::LazyLock;

use crate::fast_paths::FastPath;

/// An implementation for a kind of processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuPath {
    /// Plain Rust, compiled for any processor.
    Scalar,
    /// AVX2 and F16C.
    Avx2,
    /// AVX-512 F and BW.
    Avx512,
}

impl CpuPath {
    /// The paths that this processor can run, the fastest last.
    pub fn available() -> &'static [CpuPath] {
        static AVAILABLE: LazyLock<Vec<CpuPath>> = LazyLock::new(|| {
            let mut paths = vec![CpuPath::Scalar];
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
                    paths.push(CpuPath::Avx2);
                }
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                    paths.push(CpuPath::Avx512);
                }
            }
            paths
        });
        &AVAILABLE
    }

    /// The fastest path that this processor can run, of those that are not switched off.
    pub fn best() -> CpuPath {
        let is_enabled = |path: &&CpuPath| match path {
            CpuPath::Scalar => true,
            CpuPath::Avx2 => FastPath::Avx2.is_enabled(),
            CpuPath::Avx512 => FastPath::Avx512.is_enabled(),
        };
        let mut fastest_first = CpuPath::available().iter().rev();
        *fastest_first.find(is_enabled).unwrap_or(&CpuPath::Scalar)
    }
}
